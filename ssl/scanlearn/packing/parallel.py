"""One function over many items on all cores: in order, in bounded memory, surviving crashes."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, islice
from multiprocessing.context import BaseContext
from statistics import median
from time import perf_counter
from types import FrameType, ModuleType
from typing import Any, TypeVar, cast

from scanlearn.readers.limits import limits_kept

_START_METHOD = "forkserver" if os.name == "posix" else "spawn"
_CHUNKS_PER_WORKER = 4
# Long enough that handing it over costs little, short enough that no process waits long for the
# last one.
_SECONDS_PER_CHUNK = 0.1
_TIMED_ITEMS = 64
_SECONDS_WORTH_PROCESSES = 1.0
# Arrays of fewer bytes cost less inside the pickle than in shared memory.
_LEAST_SHARED_BYTES = 4096
_ALIGNED_TO = 64
# Of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 2**25

Item = TypeVar("Item")
Result = TypeVar("Result")

_SHARED_CONTEXT: Any = multiprocessing.get_context(_START_METHOD)
_Process: Any = _SHARED_CONTEXT.Process


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
    chunk_bytes: int = 0,
    weigh: Callable[[Item], int] | None = None,
) -> Generator[Result, None, None]:
    """Yields ``function(item)`` for each item, in order; at most a few chunks are in flight.

    An item that takes its process down (a fault in a decoder, memory used up) is tried once more
    alone; if that fails too its result is ``crashed`` and the others go on.

    Args:
        items: What to call it with; consumed as results are.
        crashed: Result of an item that no process survives.
        chunk: Most items that a process is given at a time; of items that take long it is given
            fewer.
        chunk_bytes: Memory for the arrays in the results of a chunk. They travel through it
            uncopied and hold only until the next result is asked for; with 0 they are the
            caller's.
        weigh: How many items an item counts as; None for one.
    """
    waiting = iter(items)
    in_flight = workers * _CHUNKS_PER_WORKER
    context = _context()
    buffers = SharedBuffers(in_flight, chunk_bytes, context)
    executor = _executor(workers, buffers, context)
    free, size = list(range(in_flight)), 1
    flying: deque[tuple[list[Item], int, Future[Pickled]]] = deque()
    try:
        while True:
            while free:
                work = _take(waiting, size, weigh)
                if not work:
                    break
                slot = free.pop()
                flying.append((work, slot, _send(executor, function, work, slot)))
            if not flying:
                return
            oldest, slot, future = flying.popleft()
            try:
                pickled = future.result()
            except BrokenProcessPool:
                # Waited for: what has not ended yet would write into buffers that are used again.
                executor.shutdown(wait=True, cancel_futures=True)
                results = [_alone(function, item, crashed) for item in oldest]
                executor = _executor(workers, buffers, context)
                flying = deque(
                    (work, slot, _send(executor, function, work, slot)) for work, slot, _ in flying
                )
            else:
                results = buffers.load(pickled, slot)
                weight = sum(map(weigh, oldest)) if weigh else len(oldest)
                worth = int(weight * _SECONDS_PER_CHUNK / max(pickled.seconds, 1e-6))
                size = max(1, min(chunk, 2 * weight, worth))
            yield from results
            free.append(slot)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def get_ready(workers: int, modules: Sequence[str] = ()) -> None:
    """Starts to load the modules that several workers need, while this one still lists the work."""
    if _START_METHOD == "forkserver" and workers > 1:
        from multiprocessing import forkserver

        with _hidden_main(), safe_path(), _interrupts_held():
            _context(modules)
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

    The first items are done here and timed: processes, which take a while to start, come in where
    they save more than that. ``crashed`` and ``chunk`` are those of `ordered_map`.
    """
    waiting = iter(items)
    times: list[float] = []
    for item in islice(waiting, _TIMED_ITEMS):
        start = perf_counter()
        result = function(item)
        times.append(perf_counter() - start)
        yield result
    left = num_items - _TIMED_ITEMS
    # The middle one: the first of a kind of file loads what reads it.
    if workers == 1 or left <= 0 or left * median(times) < _SECONDS_WORTH_PROCESSES:
        yield from map(function, waiting)
        return
    yield from ordered_map(function, waiting, workers=workers, crashed=crashed, chunk=chunk)


def _send(
    executor: ProcessPoolExecutor, function: Callable[[Item], Result], work: list[Item], slot: int
) -> Future[Pickled]:
    try:
        with _interrupts_held():
            return executor.submit(_each, function, work, slot)
    except BrokenProcessPool as error:
        # A process ended since; whoever waits for this result will see it and start others.
        broken: Future[Pickled] = Future()
        broken.set_exception(error)
        return broken


def _take(items: Iterator[Item], size: int, weigh: Callable[[Item], int] | None) -> list[Item]:
    if weigh is None:
        return list(islice(items, size))
    work: list[Item] = []
    weight = 0
    while weight < size and (more := list(islice(items, 1))):
        work += more
        weight += weigh(more[0])
    return work


@dataclass(frozen=True)
class Pickled:
    """A pickled value whose large arrays, of these bytes, follow each other in a shared buffer."""

    data: bytes
    sizes: tuple[int, ...]
    seconds: float = 0.0


