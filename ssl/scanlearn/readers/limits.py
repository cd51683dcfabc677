"""A limit on the processor time that a file may cost: some are made to keep a decoder busy."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process

from scanlearn.readers.scan import Undecodable

# Of processor time: a busy machine or a slow disk does not use it up.
MAX_SECONDS = 60.0


@contextmanager
def limited() -> Iterator[None]:
    """Ends what takes more processor time than any scan does.

    A decoder that does not come back to Python cannot be interrupted: in a worker process it is
    ended with its process, after twice the time. It works in the main thread of POSIX systems,
    where signals are.

    Raises:
        Undecodable: The block took longer.
    """
    if os.name != "posix" or threading.current_thread() is not threading.main_thread():
        yield
        return

    def refuse(*_: object) -> None:
        raise Undecodable(f"takes more than {MAX_SECONDS:g} seconds to read")

    before = signal.signal(signal.SIGPROF, refuse)
    # Again and again: a decoder may swallow the first.
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS, MAX_SECONDS / 10)
    if parent_process() is not None:
        signal.setitimer(signal.ITIMER_VIRTUAL, 2 * MAX_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGPROF, before or signal.SIG_DFL)
