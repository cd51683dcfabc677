"""One function over many items on all cores: in order, in bounded memory, surviving crashes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.context import BaseContext
from time import perf_counter
from types import ModuleType
from typing import Any, TypeVar, cast

_START_METHOD = "forkserver" if os.name == "posix" else "spawn"
_CHUNKS_PER_WORKER = 4
_TIMED_ITEMS = 64
_SECONDS_WORTH_PROCESSES = 6.0
_ITEMS_WORTH_GETTING_READY = 2000

Item = TypeVar("Item")
Result = TypeVar("Result")


_SHARED_CONTEXT: Any = multiprocessing.get_context(_START_METHOD)
_Process: Any = _SHARED_CONTEXT.Process


class _WorkerProcess(_Process):  # type: ignore[misc]
    """A process that does not import the user's script."""

    def start(self) -> None:
        with _hidden_main():
            super().start()


def num_cores() -> int:
    """Returns how many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    crashed: Result,
    chunk: int = 16,
) -> Generator[Result, None, None]:
    """Yields ``function(item)`` for each item, in order; at most a few chunks are in flight.

    An item that takes its process down (a fault in a decoder, memory used up) is tried once more
    alone; if that fails too its result is ``crashed`` and the others go on.

    Args:
        function: A function of a module, picklable.
        items: What to call it with; consumed as results are.
        workers: Processes.
        crashed: Result of an item that no process survives.
        chunk: Items a process is given at a time.
    """
    waiting = iter(items)
    executor = _executor(workers)
    flying: deque[tuple[list[Item], Future[list[Result]]]] = deque()
    try:
        while True:
            while len(flying) < workers * _CHUNKS_PER_WORKER:
                work = list(islice(waiting, chunk))
                if not work:
                    break
                flying.append((work, executor.submit(_each, function, work)))
            if not flying:
                return
            oldest, future = flying.popleft()
            try:
                results = future.result()
            except BrokenProcessPool:
                executor.shutdown(wait=False, cancel_futures=True)
                results = [_alone(function, item, crashed) for item in oldest]
                executor = _executor(workers)
                flying = deque((work, executor.submit(_each, function, work)) for work, _ in flying)
            yield from results
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def get_ready(num_items: int, workers: int) -> None:
    """Begins to load what processes need, while this one still finds out what there is to do.

    Args:
        num_items: How many items there will be; of a few nobody starts processes.
        workers: Processes.
    """
    if _START_METHOD == "forkserver" and workers > 1 and num_items >= _ITEMS_WORTH_GETTING_READY:
        from multiprocessing import forkserver

        with _hidden_main():
            _context()
            forkserver.ensure_running()


def map_where_worth(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    num_items: int,
    *,
    workers: int,
    crashed: Result,
    chunk: int = 16,
) -> Generator[Result, None, None]:
    """Yields ``function(item)`` for each item, in order, over processes where they save time.

    The first items are done here and timed: processes, which take seconds to start, come in where
    they save more than that.

    Args:
        function: A function of a module, picklable.
        items: What to call it with.
        num_items: How many there are.
        workers: Processes.
        crashed: Result of an item that no process survives.
        chunk: Items a process is given at a time.
    """
    waiting = iter(items)
    seconds = 0.0
    for item in islice(waiting, _TIMED_ITEMS):
        start = perf_counter()
        result = function(item)
        seconds += perf_counter() - start
        yield result
    left = num_items - _TIMED_ITEMS
    if workers == 1 or left <= 0 or left * seconds / _TIMED_ITEMS < _SECONDS_WORTH_PROCESSES:
        yield from map(function, waiting)
        return
    yield from ordered_map(function, waiting, workers=workers, crashed=crashed, chunk=chunk)


def _each(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    return [function(item) for item in items]


def _alone(function: Callable[[Item], Result], item: Item, crashed: Result) -> Result:
    with _executor(1) as executor:
        try:
            return executor.submit(function, item).result()
        except BrokenProcessPool:
            return crashed


def _executor(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=_context(), initializer=_start_worker)


def _context() -> BaseContext:
    # A context of our own: the shared one belongs to the user's program.
    context: Any = type(_SHARED_CONTEXT)()
    context.Process = _WorkerProcess
    context.set_forkserver_preload([__name__, "scanlearn.scans.prepare"])
    return cast(BaseContext, context)


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Keeps a new process from running the user's script again, which it needs nothing of.

    Without it, a script that packs at its top level, with no ``if __name__ == "__main__"``, would
    start itself over in every worker and fail.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start_worker() -> None:
    # Ctrl-C is the parent's to answer; a killed parent must not leave workers waiting for ever.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
