"""The error that every wrong input ends in."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ScanlearnError(ValueError):
    """What a user gave cannot be used.

    The message is one sentence that says where, what was given, what is allowed and what to
    do. The command line prints it without a traceback and exits with ``exit_code``.
    """

    exit_code = 2


class NotFiniteError(ScanlearnError):
    """The loss or a gradient of a training, or a feature, is not finite."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended the work once what was done is kept; the text says what, and how to go on."""


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Returns `` (did you mean 'x'?)`` with the nearest of the known names; empty where none is.

    Case does not count.

    Args:
        cutoff: How alike the two must be, 0 to 1.
    """
    by_folded = {other.casefold(): other for other in known}
    near = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=cutoff)
    return f" (did you mean {by_folded[near[0]]!r}?)" if near else ""
