"""Long tables, a row per finding or box: the rows of each scan made one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from scanlearn.errors import ScanlearnError
from scanlearn.tables.reading import cell_text, is_list, split_list

# How `archive.json` calls a column with several values of a scan, among its notes.
JOINED = "several values joined in column"
MERGED = "several rows in the table"
# As a spreadsheet counts rows: the header of a table is its row 1.
FIRST_ROW = 2


class Conflict(NamedTuple):
    """Scans whose rows differ in a column that lists nothing, and two rows of the first scan."""

    num_scans: int
    path: str
    rows: tuple[int, int]
    values: tuple[str, str]

    def in_words(self, column: str) -> str:
        """Returns which rows contradict each other, and what to do, after the table's name."""
        (one, other), (first, second) = self.rows, self.values
        return (
            f"rows {one} and {other}: '{column}' of scan {self.path} is '{first}' and '{second}'"
            f" ({self.num_scans:,} such {'scan' if self.num_scans == 1 else 'scans'}); correct"
            " them, or give multilabel=true if a scan may have several"
        )


@dataclass(frozen=True)
class Merged:
    """A table with one row per scan.

    Args:
        table: Columns ``path``, ``patient`` and labels; values that differ are joined by ``|``.
        num_scans: Scans that had several rows.
        conflicts: By column.
        refused: Scans that their rows give to different patients, and which rows.
    """

    table: pa.Table
    num_scans: int = 0
    conflicts: Mapping[str, Conflict] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def notes(self) -> dict[str, int]:
        """What an archive keeps of this: in how many scans."""
        joined = {f"{JOINED} {name}": each.num_scans for name, each in self.conflicts.items()}
        return {MERGED: self.num_scans, **joined} if self.num_scans else {}

    def refuse_conflicts(self, source: Path, columns: Collection[str]) -> None:
        """Raises a ScanlearnError where one of some columns has several values of a scan."""
        for column in columns:
            if column in self.conflicts:
                raise ScanlearnError(f"{source.name} {self.conflicts[column].in_words(column)}")


def merge_rows(table: pa.Table, numbers: Int64[np.ndarray, " n"]) -> Merged:
    """Returns a table with one row for each path, in the order of their first rows.

    A blank agrees with everything, and ``1`` with ``1.0``.

    Args:
        table: Columns ``path``, ``patient`` and labels.
        numbers: ``[n]`` row of each in the file, from 0.
    """
    paths = table.column(0).to_pylist()
    rows_of: dict[str, list[int]] = {}
    for row, path in enumerate(paths):
        if path is not None:
            rows_of.setdefault(str(PurePosixPath(path)), []).append(row)
    groups = [rows for rows in rows_of.values() if len(rows) > 1]
    if not groups:
        return Merged(table)
    refused: dict[str, str] = {}
    conflicts: dict[str, Conflict] = {}
    columns = [table.column(0)]
    for number, name in enumerate(table.column_names[1:], 1):
        values = table.column(number).to_pylist()
        lists = any(is_list(value.strip()) for value in values if value)
        differing = []
        for rows in groups:
            distinct = _distinct(values, rows, is_patient=number == 1)
            texts = [values[row].strip() for row in distinct]
            if distinct:
                values[rows[0]] = values[distinct[0]]
            if len(distinct) > 1:
                one, other = (int(numbers[row]) + FIRST_ROW for row in distinct[:2])
                differing.append(Conflict(0, paths[rows[0]], (one, other), (texts[0], texts[1])))
                if number > 1:
                    parts = (part for text in texts for part in split_list(text))
                    values[rows[0]] = "|".join(dict.fromkeys(parts))
        if number == 1:
            refused = {
                path: f"rows {one} and {other} of the table give it to different patients"
                for _, path, (one, other), _ in differing
            }
        elif differing and not lists:
            conflicts[name] = differing[0]._replace(num_scans=len(differing))
        columns.append(pa.chunked_array([pa.array(values, pa.string())]))
    is_first = np.ones(len(paths), np.bool_)
    is_first[[row for rows in groups for row in rows[1:]]] = False
    merged = pa.Table.from_arrays(columns, names=table.column_names).filter(pa.array(is_first))
    return Merged(merged, len(groups), conflicts, refused)


def _distinct(values: Sequence[str | None], rows: Sequence[int], *, is_patient: bool) -> list[int]:
    """Returns the first row of each value among some rows, without blanks."""
    first: dict[str | float, int] = {}
    for row in rows:
        text = cell_text(values[row])
        if text is not None:
            first.setdefault(text if is_patient else _number(text), row)
    return list(first.values())


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text
