"""A table of labels without paths, joined to the scans of an archive by what they are called."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from scanlearn.archive.changes import identities_of
from scanlearn.archive.identity import Identities, source_name
from scanlearn.archive.layout import is_archive
from scanlearn.archive.lists import read_identifiers
from scanlearn.archive.reader import Archive
from scanlearn.console import say, warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.tables.labels import KEYS, key_of, labels_by
from scanlearn.tables.merge import MERGED
from scanlearn.tables.reading import TABLE_SUFFIXES, cell_text, find_required, read_table
from scanlearn.tables.settings import TableSettings

SERIES = "series"


class JoinedArchive(Archive):
    """An archive whose labels are those of a table."""

    def __init__(self, path: Path, columns: dict[str, np.ndarray[Any, np.dtype[Any]]]) -> None:
        super().__init__(path)
        self._columns = columns
        self.label_columns = tuple(columns)
        digest = hashlib.sha256(self.content_hash.encode())
        for name, values in columns.items():
            digest.update(repr((name, values.tolist())).encode())
        self.content_hash = digest.hexdigest()
        self.info = {**self.info, "notes": {**self.info.get("notes", {}), MERGED: len(self)}}

    def labels(self, column: str) -> np.ndarray[Any, np.dtype[np.object_]]:
        """Returns a column of the table, ``[n]``; None where it is blank, or has no such row."""
        return self._columns[column] if column in self._columns else super().labels(column)


def joined_archive(source: Path, settings: TableSettings) -> Path | None:
    """Returns the archive whose scans a table labels: its ``root``, if that is one.

    None for a folder or a container, whose files are scans themselves.
    """
    root = settings.root and settings.root.expanduser()
    is_table = source.suffix.lower() in TABLE_SUFFIXES and not source.is_dir()
    return root if root and is_table and is_archive(root) else None


def join_labels(
    source: Path,
    archive: Archive,
    settings: TableSettings,
    allowed: Sequence[str] = (),
    single: Collection[str] = (),
) -> JoinedArchive:
    """Returns an archive with the labels of a table, and says how many scans have some.

    The table has a column of paths, SOP, series or study instance UIDs, accession numbers or
    patients; the first that there is counts. A label of a study or a patient is that of all its
    scans.

    Args:
        allowed: Columns that are labels although they look as if they identified a person.
        single: Columns that must have one value for each of these.

    Raises:
        ScanlearnError: The table has no such column, the archive was not packed from files with
            such, or none of its values is in the archive.
    """
    table = read_table(source, sep=settings.sep, sheet=settings.sheet)
    kind, column = _key_of(table, source, settings)
    labels = labels_by(table, source, column, allowed)
    labels.merged.refuse_conflicts(source, single)
    identities = identities_of(archive, settings.issuer or source_name(source.absolute().parent))
    keys = labels.table.column("path").to_pylist()
    row_of = {
        _hashed(identities, kind, str(key)): row for row, key in enumerate(keys) if cell_text(key)
    }
    names = _names(archive, kind)
    rows = [next((row_of[name] for name in of if name in row_of), None) for of in names]
    joined = {row for row in rows if row is not None}
    if not joined:
        issuer = "; give the issuer= that it was packed with" if kind == "patient" else ""
        raise ScanlearnError(
            f"{source}: none of the {len(row_of):,} values of '{column}' is in {archive.path}"
            f"{issuer}, or name the column that is with path_column or patient_column"
        )
    num_joined = sum(row is not None for row in rows)
    whole = {"patient": "patient", "study": "study", "accession": "study"}.get(kind)
    say(
        f"{source.name}: joined to {archive.path} by '{column}': {num_joined:,} of"
        f" {len(archive):,} scans have a row"
        + (f"; a label of a {whole} is that of all its scans" if whole else "")
    )
    if len(joined) < len(row_of):
        warn_user(
            f"{source.name}: {len(row_of) - len(joined):,} of {len(row_of):,} values of '{column}'"
            f" are not in {archive.path}"
        )
    places = pa.array(rows, pa.int64())
    columns = {}
    for name in labels.table.column_names[2:]:
        values = np.empty(len(rows), dtype=np.object_)
        values[:] = labels.table.column(name).take(places).to_pylist()
        columns[name] = values
    return JoinedArchive(archive.path, columns)


def _key_of(table: pa.Table, source: Path, settings: TableSettings) -> tuple[str, str]:
    """Returns what kind of column scans are joined by, and its name."""
    for kind, setting, column in (
        ("file", "path_column", settings.path_column),
        ("patient", "patient_column", settings.patient_column),
    ):
        if column is not None:
            return kind, find_required(table, source, column, (), setting)
    found = key_of(table)
    if found is not None:
        return found
    usual = ", ".join(key.columns[0] for key in KEYS[1:-1])
    raise ScanlearnError(
        f"{source}: has no column by which labels can be joined to scans ({usual}); name that of"
        " the patients with patient_column, or that of the paths with path_column"
    )


def _hashed(identities: Identities, kind: str, value: str) -> str:
    if kind == "file":
        return identities.file(value)
    if kind == "series":
        return identities.series(value.strip())
    return identities.patient(value) if kind == "patient" else identities.identifier(kind, value)


def _names(archive: Archive, kind: str) -> list[list[str]]:
    """Returns the hashes by which each scan of an archive may be called."""
    if kind == "patient":
        return [[name] for name in archive.patients.tolist()]
    if kind == "series" and SERIES in archive.label_columns:
        return [[name] if name else [] for name in archive.labels(SERIES).tolist()]
    files = [name.partition("#")[0] for name in archive.scan_ids.tolist()]
    if kind == "file":
        return [[name] for name in files]
    try:
        identifiers = read_identifiers(archive.path)
    except OSError:
        identifiers = {}
    names = [identifiers.get(name, []) for name in files]
    if not any(names):
        raise ScanlearnError(
            f"{archive.path}: keeps no {kind} of its scans (they are from no DICOM files, were"
            " packed by an earlier release, or paths.csv is missing); pack them again, or join by"
            " patient with patient_column"
        )
    return names
