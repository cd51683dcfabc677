"""The list of scans: from a folder, a zip, tar or npz file, a CSV or Parquet table."""

from __future__ import annotations

import hashlib
import heapq
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from scanlearn.archive.identity import is_shortened
from scanlearn.console import say
from scanlearn.errors import ScanlearnError
from scanlearn.files import check_exists
from scanlearn.readers.containers import (
    CONTAINER_SUFFIXES,
    as_text,
    open_container,
    stamp,
)
from scanlearn.readers.limits import limited
from scanlearn.readers.nifti import second_files
from scanlearn.readers.readers import SCAN_SUFFIXES, is_scan, list_rows, may_be_scan
from scanlearn.readers.scan import Undecodable
from scanlearn.tables.identifying import identifying_values, is_identifying
from scanlearn.tables.locate import locate
from scanlearn.tables.merge import Merged, merge_rows
from scanlearn.tables.reading import (
    TABLE_SUFFIXES,
    find_column,
    find_required,
    is_one_of,
    read_table,
)
from scanlearn.tables.settings import TableSettings

PATH_COLUMNS = ("path", "file", "filename", "file_name", "image", "Image Index")
# Looked for after these: names without ending, as of VinDr, ISIC and APTOS.
MORE_PATH_COLUMNS = ("image_path", "file_path", "image_file", "image_id", "image_name", "id_code")
PATIENT_COLUMNS = ("patient_id", "patient", "subject_id", "Patient ID")
NIH_COLUMNS = ("Image Index", "Finding Labels")
FOLDER_COLUMN = "folder"
_PACKED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_PATHS_PER_CHUNK = 2**16
_ENDING = re.compile(r"[.\w -]{1,12}")
_LEADS_OUT = "is a link to a file outside the source; set follow_links=true to follow it"
_PART_LEADS_OUT = "has a part in another file, which {}"
_NOT_UTF_8 = "has a name that is not UTF-8; rename it"
# A packed archive below a folder holds a picture of its own, a sheet of scans that lie elsewhere.
_OF_AN_ARCHIVE = ("archive.json", "shards")


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
        scans = _list_folder(source, follow_links=follow_links, open_containers=open_containers)
        return _with_patients(scans.manifest(folder_labels=folder_labels), patient_pattern)
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
        scans = _list_container(source)
        return _with_patients(scans.manifest(folder_labels=folder_labels), patient_pattern)
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


def _read_table(source: Path, asked: TableSettings, allowed: Sequence[str]) -> Manifest:
    table = read_table(source, sep=asked.sep, sheet=asked.sheet)
    usual = (*PATH_COLUMNS, *MORE_PATH_COLUMNS)
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
    base, located = locate(cells, source, asked.root, _scans_below)
    paths = pa.array(located, pa.string())
    patients = paths if patients_in is None else table.column(patients_in)
    labels = _labels(table, source, {paths_in, patients_in}, (paths, patients), numbers, allowed)
    return Manifest(
        root=base,
        table=labels.table,
        label_columns=tuple(labels.table.column_names[2:]),
        patients_known=patients_in is not None,
        withheld=labels.withheld,
        refused=labels.merged.refused,
        merged=labels.merged,
    )


class TableLabels(NamedTuple):
    """Columns ``path``, ``patient`` and labels, a row per scan, and how they became so."""

    table: pa.Table
    withheld: Mapping[str, str]
    merged: Merged


def labels_by(table: pa.Table, source: Path, column: str, allowed: Sequence[str]) -> TableLabels:
    """Returns the labels of a table by the values of a column, which stand for its paths."""
    keys = pc.utf8_trim_whitespace(table.column(column))
    return _labels(table, source, {column}, (keys, keys), np.arange(len(table)), allowed)


