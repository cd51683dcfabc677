"""Reading a packed archive: a batch at a time, with exactly one copy."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64

from scanlearn.core import ScanBatch, ScanlearnError
from scanlearn.scans.rows import LABEL_PREFIX, read_column
from scanlearn.scans.shards import BatchView, ShardReader

FORMAT_VERSION = 1


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
        self._shards = ShardReader(self.path, self.shape, self.dtype)

    def __len__(self) -> int:
        return int(self.info["scans"])

    def __reduce__(self) -> tuple[type[Archive], tuple[Path]]:
        return Archive, (self.path.absolute(),)

    def __repr__(self) -> str:
        return f"Archive({str(self.path)!r}, scans={len(self)}, shape={self.shape})"

    @cached_property
    def scan_ids(self) -> np.ndarray[Any, np.dtype[np.str_]]:
        """Names of the scans, ``[n]``: the path as the manifest gave it."""
        return read_column(self.path, "scan_id").astype(np.str_)

    @cached_property
    def patients(self) -> np.ndarray[Any, np.dtype[np.str_]]:
        """Patient of each scan, ``[n]``."""
        return read_column(self.path, "patient").astype(np.str_)

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
        return read_column(self.path, LABEL_PREFIX + column)

    def gather(
        self, indices: Int64[np.ndarray, " b"], out: np.ndarray[Any, Any] | None = None
    ) -> ScanBatch:
        """Returns the scans at ``indices`` as one batch, in that order.

        Each scan is copied exactly once, from the memory map into the returned tensor.

        Args:
            indices: ``[b]`` rows of the archive, in any order, repeats allowed.
            out: ``[b c h w]`` of the archive's dtype to copy into, for instance pinned memory;
                None allocates.
        """
        rows = np.asarray(indices, dtype=np.int64)
        size = len(rows)
        assert rows.ndim == 1, f"indices have shape {rows.shape}, not [b]"
        assert size == 0 or (rows.min() >= 0 and rows.max() < len(self)), "row out of range"
        pixels = np.empty((size, *self.shape), self.dtype) if out is None else out
        assert pixels.shape == (size, *self.shape), f"out has shape {pixels.shape}"
        assert pixels.dtype == self.dtype, f"out holds {pixels.dtype}, not {self.dtype}"
        has_mask = self.info["has_mask"]
        mask = np.empty((size, *self.shape[1:]), np.bool_) if has_mask else None
        rows_per_batch = self._shards.rows_per_batch
        for position, row in enumerate(rows.tolist()):
            view = self._shards.view(row // rows_per_batch)
            pixels[position] = view.pixels[row % rows_per_batch]
            if mask is not None and view.mask is not None:
                mask[position] = view.mask[row % rows_per_batch]
        return ScanBatch(
            pixels=torch.from_numpy(pixels),
            valid_box=torch.from_numpy(self._valid_box[rows]),
            mask=None if mask is None else torch.from_numpy(mask),
            spacing_mm=torch.from_numpy(self._spacing_mm[rows]),
            value_range=torch.from_numpy(self._value_range[rows]),
            ids=torch.from_numpy(rows.copy()),
        )

    # 40 bytes a scan are kept in memory: picking them row by row would cost as much as the pixels.
    @cached_property
    def _valid_box(self) -> Int64[np.ndarray, "n 4"]:
        return np.concatenate([view.valid_box for view in self._all_views()]).astype(np.int64)

    @cached_property
    def _spacing_mm(self) -> Float32[np.ndarray, "n 2"]:
        return np.concatenate([view.spacing_mm for view in self._all_views()])

    @cached_property
    def _value_range(self) -> Float32[np.ndarray, "n 2"]:
        return np.concatenate([view.value_range for view in self._all_views()])

    def _all_views(self) -> Iterator[BatchView]:
        for number in range(-(-len(self) // self._shards.rows_per_batch)):
            yield self._shards.view(number)


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
