"""The Arrow files of an archive: scans are written into numbered shards below its folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.archive.layout import (
    LABEL_PREFIX,
    Layout,
    Origin,
    PackedScan,
    file_entry,
    scans_per_batch,
    shard_name,
)

BATCHES_PER_SHARD = 16


class ShardWriter:
    """Writes scans into numbered shards.

    Args:
        folder: Where ``shards/`` is, or is made.
        kept: Scans of each shard that an earlier writer finished there.
    """

    def __init__(self, folder: Path, layout: Layout, kept: Sequence[int] = ()) -> None:
        self._folder = folder
        self._layout = layout
        self._schema = layout.schema()
        num_rows = scans_per_batch(layout.shape, layout.dtype)
        self._pixels = np.empty((num_rows, *layout.shape), layout.dtype)
        # A byte each: Arrow packs booleans into bits, which no numpy array can view.
        self._masks = np.empty((num_rows * layout.has_mask, *layout.shape[1:]), "u1")
        # Every other column.
        self._rows: list[dict[str, Any]] = []
        self._sink: Any = None
        self._writer: Any = None
        self._batches = 0
        self.counts: list[int] = list(kept)
        (folder / "shards").mkdir(exist_ok=True)

    def add(self, scan: PackedScan, origin: Origin) -> bool:
        """Takes one scan, its arrays copied.

        Returns:
            Whether a shard is complete and on disk now.
        """
        scan = self._layout.fitted(scan)
        self._pixels[len(self._rows)] = scan.pixels
        if scan.mask is not None:
            self._masks[len(self._rows)] = scan.mask
        columns = {
            "valid_box": scan.box,
            "spacing_mm": scan.spacing,
            "value_range": scan.unit_range,
            "scan_id": origin.scan_id,
            "patient": origin.patient,
            "spelling": origin.spelling,
            "digest": scan.sums.digest,
            "sums": scan.sums.sums,
        }
        labels = {LABEL_PREFIX + k: origin.labels.get(k) for k in self._layout.label_columns}
        self._rows.append(columns | labels)
        if len(self._rows) == len(self._pixels):
            self._flush()
        return self._sink is None and not self._rows

    def close(self) -> None:
        """Writes what is left and closes the last shard."""
        if self._rows:
            self._flush()
        self._end_shard()

    def abort(self) -> None:
        """Closes the open shard without writing what is left."""
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
        number = len(self._rows)
        arrays = {"pixels": self._pixels[:number], "mask": self._masks[:number]}
        columns = [
            _fixed(arrays[field.name], field.type)
            if field.name in arrays
            else pa.array([row[field.name] for row in self._rows], field.type)
            for field in self._schema
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        self.counts[-1] += number
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
            _sync(self._folder / shard_name(len(self.counts) - 1))


def drop_from_shard(
    path: Path, shard: dict[str, Any], patients: pa.Array, name: str
) -> dict[str, Any] | None:
    """Writes a shard without the scans of some patients, if it holds any.

    Returns:
        The new file's entry for ``archive.json``, the old one ``shard`` where nothing changes, None
        where no scan is left.
    """
    with pa.memory_map(str(path / shard["file"])) as source:
        file = pa.ipc.open_file(source)
        numbers = range(file.num_record_batches)
        kept = [
            pc.invert(pc.is_in(file.get_batch(number).column("patient"), value_set=patients))
            for number in numbers
        ]
        num_kept = sum(pc.sum(rows).as_py() or 0 for rows in kept)
        if num_kept == shard["scans"]:
            return shard
        if num_kept == 0:
            return None
        with (
            pa.OSFile(str(path / name), "wb") as sink,
            pa.ipc.new_file(sink, file.schema) as writer,
        ):
            for number, rows in zip(numbers, kept, strict=True):
                rest = file.get_batch(number).filter(rows)
                if rest.num_rows:
                    writer.write_batch(rest)
    _sync(path / name)
    return file_entry(path, name) | {"scans": num_kept}


def _fixed(values: np.ndarray[Any, np.dtype[Any]], of: pa.FixedShapeTensorType) -> pa.Array:
    """Returns rows of equal length as an Arrow array of type ``of``, without a copy."""
    flat = pa.array(values.reshape(-1))
    rows = pa.FixedSizeListArray.from_arrays(flat, type=of.storage_type)
    return pa.ExtensionArray.from_storage(of, rows)


def _open_sink(path: Path) -> Any:
    # Arrow's own file: one of Python's would be handed a copy of every buffer.
    return pa.OSFile(str(path), "wb")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
