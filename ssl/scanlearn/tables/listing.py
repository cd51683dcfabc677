"""The scans in a folder, a zip or a tar: what is one, what is set aside, what links lead to."""

from __future__ import annotations

import heapq
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.errors import ScanlearnError
from scanlearn.readers.containers import CONTAINER_SUFFIXES, as_text, open_container
from scanlearn.readers.nifti import second_files
from scanlearn.readers.readers import SCAN_SUFFIXES, is_scan, list_rows, may_be_scan
from scanlearn.readers.scan import Undecodable

_PATHS_PER_CHUNK = 2**16
_ENDING = re.compile(r"[.\w -]{1,12}")
_LEADS_OUT = "is a link to a file outside the source; set follow_links=true to follow it"
_PART_LEADS_OUT = f"has a part in another file, which {_LEADS_OUT}"
_NOT_UTF_8 = "has a name that is not UTF-8; rename it"
# A packed archive below a folder holds a picture of its own, a sheet of scans that lie elsewhere.
_OF_AN_ARCHIVE = ("archive.json", "shards")


class Listing:
    """Collects paths; those of a million scans are held as bytes, not as objects.

    Attributes:
        refused: Paths that are set aside unread, and why.
    """

    def __init__(self, source: Path) -> None:
        self.source = source
        self._chunks: list[pa.Array] = []
        self._paths: list[str] = []
        self.refused: dict[str, str] = {}
        self._ignored: Counter[str] = Counter()

    def add(self, path: str) -> None:
        """Takes a scan."""
        self._paths.append(path)
        if len(self._paths) == _PATHS_PER_CHUNK:
            self._chunks.append(pa.array(self._paths, pa.string()))
            self._paths.clear()

    def refuse(self, path: str, reason: str) -> None:
        """Takes a scan that is set aside unread."""
        while path in self.refused:
            path += " (again)"
        self.refused[path] = reason
        self.add(path)

    def add_if_scan(self, path: str, file: Path) -> None:
        """Takes a file of a known format, and counts any other by its ending."""
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

    def paths(self) -> pa.ChunkedArray:
        """Returns the paths in order; raises a ScanlearnError where there are none."""
        paths = pa.chunked_array([*self._chunks, pa.array(self._paths, pa.string())])
        if len(paths) == 0:
            present = ", ".join(f"{n} {suffix}" for suffix, n in self.ignored[:5]) or "nothing"
            raise ScanlearnError(
                f"{self.source}: contains no scans (found: {present}); give a folder with files"
                f" of a supported format ({', '.join(SCAN_SUFFIXES)}) or a table"
            )
        return paths.take(pc.sort_indices(paths))

    @property
    def ignored(self) -> tuple[tuple[str, int], ...]:
        """Endings of files that are no scans, and how many there are, the commonest first."""
        return tuple(self._ignored.most_common())


def list_folder(folder: Path, *, follow_links: bool, open_containers: bool) -> Listing:
    """Returns the scans below a folder; hidden files and folders are left out."""
    scans = Listing(folder)
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
                scans.refuse(path, _PART_LEADS_OUT)
            else:
                scans.add(path)
        else:
            scans.add_if_scan(path, Path(entry.path))
    return scans


def list_container(container: Path) -> Listing:
    """Returns the scans in a zip or tar archive; hidden members are left out."""
    try:
        open_container(container)
    except Undecodable as error:
        raise ScanlearnError(f"{container}: {error}; download it again, or unpack it") from error
    scans = Listing(container)
    scans.add_members(container, "")
    return scans


def scans_below(folder: Path) -> Iterator[str]:
    """Yields the paths of the scans below a folder, but for those that are not UTF-8."""
    for path, entry in walk(folder):
        if as_text(path) == path and is_scan(Path(entry.path)):
            yield path


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
