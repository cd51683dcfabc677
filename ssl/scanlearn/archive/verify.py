"""`scanlearn verify`: every byte of an archive is read again and compared with what was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.archive.layout import (
    REJECTED_FILE,
    Layout,
    PackedScan,
    Spacing,
    ValueRange,
    file_hash,
    has_size,
    is_archive,
    read_description,
    read_info,
)
from scanlearn.archive.lists import read_list
from scanlearn.archive.reader import Archive, open_shards
from scanlearn.console import say, track
from scanlearn.errors import ScanlearnError


@dataclass(frozen=True)
class Verification:
    """What came of reading an archive again.

    Args:
        faults: A sentence for each file that is wrong, which begins with its path.
        notes: What could not be checked, and why.
    """

    faults: tuple[str, ...]
    notes: tuple[str, ...]
    num_files: int
    num_bytes: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


def verify(archive: Path | str) -> Verification:
    """Reads every byte of an archive again and says which files are not as they were written.

    Shards, table and lists are compared with the hashes in ``archive.json``, which has one of its
    own. Shards of an archive by an earlier release, which kept none of its files, are compared
    scan by scan with the digests in them. Pages and pictures are not read: `summary` makes them.

    Raises:
        ScanlearnError: There is no archive.
    """
    path = Path(archive).expanduser()
    if not is_archive(path):
        read_info(path)
    faults: list[str] = []
    notes: dict[str, None] = {}
    try:
        info = read_description(path)
    except ScanlearnError as error:
        return _said(path, Verification((str(error),), ("nothing else could be checked",), 1, 0))
    parts = [*info["shards"], info["manifest"]]
    num_bytes = sum(part["bytes"] for part in parts)
    layout = Layout(tuple(info["shape"]), np.dtype(info["dtype"]), info["has_mask"])
    with track(num_bytes // 2**20, "reading MB") as progress:
        for part in parts:
            faults += _part_faults(path, part, layout, notes)
            progress.advance(part["bytes"] // 2**20)
    if not faults:
        try:
            Archive(path)
        except ScanlearnError as error:
            faults.append(str(error))
    faults += _list_faults(path, info, notes)
    num_files = 1 + len(parts) + len(info.get("lists") or ())
    return _said(path, Verification(tuple(faults), tuple(notes), num_files, num_bytes))


def _part_faults(
    path: Path, part: Mapping[str, Any], layout: Layout, notes: dict[str, None]
) -> Iterator[str]:
    """Yields what is wrong with a shard or the table."""
    file = path / part["file"]
    try:
        if not has_size(file, part["bytes"]):
            yield f"{file}: is missing or cut short"
        elif "sha256" in part:
            if file_hash(file) != part["sha256"]:
                yield f"{file}: was changed after it was written"
        elif "scans" in part:
            yield from _scan_faults(file, part["scans"], layout, notes)
        else:
            notes["the table has no hash, and was compared with the shards but for its labels"] = (
                None
            )
    except OSError as error:
        yield f"{file}: cannot be read ({error.strerror})"
    except ScanlearnError as error:
        yield str(error)


def _scan_faults(file: Path, scans: int, layout: Layout, notes: dict[str, None]) -> Iterator[str]:
    """Compares the scans of a shard that has no hash with their own digests."""
    notes["its shards have no hashes, being of an earlier release"] = None
    index = open_shards([file], [scans], layout)
    first, wrong = 0, []
    for number, batch in enumerate(index.batches):
        if "digest" not in batch.schema.names:
            notes["its scans have no digests either: only sizes, boxes and counts were checked"] = (
                None
            )
            return
        pixels = index.pixels.parts[number].view(layout.dtype).reshape(-1, *layout.shape)
        digests = batch.column("digest").to_pylist()
        for row, digest in enumerate(digests):
            fact = index.facts[first + row]
            mask = None
            if index.masks is not None:
                mask = index.masks.parts[number][row].view(np.bool_).reshape(layout.shape[1:])
            scan = PackedScan(
                pixels[row],
                tuple(fact["valid_box"].tolist()),
                ValueRange(*fact["value_range"].tolist()),
                Spacing(*fact["spacing_mm"].tolist()),
                mask,
            )
            sums = batch.column("sums")[row].as_py()
            if scan.sums.digest != digest or not np.allclose(scan.sums.sums, sums, 1e-9):
                wrong.append(first + row)
        first += len(digests)
    if wrong:
        yield (
            f"{file}: {len(wrong):,} of {scans:,} scans are not as they were packed, first row"
            f" {wrong[0]}"
        )


def _list_faults(path: Path, info: Mapping[str, Any], notes: dict[str, None]) -> Iterator[str]:
    """Yields what is wrong with ``rejected.csv`` and ``paths.csv``."""
    hashes = info.get("lists")
    if hashes is None:
        notes["its lists of files have no hashes"] = None
        hashes = {}
        try:
            num_listed = sum(1 for _ in read_list(path / REJECTED_FILE))
        except (OSError, ValueError, StopIteration):
            num_listed = -1
        if num_listed != info["rejected"]:
            yield f"{path / REJECTED_FILE}: does not list the {info['rejected']:,} rejected scans"
    for name, expected in hashes.items():
        if not (path / name).is_file():
            notes[f"{name} was left out of this copy"] = None
        elif file_hash(path / name) != expected:
            yield (
                f"{path / name}: was changed after the archive was written; if add or withdraw was"
                " cut off, run it again"
            )


def _said(path: Path, result: Verification) -> Verification:
    """Prints what came of it."""
    for fault in result.faults:
        say(fault)
    for note in result.notes:
        say(f"{path}: {note}")
    if result.is_whole:
        read = f"{result.num_files:,} files and {result.num_bytes / 1e6:,.1f} MB of scans"
        say(f"{path}: {read} read; they are as they were written")
    else:
        say(f"{path}: restore what is damaged from a copy, or remove it and pack the scans again")
    return result
