"""The list of scans: from a folder, a zip, tar or npz file, a CSV or Parquet table."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.archive.identity import is_shortened
from scanlearn.errors import ScanlearnError
from scanlearn.files import check_exists
from scanlearn.readers.containers import CONTAINER_SUFFIXES, stamp
from scanlearn.readers.limits import limited
from scanlearn.readers.readers import SCAN_SUFFIXES, list_rows
from scanlearn.readers.scan import Undecodable
from scanlearn.tables.labels import PATH_COLUMNS, PATIENT_COLUMNS, key_of, labels_of
from scanlearn.tables.listing import Listing, list_container, list_folder, scans_below
from scanlearn.tables.locate import locate
from scanlearn.tables.merge import FIRST_ROW, Merged
from scanlearn.tables.reading import TABLE_SUFFIXES, find_column, find_required, read_table
from scanlearn.tables.settings import TableSettings

# Cells of a column by which it is told whether it names files.
_LOOKED_AT = 50
# Looked for after these: names without ending, as of VinDr, ISIC and APTOS.
MORE_PATH_COLUMNS = ("image_path", "file_path", "image_file", "image_id", "image_name", "id_code")
FOLDER_COLUMN = "folder"
_PACKED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


class ManifestRow(NamedTuple):
    """One scan: its path and patient, None where blank, and its labels by column."""

    path: str | None
    patient: str | None
    labels: dict[str, str | None]


@dataclass(frozen=True)
class Manifest:
    """Which scans there are, whose they are and what a table says of them.

    Args:
        root: Folder that the paths are relative to.
        table: String columns ``path`` (posix, as given), ``patient`` and one per label; null
            where blank.
        patients_known: False where no patient was given and every scan stands for its own.
        ignored: Endings of files in a folder that are no scans, and how many there are.
        withheld: Columns of a table that are no labels, since they may name a person or a file,
            each with what its values look like; empty where its name says enough.
        refused: Paths that are set aside unread, and why.
        merged: What became of several rows of one scan.
    """

    root: Path
    table: pa.Table
    label_columns: tuple[str, ...]
    patients_known: bool
    ignored: tuple[tuple[str, int], ...] = ()
    withheld: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    merged: Merged | None = None

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def rows(self) -> Iterator[ManifestRow]:
        """Yields the rows in order."""
        for batch in self.table.to_batches(max_chunksize=4096):
            paths, patients, *labels = (column.to_pylist() for column in batch.columns)
            for index, (path, patient) in enumerate(zip(paths, patients, strict=True)):
                values = (column[index] for column in labels)
                by_name = dict(zip(self.label_columns, values, strict=True))
                yield ManifestRow(path, patient, by_name)

    def file(self, path: str | None) -> Path:
        """Returns where a row's file lies; the root, which is none, where it may not be read."""
        return self.root if path is None or path in self.refused else self.root / path

    def content_hash(self) -> str:
        """Returns the sha256 over all rows and the size and change time of every file."""
        digest = hashlib.sha256(repr((self.label_columns, self.patients_known)).encode())
        root = os.fspath(self.root)
        for path, patient, labels in self.rows():
            changed = None
            if path is not None and path not in self.refused:
                # Of strings: a million paths would take seconds to build.
                changed = stamp(os.path.join(root, path))  # noqa: PTH118
            digest.update(repr((path, patient, tuple(labels.values()), changed)).encode())
        return digest.hexdigest()