def _labels(
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
        row = pc.index(patients, number).as_py() + 2
        raise ScanlearnError(
            f"{source}: row {row}: patient {number!r} is a number that a spreadsheet has shortened,"
            " so that several patients may have become one; set that column to text in the table"
            " that it came from, and save it again"
        )


def _scans_below(folder: Path) -> Iterator[str]:
    for path, entry in walk(folder):
        if as_text(path) == path and is_scan(Path(entry.path)):
            yield path


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


class _Lister:
    """Collects paths; those of a million scans are held as bytes, not as objects."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._chunks: list[pa.Array] = []
        self._paths: list[str] = []
        self._refused: dict[str, str] = {}
        self._ignored: Counter[str] = Counter()

    def add(self, path: str) -> None:
        self._paths.append(path)
        if len(self._paths) == _PATHS_PER_CHUNK:
            self._chunks.append(pa.array(self._paths, pa.string()))
            self._paths.clear()

    def refuse(self, path: str, reason: str) -> None:
        while path in self._refused:
            path += " (again)"
        self._refused[path] = reason
        self.add(path)

    def add_if_scan(self, path: str, file: Path) -> None:
        if is_scan(file):
            self.add(path)
        else:
            suffix = PurePosixPath(path).suffix.lower() or "no ending"
            # It is printed: control characters and HTML are no ending.
            self._ignored[suffix if _ENDING.fullmatch(suffix) else "other endings"] += 1

    def add_members(self, container: Path, start: str) -> None:
        """Takes what a container holds, below ``start``; one that cannot be opened is refused."""
        try:
            rows = list_rows(container)
            opened = open_container(container) if rows is None else None
        except (Undecodable, ScanlearnError) as error:
            self.refuse(start.rstrip("/"), str(error).replace(f"{container}: ", ""))
            return
        for path in () if rows is None else rows.column("path").to_pylist():
            self.add(start + path)
        if opened is not None:
            for name in opened.members:
                self.add_if_scan(start + name, container / name)
            for name, reason in opened.refused:
                again = " (again)" if name in opened.members else ""
                self.refuse(f"{start}{name}{again}", reason)

    def manifest(self, *, folder_labels: bool) -> Manifest:
        paths = pa.chunked_array([*self._chunks, pa.array(self._paths, pa.string())])
        ignored = tuple(self._ignored.most_common())
        if len(paths) == 0:
            present = ", ".join(f"{n} {suffix}" for suffix, n in ignored[:5]) or "nothing"
            raise ScanlearnError(
                f"{self._source}: contains no scans (found: {present}); give a folder with files"
                f" of a supported format ({', '.join(SCAN_SUFFIXES)}) or a table"
            )
        paths = paths.take(pc.sort_indices(paths))
        table = pa.table({"path": paths, "patient": paths})
        if folder_labels:
            outside = paths.filter(pc.invert(pc.match_substring(paths, "/")))
            if len(outside):
                raise ScanlearnError(
                    f"{self._source}: {len(outside):,} of {len(paths):,} scans lie directly in it,"
                    f" first {outside[0].as_py()}, but folder_labels takes the first folder as the"
                    " class; move them into a folder, or leave out folder_labels"
                )
            folders = pc.list_element(pc.split_pattern(paths, "/", max_splits=1), 0)
            table = table.append_column(FOLDER_COLUMN, folders)
        return Manifest(
            root=self._source,
            table=table,
            label_columns=tuple(table.column_names[2:]),
            patients_known=False,
            ignored=ignored,
            refused=self._refused,
        )


def _list_folder(folder: Path, *, follow_links: bool, open_containers: bool) -> _Lister:
    """Returns the scans below a folder; hidden files and folders are left out."""
    scans = _Lister(folder)
    base = os.path.join(os.path.realpath(folder), "")  # noqa: PTH118 - a string, ended by a slash
    for path, entry in walk(folder, follow_links=follow_links):
        is_container = path.lower().endswith(CONTAINER_SUFFIXES)
        leads_out = (
            not follow_links
            and entry.is_symlink()
            and not f"{os.path.realpath(entry.path)}/".startswith(base)
        )
        if _is_folder(entry):  # A link to one: what lies in the tree is listed where it lies.
            if leads_out:
                scans.refuse(as_text(path), _LEADS_OUT)
        elif as_text(path) != path and (is_container or may_be_scan(entry.name)):
            # The bytes stand as escapes, which might be another file's name.
            scans.refuse(f"{as_text(path)} (escaped)", _NOT_UTF_8)
        elif leads_out and may_be_scan(entry.name):
            scans.refuse(path, _LEADS_OUT)
        elif is_container and open_containers and not leads_out:
            scans.add_members(Path(entry.path), f"{path}/")
        elif entry.name.lower().endswith(SCAN_SUFFIXES):
            others = () if follow_links else second_files(Path(entry.path))
            if any(not f"{os.path.realpath(other)}/".startswith(base) for other in others):
                scans.refuse(path, _PART_LEADS_OUT.format(_LEADS_OUT))
            else:
                scans.add(path)
        else:
            scans.add_if_scan(path, Path(entry.path))
    return scans


def _list_container(container: Path) -> _Lister:
    """Returns the scans in a zip or tar archive; hidden members are left out."""
    try:
        open_container(container)
    except Undecodable as error:
        raise ScanlearnError(f"{container}: {error}; download it again, or unpack it") from error
    scans = _Lister(container)
    scans.add_members(container, "")
    return scans


def walk(folder: Path, *, follow_links: bool = False) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yields path and entry of every file below a folder, and of links to folders not followed.

    Each folder is listed once, whatever links lead to it: first where it lies.

    Raises:
        ScanlearnError: A folder may not be read.
    """
    real, linked = [("", os.fspath(folder))], list[tuple[str, str]]()
    seen: set[tuple[int, int]] = set()
    while real or linked:
        start, where = real.pop() if real else heapq.heappop(linked)
        try:
            status = Path(where).stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            if start and all((Path(where) / name).exists() for name in _OF_AN_ARCHIVE):
                continue
            with os.scandir(where) as entries:
                for entry in entries:
                    path = start + entry.name
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        real.append((f"{path}/", entry.path))
                    elif follow_links and entry.is_symlink() and _is_folder(entry):
                        heapq.heappush(linked, (f"{path}/", entry.path))
                    else:
                        yield path, entry
        except OSError as error:
            reason = error.strerror or "not readable"
            raise ScanlearnError(
                f"{where}: cannot be listed ({reason}); make the folder readable or leave it out"
            ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link to itself, or into a folder that may not be read.
        return False
