"""What a file may cost, in time and memory: some are made to keep a decoder busy, or never end."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from multiprocessing import parent_process
from pathlib import Path

from scanlearn.readers.scan import Undecodable

# Of processor time: a busy machine or a slow disk does not use it up.
MAX_SECONDS = 60.0
# On the clock: a dead network drive answers never, and costs no processor time.
MAX_WAIT_SECONDS = 600.0
# Of memory beside what the process holds already: the largest volumes need about 3 GiB.
MAX_BYTES = 2**32
# Timers are set anew where more than this share of their time has passed.
_RENEWED = 600
# Pages of private memory are the sixth number: "data", which `RLIMIT_DATA` limits.
_STATM = Path("/proc/self/statm")


@contextmanager
def limited() -> Iterator[None]:
    """Ends what takes more processor time, time on the clock or memory than any scan does.

    A decoder that does not come back to Python cannot be interrupted: in a worker process it is
    ended with its process, after twice the time. Time is limited in the main thread of POSIX
    systems, where signals are, memory on Linux.

    Raises:
        Undecodable: The block took longer, or more.
    """
    if os.name != "posix" or threading.current_thread() is not threading.main_thread():
        yield
        return
    limits = _kept or _Limits()
    limits.begin()
    try:
        yield
    except MemoryError as error:
        raise Undecodable("does not fit into memory") from error
    finally:
        limits.is_at_work = False
        if limits is not _kept:
            limits.lift()


@contextmanager
def limits_kept() -> Iterator[None]:
    """Keeps the limits of one `limited` for the next, inside the block.

    To set and lift them takes longer than a small picture does. Each has its own time all the
    same, but for a six-hundredth of it.
    """
    global _kept
    _kept = _Limits()
    try:
        yield
    finally:
        limits, _kept = _kept, None
        limits.lift()


class _Limits:
    """Timers and a limit of memory, set or not.

    Attributes:
        is_at_work: Whether there is anything to end.
    """

    def __init__(self) -> None:
        self.is_at_work = False
        self._set_s: float | None = None
        self._undo = ExitStack()

    def begin(self) -> None:
        """Lets what begins now have all of its time and memory."""
        if self._set_s is None or time.monotonic() - self._set_s > MAX_SECONDS / _RENEWED:
            self.lift()
            self._set()
        self.is_at_work = True

    def lift(self) -> None:
        """Ends all limits; what the user's program had set is in its place again."""
        self._set_s = None
        self._undo.close()

    def _set(self) -> None:
        undo, now = self._undo.callback, time.monotonic()
        for kind in (signal.SIGPROF, signal.SIGALRM):
            before = signal.signal(kind, self._refuse)
            undo(signal.signal, kind, before or signal.SIG_DFL)
        # Again and again: a decoder may swallow the first.
        signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS, MAX_SECONDS / 10)
        undo(signal.setitimer, signal.ITIMER_PROF, 0)
        alarm = signal.setitimer(signal.ITIMER_REAL, MAX_WAIT_SECONDS, MAX_WAIT_SECONDS / 10)
        undo(_ring, alarm, now)
        if parent_process() is not None:
            signal.setitimer(signal.ITIMER_VIRTUAL, 2 * MAX_SECONDS)
            undo(signal.setitimer, signal.ITIMER_VIRTUAL, 0)
            # From a thread that needs no interpreter: the main one may wait while it holds it.
            faulthandler.dump_traceback_later(2 * MAX_WAIT_SECONDS, exit=True, file=_nowhere())
            undo(faulthandler.cancel_dump_traceback_later)
        self._undo.enter_context(memory_limited())
        self._set_s = now

    def _refuse(self, number: int, _: object) -> None:
        if not self.is_at_work:
            return
        seconds, where = MAX_SECONDS, ""
        if number == signal.SIGALRM:
            seconds, where = MAX_WAIT_SECONDS, " on the clock"
        raise Undecodable(f"takes more than {seconds:g} seconds{where} to read")


def _ring(alarm: tuple[float, float], since_s: float) -> None:
    """Sets an alarm of the user's program again: it still rings."""
    left = alarm[0] and max(1e-3, alarm[0] - (time.monotonic() - since_s))
    signal.setitimer(signal.ITIMER_REAL, left, alarm[1])


_kept: _Limits | None = None


@contextmanager
def memory_limited() -> Iterator[None]:
    """Has what asks for too much memory fail here, before other programs of the machine do.

    Raises:
        MemoryError: The block asked for more; of Arrow, `pyarrow.ArrowMemoryError`.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    held = int(_STATM.read_bytes().split()[5]) * resource.getpagesize()
    most = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([held + MAX_BYTES, *most]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@cache
def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)
