"""The tables of an archive: who and what each scan is, in order, and which file it is from."""

from __future__ import annotations

import contextlib
import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# Label columns carry a prefix, since a user's table may have one called "patient" or "scan_id".
LABEL_PREFIX = "label:"
TABLE_FILE = "manifest.parquet"
PATHS_FILE = "paths.csv"
REJECTED_FILE = "rejected.csv"


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