class SharedBuffers:
    """Buffers of equal size in memory that processes share.

    The memory has no name that a killed process could leave behind. It is handed to processes as
    they start.

    Args:
        num_bytes: Size of each; 0 shares nothing, and arrays travel inside the pickle.
    """

    def __init__(self, number: int, num_bytes: int, context: BaseContext) -> None:
        self._num_bytes = _padded(num_bytes)
        # Filled with zeros here and now: a disk that has no room for it says so at once.
        self._memory: Any = context.RawArray("b", max(1, number * self._num_bytes))

    def dump(self, value: Any, slot: int, seconds: float = 0.0) -> Pickled:
        """Puts the arrays of a value into a buffer while there is room, and pickles the rest."""
        buffer = self._buffer(slot)
        sizes: list[int] = []
        filled = 0

        def take(array: pickle.PickleBuffer) -> bool:
            nonlocal filled
            with array.raw() as raw:
                end = filled + raw.nbytes
                if raw.nbytes < _LEAST_SHARED_BYTES or end > len(buffer):
                    return True
                buffer[filled:end] = raw
                sizes.append(raw.nbytes)
                filled += _padded(raw.nbytes)
                return False

        pickled = pickle.dumps(value, protocol=5, buffer_callback=take)
        return Pickled(pickled, tuple(sizes), seconds)

    def load(self, pickled: Pickled, slot: int) -> Any:
        """Returns what was dumped; its arrays are views, valid until the buffer is used again."""
        buffer = self._buffer(slot)
        starts = accumulate(map(_padded, pickled.sizes), initial=0)
        views = [
            buffer[start : start + size] for start, size in zip(starts, pickled.sizes, strict=False)
        ]
        return pickle.loads(pickled.data, buffers=views)

    def _buffer(self, slot: int) -> memoryview:
        start = slot * self._num_bytes
        return memoryview(self._memory).cast("B")[start : start + self._num_bytes]


def _padded(num_bytes: int) -> int:
    return -(-num_bytes // _ALIGNED_TO) * _ALIGNED_TO


_shared: SharedBuffers


def _each(function: Callable[[Item], Result], items: list[Item], slot: int) -> Pickled:
    start = perf_counter()
    with limits_kept():
        results = [function(item) for item in items]
    return _shared.dump(results, slot, perf_counter() - start)


def _alone(function: Callable[[Item], Result], item: Item, crashed: Result) -> Result:
    context = _context()
    buffers = SharedBuffers(1, 0, context)
    with _executor(1, buffers, context) as executor:
        try:
            pickled = _send(executor, function, [item], 0).result()
            (result,) = buffers.load(pickled, 0)
        except BrokenProcessPool:
            return crashed
    return cast(Result, result)


class _WorkerProcess(_Process):  # type: ignore[misc]
    """A process that does not import the user's script."""

    def start(self) -> None:
        with _hidden_main(), safe_path():
            super().start()


def _executor(workers: int, buffers: SharedBuffers, context: BaseContext) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(buffers,)
    )


def _context(modules: Sequence[str] = ()) -> BaseContext:
    # A context of our own: the shared one belongs to the user's program.
    context: Any = type(_SHARED_CONTEXT)()
    context.Process = _WorkerProcess
    context.set_forkserver_preload([__name__, "scanlearn.packing.prepare", *modules])
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


@contextmanager
def safe_path() -> Iterator[None]:
    """Keeps processes that start inside the block from importing out of the working folder.

    Their interpreters look there first: a folder of scans or a file of the user's that is called
    as a module is was imported in its place.
    """
    name = "PYTHONSAFEPATH"
    before = os.environ.get(name)
    os.environ[name] = before or "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Holds Ctrl-C back inside the block, and for good from processes that are started there.

    A terminal sends it to all of them: one that was still starting printed a traceback, as did one
    whose parent had left it half started.
    """
    came: list[FrameType | None] = []
    before = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread() and callable(before)
    if is_main:
        signal.signal(signal.SIGINT, lambda _, frame: came.append(frame))
    mask: set[int] = set()
    if hasattr(signal, "pthread_sigmask"):
        from multiprocessing import resource_tracker

        # Where it is started inside the block, it lets interrupts through again.
        resource_tracker.ensure_running()
        mask = set(signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}))
    try:
        yield
    finally:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if is_main:
            signal.signal(signal.SIGINT, before)
    if came and callable(before):
        before(signal.SIGINT, came[0])


def _start_worker(buffers: SharedBuffers) -> None:
    global _shared
    _shared = buffers
    _keep_freed_memory()
    # Ctrl-C is the parent's to answer; a killed parent must not leave workers waiting for ever.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGUSR2"):
        # A cluster tells all processes of a task that its time is over: no file brought this down.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _keep_freed_memory() -> None:
    """Keeps the C library from giving pictures' memory back to the system after each of them.

    Getting it again, page by page, takes a tenth of the time that decoding a photograph does.
    """
    if sys.platform == "linux":
        # Constants of glibc; other C libraries have no such function.
        with contextlib.suppress(AttributeError, OSError):
            tune = ctypes.CDLL(None).mallopt
            tune(_M_MMAP_THRESHOLD, _KEPT_BYTES)
            tune(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
