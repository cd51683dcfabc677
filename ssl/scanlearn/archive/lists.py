"""The lists of an archive, CSV files: what was rejected and why, and which file a scan is from."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from scanlearn.archive.layout import PATHS_FILE
from scanlearn.files import csv_cell, csv_text, folder_mode, reading, write_atomically

# A third one, what labels may be joined by, is new.
_NUM_COLUMNS = (2, 3)
_REMEDY = "restore it from a copy, or pack the scans again"


class ListWriter:
    """Streams lines into a CSV.

    Args:
        owner_only: Whether nobody but its owner may read it.
        keep_bytes: How much of what an earlier writer left there stays; None for nothing.
    """

    def __init__(
        self,
        path: Path,
        columns: tuple[str, ...],
        *,
        owner_only: bool = False,
        keep_bytes: int | None = None,
    ) -> None:
        flags = os.O_RDWR | os.O_CREAT | (os.O_TRUNC if keep_bytes is None else 0)
        descriptor = os.open(path, flags, (0o600 if owner_only else 0o666) & folder_mode())
        os.ftruncate(descriptor, keep_bytes or 0)
        os.lseek(descriptor, 0, os.SEEK_END)
        self._file = os.fdopen(descriptor, "w", newline="", encoding="utf-8")
        # With the usual line ends, which a carriage return in a name is quoted for.
        self._lines = csv.writer(self._file)
        if keep_bytes is None:
            self.add(*columns)

    def add(self, *values: str) -> None:
        """Adds one line."""
        self._lines.writerow(map(csv_cell, values))

    def num_bytes(self) -> int:
        """Returns how long the file is so far, on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Writes what is left and closes the file."""
        self._file.close()

    def abort(self) -> None:
        """Closes the file, which will be removed."""
        # On a full disk the rest cannot be written either; nobody will read it.
        with contextlib.suppress(OSError):
            self._file.close()


def read_list(path: Path) -> Iterator[list[str]]:
    """Yields the lines of a list after its header.

    Raises:
        OSError: The list is not there or may not be read.
        ScanlearnError: It is no list of two columns or three.
    """
    with path.open(newline="", encoding="utf-8") as file, reading(path, _REMEDY):
        for number, line in enumerate(csv.reader(file, strict=True)):
            if len(line) not in _NUM_COLUMNS:
                raise ValueError(f"row {number + 1} has {len(line)} columns")
            if number:
                yield [csv_text(cell) for cell in line]


def read_paths(archive: Path) -> dict[str, str]:
    """Returns the path of every file of an archive by its name.

    Raises:
        OSError: The list is not there or may not be read.
    """
    return {line[0]: line[1] for line in read_list(archive / PATHS_FILE)}


def read_identifiers(archive: Path) -> dict[str, list[str]]:
    """Returns what labels may be joined by, hashes by the name of each file; often none.

    Raises:
        OSError: The list is not there or may not be read.
    """
    # Archives from before there were such have lines of two.
    return {line[0]: line[2].split() for line in read_list(archive / PATHS_FILE) if line[2:]}


def rewrite_list(path: Path, dropped: Container[str], more: Iterable[Sequence[str]] = ()) -> int:
    """Rewrites a list of an archive in one step and returns how many lines it has."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    with path.open(newline="", encoding="utf-8") as file, reading(path, _REMEDY):
        lines = csv.reader(file)
        header = next(lines, None)
        if header is None:
            raise ValueError("it is empty")
        writer.writerow(header)
        kept = [line for line in lines if line[0].partition("#")[0] not in dropped]
    added = [line[: len(header)] for line in more]
    writer.writerows(chain(kept, (map(csv_cell, line) for line in added)))
    is_private = path.name == PATHS_FILE
    write_atomically(path, text.getvalue(), mode=0o600 if is_private else 0o666)
    return len(kept) + len(added)
