"""What the shards of an archive hold together: its table, counts, statistics and hash."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanlearn.scans.rows import table_schema
from scanlearn.scans.shards import Layout
from scanlearn.scans.tally import ArchiveTally, num_sums


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
