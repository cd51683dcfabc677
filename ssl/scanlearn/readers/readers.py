"""The table of formats, and one way to read a file of any of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pyarrow as pa

from scanlearn.readers import dicom, medmnist, nifti, numpy_arrays, pictures
from scanlearn.readers.containers import as_file, head, member_of
from scanlearn.readers.scan import Frame, Header, Reader, ReadSettings, Undecodable

# The first one that matches a file's content reads it, else the first one with its ending.
READERS = (
    dicom.READER,
    nifti.READER,
    medmnist.READER,
    numpy_arrays.READER,
    pictures.READER,
)
SCAN_SUFFIXES = tuple(suffix for reader in READERS for suffix in reader.suffixes)
_READ_BY_SUFFIX = tuple(end for reader in READERS if reader.reads_suffix for end in reader.suffixes)
# What says the format, and what stands before the pixels of most pictures.
_MAGIC_BYTES, _HEADER_BYTES = 352, 4096


def may_be_scan(name: str) -> bool:
    """Returns whether a file with such a name can be a scan: its ending is one, or it has none.

    The names of DICOM files often are numbers with dots; what follows the last is no ending.
    """
    lowered = name.lower()
    is_bare = _is_bare(PurePosixPath(lowered).suffix)
    return lowered.endswith(SCAN_SUFFIXES) or (is_bare and lowered != "dicomdir")


def is_scan(path: Path) -> bool:
    """Returns whether a file may be a scan: by its ending, or by its content if it has none.

    What may not be read may be one, and is set aside with that reason.
    """
    if path.name.lower().endswith(SCAN_SUFFIXES):
        return True
    try:
        return may_be_scan(path.name) and _matching(head(path, _MAGIC_BYTES)) is not None
    except (OSError, Undecodable):
        return True


def reader_of(start: bytes, name: str) -> Reader:
    """Returns what reads a file: its first bytes decide, its ending only where they are silent."""
    matching = _matching(start)
    if matching is not None:
        return matching
    by_suffix = (reader for reader in READERS if name.lower().endswith(reader.suffixes))
    return next(by_suffix, pictures.READER)


def list_rows(path: Path) -> pa.Table | None:
    """Returns path and labels of the scans in a file whose scans are rows; None of any other."""
    reader = _by_container(path)
    return None if reader is None or reader.list_rows is None else reader.list_rows(path)


def libraries(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the modules that reading files with such names will load, by their endings."""
    endings = {PurePosixPath(name.lower()).suffix for name in names}
    has_bare = any(map(_is_bare, endings))
    endings.discard("")
    return tuple(
        library
        for reader in READERS
        if (reader.often_bare and has_bare)
        # Of "a.nii.gz" the ending is ".gz".
        or any(suffix.endswith(tuple(endings)) for suffix in reader.suffixes)
        for library in reader.libraries
    )


def read_header(path: Path, settings: ReadSettings) -> Header:
    """Returns what a file says of itself before its pixels are decoded.

    Args:
        path: A file, or a path into a zip, tar or npz file, such as ``scans.zip/a/1.png``.

    Raises:
        Undecodable: It is no scan, or claims absurd sizes.
    """
    rows = _rows_reader(path)
    with nullcontext(path) if rows else as_file(path, _READ_BY_SUFFIX) as file:
        start = b"" if rows else _start(file, _HEADER_BYTES)
        reader = rows or reader_of(start, path.name)
        header = reader.header(file, settings, start)
        return header if header.kind else replace(header, kind=reader.kind)


def read_frames(path: Path, frames: range, settings: ReadSettings) -> Iterator[Frame]:
    """Yields the scans that some frames of a file, counted from 0, give; a picture has one.

    Raises:
        Undecodable: The file cannot be read; the message says why.
    """
    rows = _rows_reader(path)
    with nullcontext(path) if rows else as_file(path, _READ_BY_SUFFIX) as file:
        reader = rows or reader_of(_start(file, _MAGIC_BYTES), path.name)
        if settings.neighbours and not reader.has_volumes:
            allowed = " or ".join(reader.kind for reader in READERS if reader.has_volumes)
            raise Undecodable(f"is not a volume ({allowed}), but neighbours=true needs one")
        yield from reader.frames(file, frames, settings)


def _rows_reader(path: Path) -> Reader | None:
    """Returns what reads a path to a row of arrays; None of any other path."""
    member = member_of(path)
    return None if member is None else _by_container(member.container)


def _by_container(path: Path) -> Reader | None:
    suffix = path.suffix.lower()
    return next((reader for reader in READERS if reader.container == suffix), None)


def _start(file: Path, num_bytes: int) -> bytes:
    try:
        return head(file, num_bytes)
    except OSError:
        return b""  # The reader says why.


def _matching(start: bytes) -> Reader | None:
    # A loop, since this is done for every file of a source.
    for reader in READERS:
        if reader.matches(start):
            return reader
    return None


def _is_bare(suffix: str) -> bool:
    return not suffix or suffix[1:].isdigit()
