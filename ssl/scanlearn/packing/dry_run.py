"""What a source holds, told from headers alone: looked at before it is packed."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from scanlearn.console import track
from scanlearn.packing.filters import Labels, Selection, make_selection
from scanlearn.packing.headers import read_headers
from scanlearn.packing.manifest import Manifest
from scanlearn.packing.pack import manifest_of
from scanlearn.packing.parallel import num_cores
from scanlearn.packing.settings import PackSettings
from scanlearn.readers.scan import Header

TAGS = ("Modality", "BodyPartExamined", "ViewPosition", "SeriesDescription", "ImageType")
_IDENTIFIERS = ("IssuerOfPatientID", "PatientID", "SeriesInstanceUID")
_NONE = "(none)"
_SHOWN_VALUES = 8
# Of a column with more values than this the further ones are counted together: a million files
# with a description each must not fill the memory.
_COUNTED_VALUES = 4096
_NAME_WIDTH, _VALUE_WIDTH, _NUMBER_WIDTH = 24, 40, 10


@dataclass
class _Column:
    """How often each value of a column occurs: in files, in scans, in scans that stay."""

    counts: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    rest: tuple[int, int, int] = (0, 0, 0)

    def add(self, value: str, num_scans: int, num_kept: int) -> None:
        """Counts one file."""
        known = value in self.counts or len(self.counts) < _COUNTED_VALUES
        files, scans, kept = self.counts.get(value, (0, 0, 0)) if known else self.rest
        total = files + 1, scans + num_scans, kept + num_kept
        if known:
            self.counts[value] = total
        else:
            self.rest = total

    def rows(self) -> Iterator[tuple[str, tuple[int, int, int]]]:
        """Yields the commonest values, and all others in one."""
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1][0], item[0]))
        # One value more takes no more room than the words "1 other".
        shown = _SHOWN_VALUES + (len(ordered) == _SHOWN_VALUES + 1 and not any(self.rest))
        yield from ordered[:shown]
        others = [counts for _, counts in ordered[shown:]]
        if others or any(self.rest):
            files, scans, kept = (sum(part) for part in zip(*others, self.rest, strict=True))
            more = "more than " if any(self.rest) else ""
            yield f"{more}{len(others):,} others", (files, scans, kept)


class _Table:
    """Counts files as their headers pass by; what it keeps of one is 16 bytes."""

    def __init__(self, manifest: Manifest, selection: Selection) -> None:
        self._manifest, self._selection = manifest, selection
        extra = (name for name in selection.names if name not in TAGS)
        self._columns = {name: _Column() for name in ("kind of file", *TAGS, *extra)}
        self._columns |= {name: _Column() for name in ("rows x columns", "bits", "frames")}
        self._patients, self._series = array("Q"), array("Q")
        self._scans = self._scans_kept = self._files_kept = self._nameless = 0
        self._unreadable: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def add(self, patient: str | None, labels: Labels, header: Header | str) -> None:
        """Counts one file, or the reason why it cannot be read."""
        tags = None if isinstance(header, str) else header.tags
        reason = self._selection.left_out_by(labels, tags)
        if reason is not None:
            self._left_out[reason] += 1
        if isinstance(header, str):
            known = header in self._unreadable or len(self._unreadable) < _COUNTED_VALUES
            self._unreadable[header if known else "other reasons"] += reason is None
            return
        num_kept = header.num_frames if reason is None else 0
        self._files_kept += reason is None
        self._scans += header.num_frames
        self._scans_kept += num_kept
        values = {name: self._selection.values(name, labels, header.tags) for name in self._columns}
        shown = {name: "\\".join(value) for name, value in values.items()} | {
            "kind of file": header.kind,
            "rows x columns": f"{header.size[0]} x {header.size[1]}",
            "bits": str(header.bits),
            "frames": str(header.num_frames),
        }
        for name, column in self._columns.items():
            column.add(shown[name] or _NONE, header.num_frames, num_kept)
        self._count_identifiers(patient, header)

    def _count_identifiers(self, patient: str | None, header: Header) -> None:
        issuer, number, series = (header.tags.get(name, ("",))[0] for name in _IDENTIFIERS)
        whose = (
            (patient or "") if self._manifest.patients_known else number and f"{issuer}/{number}"
        )
        if whose:
            self._patients.append(_hashed(whose))
        else:
            self._nameless += 1
        if series:
            self._series.append(_hashed(series))

    def text(self) -> str:
        """Returns all of it for a person's eyes."""
        lines = [f"{self._manifest.root}: {self._headline()}", "", *self._table_lines()]
        if self._selection.rules:
            total = sum(self._left_out.values())
            lines += ["", f"The filter leaves out {_counted(total, 'file')}:"]
            lines += [f"{n:>11,}  {_plain(where)}" for where, n in sorted(self._left_out.items())]
            files = _counted(self._files_kept, "file")
            lines += [f"and {_counted(self._scans_kept, 'scan')} in {files} stay."]
        unreadable = [(n, reason) for reason, n in self._unreadable.items() if n]
        if unreadable:
            lines += ["", f"{_counted(sum(n for n, _ in unreadable), 'file')} cannot be read:"]
            lines += [
                f"{n:>11,}  {_plain(why)}" for n, why in sorted(unreadable, reverse=True)[:16]
            ]
            if len(unreadable) > 16:
                rest = sum(n for n, _ in sorted(unreadable, reverse=True)[16:])
                lines += [f"{rest:>11,}  for other reasons"]
        if self._manifest.ignored:
            kinds = (f"{n:,} {_plain(suffix)}" for suffix, n in self._manifest.ignored[:8])
            lines += ["", f"Files that are no scans: {', '.join(kinds)}"]
        if self._manifest.label_columns:
            names = (_plain(name) for name in self._manifest.label_columns)
            lines += ["", f"Columns of the table: {', '.join(names)}"]
        return "\n".join([*lines, "", "Nothing was written."])

    def _headline(self) -> str:
        patients, series = (
            len(np.unique(np.frombuffer(found, np.uint64))) if found else 0
            for found in (self._patients, self._series)
        )
        nameless = f" ({_counted(self._nameless, 'file')} name none)" if self._nameless else ""
        whose = f"{_counted(patients, 'patient')}{nameless}, {series:,} series"
        what = f"{_counted(len(self._manifest), 'file')}, {_counted(self._scans, 'scan')}"
        return f"{what}, {whose}"

    def _table_lines(self) -> Iterator[str]:
        titles = ("files", "scans", "stay") if self._selection.rules else ("files", "scans")
        yield _line("", "", titles)
        for name, column in self._columns.items():
            # A tag that no file has is one line less to read, unless a filter asks for it.
            if set(column.counts) <= {_NONE} and name not in self._selection.names:
                continue
            for number, (value, counts) in enumerate(column.rows()):
                shown = tuple(f"{count:,}" for count in counts[: len(titles)])
                yield _line("" if number else name, value, shown)


