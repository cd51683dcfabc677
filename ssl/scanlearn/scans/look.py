"""A look at the packed scans themselves: sizes, intensities, and scans that occur twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int64, UInt64

from scanlearn.core import ScanBatch
from scanlearn.scans.contact_sheet import sampled_rows
from scanlearn.scans.reader import Archive
from scanlearn.scans.shards import scans_per_batch

BINS = 64
# Pixels on a grid of at least this side stand for a scan: a thousand of each tell the intensities
# of an archive.
_GRID = 32


@dataclass(frozen=True)
class Twins:
    """Scans that were packed to the same pixels, box, range and spacing.

    Args:
        groups: Groups of equal scans.
        scans: Scans in those groups.
        shared: Groups with scans of more than one patient; None where patients are unknown.
    """

    groups: int
    scans: int
    shared: int | None


@dataclass(frozen=True)
class Look:
    """What was seen of an archive's ``n`` scans.

    Args:
        sizes: ``[n 2]`` rows and columns of valid boxes, canvas pixels.
        padded: ``[n]`` share of the canvas outside them.
        spacing_mm: ``[n 2]`` of a canvas pixel; NaN where unknown.
        value_range: ``[n 2]`` stored values that mean 0 and 1.
        histogram: ``[c 64]`` pixels by unit value, 0 to 1, inside valid boxes.
        num_counted: Scans that the histogram is of.
        twins: Equal scans; None in an archive of an earlier release, which does not tell.
    """

    sizes: Int64[np.ndarray, "n 2"]
    padded: Float32[np.ndarray, " n"]
    spacing_mm: Float32[np.ndarray, "n 2"]
    value_range: Float32[np.ndarray, "n 2"]
    histogram: Int64[np.ndarray, "c bins"]
    num_counted: int
    twins: Twins | None


def look(archive: Archive, scans: int = 0) -> Look:
    """Returns what is seen of an archive's scans.

    Args:
        archive: The archive.
        scans: How many the histogram is of, spread evenly; 0 for all. Only their pixels are read.
    """
    facts = archive.facts
    box = facts["valid_box"]
    sizes = box[:, 2:] - box[:, :2]
    rows = sampled_rows(len(archive), scans or len(archive))
    return Look(
        sizes=sizes,
        padded=(1 - sizes.prod(axis=1) / np.prod(archive.shape[1:])).astype(np.float32),
        spacing_mm=facts["spacing_mm"],
        value_range=facts["value_range"],
        histogram=_histogram(archive, rows),
        num_counted=len(rows),
        twins=_twins(archive),
    )


def _histogram(archive: Archive, rows: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, "c bins"]:
    channels, height, width = archive.shape
    step = max(1, height // _GRID), max(1, width // _GRID)
    at_once = scans_per_batch(archive.shape, archive.dtype)
    buffer = np.empty((min(at_once, len(rows)), *archive.shape), archive.dtype)
    histogram = np.zeros((channels, BINS), np.int64)
    for start in range(0, len(rows), at_once):
        some = rows[start : start + at_once]
        histogram += _counted(archive.gather(some, buffer[: len(some)]), step)
    return histogram


def _counted(batch: ScanBatch, step: tuple[int, int]) -> Int64[np.ndarray, "c bins"]:
    """Returns the unit values on a grid of pixels inside valid boxes, counted in 64 bins."""
    grid: np.ndarray[Any, Any] = batch.pixels.numpy()[:, :, :: step[0], :: step[1]]
    top, left, bottom, right = (edge[:, None, None] for edge in batch.valid_box.numpy().T)
    down = np.arange(grid.shape[2])[None, :, None] * step[0]
    across = np.arange(grid.shape[3])[None, None, :] * step[1]
    inside = (down >= top) & (down < bottom) & (across >= left) & (across < right)
    low, high = batch.value_range.numpy().T[:, :, None, None, None]
    bins = np.clip((grid - low) * (BINS / (high - low)), 0, BINS - 1).astype(np.uint8)
    return np.stack([np.bincount(bins[:, c][inside], minlength=BINS) for c in range(grid.shape[1])])


def _twins(archive: Archive) -> Twins | None:
    digests = _digests(archive)
    if digests is None:
        return None
    _, group, counts = np.unique(digests, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(counts[group] > 1)
    shared = None
    if archive.patients_known:
        patients = pq.ParquetFile(archive.table).read(columns=["patient"]).column("patient")
        whose = patients.take(pa.array(rows)).combine_chunks().dictionary_encode().indices
        pairs = np.unique(np.stack([group[rows], whose.to_numpy()]), axis=1)
        shared = int((np.unique(pairs[0], return_counts=True)[1] > 1).sum())
    return Twins(int((counts > 1).sum()), len(rows), shared)


def _digests(archive: Archive) -> UInt64[np.ndarray, " n"] | None:
    """Returns the first eight bytes of each scan's digest, which tell a million scans apart."""
    found = []
    for shard in archive.info["shards"]:
        with pa.memory_map(str(archive.path / shard["file"])) as source:
            file = pa.ipc.open_file(source)
            if "digest" not in file.schema.names:
                return None
            for number in range(file.num_record_batches):
                digests = file.get_batch(number).column("digest")
                found.append(np.frombuffer(b"".join(digests.to_pylist()), "<u8").reshape(-1, 4))
    return np.concatenate(found)[:, 0]
