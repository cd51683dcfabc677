"""Reading a packed archive: a batch at a time, with exactly one copy."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped

from scanlearn.core import ScanBatch, ScanlearnError
from scanlearn.scans.rows import LABEL_PREFIX, PATHS_FILE, read_column, read_paths
from scanlearn.scans.shard_reader import ShardReader

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
