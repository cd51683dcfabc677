"""What an archive holds on disk: files, columns, and what is counted of each scan."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64, Int64, UInt8, UInt16
from PIL import Image

from scanlearn.readers.scan import Pixels

# Label columns carry a prefix, since a user's table may have one called "patient" or "scan_id".
LABEL_PREFIX = "label:"


TABLE_FILE = "manifest.parquet"


PATHS_FILE = "paths.csv"


REJECTED_FILE = "rejected.csv"


MAX_SCANS_PER_BATCH = 256


BATCHES_PER_SHARD = 16


MAX_BATCH_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Layout:
    """What every scan of an archive has.

    Args:
        shape: Channels, rows and columns.
        dtype: uint8 or uint16.
        has_mask: Whether scans carry a field-of-view mask.
        label_columns: Names of the label columns.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    has_mask: bool = False
    label_columns: tuple[str, ...] = ()

    @property
    def rows_per_batch(self) -> int:
        """Scans of a full record batch."""
        return scans_per_batch(self.shape, self.dtype)

    def schema(self) -> pa.Schema:
        """Returns the columns of a shard."""
        fields = [
            pa.field("pixels", pa.fixed_shape_tensor(pa.from_numpy_dtype(self.dtype), self.shape)),
            pa.field("valid_box", pa.list_(pa.int32(), 4)),
            pa.field("spacing_mm", pa.list_(pa.float32(), 2)),
            pa.field("value_range", pa.list_(pa.float32(), 2)),
            pa.field("scan_id", pa.string()),
            pa.field("patient", pa.string()),
            pa.field("digest", pa.binary(DIGEST_BYTES)),
            pa.field("sums", pa.list_(pa.float64(), num_sums(self.shape[0]))),
        ]
        if self.has_mask:
            fields.append(pa.field("mask", pa.fixed_shape_tensor(pa.uint8(), self.shape[1:])))
        labels = (pa.field(LABEL_PREFIX + name, pa.string()) for name in self.label_columns)
        return pa.schema([*fields, *labels])


@dataclass(frozen=True)
class Row:
    """One scan as it is written.

    Args:
        pixels: ``[c h w]``, stored values.
        valid_box: Top, left, bottom, right in canvas pixels.
        spacing_mm: Height and width of a canvas pixel; NaN where unknown.
        value_range: Stored values that mean 0 and 1.
        mask: ``[h w]``, True inside the field of view; None in an archive without masks.
        scan_id: Name of the scan in its archive.
        patient: Name of the patient.
        tally: What was counted of it.
        labels: A string or None for each label column, in their order.
    """

    pixels: Pixels
    valid_box: tuple[int, int, int, int]
    spacing_mm: tuple[float, float]
    value_range: tuple[float, float]
    mask: Bool[np.ndarray, "h w"] | None
    scan_id: str
    patient: str
    tally: ScanTally
    labels: tuple[str | None, ...] = ()


Place = tuple[
    tuple[int, int, int, int] | None, tuple[float, float] | None, tuple[float, float] | None
]


def make_row(
    layout: Layout,
    pixels: Pixels,
    *,
    names: tuple[str, str],
    place: Place,
    mask: Bool[np.ndarray, "h w"] | None,
    labels: Mapping[str, str | None],
    tally: ScanTally | None,
) -> Row:
    """Returns a scan as it is written, checked and with what was left open filled in.

    Args:
        layout: What every scan has.
        pixels: ``[c h w]``, on the canvas.
        names: Of the scan and of its patient.
        place: Valid box, None for the whole canvas; spacing, None where unknown; value range, None
            for the range of the dtype.
        mask: ``[h w]`` field of view; None, where the archive has masks, for the valid box.
        labels: Raw label strings by column.
        tally: What was counted of exactly this scan; None counts it here.
    """
    (scan_id, patient), (valid_box, spacing_mm, value_range) = names, place
    shape = layout.shape
    assert pixels.shape == shape, f"scan {scan_id!r}: {pixels.shape} != {shape}"
    assert pixels.dtype == layout.dtype, f"scan {scan_id!r} holds {pixels.dtype}"
    box = valid_box or (0, 0, *shape[1:])
    low, high = value_range or (0.0, float(np.iinfo(pixels.dtype).max))
    assert 0 <= box[0] < box[2] <= shape[1], f"scan {scan_id!r}: box {box}"
    assert 0 <= box[1] < box[3] <= shape[2], f"scan {scan_id!r}: box {box}"
    assert low < high, f"scan {scan_id!r}: value range {low}, {high}"
    if not layout.has_mask:
        mask = None
    elif mask is None:
        mask = np.zeros(shape[1:], np.bool_)
        mask[box[0] : box[2], box[1] : box[3]] = True
        tally = None
    return Row(
        pixels=pixels,
        valid_box=box,
        spacing_mm=spacing_mm or (np.nan, np.nan),
        value_range=(low, high),
        mask=mask,
        scan_id=scan_id,
        patient=patient,
        tally=tally or tally_scan(pixels, box, (low, high), spacing_mm, mask),
        labels=tuple(labels.get(column) for column in layout.label_columns),
    )


