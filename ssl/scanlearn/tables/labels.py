"""Which columns of a table are labels, and what they say of each scan."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from scanlearn.console import say
from scanlearn.tables.identifying import identifying_values, is_identifying
from scanlearn.tables.merge import Merged, merge_rows
from scanlearn.tables.reading import find_column, is_one_of

PATH_COLUMNS = ("path", "file", "filename", "file_name", "image", "Image Index")
PATIENT_COLUMNS = (
    *("patient_id", "patient", "subject_id", "Patient ID", "subject", "pat_id", "Pat. ID"),
)
NIH_COLUMNS = ("Image Index", "Finding Labels")


class Key(NamedTuple):
    """What a column may call scans by, and the usual names of such a column."""

    kind: str
    columns: tuple[str, ...]


# What is of fewer scans comes first: a table of instances names their patient, too.
KEYS = (
    Key("file", PATH_COLUMNS),
    Key("instance", ("SOPInstanceUID", "sop_uid", "instance_uid")),
    Key("series", ("SeriesInstanceUID", "series_uid")),
    Key("study", ("StudyInstanceUID", "study_uid")),
    Key("accession", ("AccessionNumber", "accession", "acc_no")),
    Key("patient", PATIENT_COLUMNS),
)


class TableLabels(NamedTuple):
    """Columns ``path``, ``patient`` and labels, a row per scan, and how they became so."""

    table: pa.Table
    withheld: Mapping[str, str]
    merged: Merged


def key_of(table: pa.Table) -> tuple[str, str] | None:
    """Returns what the first usual column of a table calls scans by, and its name."""
    found = ((key.kind, find_column(table, key.columns)) for key in KEYS)
    return next(((kind, name) for kind, name in found if name is not None), None)


def labels_by(table: pa.Table, source: Path, column: str, allowed: Sequence[str]) -> TableLabels:
    """Returns the labels of a table by the values of a column, which stand for its paths."""
    keys = pc.utf8_trim_whitespace(table.column(column))
    return labels_of(table, source, {column}, (keys, keys), np.arange(len(table)), allowed)


def labels_of(
    table: pa.Table,
    source: Path,
    dropped: Collection[str | None],
    paths_and_patients: tuple[pa.Array, pa.Array],
    numbers: Int64[np.ndarray, " n"],
    allowed: Sequence[str],
) -> TableLabels:
    """Returns what a table says of each scan; how many had several rows is told."""
    labels = table.drop_columns([name for name in dropped if name is not None])
    withheld = dict(_withheld(labels, frozenset(allowed)))
    paths, patients = paths_and_patients
    rows = labels.drop_columns(list(withheld)).add_column(0, "patient", patients)
    merged = merge_rows(rows.add_column(0, "path", paths), numbers)
    if merged.num_scans:
        joined = ", ".join(
            f"{name} ({each.num_scans:,})" for name, each in merged.conflicts.items()
        )
        say(
            f"{source.name}: scans with several rows, which were merged: {merged.num_scans:,}"
            + (f"; values that differ were joined, in scans: {joined}" if joined else "")
        )
    rows = merged.table
    if all(name in table.column_names for name in NIH_COLUMNS):
        rows = _with_findings(rows)
    return TableLabels(rows.combine_chunks(), withheld, merged)


def _withheld(labels: pa.Table, allowed: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yields the columns that may identify a person or a file, and what their values look like."""
    for name in labels.column_names:
        if name in allowed:
            continue
        if is_one_of(name, PATH_COLUMNS) or is_identifying(name):
            yield name, ""
        elif (looks_like := identifying_values(labels.column(name))) is not None:
            yield name, looks_like


def _with_findings(labels: pa.Table) -> pa.Table:
    """Returns the label columns and a 0/1 column for each finding, in alphabetical order."""
    rows = [
        None if value is None else {part.strip() for part in value.split("|")}
        for value in labels.column("Finding Labels").to_pylist()
    ]
    names = sorted(set().union(*(row for row in rows if row)) - {"", *labels.column_names})
    for name in names:
        values = [None if row is None else str(int(name in row)) for row in rows]
        labels = labels.append_column(name, pa.array(values, pa.string()))
    return labels
