"""Results of worker processes on their way home: large arrays through memory that is shared."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from itertools import accumulate
from multiprocessing.context import BaseContext
from typing import Any

# Shorter ones cost less inside the pickle.
_LEAST_BYTES = 4096
_ALIGNED_TO = 64


@dataclass(frozen=True)
class Parcel:
    """Something pickled, its large arrays aside.

    Args:
        pickled: All but the arrays.
        sizes: Bytes of each array, which lie one after the other where both sides know of.
        seconds: How long it took to make.
    """

    pickled: bytes
    sizes: tuple[int, ...]
    seconds: float = 0.0


class Slots:
    """Places of equal size in memory that processes share.

    The memory has no name that a killed process could leave behind. It is handed to processes as
    they start.

    Args:
        number: How many places.
        num_bytes: Size of each; 0 shares nothing, and arrays travel inside the pickle.
        context: What starts the processes.
    """

    def __init__(self, number: int, num_bytes: int, context: BaseContext) -> None:
        self._num_bytes = _padded(num_bytes)
        # Filled with zeros here and now: a disk that has no room for it says so at once.
        self._memory: Any = context.RawArray("b", max(1, number * self._num_bytes))

    def wrap(self, value: Any, slot: int, seconds: float = 0.0) -> Parcel:
        """Puts the arrays of something into a place, as far as there is room, and pickles it."""
        place = self._place(slot)
        sizes: list[int] = []
        filled = 0

        def take(buffer: pickle.PickleBuffer) -> bool:
            nonlocal filled
            with buffer.raw() as raw:
                end = filled + raw.nbytes
                if raw.nbytes < _LEAST_BYTES or end > len(place):
                    return True
                place[filled:end] = raw
                sizes.append(raw.nbytes)
                filled += _padded(raw.nbytes)
                return False

        pickled = pickle.dumps(value, protocol=5, buffer_callback=take)
        return Parcel(pickled, tuple(sizes), seconds)

    def unwrap(self, parcel: Parcel, slot: int) -> Any:
        """Returns what was wrapped; its arrays are views, which hold until the place is reused."""
        place = self._place(slot)
        starts = accumulate(map(_padded, parcel.sizes), initial=0)
        views = [
            place[start : start + size] for start, size in zip(starts, parcel.sizes, strict=False)
        ]
        return pickle.loads(parcel.pickled, buffers=views)

    def _place(self, slot: int) -> memoryview:
        start = slot * self._num_bytes
        return memoryview(self._memory).cast("B")[start : start + self._num_bytes]


def _padded(num_bytes: int) -> int:
    return -(-num_bytes // _ALIGNED_TO) * _ALIGNED_TO
