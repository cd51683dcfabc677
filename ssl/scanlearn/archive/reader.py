"""Reading a packed archive: a batch at a time, with exactly one copy."""

from __future__ import annotations

import ctypes
import difflib
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Int64, Shaped, UInt8

from scanlearn.archive.layout import LABEL_PREFIX, PATHS_FILE
from scanlearn.archive.table import read_column, read_paths
from scanlearn.core import ScanBatch
from scanlearn.errors import ScanlearnError

# The Arrow files of an archive, as they are read: copied out of memory maps by address.


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


# 2: shards of any number of scans, with labels and what was counted; versions before are read.
FORMAT_VERSION = 2


class Archive:
    """A packed archive on disk, opened for reading.

    It can be pickled: a worker process opens its own memory maps.

    Args:
        path: Folder that holds ``archive.json``.

    Raises:
        ScanlearnError: There is no archive at ``path``, it was made by a later release, or a
            part of it is missing or cut short.

    Example:
        >>> archive = Archive("packed/chest")                      # doctest: +SKIP
        >>> batch = archive.gather(np.array([5, 2, 5]))            # doctest: +SKIP
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.info: Mapping[str, Any] = _read_info(self.path)
        channels, height, width = self.info["shape"]
        self.shape: tuple[int, int, int] = (channels, height, width)
        self.dtype = np.dtype(self.info["dtype"])
        self.label_columns: tuple[str, ...] = tuple(self.info["label_columns"])
        self.content_hash: str = self.info["content_hash"]
        self.mean: tuple[float, ...] = tuple(self.info["mean"])
        self.std: tuple[float, ...] = tuple(self.info["std"])
        self.patients_known: bool = self.info["patients_known"]
        self.synthetic_phantom: bool = self.info["synthetic_phantom"]
        self.num_rejected: int = self.info["rejected"]
        self._shards = ShardReader(self.path, [shard["file"] for shard in self.info["shards"]])

    def __len__(self) -> int:
        return int(self.info["scans"])

    @property
    def table(self) -> Path:
        """The Parquet file with scan ids, patients and labels."""
        return self.path / str(self.info["manifest"]["file"])

    def __reduce__(self) -> tuple[type[Archive], tuple[Path]]:
        return Archive, (self.path.absolute(),)

    def __repr__(self) -> str:
        return f"Archive({str(self.path)!r}, scans={len(self)}, shape={self.shape})"

    @cached_property
    def scan_ids(self) -> np.ndarray[Any, np.dtype[np.str_]]:
        """Names of the scans, ``[n]``: hashes of their files, ``#`` and a number for frames."""
        return read_column(self.table, "scan_id").astype(np.str_)

    def paths(self) -> np.ndarray[Any, np.dtype[np.object_]]:
        """Returns the file that each scan is from, ``[n]``, as the source named it.

        Raises:
            ScanlearnError: The list of paths was left out of this copy, or belongs to another.
        """
        try:
            by_name = read_paths(self.path)
            found = [by_name[name.partition("#")[0]] for name in self.scan_ids.tolist()]
        except (OSError, KeyError) as error:
            raise ScanlearnError(
                f"{self.path / PATHS_FILE}: is missing, is another's or not whole; only the owner "
                "of the packed archive knows which files its scans are from"
            ) from error
        return np.array(found, dtype=np.object_)

    @cached_property
    def patients(self) -> np.ndarray[Any, np.dtype[np.str_]]:
        """Patient of each scan, ``[n]``: a hash, equal for one patient under one key."""
        return read_column(self.table, "patient").astype(np.str_)

    def labels(self, column: str) -> np.ndarray[Any, np.dtype[np.object_]]:
        """Returns a label column, ``[n]``: the raw strings of the table, None where blank.

        Raises:
            ScanlearnError: The archive has no such column.
        """
        if column not in self.label_columns:
            near = difflib.get_close_matches(column, self.label_columns, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            known = ", ".join(self.label_columns) or "none"
            raise ScanlearnError(
                f"{self.path}: there is no label column {column!r}{hint} (columns: {known})"
            )
        return read_column(self.table, LABEL_PREFIX + column)

    @property
    def facts(self) -> Shaped[np.ndarray, " n"]:
        """``valid_box``, ``spacing_mm`` and ``value_range`` of every scan, as `ScanBatch` says."""
        return self._shards.index.facts

    def gather(
        self, indices: Int64[np.ndarray, " b"], out: np.ndarray[Any, Any] | None = None
    ) -> ScanBatch:
        """Returns the scans at ``indices`` as one batch, in that order.

        Each scan is copied exactly once, from the memory map into the returned tensor.

        Args:
            indices: ``[b]`` rows of the archive, in any order, repeats allowed.
            out: ``[b c h w]`` of the archive's dtype to copy into, contiguous, for instance pinned
                memory; None allocates.
        """
        rows = np.asarray(indices, dtype=np.int64)
        size, shape = len(rows), (len(rows), *self.shape)
        assert rows.ndim == 1, f"indices have shape {rows.shape}, not [b]"
        # A negative row is a huge one. Asked under -O too: memory is read by address.
        if size and rows.view(np.uint64).max() >= len(self):
            raise AssertionError("row out of range")
        if out is not None:
            assert out.shape == shape, f"out has shape {out.shape}"
            assert out.dtype == self.dtype, f"out holds {out.dtype}, not {self.dtype}"
        index = self._shards.index
        where = index.find(rows)
        pixels = index.pixels.take(*where, out).view(self.dtype).reshape(shape)
        mask = None
        if index.masks is not None:
            mask = index.masks.take(*where).view(np.bool_).reshape(size, *shape[2:])
        facts = index.facts[rows]
        box, spacing, values = (
            torch.from_numpy(np.ascontiguousarray(facts[name]))
            for name in ("valid_box", "spacing_mm", "value_range")
        )
        return ScanBatch(
            pixels=torch.from_numpy(pixels),
            valid_box=box,
            mask=None if mask is None else torch.from_numpy(mask),
            spacing_mm=spacing,
            value_range=values,
            ids=torch.from_numpy(rows.copy()),
        )


def is_archive(path: Path) -> bool:
    """Returns whether ``path`` is the folder of a packed archive."""
    return (path / "archive.json").is_file()


def _read_info(path: Path) -> dict[str, Any]:
    if not is_archive(path):
        raise ScanlearnError(f"{path}: is not an archive (it holds no archive.json); pack one")
    try:
        info: dict[str, Any] = json.loads((path / "archive.json").read_text("utf-8"))
        version = int(info["format_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise ScanlearnError(
            f"{path / 'archive.json'}: is not the description of an archive; pack it again"
        ) from error
    if version > FORMAT_VERSION:
        raise ScanlearnError(
            f"{path}: has archive format {version}, this release reads up to {FORMAT_VERSION};"
            " update scanlearn or pack again"
        )
    for shard in [*info["shards"], info["manifest"]]:
        file = path / shard["file"]
        if not file.is_file() or file.stat().st_size != shard["bytes"]:
            raise ScanlearnError(
                f"{file}: is missing or cut short; remove {path} and pack it again"
            )
    return info