def tabulate(source: Path | str, *, settings: PackSettings | None = None) -> str:
    """Returns a table of what a source holds, from headers alone; writes nothing.

    Kinds of files, modalities, body parts, views, series, sizes and depths with their numbers of
    files and scans, what cannot be read, and what the filter would leave out. Descriptions of
    series can hold names: the text is for the terminal.

    Args:
        source: Folder of scans or table.
        settings: As of `pack`; the filter in it is tried.

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
    table = _Table(manifest, selection)
    paths = (manifest.file(path) for path, _, _ in manifest.rows())
    workers = settings.workers or num_cores()
    with (
        track(len(manifest), "reading headers") as progress,
        closing(read_headers(paths, len(manifest), read, workers=workers)) as headers,
    ):
        for (path, patient, labels), header in zip(manifest.rows(), headers, strict=True):
            table.add(patient, labels, manifest.refused.get(path or "", header))
            progress.advance()
    return table.text()


def _hashed(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun if number == 1 else noun + 's'}"


def _plain(text: str) -> str:
    # A description may hold anything, commands to the terminal among it.
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _line(name: str, value: str, numbers: tuple[str, ...]) -> str:
    counts = "".join(f"{number:>{_NUMBER_WIDTH}}" for number in numbers)
    return f"{_fitted(name, _NAME_WIDTH)}  {_fitted(value, _VALUE_WIDTH)}{counts}"


def _fitted(text: str, width: int) -> str:
    plain = _plain(text)
    return (plain if len(plain) <= width else plain[: width - 3] + "...").ljust(width)
