"""What a source holds, told from headers alone: looked at before it is packed."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np

from scanlearn.console import counted
from scanlearn.packing.filters import Selection, make_selection
from scanlearn.packing.headers import read_headers
from scanlearn.packing.pack import manifest_of
from scanlearn.packing.parallel import num_cores
from scanlearn.packing.settings import PackSettings
from scanlearn.readers.scan import Header
from scanlearn.tables.manifest import Manifest, ManifestRow

TAGS = ("Modality", "BodyPartExamined", "ViewPosition", "SeriesDescription", "ImageType")
_IDENTIFIERS = ("IssuerOfPatientID", "PatientID", "SeriesInstanceUID")
_NONE = "(none)"
# Of a column with more values than this the further ones are counted together: a million files
# with a description each must not fill the memory.
_COUNTED_VALUES = 4096
_NAME_WIDTH, _VALUE_WIDTH, _NUMBER_WIDTH = 24, 40, 10


class _Column:
    """How often each value occurs: in files, in scans, in scans that are kept."""

    def __init__(self) -> None:
        self.counts: dict[str, tuple[int, int, int]] = {}
        self._rest = (0, 0, 0)

    def add(self, value: str, num_scans: int = 0, num_kept: int = 0) -> None:
        """Counts one file."""
        is_counted = value in self.counts or len(self.counts) < _COUNTED_VALUES
        files, scans, kept = self.counts.get(value, (0, 0, 0)) if is_counted else self._rest
        total = files + 1, scans + num_scans, kept + num_kept
        if is_counted:
            self.counts[value] = total
        else:
            self._rest = total

    def rows(self, most: int = 8) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yields the commonest values, and all others in one."""
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1][0], item[0]))
        # One value more takes no more room than the words "1 other".
        num_shown = most + (len(ordered) == most + 1 and not any(self._rest))
        yield from ordered[:num_shown]
        others = [counts for _, counts in ordered[num_shown:]]
        if others or any(self._rest):
            more = "more than " if any(self._rest) else ""
            total = tuple(sum(part) for part in zip(*others, self._rest, strict=True))
            yield f"{more}{len(others):,} others", total