def scans_per_batch(shape: tuple[int, int, int], dtype: np.dtype[Any]) -> int:
    """Returns how many scans a record batch holds: 256, fewer where scans are large.

    It is a power of two that depends on nothing but shape and dtype, so that a packed archive
    has the same bytes everywhere and writing needs at most 128 MiB for a batch.
    """
    rows = MAX_SCANS_PER_BATCH
    while rows > 1 and rows * int(np.prod(shape)) * dtype.itemsize > MAX_BATCH_BYTES:
        rows //= 2
    return rows


def shard_name(number: int) -> str:
    """Returns the file name of a shard in its archive, as ``shards/00007.arrow``."""
    return f"shards/{number:05d}.arrow"


DIGEST_BYTES = 32


@dataclass(frozen=True)
class ScanTally:
    """What is counted of one scan.

    Args:
        digest: sha256 over pixels, valid box, value range, spacing and mask.
        sums: ``[1 + 2c]`` pixels of the valid box; then the sum of each channel on the unit
            range (``value_range`` mapped to 0 and 1, clamped), and of its squares.
    """

    digest: bytes
    sums: Float64[np.ndarray, " t"]


def num_sums(channels: int) -> int:
    """Returns how many sums a scan has."""
    return 1 + 2 * channels


def tally_scan(
    pixels: UInt8[np.ndarray, "c h w"] | UInt16[np.ndarray, "c h w"],
    valid_box: tuple[int, int, int, int],
    value_range: tuple[float, float],
    spacing_mm: tuple[float, float] | None = None,
    mask: Bool[np.ndarray, "h w"] | None = None,
) -> ScanTally:
    """Counts one scan; packing does it where the scan is decoded, in many processes."""
    digest = hashlib.sha256(np.ascontiguousarray(pixels).data)
    digest.update(
        struct.pack("<4i4f", *valid_box, *value_range, *(spacing_mm or (math.nan, math.nan)))
    )
    if mask is not None:
        digest.update(np.ascontiguousarray(mask).data)
    low, high = (float(np.float32(value)) for value in value_range)
    unit, squares = _unit_values(pixels.dtype.itemsize, low, high)
    top, left, bottom, right = valid_box
    # Values are counted, not converted: exact, and several times as fast as float64 pixels.
    inside = pixels[:, top:bottom, left:right]
    # Gray scans among coloured ones repeat their channel.
    num_counted = 1 if len(inside) > 1 and (inside[1:] == inside[:1]).all() else len(inside)
    counts = [_counts(plane) for plane in inside[:num_counted]]
    # Not a dot product: its last bits would follow the number of threads.
    repeats = len(inside) // num_counted
    first = [float((count * unit).sum()) for count in counts] * repeats
    second = [float((count * squares).sum()) for count in counts] * repeats
    return ScanTally(
        digest.digest(), np.array([(bottom - top) * (right - left), *first, *second], np.float64)
    )


@lru_cache(maxsize=4)
def _unit_values(
    itemsize: int, low: float, high: float
) -> tuple[Float64[np.ndarray, " v"], Float64[np.ndarray, " v"]]:
    """Returns what each stored value is on the unit range, and its square."""
    values = np.arange(256**itemsize, dtype=np.float64)
    unit = np.clip((values - low) / (high - low), 0.0, 1.0)
    return unit, unit**2


def _counts(plane: np.ndarray[Any, np.dtype[Any]]) -> Int64[np.ndarray, " v"]:
    """Returns how often each value occurs."""
    if plane.dtype == np.uint8:
        return np.array(Image.fromarray(plane).histogram(), np.int64)
    return np.bincount(plane.reshape(-1), minlength=65536)
