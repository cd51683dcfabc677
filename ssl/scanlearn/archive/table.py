"""The table of an archive: who and what each scan is, in order, and what all scans sum up to."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64, Int64

from scanlearn.archive.layout import DIGEST_BYTES, LABEL_PREFIX, Layout, num_sums


def write_table(folder: Path, layout: Layout, shards: Sequence[str], table: Path) -> dict[str, Any]:
    """Writes the table of an archive and returns what ``archive.json`` says of its scans.

    Shards are gone through one by one and their pixels left alone.

    Args:
        layout: What every scan has; a label column that a shard lacks is blank there.
    """
    totals = ArchiveSums(layout)
    schema = table_schema(layout.label_columns)
    num_scans = 0
    with pq.ParquetWriter(table, schema) as writer:
        for name in shards:
            with pa.memory_map(str(folder / name)) as source:
                file = pa.ipc.open_file(source)
                names = {"digest", "sums", *schema.names}.intersection(file.schema.names)
                numbers = range(file.num_record_batches)
                batches = (file.get_batch(number).select(sorted(names)) for number in numbers)
                rows = pa.Table.from_batches(batches)
                for batch in rows.to_batches():
                    totals.add_rows(batch)
                for missing in {*schema.names} - names:
                    rows = rows.append_column(missing, pa.nulls(rows.num_rows, pa.string()))
                writer.write_table(rows.select(schema.names))
                num_scans += rows.num_rows
    codes = first_seen(arrow_column(table, "patient"))
    return {
        "scans": num_scans,
        "patients": int(codes.max(initial=-1)) + 1,
        "mean": totals.mean,
        "std": totals.std,
        "content_hash": totals.content_hash(codes),
    }


class ArchiveSums:
    """Puts the digests and sums of all scans together, in the order of the archive."""

    def __init__(self, layout: Layout) -> None:
        self._hash = hashlib.sha256(f"{layout.shape} {layout.dtype}".encode())
        self._channels = layout.shape[0]
        self._sums = np.zeros(num_sums(self._channels))

    def add_rows(self, rows: pa.RecordBatch) -> None:
        """Takes the scans of a record batch of a shard."""
        digests = b"".join(rows.column("digest").to_pylist())
        self.add(digests, rows.column("sums").flatten().to_numpy().reshape(rows.num_rows, -1))

    def add(self, digests: bytes, sums: Float64[np.ndarray, "r t"]) -> None:
        """Takes the digests and sums of ``r`` scans."""
        assert len(digests) == DIGEST_BYTES * len(sums), "a digest for each row of sums"
        self._hash.update(digests)
        # One after the other, so that the last bits do not follow how scans come in batches.
        self._sums = np.add.accumulate(np.vstack([self._sums, sums]), axis=0)[-1]

    def content_hash(self, patients: Int64[np.ndarray, " n"]) -> str:
        """Returns the sha256 over all scans in order and over which are of the same patient.

        Args:
            patients: ``[n]`` number of each scan's patient in the order of first appearance, so
                that the hash does not follow a site's key.
        """
        whole = self._hash.copy()
        whole.update(np.ascontiguousarray(patients, "<i8").data)
        return whole.hexdigest()

    @property
    def mean(self) -> list[float]:
        """Mean of each channel over valid boxes, on the unit range, ``[c]``."""
        means: list[float] = (self._sums[1 : 1 + self._channels] / self._sums[0]).tolist()
        return means

    @property
    def std(self) -> list[float]:
        """Standard deviation of each channel, ``[c]``."""
        squares = (self._sums[1 + self._channels :] / self._sums[0]).tolist()
        pairs = zip(squares, self.mean, strict=True)
        return [math.sqrt(max(0.0, square - mean**2)) for square, mean in pairs]


def first_seen(patients: pa.ChunkedArray) -> Int64[np.ndarray, " n"]:
    """Returns the number of each scan's patient in the order of first appearance."""
    # Arrow numbers patients; a million strings of Python would take a hundred bytes each.
    codes = patients.combine_chunks().dictionary_encode().indices.to_numpy()
    return np.asarray(codes, np.int64)


def table_schema(label_columns: tuple[str, ...]) -> pa.Schema:
    """Returns the columns of an archive's table."""
    names = ["scan_id", "patient", "spelling", *(LABEL_PREFIX + column for column in label_columns)]
    return pa.schema([pa.field(name, pa.string()) for name in names])


def arrow_column(table: Path, name: str) -> pa.ChunkedArray:
    """Returns a column of an archive's table as Arrow holds it, a few bytes a string."""
    # One file, named as such: the reader of data sets would guess columns from folder names.
    return pq.ParquetFile(table).read(columns=[name]).column(name)


def read_column(table: Path, name: str) -> np.ndarray[Any, np.dtype[np.object_]]:
    """Returns one column of an archive's table, ``[n]`` strings, None where blank."""
    column = arrow_column(table, name)
    values = np.empty(len(column), dtype=np.object_)
    values[:] = column.to_pylist()
    return values
