"""What a file may cost, in time and memory: some are made to keep a decoder busy, or never end."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
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

    def refuse(number: int, _: object) -> None:
        seconds, where = MAX_SECONDS, ""
        if number == signal.SIGALRM:
            seconds, where = MAX_WAIT_SECONDS, " on the clock"
        raise Undecodable(f"takes more than {seconds:g} seconds{where} to read")

    before = {kind: signal.signal(kind, refuse) for kind in (signal.SIGPROF, signal.SIGALRM)}
    # Again and again: a decoder may swallow the first.
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS, MAX_SECONDS / 10)
    start = time.monotonic()
    alarm = signal.setitimer(signal.ITIMER_REAL, MAX_WAIT_SECONDS, MAX_WAIT_SECONDS / 10)
    is_worker = parent_process() is not None
    if is_worker:
        signal.setitimer(signal.ITIMER_VIRTUAL, 2 * MAX_SECONDS)
        # From a thread that needs no interpreter: the main one may wait while it holds it.
        faulthandler.dump_traceback_later(2 * MAX_WAIT_SECONDS, exit=True, file=_nowhere())
    try:
        with memory_limited():
            yield
    except MemoryError as error:
        raise Undecodable("does not fit into memory") from error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        # An alarm that the user's program has set still rings.
        left = alarm[0] and max(1e-3, alarm[0] - (time.monotonic() - start))
        signal.setitimer(signal.ITIMER_REAL, left, alarm[1])
        if is_worker:
            faulthandler.cancel_dump_traceback_later()
        for kind, handler in before.items():
            signal.signal(kind, handler or signal.SIG_DFL)


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
