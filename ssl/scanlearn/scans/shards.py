"""The Arrow files of an archive, as they are written: fixed-shape tensors in record batches.

Any Arrow reader (pandas, polars, DuckDB, Hugging Face datasets) can open a shard. A shard holds all
there is of its scans, so that the archive's table and statistics are made from its shards.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, UInt8, UInt16

from scanlearn.scans.aligned import AlignedWriter
from scanlearn.scans.rows import LABEL_PREFIX
from scanlearn.scans.tally import DIGEST_BYTES, ScanTally, num_sums, tally_scan

MAX_SCANS_PER_BATCH = 256
BATCHES_PER_SHARD = 16
MAX_BATCH_BYTES = 128 * 2**20

Pixels = UInt8[np.ndarray, "c h w"] | UInt16[np.ndarray, "c h w"]


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


def _fixed(values: np.ndarray[Any, np.dtype[Any]], of: pa.DataType) -> pa.Array:
    """Returns rows of equal length as an Arrow array of type ``of``, without a copy."""
    is_tensor = isinstance(of, pa.FixedShapeTensorType)
    storage = of.storage_type if is_tensor else of
    flat = pa.array(values.reshape(-1))
    array = pa.FixedSizeListArray.from_arrays(flat, type=storage)
    return pa.ExtensionArray.from_storage(of, array) if is_tensor else array


def _open_sink(path: Path) -> Any:
    # Arrow's own file: one of Python's would be handed a copy of every buffer.
    return pa.OSFile(str(path), "wb")


def sync(path: Path) -> None:
    """Waits until a file is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class ShardWriter:
    """Writes rows into numbered shards below a folder.

    Args:
        folder: Where ``shards/`` is, or is made.
        layout: What every row has.
        kept: Scans of each shard that an earlier writer finished there.
    """

    def __init__(self, folder: Path, layout: Layout, kept: Sequence[int] = ()) -> None:
        self._folder = folder
        self._layout = layout
        self._schema = layout.schema()
        self._pixels = np.empty((layout.rows_per_batch, *layout.shape), layout.dtype)
        # A byte each: Arrow packs booleans into bits, which no numpy array can view.
        self._masks = np.empty((layout.rows_per_batch * layout.has_mask, *layout.shape[1:]), "u1")
        self._rows: list[Row] = []
        self._sink: Any = None
        self._writer: Any = None
        self._batches = 0
        self.counts: list[int] = list(kept)
        (folder / "shards").mkdir(exist_ok=True)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def add(self, row: Row) -> bool:
        """Takes one row, its arrays copied; returns whether a shard is complete and on disk now."""
        self._pixels[len(self._rows)] = row.pixels
        if row.mask is not None:
            self._masks[len(self._rows)] = row.mask
        self._rows.append(row)
        if len(self._rows) == len(self._pixels):
            self._flush()
        return self._sink is None and not self._rows

    def close(self) -> None:
        """Writes what is left and closes the last shard."""
        if self._rows:
            self._flush()
        self._end_shard()

    def abort(self) -> None:
        """Lets go of the open shard without writing what is left."""
        self._rows.clear()
        sink, self._sink = self._sink, None
        if sink is not None:
            # On a full disk closing fails too, and the first error is the one to tell.
            with contextlib.suppress(OSError):
                sink.close()

    def _flush(self) -> None:
        if self._sink is None:
            self._sink = _open_sink(self._folder / shard_name(len(self.counts)))
            self._writer = AlignedWriter(self._sink, self._schema)
            self.counts.append(0)
        self._writer.write_batch(self._record_batch())
        self.counts[-1] += len(self._rows)
        self._rows.clear()
        self._batches += 1
        if self._batches % BATCHES_PER_SHARD == 0:
            self._end_shard()

    def _end_shard(self) -> None:
        if self._sink is None:
            return
        self._writer.close()
        self._sink.close()
        self._sink = None
        if self._batches % BATCHES_PER_SHARD == 0:
            # A later writer may go on from here, after a power failure too.
            sync(self._folder / shard_name(len(self.counts) - 1))

    def _record_batch(self) -> pa.RecordBatch:
        rows = self._rows
        columns: dict[str, Any] = {
            "pixels": self._pixels[: len(rows)],
            "valid_box": np.array([row.valid_box for row in rows], np.int32),
            "spacing_mm": np.array([row.spacing_mm for row in rows], np.float32),
            "value_range": np.array([row.value_range for row in rows], np.float32),
            "scan_id": [row.scan_id for row in rows],
            "patient": [row.patient for row in rows],
            "digest": [row.tally.digest for row in rows],
            "sums": np.stack([row.tally.sums for row in rows]),
        }
        if self._layout.has_mask:
            columns["mask"] = self._masks[: len(rows)]
        labels = zip(*(row.labels for row in rows), strict=True)
        names = (LABEL_PREFIX + name for name in self._layout.label_columns)
        columns |= dict(zip(names, labels, strict=True))
        arrays = [
            _fixed(values, field.type)
            if isinstance(values, np.ndarray)
            else pa.array(values, field.type)
            for field, values in ((field, columns[field.name]) for field in self._schema)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)
