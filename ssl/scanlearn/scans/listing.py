"""What lies in a folder tree, a zip or a tar: its scans, and what is set aside unread."""

from __future__ import annotations

import heapq
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.plain import ScanlearnError
from scanlearn.scans.containers import as_text, open_container
from scanlearn.scans.decode import Undecodable
from scanlearn.scans.files import SCAN_SUFFIXES, is_scan, may_be_scan
from scanlearn.scans.medmnist import list_rows
from scanlearn.scans.places import CONTAINER_SUFFIXES

_PATHS_PER_CHUNK = 2**16
_ENDING = re.compile(r"[.\w -]{1,12}")
_LEADS_OUT = "is a link out of its source; follow_links=true follows it"


# A packed archive below a folder holds a picture of its own, a sheet of scans that lie elsewhere.
_OF_AN_ARCHIVE = ("archive.json", "shards")


@dataclass(frozen=True)
class Listing:
    """What lies below a folder or in a container.

    Args:
        paths: Of scans and of what is set aside, posix, from the folder, in order.
        refused: Why some of them are set aside unread.
        ignored: Endings of files that are no scans, and how many there are.
    """

    paths: pa.ChunkedArray
    refused: dict[str, str]
    ignored: tuple[tuple[str, int], ...]


class _Found:
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

    def judge(self, path: str, file: Path) -> None:
        """Takes a file that may be a scan."""
        if is_scan(file):
            self.add(path)
        else:
            suffix = PurePosixPath(path).suffix.lower() or "no ending"
            # It is printed: control characters and HTML are no ending.
            self._ignored[suffix if _ENDING.fullmatch(suffix) else "other endings"] += 1

    def listing(self) -> Listing:
        chunks = [*self._chunks, pa.array(self._paths, pa.string())]
        paths = pa.chunked_array(chunks)
        ignored = tuple(self._ignored.most_common())
        if len(paths) == 0:
            listed = ", ".join(f"{n} {suffix}" for suffix, n in ignored[:5]) or "nothing"
            raise ScanlearnError(
                f"{self._source}: holds no scan ({listed} found); put {', '.join(SCAN_SUFFIXES)}"
                " files there or give the path of a table"
            )
        return Listing(paths.take(pc.sort_indices(paths)), self._refused, ignored)


def list_folder(
    folder: Path, *, follow_links: bool = False, open_containers: bool = False
) -> Listing:
    """Returns the scans below a folder; hidden files and folders are left out.

    Args:
        folder: The folder.
        follow_links: Whether links that lead out of it are followed; they are set aside if not.
        open_containers: Whether the scans in its zip, tar and npz files are listed too.

    Raises:
        ScanlearnError: It holds no scan, or a folder in it may not be read.
    """
    found = _Found(folder)
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
                found.refuse(as_text(path), _LEADS_OUT)
        elif as_text(path) != path and (is_container or may_be_scan(entry.name)):
            # The bytes stand as escapes, which might be another file's name.
            found.refuse(f"{as_text(path)} (escaped)", "has a name that is not UTF-8; rename it")
        elif leads_out and may_be_scan(entry.name):
            found.refuse(path, _LEADS_OUT)
        elif is_container and open_containers and not leads_out:
            _list_members(found, Path(entry.path), f"{path}/")
        elif entry.name.lower().endswith(SCAN_SUFFIXES):
            found.add(path)
        else:
            found.judge(path, Path(entry.path))
    return found.listing()


def list_container(container: Path) -> Listing:
    """Returns the scans in a zip or tar archive; hidden members are left out.

    Raises:
        ScanlearnError: It cannot be opened, or holds no scan.
    """
    try:
        open_container(container)
    except Undecodable as error:
        raise ScanlearnError(f"{container}: {error}; get it again, or unpack it") from error
    found = _Found(container)
    _list_members(found, container, "")
    return found.listing()


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


def _list_members(found: _Found, container: Path, start: str) -> None:
    try:
        if container.suffix.lower() == ".npz":
            for path in list_rows(container).column("path").to_pylist():
                found.add(start + path)
            return
        opened = open_container(container)
    except (Undecodable, ScanlearnError) as error:
        reason = str(error).replace(f"{container}: ", "")
        found.refuse(start.rstrip("/"), reason)
        return
    for name in opened.members:
        found.judge(start + name, container / name)
    for name, reason in opened.refused:
        found.refuse(start + (f"{name} (again)" if name in opened.members else name), reason)
