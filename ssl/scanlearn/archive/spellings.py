"""Patients whose numbers agree but for how they are written: one person who counts as two."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64

from scanlearn.archive.reader import Archive
from scanlearn.errors import ScanlearnError

BUT_FOR = "leading zeros, a trailing .0, letter case or the like"
Rows = Int64[np.ndarray, " n"]


@dataclass(frozen=True)
class Respelled:
    """Patients that agree with another one, and a scan of the first of them and of that other.

    Args:
        scans: Their names.
        paths: Their paths where these are known, for the owner's eyes.
    """

    num_patients: int
    scans: tuple[str, str]
    paths: tuple[str, str]

    def told(self, *, is_owner: bool = True) -> str:
        """Returns how many there are and the first, in words."""
        return agreeing(self.num_patients, self.paths if is_owner else self.scans)


def agreeing(num_patients: int, first: Sequence[str]) -> str:
    """Returns how many patients agree with another, and the first two scans or numbers."""
    noun = "patient agrees" if num_patients == 1 else "patients agree"
    return (
        f"{num_patients:,} {noun} with another but for {BUT_FOR} of the number (first"
        f" {' and '.join(first)})"
    )


def has_spellings(archive: Archive) -> bool:
    """Returns whether an archive tells spellings of patients apart; those packed before do not."""
    table = pq.read_metadata(archive.table)
    names = table.schema.names
    if "spelling" not in names:
        return False
    at = names.index("spelling")
    groups = (table.row_group(number).column(at) for number in range(table.num_row_groups))
    # Scans that were added by this release to an archive of an earlier one do not make it whole.
    return all(
        group.statistics is not None and group.statistics.null_count < group.num_values
        for group in groups
    )


def spellings_of(archive: Archive, patients: Sequence[str]) -> set[str]:
    """Returns the spellings of some patients of an archive."""
    return {spelling for spelling, name, _ in _patients(archive, None) if name in {*patients}}


def patients_spelled(archive: Archive, spellings: Collection[str]) -> list[str]:
    """Returns the patients of an archive who have one of the spellings."""
    return [name for spelling, name, _ in _patients(archive, None) if spelling in spellings]


def respelled_within(archive: Archive, rows: Rows | None = None) -> Respelled | None:
    """Returns the patients of an archive that agree with an earlier one; None where none do."""
    by_spelling: dict[str, tuple[str, int]] = {}
    pairs = []
    for spelling, patient, row in _patients(archive, rows):
        known, first = by_spelling.setdefault(spelling, (patient, row))
        if known != patient:
            pairs.append((first, row))
    return _respelled(archive, archive, pairs)


def respelled_across(
    first: Archive, second: Archive, first_rows: Rows | None = None, rows: Rows | None = None
) -> Respelled | None:
    """Returns the patients of a second archive that agree with another one of a first."""
    by_spelling: dict[str, dict[str, int]] = defaultdict(dict)
    for spelling, patient, row in _patients(first, first_rows):
        by_spelling[spelling][patient] = row
    pairs = []
    for spelling, patient, row in _patients(second, rows):
        known = by_spelling.get(spelling, {})
        if known and patient not in known:
            pairs.append((min(known.values()), row))
    return _respelled(first, second, pairs)


def _respelled(first: Archive, second: Archive, pairs: list[tuple[int, int]]) -> Respelled | None:
    if not pairs:
        return None
    one, other = min(pairs, key=lambda pair: pair[1])
    scans = str(first.scan_ids[one]), str(second.scan_ids[other])
    try:
        paths = str(first.paths()[one]), str(second.paths()[other])
    except ScanlearnError:
        paths = scans
    return Respelled(len(pairs), scans, paths)


def _patients(archive: Archive, rows: Rows | None) -> list[tuple[str, str, int]]:
    """Returns spelling, name and first row of every patient with a number, in order."""
    file = pq.ParquetFile(archive.table)
    if "spelling" not in file.schema_arrow.names:
        return []
    table = file.read(columns=["spelling", "patient"])
    table = table.append_column("row", pa.array(np.arange(len(table))))
    table = table if rows is None else table.take(pa.array(rows))
    table = table.filter(table.column("spelling").is_valid())
    groups = table.group_by(["spelling", "patient"]).aggregate([("row", "min")])
    columns = (groups.column(name).to_pylist() for name in ("spelling", "patient", "row_min"))
    return sorted(zip(*columns, strict=True), key=lambda patient: patient[2])