class _Table:
    """Counts files as their headers pass by; what it keeps of one is 16 bytes."""

    def __init__(self, manifest: Manifest, selection: Selection) -> None:
        self._manifest, self._selection = manifest, selection
        names = ("kind of file", *TAGS, *selection.names, "rows x columns", "bits", "frames")
        self._columns = {name: _Column() for name in names}
        self._patients, self._series = array("Q"), array("Q")
        self._scans = self._scans_kept = self._files_kept = self._nameless = 0
        self._unreadable = _Column()
        self._example: dict[str, str] = {}
        self._left_out: Counter[str] = Counter()

    def add(self, row: ManifestRow, header: Header | str) -> None:
        """Counts one file, or the reason why it cannot be read."""
        tags = None if isinstance(header, str) else header.tags
        left_out_by = self._selection.left_out_by(row.labels, tags)
        if left_out_by is not None:
            self._left_out[left_out_by] += 1
        if isinstance(header, str):
            if left_out_by is None:
                self._unreadable.add(header)
                if header in self._unreadable.counts:
                    self._example.setdefault(header, PurePath(row.path or "").name)
            return
        num_kept = header.num_frames if left_out_by is None else 0
        self._files_kept += left_out_by is None
        self._scans += header.num_frames
        self._scans_kept += num_kept
        from_header = {
            "kind of file": header.kind,
            "rows x columns": f"{header.size[0]} x {header.size[1]}",
            "bits": str(header.bits),
            "frames": str(header.num_frames),
        }
        for name, column in self._columns.items():
            values = self._selection.values(name, row.labels, header.tags)
            value = from_header.get(name) or "\\".join(values) or _NONE
            column.add(value, header.num_frames, num_kept)
        issuer, number, series = (header.tags.get(name, ("",))[0] for name in _IDENTIFIERS)
        in_file = number and f"{issuer}/{number}"
        patient = row.patient if self._manifest.patients_known else in_file
        if patient:
            self._patients.append(_hashed(patient))
        else:
            self._nameless += 1
        if series:
            self._series.append(_hashed(series))

    def text(self) -> str:
        """Returns all of it for a person's eyes."""
        lines = [f"{self._manifest.root}: {self._headline()}", "", *self._table_lines()]
        if self._selection.rules:
            total = sum(self._left_out.values())
            lines += ["", f"The filter leaves out {counted(total, 'file')}:"]
            lines += [f"{n:>11,}  {setting}" for setting, n in sorted(self._left_out.items())]
            files = counted(self._files_kept, "file")
            lines += [f"{counted(self._scans_kept, 'scan')} in {files} are kept."]
        unreadable = [(files, reason) for reason, (files, *_) in self._unreadable.rows(most=16)]
        if unreadable:
            lines += ["", f"{counted(sum(n for n, _ in unreadable), 'file')} cannot be read:"]
            for num_files, reason in unreadable:
                name = self._example.get(reason)
                which = name if num_files == 1 else f"such as {name}"
                lines.append(f"{num_files:>11,}  {reason}{f' ({which})' if name else ''}")
        if self._manifest.ignored:
            kinds = (f"{n:,} {suffix}" for suffix, n in self._manifest.ignored[:8])
            lines += ["", f"Files that are not scans: {', '.join(kinds)}"]
        if self._manifest.label_columns:
            lines += ["", f"Columns of the table: {', '.join(self._manifest.label_columns)}"]
        lines += ["", "Nothing was written."]
        # A description may hold anything, commands to the terminal among it.
        return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)

    def _headline(self) -> str:
        patients, series = (
            len(np.unique(np.frombuffer(hashes, np.uint64))) if hashes else 0
            for hashes in (self._patients, self._series)
        )
        nameless = counted(self._nameless, "file")
        unknown = f" ({nameless} without a patient)" if self._nameless else ""
        return (
            f"{counted(len(self._manifest), 'file')}, {counted(self._scans, 'scan')},"
            f" {counted(patients, 'patient')}{unknown}, {series:,} series"
        )

    def _table_lines(self) -> Iterator[str]:
        titles = ("files", "scans", "kept") if self._selection.rules else ("files", "scans")
        yield _line("", "", titles)
        for name, column in self._columns.items():
            # A tag that no file has is one line less to read, unless a filter asks for it.
            if set(column.counts) <= {_NONE} and name not in self._selection.names:
                continue
            for number, (value, counts) in enumerate(column.rows()):
                numbers = tuple(f"{count:,}" for count in counts[: len(titles)])
                yield _line("" if number else name, value, numbers)


def tabulate(source: Path | str, *, settings: PackSettings | None = None) -> str:
    """Returns a table of what a source holds, from headers alone; writes nothing.

    File formats, modalities, body parts, views, series, sizes and depths with their numbers of
    files and scans, what cannot be read, and what the filter of the settings would leave out.
    Descriptions of series can hold names: the text is for the terminal.

    Raises:
        ScanlearnError: The source cannot be used, or the filter asks for something unknown.

    Example:
        >>> print(tabulate("scans"))                               # doctest: +SKIP
    """
    settings = settings or PackSettings()
    manifest = manifest_of(source, settings)
    selection = make_selection(settings.keep, settings.drop, manifest.label_columns)
    wanted = dict.fromkeys((*TAGS, *selection.tags, *_IDENTIFIERS))
    read = replace(settings.reading(), tags=tuple(wanted))
    workers = settings.workers or num_cores()
    table = _Table(manifest, selection)
    with closing(read_headers(manifest, read, workers=workers)) as headers:
        for row, header in headers:
            table.add(row, header)
    return table.text()


def _hashed(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _line(name: str, value: str, numbers: tuple[str, ...]) -> str:
    counts = "".join(f"{number:>{_NUMBER_WIDTH}}" for number in numbers)
    return f"{_fitted(name, _NAME_WIDTH)}  {_fitted(value, _VALUE_WIDTH)}{counts}"


def _fitted(text: str, width: int) -> str:
    return (text if len(text) <= width else text[: width - 3] + "...").ljust(width)