def read_manifest(
    source: Path | str,
    *,
    path_column: str | None = None,
    patient_column: str | None = None,
    patient_pattern: str | None = None,
    root: Path | str | None = None,
    sep: str | None = None,
    sheet: str | None = None,
    follow_links: bool = False,
    open_containers: bool = False,
    folder_labels: bool = False,
    allow_columns: Sequence[str] = (),
) -> Manifest:
    """Returns the scans that a folder tree, a zip, tar or MedMNIST npz file or a table lists.

    In a folder every file of a known format is a scan, files without an ending by their content,
    and stands for its own patient unless it names one; hidden files are left out, and a table that
    lies there is not read. In a table what is neither the path nor the patient column is a label
    and keeps its raw strings; several rows of one scan are made one (see `merge_rows`). The NIH
    ``Data_Entry`` table gets one more 0/1 column for each of its findings. The settings are those
    of `PackSettings`; which file a path means says `locate`.

    Args:
        source: Folder, ``.zip``, ``.tar``, ``.npz``, ``.csv``, ``.tsv``, ``.xlsx`` or ``.parquet``.

    Raises:
        ScanlearnError: There is nothing at ``source``, it lists no scan, a column is missing, or
            no path of the table leads to a file.
    """
    source = Path(source).expanduser()
    if source.is_dir():
        scans = list_folder(source, follow_links=follow_links, open_containers=open_containers)
        return _with_patients(_listed(scans, folder_labels=folder_labels), patient_pattern)
    check_exists(source)
    is_table = source.suffix.lower() in TABLE_SUFFIXES
    rows = None if is_table else list_rows(source)
    if folder_labels and (is_table or rows is not None):
        raise ScanlearnError(
            f"{source}: has labels of its own; leave out folder_labels, which is for a folder, a"
            " zip or a tar"
        )
    if is_table:
        asked = TableSettings(
            path_column=path_column,
            patient_column=patient_column,
            patient_pattern=patient_pattern,
            root=None if root is None else Path(root),
            sep=sep,
            sheet=sheet,
        )
        return _with_patients(_read_table(source, asked, allow_columns), patient_pattern)
    if rows is not None:
        table = rows.add_column(1, "patient", rows.column("path"))
        return Manifest(source, table, tuple(rows.column_names[1:]), patients_known=False)
    if source.suffix.lower() in CONTAINER_SUFFIXES:
        scans = list_container(source)
        return _with_patients(_listed(scans, folder_labels=folder_labels), patient_pattern)
    if source.name.lower().endswith(_PACKED_TARS):
        raise ScanlearnError(
            f"{source}: is a compressed tar, in which every scan would be read from the start;"
            " unpack it, or give a .tar or .zip"
        )
    if source.suffix.lower() in (".xls", ".ods"):
        raise ScanlearnError(
            f"{source}: is neither a folder of scans nor a table that can be read; save it as .xlsx"
            " or CSV"
        )
    allowed = ", ".join((*TABLE_SUFFIXES, *CONTAINER_SUFFIXES))
    raise ScanlearnError(
        f"{source}: is neither a folder of scans nor a table or container ({allowed}); give one of"
        " these"
    )


def _listed(scans: Listing, *, folder_labels: bool) -> Manifest:
    paths = scans.paths()
    table = pa.table({"path": paths, "patient": paths})
    if folder_labels:
        outside = paths.filter(pc.invert(pc.match_substring(paths, "/")))
        if len(outside):
            raise ScanlearnError(
                f"{scans.source}: {len(outside):,} of {len(paths):,} scans lie directly in it,"
                f" first {outside[0].as_py()}, but folder_labels takes the first folder as the"
                " class; move them into a folder, or leave out folder_labels"
            )
        folders = pc.list_element(pc.split_pattern(paths, "/", max_splits=1), 0)
        table = table.append_column(FOLDER_COLUMN, folders)
    return Manifest(
        root=scans.source,
        table=table,
        label_columns=tuple(table.column_names[2:]),
        patients_known=False,
        ignored=scans.ignored,
        refused=scans.refused,
    )


