"""The list of scans: from a folder, a CSV or Parquet table, or the NIH table."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from scanlearn.core import ScanlearnError
from scanlearn.scans.files import SCAN_SUFFIXES, is_scan
from scanlearn.scans.tables import TABLE_SUFFIXES, find_column, find_required, read_table

PATH_COLUMNS = ("path", "file", "filename", "file_name", "image", "Image Index")
PATIENT_COLUMNS = ("patient_id", "patient", "subject_id", "Patient ID")
NIH_COLUMNS = ("Image Index", "Finding Labels")
# Rows that are looked for on disk before a folder is taken for the one that paths start from.
_PROBED_ROWS = 200


@dataclass(frozen=True)
class Manifest:
    """Which scans there are, whose they are and what a table says of them.

    Args:
        root: Folder that the paths are relative to.
        table: String columns ``path`` (posix, as given), ``patient`` and one per label; null
            where blank.
        label_columns: Names of the label columns.
        patients_known: False where no patient was given and every scan stands for its own.
        ignored: Endings of files in a folder that are no scans, and how many there are.
    """

    root: Path
    table: pa.Table
    label_columns: tuple[str, ...]
    patients_known: bool
    ignored: tuple[tuple[str, int], ...] = ()

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def rows(self) -> Iterator[tuple[str | None, str | None, dict[str, str | None]]]:
        """Yields path, patient and labels of each row, in order."""
        for batch in self.table.to_batches(max_chunksize=4096):
            paths, patients, *labels = (column.to_pylist() for column in batch.columns)
            for index, (path, patient) in enumerate(zip(paths, patients, strict=True)):
                values = (column[index] for column in labels)
                yield path, patient, dict(zip(self.label_columns, values, strict=True))

    def content_hash(self) -> str:
        """Returns the sha256 over all rows and the size and change time of every file."""
        digest = hashlib.sha256(repr((self.label_columns, self.patients_known)).encode())
        for path, patient, labels in self.rows():
            try:
                status = (self.root / path).stat() if path is not None else None
            except (OSError, ValueError):
                status = None
            stamp = (status.st_size, status.st_mtime_ns) if status else None
            digest.update(repr((path, patient, tuple(labels.values()), stamp)).encode())
        return digest.hexdigest()


def read_manifest(
    source: Path | str,
    *,
    path_column: str | None = None,
    patient_column: str | None = None,
    root: Path | str | None = None,
) -> Manifest:
    """Returns the scans that a folder tree or a table lists.

    In a folder every picture, DICOM file and volume is a scan, files without an ending by their
    content, and stands for its own patient unless it names one; hidden files are left out, and a
    table that lies there is not read. A table is a CSV or Parquet file with a row per
    scan; what is neither its path nor its patient column is a label and keeps its raw strings.
    The NIH ``Data_Entry`` table gets one more 0/1 column for each of its findings.

    Args:
        source: Folder, ``.csv``, ``.tsv`` or ``.parquet``.
        path_column: Column of a table that holds paths; None looks for a usual name.
        patient_column: Column of a table that names patients; None looks for a usual name.
        root: Folder that the paths in a table are relative to; None tries the table's own
            folder, its ``images`` folder, and then looks for the file names below it.

    Raises:
        ScanlearnError: There is nothing at ``source``, it lists no scan, a column is missing, or
            no path of the table leads to a file.
    """
    source = Path(source).expanduser()
    if source.is_dir():
        return _read_folder(source)
    if not source.exists():
        raise ScanlearnError(f"{source}: there is no such file or folder; check the path")
    if source.suffix.lower() not in TABLE_SUFFIXES:
        allowed = ", ".join(TABLE_SUFFIXES)
        raise ScanlearnError(
            f"{source}: is neither a folder of scans nor a table ({allowed}); give one of these"
        )
    table = read_table(source)
    paths_in = find_required(table, source, path_column, PATH_COLUMNS, "path_column")
    patients_in = (
        find_column(table, PATIENT_COLUMNS)
        if patient_column is None
        else find_required(table, source, patient_column, (), "patient_column")
    )
    if table.num_rows == 0:
        raise ScanlearnError(f"{source}: has a header but no row; give a table that lists scans")
    base, paths = _locate(table.column(paths_in), source, None if root is None else Path(root))
    patients = paths if patients_in is None else table.column(patients_in)
    labels = table.drop_columns([name for name in (paths_in, patients_in) if name is not None])
    if all(name in table.column_names for name in NIH_COLUMNS):
        labels = _with_findings(labels)
    columns = [paths, patients, *labels.columns]
    names = ["path", "patient", *labels.column_names]
    return Manifest(
        root=base,
        table=pa.Table.from_arrays([column.combine_chunks() for column in columns], names=names),
        label_columns=tuple(labels.column_names),
        patients_known=patients_in is not None,
    )


def _read_folder(folder: Path) -> Manifest:
    found: list[str] = []
    others: Counter[str] = Counter()
    for where, folders, files in os.walk(folder, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if name.startswith("."):
                continue
            path = (Path(where) / name).relative_to(folder).as_posix()
            suffix = Path(name).suffix.lower()
            if not _is_text(path):
                others["name that is not UTF-8"] += 1
            elif not is_scan(folder / path):
                others[suffix or "no ending"] += 1
            else:
                found.append(path)
    ignored = tuple(others.most_common())
    if not found:
        listed = ", ".join(f"{n} {suffix}" for suffix, n in ignored[:5]) or "nothing"
        raise ScanlearnError(
            f"{folder}: holds no scan ({listed} found); put {', '.join(SCAN_SUFFIXES)} files"
            " there or give the path of a table"
        )
    paths = pa.array(sorted(found), pa.string())
    table = pa.table({"path": paths, "patient": paths})
    return Manifest(folder, table, (), patients_known=False, ignored=ignored)


def _unreadable(error: OSError) -> None:
    reason = error.strerror or "not readable"
    raise ScanlearnError(
        f"{error.filename}: cannot be listed ({reason}); make the folder readable or leave it out"
    ) from error


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # A name too long, or with a NUL: no such file.
        return False


def _locate(
    column: pa.ChunkedArray, source: Path, root: Path | None
) -> tuple[Path, pa.ChunkedArray]:
    """Returns the folder that the paths of a table start from, and the paths from there."""
    folder = source.absolute().parent
    if root is not None and not root.is_dir():
        raise ScanlearnError(f"{root}: is not a folder; root is where the paths of a table start")
    bases = [folder, folder / "images"] if root is None else [root]
    probed = [path for path in column.slice(0, _PROBED_ROWS).to_pylist() if path]
    for base in bases:
        if any(_is_file(base / path) for path in probed):
            return base, column
    base = bases[0]
    below = _names_below(base)
    if any(Path(path).name in below for path in probed):
        # As ChestX-ray14 is unpacked: bare names in the table, files in images_001/images.
        found = [below.get(Path(path or "").name, path) for path in column.to_pylist()]
        return base, pa.chunked_array([pa.array(found, pa.string())])
    places = " and ".join(str(base) for base in bases)
    example = probed[0] if probed else "blank"
    raise ScanlearnError(
        f"{source}: none of its first {len(probed)} paths is a file in {places} (the first is"
        f" {example!r}); give root, the folder that the paths start from"
    )


def _names_below(folder: Path) -> dict[str, str]:
    """Returns the path of every scan below a folder by its bare name, if that is unique."""
    found: dict[str, str] = {}
    twice: set[str] = set()
    for where, _, files in os.walk(folder, onerror=_unreadable):
        for name in files:
            if _is_text(name) and is_scan(Path(where) / name):
                twice.update({name} & found.keys())
                found[name] = (Path(where) / name).relative_to(folder).as_posix()
    return {name: path for name, path in found.items() if name not in twice}


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
