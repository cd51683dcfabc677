"""Batches counted by step: what step ``t`` sees is a function of (seed, t) alone."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from scanlearn.core import ScanBatch, ScanlearnError
from scanlearn.scans.archive import Archive
from scanlearn.views.uniforms import DrawKey

# Keeps the stream that orders scans apart from any other stream counted from the same seed.
_ORDER_STREAM = 0x6F72646572
_AHEAD = 2


@dataclass(frozen=True)
class StepBatch:
    """The global batch of one step.

    Args:
        scans: The scans as packed.
        key: Names the uniforms from which their views are drawn.
        rows: ``[b]`` rows in the archive; the same as ``scans.ids``, but never on a GPU.
    """

    scans: ScanBatch
    key: DrawKey
    rows: Int64[np.ndarray, " b"]


def steps_in_epoch(num_scans: int, batch_size: int) -> int:
    """Full batches in one pass over the archive; an incomplete last one is left out.

    Raises:
        ScanlearnError: The batch is larger than the archive.
    """
    if batch_size > num_scans:
        raise ScanlearnError(
            f"batch_size is {batch_size}, but the archive holds {num_scans} scans: "
            f"set batch_size to {num_scans} or less, or pack more scans."
        )
    return num_scans // batch_size


def epoch_order(num_scans: int, seed: int, epoch: int) -> Int64[np.ndarray, " n"]:
    """The order in which one pass visits the scans: a function of its arguments alone.

    Made from Philox's raw stream, which NumPy keeps the same in every version and machine.
    """
    stream = np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, _ORDER_STREAM])
    return np.argsort(stream.random_raw(num_scans), kind="stable").astype(np.int64)


def rows_of_steps(
    num_scans: int, batch_size: int, seed: int, first: int, stop: int
) -> Iterator[Int64[np.ndarray, " b"]]:
    """The archive rows of the steps from ``first`` up to and without ``stop``."""
    per_epoch = steps_in_epoch(num_scans, batch_size)
    epoch, order = -1, np.empty(0, np.int64)
    for step in range(first, stop):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = epoch_order(num_scans, seed, epoch)
        start = step % per_epoch * batch_size
        yield order[start : start + batch_size]


class StepLoader:
    """Hands out the batches of the steps still to take, one thread reading ahead.

    There are no epochs in it: a resumed run begins at its checkpoint's step, where Lightning's
    own epochs would begin again at scan 0. One thread is enough, since a batch is one copy out
    of a memory map and the interpreter is released meanwhile; what it hides is the disk.

    Args:
        archive: Packed scans.
        batch_size: Scans in a step.
        seed: Orders the scans and, through the key, draws their views.
        first: The step to begin with.
        stop: The step to end before.

    Raises:
        ScanlearnError: The batch is larger than the archive.
    """

    def __init__(
        self, archive: Archive, *, batch_size: int, seed: int, first: int, stop: int
    ) -> None:
        steps_in_epoch(len(archive), batch_size)
        self._archive = archive
        self._batch_size = batch_size
        self._seed = seed
        self._first = first
        self._stop = stop
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[StepBatch]:
        with _reading_ahead(self._batches) as take:
            for _ in range(self._first, self._stop):
                start = time.perf_counter()
                batch = take()
                self.waited_s += time.perf_counter() - start
                yield batch

    def _batches(self) -> Iterator[StepBatch]:
        positions = np.arange(self._batch_size, dtype=np.int64)
        rows = rows_of_steps(
            len(self._archive), self._batch_size, self._seed, self._first, self._stop
        )
        for step, batch_rows in enumerate(rows, start=self._first):
            key = DrawKey(seed=self._seed, step=step, positions=positions)
            yield StepBatch(self._archive.gather(batch_rows), key, batch_rows)


class _reading_ahead:  # noqa: N801  (a context manager reads as a verb)
    """Runs an iterator in a thread; inside the block, calling the value takes its next item."""

    def __init__(self, source: Callable[[], Iterator[StepBatch]]) -> None:
        self._items: queue.Queue[StepBatch | BaseException] = queue.Queue(_AHEAD)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(source,), daemon=True)

    def __enter__(self) -> Callable[[], StepBatch]:
        self._thread.start()
        return self._take

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def _take(self) -> StepBatch:
        item = self._items.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def _run(self, source: Callable[[], Iterator[StepBatch]]) -> None:
        try:
            for item in source():
                if not self._put(item):
                    return
        except BaseException as error:  # handed to the thread that takes the items
            self._put(error)

    def _put(self, item: StepBatch | BaseException) -> bool:
        while not self._closed.is_set():
            try:
                self._items.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
