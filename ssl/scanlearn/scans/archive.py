"""The packed archive: scans decoded once, written here and read through memory maps."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Bool

from scanlearn.core import ScanlearnError
from scanlearn.scans.atomic import disk_errors, publish, require_free, start_partial
from scanlearn.scans.reader import FORMAT_VERSION, Archive, is_archive
from scanlearn.scans.rows import TableWriter
from scanlearn.scans.shards import Pixels, Row, ShardWriter, shard_name
from scanlearn.scans.tally import PixelTally

__all__ = ["FORMAT_VERSION", "Archive", "ArchiveWriter", "is_archive"]


class ArchiveWriter:
    """Writes an archive beside its target and moves it there when it is complete.

    A process killed half-way leaves nothing at ``path``; what it left beside it is swept away by
    the next writer. Used as a context manager, an error discards everything written so far.

    Args:
        path: Where the archive will be; must not exist or be an empty folder.
        shape: Channels, rows and columns of the canvas.
        dtype: ``np.uint8`` or ``np.uint16``.
        label_columns: Names of the label columns.
        has_mask: Whether scans carry a field-of-view mask.
        patients_known: False where every scan stands for its own patient.
        synthetic_phantom: True for scans drawn by a program.
        source_hash: Hash of what the archive is made from.
        settings: What was done to the pixels; kept in ``archive.json``.

    Raises:
        ScanlearnError: Something lies at ``path`` already, or the disk cannot be written.

    Example:
        >>> with ArchiveWriter("drawn", shape=(1, 8, 8), dtype=np.uint8) as writer:
        ...     writer.add(np.zeros((1, 8, 8), np.uint8), scan_id="a", patient="p")
        ...     archive = writer.close()                           # doctest: +SKIP
    """

    def __init__(
        self,
        path: Path | str,
        *,
        shape: tuple[int, int, int],
        dtype: Any,
        label_columns: tuple[str, ...] = (),
        has_mask: bool = False,
        patients_known: bool = True,
        synthetic_phantom: bool = False,
        source_hash: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        dtype = np.dtype(dtype)
        assert dtype in (np.dtype(np.uint8), np.dtype(np.uint16)), "uint8 or uint16 only"
        require_free(self.path)
        self._shape = shape
        self._label_columns = tuple(label_columns)
        self._info: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "shape": list(shape),
            "dtype": dtype.name,
            "has_mask": has_mask,
            "patients_known": patients_known,
            "synthetic_phantom": synthetic_phantom,
            "label_columns": list(label_columns),
            "source_hash": source_hash,
            "settings": dict(settings or {}),
        }
        self._tally = PixelTally(shape, dtype)
        self._rejected: list[tuple[str, str]] = []
        self._archive: Archive | None = None
        self._partial = start_partial(self.path)
        with disk_errors(self.path.parent):
            self._shards = ShardWriter(self._partial, shape, dtype, has_mask)
            self._table = TableWriter(self._partial / "manifest.parquet", self._label_columns)

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.discard()
        elif self._archive is None:
            self.close()

    def add(
        self,
        pixels: Pixels,
        *,
        scan_id: str,
        patient: str,
        valid_box: tuple[int, int, int, int] | None = None,
        spacing_mm: tuple[float, float] | None = None,
        value_range: tuple[float, float] | None = None,
        mask: Bool[np.ndarray, "h w"] | None = None,
        labels: Mapping[str, str | None] | None = None,
    ) -> None:
        """Adds one scan; scans keep the order in which they are added.

        Args:
            pixels: ``[c h w]``, on the canvas.
            scan_id: Name of the scan.
            patient: Name of the patient.
            valid_box: Top, left, bottom, right; None for the whole canvas.
            spacing_mm: Height and width of a canvas pixel; None where unknown.
            value_range: Stored values that mean 0 and 1; None for the range of the dtype.
            mask: ``[h w]`` field of view; None, where the archive has masks, for the valid box.
            labels: Raw label strings by column; None or a missing column for blank.

        Raises:
            ScanlearnError: The disk is full or may not be written to.
        """
        assert pixels.shape == self._shape, f"scan {scan_id!r}: {pixels.shape} != {self._shape}"
        assert pixels.dtype == self._info["dtype"], f"scan {scan_id!r} holds {pixels.dtype}"
        box = valid_box or (0, 0, *self._shape[1:])
        low, high = value_range or (0.0, float(np.iinfo(pixels.dtype).max))
        assert 0 <= box[0] < box[2] <= self._shape[1], f"scan {scan_id!r}: box {box}"
        assert 0 <= box[1] < box[3] <= self._shape[2], f"scan {scan_id!r}: box {box}"
        assert low < high, f"scan {scan_id!r}: value range {low}, {high}"
        if self._info["has_mask"] and mask is None:
            mask = np.zeros(self._shape[1:], np.bool_)
            mask[box[0] : box[2], box[1] : box[3]] = True
        row = Row(
            pixels=pixels,
            valid_box=np.array(box, np.int32),
            spacing_mm=np.array(spacing_mm or (np.nan, np.nan), np.float32),
            value_range=np.array((low, high), np.float32),
            mask=mask if self._info["has_mask"] else None,
            scan_id=scan_id,
            patient=patient,
        )
        self._tally.add(row)
        with disk_errors(self.path.parent):
            self._shards.add(row)
            self._table.add(scan_id, patient, labels or {})

    def reject(self, path: str, reason: str) -> None:
        """Sets a scan aside: it is listed in ``rejected.csv`` with the reason."""
        self._rejected.append((path, reason))

    @property
    def rejected(self) -> tuple[tuple[str, str], ...]:
        """Path and reason of every scan set aside so far."""
        return tuple(self._rejected)

    def close(self, **facts: Any) -> Archive:
        """Completes the archive, moves it to its path and returns it opened.

        Args:
            **facts: Further entries of ``archive.json``.

        Raises:
            ScanlearnError: The disk is full, or another archive has appeared at the path.
        """
        if self._archive is not None:
            return self._archive
        assert self._table.num_scans > 0, "an archive needs at least one scan"
        try:
            with disk_errors(self.path.parent):
                self._finish(facts)
                published = publish(self._partial, self.path)
        except BaseException:
            self.discard()
            raise
        if not published:
            self.discard()
            # Two processes may pack the same scans into one cache: the second finds the work done.
            found = Archive(self.path)
            if found.content_hash != self._tally.content_hash:
                raise ScanlearnError(
                    f"{self.path}: another archive appeared there meanwhile; choose another path"
                )
        self._archive = Archive(self.path)
        return self._archive

    def discard(self) -> None:
        """Removes everything written so far."""
        self._shards.abort()
        self._table.abort()
        shutil.rmtree(self._partial, ignore_errors=True)

    def _finish(self, facts: Mapping[str, Any]) -> None:
        self._shards.close()
        self._table.close()
        with (self._partial / "rejected.csv").open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(("path", "reason"))
            rows.writerows(self._rejected)
        shards = [(shard_name(number), n) for number, n in enumerate(self._shards.counts)]
        self._info |= {
            "scans": self._table.num_scans,
            "patients": self._table.num_patients,
            "rejected": len(self._rejected),
            "mean": self._tally.mean,
            "std": self._tally.std,
            "content_hash": self._tally.content_hash,
            "manifest": self._described("manifest.parquet"),
            "shards": [self._described(name) | {"scans": n} for name, n in shards],
            **facts,
        }
        text = json.dumps(self._info, indent=1, ensure_ascii=False)
        (self._partial / "archive.json").write_text(text + "\n", "utf-8")

    def _described(self, name: str) -> dict[str, Any]:
        return {"file": name, "bytes": (self._partial / name).stat().st_size}