def _read_table(source: Path, asked: TableSettings, allowed: Sequence[str]) -> Manifest:
    table = read_table(source, sep=asked.sep, sheet=asked.sheet)
    usual = (*PATH_COLUMNS, *MORE_PATH_COLUMNS)
    key = key_without_files(table) if asked.path_column is None else None
    if key is not None:
        kind, column = key
        raise ScanlearnError(
            f"{source}: names scans by their {kind} ('{column}') and by no file, so it can only"
            " label scans that are packed: pack them (scanlearn pack FOLDER ARCHIVE), then name"
            " that archive as the table's root; or name the column of the files with path_column"
        )
    paths_in = find_required(table, source, asked.path_column, usual, "path_column")
    patients_in = None
    if asked.patient_column is not None:
        patients_in = find_required(table, source, asked.patient_column, (), "patient_column")
    elif asked.patient_pattern is None:
        patients_in = find_column(table, PATIENT_COLUMNS)
    if patients_in is not None:
        _refuse_shortened(table.column(patients_in), source)
    # Blank rows are no scans: spreadsheets are saved with many of them at the end.
    is_blank = reduce(pc.and_, (pc.is_null(column) for column in table.columns))
    numbers = np.flatnonzero(~np.asarray(is_blank))
    table = table.take(numbers)
    if table.num_rows == 0:
        raise ScanlearnError(f"{source}: has a header but no row; give a table that lists scans")
    cells = table.column(paths_in).to_pylist()
    base, located = locate(cells, source, asked.root, scans_below)
    paths = pa.array(located, pa.string())
    patients = paths if patients_in is None else table.column(patients_in)
    labels = labels_of(table, source, {paths_in, patients_in}, (paths, patients), numbers, allowed)
    return Manifest(
        root=base,
        table=labels.table,
        label_columns=tuple(labels.table.column_names[2:]),
        patients_known=patients_in is not None,
        withheld=labels.withheld,
        refused=labels.merged.refused,
        merged=labels.merged,
    )


def key_without_files(table: pa.Table) -> tuple[str, str] | None:
    """Returns what a reading list calls scans by, and that column; None where one names files."""
    usual = find_column(table, (*PATH_COLUMNS, *MORE_PATH_COLUMNS))
    return None if usual or any(map(_names_files, table.columns)) else key_of(table)


def _names_files(column: pa.ChunkedArray) -> bool:
    """Returns whether most values of a column end as files of scans do."""
    cells = [cell.strip().lower() for cell in column[:_LOOKED_AT].to_pylist() if cell]
    num_files = sum(1 for cell in cells if cell.endswith(SCAN_SUFFIXES))
    return num_files > len(cells) / 2


def _with_patients(manifest: Manifest, pattern: str | None) -> Manifest:
    """Returns a manifest whose patients are what a pattern finds in the paths.

    Raises:
        ScanlearnError: It finds none in a path, or would need hours.
    """
    if pattern is None:
        return manifest
    regex = re.compile(pattern)
    patients = []
    try:
        with limited():
            for path in manifest.table.column("path").to_pylist():
                match = None if path is None else regex.search(path)
                if path is not None and not (match and match[1]):
                    raise ScanlearnError(
                        f"patient_pattern {pattern!r} finds no patient in the path {path!r}; widen"
                        " it, or leave such files out"
                    )
                patients.append(match and match[1])
    except Undecodable as error:
        raise ScanlearnError(
            f"patient_pattern {pattern!r} {error}: it tries too many ways; avoid one repetition"
            " inside another, such as (a+)+"
        ) from error
    table = manifest.table.set_column(1, "patient", pa.array(patients, pa.string()))
    return replace(manifest, table=table, patients_known=True)


def _refuse_shortened(patients: pa.ChunkedArray, source: Path) -> None:
    # Many patients become one such number, and nothing can bring them back.
    shortened = (value for value in patients.unique().to_pylist() if value and is_shortened(value))
    number = next(shortened, None)
    if number is not None:
        row = pc.index(patients, number).as_py() + FIRST_ROW
        raise ScanlearnError(
            f"{source}: row {row}: patient {number!r} is a number that a spreadsheet has shortened,"
            " so that several patients may have become one; set that column to text in the table"
            " that it came from, and save it again"
        )
