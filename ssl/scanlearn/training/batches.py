"""Batches counted by step: what step ``t`` sees is a function of (seed, t) alone."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int64

from scanlearn.archive.reader import Archive
from scanlearn.core import ScanBatch
from scanlearn.errors import ScanlearnError
from scanlearn.views.uniforms import DrawKey

# Keeps the stream that orders scans apart from any other stream counted from the same seed.
_ORDER_STREAM = 0x6F72646572
_AHEAD = 2


@dataclass(frozen=True)
class StepBatch:
    """The batch of one step, or a process's share of a part of it.

    Args:
        rows: ``[b]`` rows in the archive; the same as ``scans.ids``, but never on a GPU.
        global_rows: Rows of the global batch, over all processes and parts.
        part: Which part of the global batch this is from, counted from 0.
    """

    scans: ScanBatch
    key: DrawKey
    rows: Int64[np.ndarray, " b"]
    global_rows: Int64[np.ndarray, " g"]
    part: int = 0
    is_last_part: bool = True

    @property
    def global_key(self) -> DrawKey:
        """Names the uniforms of the global batch."""
        return replace(self.key, positions=np.arange(len(self.global_rows), dtype=np.int64))


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
        rank: Which process this is: it gets its share of every part, in the order of ranks.
        parts: Parts of a batch, handed out one after another; ``ranks`` x ``parts`` divide
            ``batch_size``.

    Raises:
        ScanlearnError: The batch is larger than the archive.
    """

    def __init__(
        self,
        archive: Archive,
        *,
        batch_size: int,
        seed: int,
        first: int,
        stop: int,
        rank: int = 0,
        ranks: int = 1,
        parts: int = 1,
    ) -> None:
        steps_in_epoch(len(archive), batch_size)
        assert batch_size % (ranks * parts) == 0, (batch_size, ranks, parts)
        self._archive = archive
        self._batch_size = batch_size
        self._seed = seed
        self._first = first
        self._stop = stop
        places = np.arange(batch_size, dtype=np.int64)
        self._positions = tuple(places.reshape(parts, ranks, -1)[:, rank])
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[StepBatch]:
        with _reading_ahead(self._batches) as take:
            for _ in range((self._stop - self._first) * len(self._positions)):
                start = time.perf_counter()
                batch = take()
                self.waited_s += time.perf_counter() - start
                yield batch

    def _batches(self) -> Iterator[StepBatch]:
        steps = rows_of_steps(
            len(self._archive), self._batch_size, self._seed, self._first, self._stop
        )
        for step, global_rows in enumerate(steps, start=self._first):
            for part, positions in enumerate(self._positions):
                rows = global_rows[positions]
                yield StepBatch(
                    self._archive.gather(rows),
                    DrawKey(seed=self._seed, step=step, positions=positions),
                    rows,
                    global_rows,
                    part,
                    is_last_part=part == len(self._positions) - 1,
                )


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
