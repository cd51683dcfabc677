"""The tables of an archive: who and what each scan is, in order, and which file it is from."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64, Int64

from scanlearn.archive.layout import DIGEST_BYTES, LABEL_PREFIX, PATHS_FILE, Layout, num_sums

# What the shards of an archive hold together: its table, counts, statistics and hash.


def take_census(folder: Path, layout: Layout, shards: Sequence[str], table: Path) -> dict[str, Any]:
    """Writes the table of an archive and returns what ``archive.json`` says of its scans.

    Shards are gone through one by one and their pixels left alone.

    Args:
        folder: Where the shards are.
        layout: What every scan has; a label column that a shard lacks is blank there.
        shards: Files of the shards below ``folder``, in order.
        table: The Parquet file to write.
    """
    tally = ArchiveTally(layout.shape, layout.dtype)
    schema = table_schema(layout.label_columns)
    num_scans = 0
    with pq.ParquetWriter(table, schema) as writer:
        for name in shards:
            with pa.memory_map(str(folder / name)) as source:
                batches = _small_batches(source, schema.names)
                _add(tally, batches, layout.shape[0])
                rows = pa.Table.from_batches(batches)
                writer.write_table(_with_columns(rows, schema))
                num_scans += rows.num_rows
    codes, num_patients = _patient_codes(table)
    return {
        "scans": num_scans,
        "patients": num_patients,
        "mean": tally.mean,
        "std": tally.std,
        "content_hash": tally.content_hash(codes),
    }


def _small_batches(source: pa.NativeFile, columns: list[str]) -> list[pa.RecordBatch]:
    file = pa.ipc.open_file(source)
    names = [name for name in ("digest", "sums", *columns) if name in file.schema.names]
    return [file.get_batch(number).select(names) for number in range(file.num_record_batches)]


def _add(tally: ArchiveTally, batches: list[pa.RecordBatch], channels: int) -> None:
    for batch in batches:
        digests = b"".join(batch.column("digest").to_pylist())
        sums = batch.column("sums").flatten().to_numpy()
        tally.add(digests, sums.reshape(-1, num_sums(channels)))


def _with_columns(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Returns the columns of a schema, blank where there is none."""
    columns = [
        rows.column(name) if name in rows.column_names else pa.nulls(rows.num_rows, pa.string())
        for name in schema.names
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _patient_codes(table: Path) -> tuple[np.ndarray[Any, np.dtype[np.int64]], int]:
    """Returns the number of each scan's patient in the order of first appearance, and how many.

    Arrow numbers them; a million strings of Python would take a hundred bytes each.
    """
    column = pq.ParquetFile(table).read(columns=["patient"]).column("patient")
    encoded = column.combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), len(encoded.dictionary)


class ArchiveTally:
    """Puts the tallies of all scans together, in the order of the archive.

    Args:
        shape: Channels, rows and columns of every scan.
        dtype: uint8 or uint16.
    """

    def __init__(self, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> None:
        self._hash = hashlib.sha256(f"{shape} {dtype}".encode())
        self._channels = shape[0]
        self._sums = np.zeros(num_sums(shape[0]))

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


class ListWriter:
    """Streams lines into a CSV.

    Args:
        path: The CSV.
        columns: Its header.
        owner_only: Whether nobody but its owner may read it.
        keep_bytes: How much of what an earlier writer left there stays; None for nothing.
    """

    def __init__(
        self,
        path: Path,
        columns: tuple[str, ...],
        *,
        owner_only: bool = False,
        keep_bytes: int | None = None,
    ) -> None:
        flags = os.O_RDWR | os.O_CREAT | (os.O_TRUNC if keep_bytes is None else 0)
        descriptor = os.open(path, flags, 0o600 if owner_only else 0o666)
        os.ftruncate(descriptor, keep_bytes or 0)
        os.lseek(descriptor, 0, os.SEEK_END)
        self._file = os.fdopen(descriptor, "w", newline="", encoding="utf-8")
        # With the usual line ends, which a carriage return in a name is quoted for.
        self._lines = csv.writer(self._file)
        if keep_bytes is None:
            self.add(*columns)

    def add(self, *values: str) -> None:
        """Adds one line."""
        self._lines.writerow(values)

    def num_bytes(self) -> int:
        """Returns how long the file is so far, on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Writes what is left and closes the file."""
        self._file.close()

    def abort(self) -> None:
        """Closes the file, which will be removed."""
        # On a full disk the rest cannot be written either; nobody will read it.
        with contextlib.suppress(OSError):
            self._file.close()


def read_paths(archive: Path) -> dict[str, str]:
    """Returns the path of every file of an archive by its name.

    Raises:
        OSError: The list is not there or may not be read.
    """
    with (archive / PATHS_FILE).open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        next(rows)
        return {row[0]: row[1] for row in rows}


def table_schema(label_columns: tuple[str, ...]) -> pa.Schema:
    """Returns the columns of an archive's table."""
    names = ["scan_id", "patient", *(LABEL_PREFIX + column for column in label_columns)]
    return pa.schema([pa.field(name, pa.string()) for name in names])


def read_column(table: Path, name: str) -> np.ndarray[Any, np.dtype[np.object_]]:
    """Returns one column of an archive's table, ``[n]`` strings, None where blank."""
    # One file, named as such: the reader of data sets would guess columns from folder names.
    column = pq.ParquetFile(table).read(columns=[name]).column(name)
    values = np.empty(len(column), dtype=np.object_)
    values[:] = column.to_pylist()
    return values
