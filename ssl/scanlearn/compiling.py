"""Compiled functions: numba, with what it has compiled kept in the user's cache folder.

This module is the only door to numba, which takes a second to import: a module of compiled
functions is imported where they are called. Its source is part of the key under which numba keeps
them, and so is the CPU: a folder that several machines share is no trouble. What a compiled
function calls stands in the same file, since numba looks for changes there alone.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from scanlearn.console import say, warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.files import cache_folder

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Products may be fused into sums, and sums be taken in another order; what is not finite stays so.
_ALLOWED = {"contract", "reassoc"}
# Loading takes less, on a busy machine too.
_PATIENCE_S = 10.0
_COMPILING = "compiling what renders views on a CPU, once on this machine: about half a minute ..."


def part(function: _Function) -> _Function:
    """Returns a function that compiled ones call."""
    made: _Function = _numba().njit(nogil=True, fastmath=_ALLOWED, error_model="numpy")(function)
    return made


def compiled(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Returns a decorator that compiles a function for one signature, or loads what was compiled.

    The function lets go of the interpreter while it runs. Where the cache folder cannot be written,
    that is told once, and every process compiles anew.

    Args:
        signature: In numba's words, such as ``void(f4[::1])``.
    """
    numba = _numba()

    def compile_now(function: Callable[..., Any]) -> Callable[..., Any]:
        former = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = former or str(_writable_folder() or "")
        # What is in the cache is there before.
        word = threading.Timer(_PATIENCE_S, say, (_COMPILING,))
        word.daemon = True
        word.start()
        try:
            made: Callable[..., Any] = numba.njit(
                signature,
                nogil=True,
                fastmath=_ALLOWED,
                error_model="numpy",
                cache=bool(numba.config.CACHE_DIR),
            )(function)
            return made
        finally:
            word.cancel()
            numba.config.CACHE_DIR = former

    return compile_now


@lru_cache(maxsize=1)
def _writable_folder() -> Path | None:
    """Where compiled functions are kept; None where nothing can be."""
    try:
        folder = cache_folder() / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, ScanlearnError) as error:
        warn_user(
            f"compiled functions cannot be kept ({error}): every process compiles them anew, which "
            "takes half a minute; set SCANLEARN_CACHE to a folder that can be written."
        )
        return None
    return folder


def _numba() -> Any:
    # Its types differ between the versions that are allowed.
    import numba

    return numba
