"""The table of an archive, ``manifest.parquet``: who and what each scan is, in order."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# Label columns carry a prefix, since a user's table may have one called "patient" or "scan_id".
LABEL_PREFIX = "label:"
SCANS_PER_ROW_GROUP = 4096


class TableWriter:
    """Streams scan ids, patients and raw labels into a Parquet file.

    Args:
        path: The file.
        label_columns: Names of the label columns.
    """

    def __init__(self, path: Path, label_columns: tuple[str, ...]) -> None:
        self._labels = label_columns
        names = ["scan_id", "patient", *(LABEL_PREFIX + column for column in label_columns)]
        self._schema = pa.schema([pa.field(name, pa.string()) for name in names])
        self._writer = pq.ParquetWriter(path, self._schema)
        self._rows: list[tuple[str | None, ...]] = []
        self._patients: set[str] = set()
        self.num_scans = 0

    @property
    def num_patients(self) -> int:
        """Distinct patients so far."""
        return len(self._patients)

    def add(self, scan_id: str, patient: str, labels: Mapping[str, str | None]) -> None:
        """Adds one row."""
        values = tuple(labels.get(column) for column in self._labels)
        self._rows.append((scan_id, patient, *values))
        self._patients.add(patient)
        self.num_scans += 1
        if len(self._rows) == SCANS_PER_ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Writes what is left and closes the file."""
        if self._rows:
            self._flush()
        self._writer.close()

    def abort(self) -> None:
        """Closes the file without writing what is left; it will be removed."""
        self._rows.clear()
        # On a full disk the footer cannot be written either; nobody will read it.
        with contextlib.suppress(OSError):
            self._writer.close()

    def _flush(self) -> None:
        columns = zip(*self._rows, strict=True)
        arrays = [pa.array(column, pa.string()) for column in columns]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows.clear()


def read_column(archive: Path, name: str) -> np.ndarray[Any, np.dtype[np.object_]]:
    """Returns one column of an archive's table, ``[n]`` strings, None where blank."""
    # One file, named as such: the reader of data sets would guess columns from folder names.
    table = pq.ParquetFile(archive / "manifest.parquet").read(columns=[name])
    values = np.empty(table.num_rows, dtype=np.object_)
    values[:] = table.column(name).to_pylist()
    return values
