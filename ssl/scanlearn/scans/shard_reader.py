"""The Arrow files of an archive, as they are read: copied out of memory maps by address."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64, Shaped, UInt8

# What is kept of every scan: 48 bytes. One array, since each would cost a cache miss a scan.
FACTS = np.dtype([("valid_box", "<i8", 4), ("spacing_mm", "<f4", 2), ("value_range", "<f4", 2)])


@dataclass(frozen=True)
class Items:
    """Items of equal size in memory maps (``k`` record batches).

    Args:
        starts: ``[k]`` address of the first item of each record batch.
        num_bytes: Size of an item.
        window: ``[a num_bytes]`` what would be an item at each address from the lowest start on;
            None where numpy cannot count that far. Memory between the maps is in it too: only
            rows of true items may be read.
    """

    starts: Int64[np.ndarray, " k"]
    num_bytes: int
    window: UInt8[np.ndarray, "a s"] | None = field(repr=False)

    @classmethod
    def at(cls, starts: Sequence[int], counts: Sequence[int], num_bytes: int) -> Items:
        """Returns the items of record batches that start at addresses and hold so many each."""
        ends = (start + count * num_bytes for start, count in zip(starts, counts, strict=True))
        low, high = min(starts), max(ends)
        window = _Memory(low, (high - low - num_bytes + 1, num_bytes))
        try:
            viewed = np.asarray(window)
        except ValueError:
            viewed = None
        return cls(np.array(starts, np.int64), num_bytes, viewed)

    def take(
        self,
        batch: Int64[np.ndarray, " b"],
        inside: Int64[np.ndarray, " b"],
        out: Shaped[np.ndarray, "b ..."] | None = None,
    ) -> Shaped[np.ndarray, "b ..."]:
        """Returns the bytes of some items, each copied once.

        Args:
            batch: ``[b]`` record batch of each.
            inside: ``[b]`` its place there.
            out: Where they are copied to; None allocates ``[b num_bytes]``.
        """
        addresses = self.starts[batch] + inside * self.num_bytes
        if out is None and self.window is not None:
            # One call of numpy, which takes as long as indexing one big memory map.
            copied: UInt8[np.ndarray, "b s"] = self.window[addresses - self.starts.min()]
            return copied
        to = np.empty((len(batch), self.num_bytes), np.uint8) if out is None else out
        assert to.flags.c_contiguous, "the copy goes to consecutive places"
        assert to.nbytes == len(batch) * self.num_bytes, f"{to.nbytes} bytes to copy to"
        first = to.ctypes.data
        targets = range(first, first + to.nbytes, self.num_bytes)
        # A deque of length 0 runs the map in C.
        copies = map(ctypes.memmove, targets, addresses.tolist(), repeat(self.num_bytes))
        deque(copies, maxlen=0)
        return to


class _Memory:
    """Overlapping rows of bytes from an address on, one at each, as numpy asks for them."""

    def __init__(self, address: int, shape: tuple[int, int]) -> None:
        self.__array_interface__ = {
            "data": (address, True),
            "shape": shape,
            "strides": (1, 1),
            "typestr": "|u1",
            "version": 3,
        }


@dataclass(frozen=True)
class ShardIndex:
    """Where every scan lies in memory, and the small columns of all scans.

    Args:
        first_row: ``[k]`` row of the archive that each record batch starts with.
        pixels: Pixels of the scans.
        masks: Masks; None in an archive without.
        facts: ``[n]`` valid box, spacing and value range of each scan.
        maps: Keeps the memory maps open.
    """

    first_row: Int64[np.ndarray, " k"]
    pixels: Items
    masks: Items | None
    facts: Shaped[np.ndarray, " n"]
    maps: tuple[Any, ...] = field(repr=False)

    def find(
        self, rows: Int64[np.ndarray, " b"]
    ) -> tuple[Int64[np.ndarray, " b"], Int64[np.ndarray, " b"]]:
        """Returns the record batch of each row of the archive, and its place there."""
        batch = np.searchsorted(self.first_row, rows, side="right") - 1
        return batch, rows - self.first_row[batch]


class ShardReader:
    """Opens the shards of an archive.

    Args:
        folder: The archive.
        names: Files of the shards below the folder, in order; they may hold any number of scans.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder = folder
        self._names = tuple(names)

    @cached_property
    def index(self) -> ShardIndex:
        """Where every scan lies; made at the first use, which opens all shards."""
        maps = tuple(pa.memory_map(str(self._folder / name)) for name in self._names)
        batches = [
            file.get_batch(number)
            for file in map(pa.ipc.open_file, maps)
            for number in range(file.num_record_batches)
        ]
        counts = [batch.num_rows for batch in batches]
        has_mask = "mask" in batches[0].schema.names
        return ShardIndex(
            first_row=np.cumsum([0, *counts[:-1]], dtype=np.int64),
            pixels=_items(batches, counts, "pixels"),
            masks=_items(batches, counts, "mask") if has_mask else None,
            facts=np.concatenate([_facts(batch) for batch in batches]),
            maps=maps,
        )


def _items(batches: Sequence[pa.RecordBatch], counts: Sequence[int], column: str) -> Items:
    flat = [_flat(batch.column(column).storage) for batch in batches]
    return Items.at([one.ctypes.data for one in flat], counts, flat[0].nbytes // counts[0])


def _facts(batch: pa.RecordBatch) -> Shaped[np.ndarray, " r"]:
    facts = np.empty(batch.num_rows, FACTS)
    for name in FACTS.names or ():
        facts[name] = _flat(batch.column(name)).reshape(batch.num_rows, -1)
    return facts


def _flat(array: pa.FixedSizeListArray) -> np.ndarray[Any, np.dtype[Any]]:
    """Returns a view of all values of a fixed-size list; fails rather than copies."""
    values: np.ndarray[Any, np.dtype[Any]] = array.flatten().to_numpy(zero_copy_only=True)
    return values
