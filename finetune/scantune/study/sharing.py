"""Who makes which piece of a study: commands on one study share its work and do nothing twice.

A command claims a piece by a lock of the system beside it, which its death frees: what a killed
command left is taken over.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from platform import node

from scanlearn.console import say
from scanlearn.locks import BusyError, Lock, beside, held, inside
from scantune.study.folder import StudyFolder, open_study
from scantune.study.plan import CompareConfig

_LOOK_AGAIN_S = 1.0
_AT_WORK = ".at-work"


@dataclass(frozen=True)
class SharedPiece:
    """One part of a study, which one command at a time makes.

    Args:
        path: What is made; None for what each command makes for itself.
        make: Makes it, or takes it where it is made.
    """

    name: str
    path: Path | None
    make: Callable[[], object]

    def try_making(self) -> bool:
        """Makes it, unless another command is making it; returns whether it did."""
        if self.path is None:
            self.make()
            return True
        try:
            lock = Lock(beside(self.path), self.path)
        except BusyError:
            return False
        try:
            self.make()
        finally:
            lock.release()
        return True


def make_all(pieces: Sequence[SharedPiece], meanwhile: Callable[[], bool] = lambda: False) -> None:
    """Makes all pieces but those that other commands make, and waits for these at the end.

    Args:
        meanwhile: Makes something else where only others' pieces are left; returns whether there
            was anything.
    """
    left, has_said = list(pieces), False
    while left:
        before, left = left, [piece for piece in left if not piece.try_making()]
        if len(left) < len(before) or meanwhile():
            continue
        if not has_said:
            names = ", ".join(piece.name for piece in left)
            say(f"other commands on this study are making {names}; waiting for them")
        has_said = True
        time.sleep(_LOOK_AGAIN_S)


@contextmanager
def taking_part(config: CompareConfig) -> Iterator[tuple[StudyFolder, int]]:
    """Opens a study, alone or beside commands that work on it with the same plan.

    Yields:
        The study's folder, and when this command opened it, in ns of the folder's clock.

    Raises:
        BusyError: A command works on it with another plan, and ``wait`` is false.
        ScanlearnError: See `open_study`.
    """
    output, has_said = Path(config.output).expanduser(), False
    file = output / _AT_WORK / f"{node()}-{os.getpid()}-{secrets.token_hex(4)}.lock"
    presence: Lock | None = None
    while presence is None:
        try:
            with held(inside(output), output, wait=True):
                folder = open_study(config, is_shared=_is_shared(output))
                presence = Lock(file, output)
        except BusyError as error:
            if not config.wait:
                raise
            if not has_said:
                say(f"{error}: waiting until it ends")
            has_said = True
            time.sleep(_LOOK_AGAIN_S)
    try:
        # A file system without locks has no file of it.
        yield folder, file.stat().st_mtime_ns if file.exists() else time.time_ns()
    finally:
        presence.release()


def _is_shared(output: Path) -> bool:
    """Returns whether a command works on a study; what dead ones left is removed."""
    is_busy = False
    for file in (output / _AT_WORK).glob("*.lock"):
        try:
            Lock(file, output).release()
        except BusyError:
            is_busy = True
    return is_busy
