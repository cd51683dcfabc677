"""The Arrow files of an archive: fixed-shape tensors in record batches, memory-mapped.

Any Arrow reader (pandas, polars, DuckDB, Hugging Face datasets) can open a shard. Pixels are
never copied on the way from the memory map to a numpy view.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Int32, UInt8, UInt16

MAX_SCANS_PER_BATCH = 256
BATCHES_PER_SHARD = 16
MAX_BATCH_BYTES = 128 * 2**20

Pixels = UInt8[np.ndarray, "c h w"] | UInt16[np.ndarray, "c h w"]


@dataclass(frozen=True)
class Row:
    """One scan as it is written.

    Args:
        pixels: ``[c h w]``, stored values.
        valid_box: ``[4]`` top, left, bottom, right in canvas pixels.
        spacing_mm: ``[2]`` height and width of a canvas pixel; NaN where unknown.
        value_range: ``[2]`` stored values that mean 0 and 1.
        mask: ``[h w]``, True inside the field of view; None in an archive without masks.
        scan_id: Name of the scan in its archive.
        patient: Name of the patient.
    """

    pixels: Pixels
    valid_box: Int32[np.ndarray, "4"]
    spacing_mm: Float32[np.ndarray, "2"]
    value_range: Float32[np.ndarray, "2"]
    mask: Bool[np.ndarray, "h w"] | None
    scan_id: str
    patient: str


@dataclass(frozen=True)
class BatchView:
    """Numpy views of one record batch; they share the memory map (``r`` rows).

    Args:
        pixels: ``[r c h w]``.
        valid_box: ``[r 4]``.
        spacing_mm: ``[r 2]``.
        value_range: ``[r 2]``.
        mask: ``[r h w]`` or None.
    """

    pixels: UInt8[np.ndarray, "r c h w"] | UInt16[np.ndarray, "r c h w"]
    valid_box: Int32[np.ndarray, "r 4"]
    spacing_mm: Float32[np.ndarray, "r 2"]
    value_range: Float32[np.ndarray, "r 2"]
    mask: Bool[np.ndarray, "r h w"] | None


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


def _schema(shape: tuple[int, int, int], dtype: np.dtype[Any], has_mask: bool) -> pa.Schema:
    fields = [
        pa.field("pixels", pa.fixed_shape_tensor(pa.from_numpy_dtype(dtype), shape)),
        pa.field("valid_box", pa.list_(pa.int32(), 4)),
        pa.field("spacing_mm", pa.list_(pa.float32(), 2)),
        pa.field("value_range", pa.list_(pa.float32(), 2)),
        pa.field("scan_id", pa.string()),
        pa.field("patient", pa.string()),
    ]
    if has_mask:
        # Arrow packs booleans into bits, which no numpy array can view; a byte each can be.
        fields.append(pa.field("mask", pa.fixed_shape_tensor(pa.uint8(), shape[1:])))
    return pa.schema(fields)


def _fixed(values: np.ndarray[Any, np.dtype[Any]], of: pa.DataType) -> pa.Array:
    """Returns rows of equal length as an Arrow array of type ``of``, without a copy."""
    is_tensor = isinstance(of, pa.FixedShapeTensorType)
    storage = of.storage_type if is_tensor else of
    flat = pa.array(values.reshape(-1))
    array = pa.FixedSizeListArray.from_arrays(flat, type=storage)
    return pa.ExtensionArray.from_storage(of, array) if is_tensor else array


def _open_sink(path: Path) -> IO[bytes]:
    return path.open("wb")


class ShardWriter:
    """Writes rows into numbered shards below a folder.

    Args:
        folder: Where ``shards/`` is made.
        shape: Channels, rows and columns of every scan.
        dtype: uint8 or uint16.
        has_mask: Whether rows carry a mask.
    """

    def __init__(
        self, folder: Path, shape: tuple[int, int, int], dtype: np.dtype[Any], has_mask: bool
    ) -> None:
        self._folder = folder
        self._schema = _schema(shape, dtype, has_mask)
        self._rows_per_batch = scans_per_batch(shape, dtype)
        self._pixels = np.empty((self._rows_per_batch, *shape), dtype)
        self._rows: list[Row] = []
        self._sink: IO[bytes] | None = None
        self._writer: Any = None
        self._batches = 0
        self.counts: list[int] = []
        (folder / "shards").mkdir()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def add(self, row: Row) -> None:
        """Takes one row; a full record batch goes to disk at once."""
        self._pixels[len(self._rows)] = row.pixels
        self._rows.append(row)
        if len(self._rows) == self._rows_per_batch:
            self._flush()

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
            self._writer = pa.ipc.new_file(self._sink, self._schema)
            self.counts.append(0)
        self._writer.write_batch(self._record_batch())
        self.counts[-1] += len(self._rows)
        self._rows.clear()
        self._batches += 1
        if self._batches % BATCHES_PER_SHARD == 0:
            self._end_shard()

    def _end_shard(self) -> None:
        if self._sink is not None:
            self._writer.close()
            self._sink.close()
            self._sink = None

    def _record_batch(self) -> pa.RecordBatch:
        columns: dict[str, Any] = {
            "pixels": self._pixels[: len(self._rows)],
            "valid_box": np.stack([row.valid_box for row in self._rows]),
            "spacing_mm": np.stack([row.spacing_mm for row in self._rows]),
            "value_range": np.stack([row.value_range for row in self._rows]),
            "scan_id": pa.array([row.scan_id for row in self._rows], pa.string()),
            "patient": pa.array([row.patient for row in self._rows], pa.string()),
        }
        if "mask" in self._schema.names:
            masks = [row.mask for row in self._rows if row.mask is not None]
            columns["mask"] = np.stack(masks).astype(np.uint8)
        arrays = [
            _fixed(values, self._schema.field(name).type)
            if isinstance(values, np.ndarray)
            else values
            for name, values in columns.items()
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)


class ShardReader:
    """Views record batches of memory-mapped shards; each view is made once and kept.

    Args:
        folder: The archive.
        shape: Channels, rows and columns of every scan.
        dtype: uint8 or uint16.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> None:
        self._folder = folder
        self._shape = shape
        self._files: dict[int, Any] = {}
        self._views: dict[int, BatchView] = {}
        self.rows_per_batch = scans_per_batch(shape, dtype)

    def view(self, number: int) -> BatchView:
        """Returns the views of record batch ``number``, counted over all shards."""
        found = self._views.get(number)
        if found is None:
            found = self._views[number] = self._read(number)
        return found

    def _read(self, number: int) -> BatchView:
        shard, inside = divmod(number, BATCHES_PER_SHARD)
        if shard not in self._files:
            source = pa.memory_map(str(self._folder / shard_name(shard)))
            self._files[shard] = pa.ipc.open_file(source)
        batch = self._files[shard].get_batch(inside)
        has_mask = "mask" in batch.schema.names
        mask = _flat(batch.column("mask").storage) if has_mask else None
        return BatchView(
            pixels=_flat(batch.column("pixels").storage).reshape(-1, *self._shape),
            valid_box=_flat(batch.column("valid_box")).reshape(-1, 4),
            spacing_mm=_flat(batch.column("spacing_mm")).reshape(-1, 2),
            value_range=_flat(batch.column("value_range")).reshape(-1, 2),
            mask=None if mask is None else mask.view(np.bool_).reshape(-1, *self._shape[1:]),
        )


def _flat(array: pa.FixedSizeListArray) -> np.ndarray[Any, np.dtype[Any]]:
    """Returns a view of all values of a fixed-size list; fails rather than copies."""
    values: np.ndarray[Any, np.dtype[Any]] = array.flatten().to_numpy(zero_copy_only=True)
    return values
