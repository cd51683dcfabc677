"""Zip and tar archives: what they hold, which of it may be read, and reading it."""

from __future__ import annotations

import os
import re
import stat
import sys
import tarfile
import tempfile
import weakref
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, NamedTuple

from scanlearn.files import disk_errors
from scanlearn.readers.scan import Metered, Undecodable, open_regular

CONTAINER_SUFFIXES = (".zip", ".tar", ".npz")
# A member is copied out of its archive to be read: more would fill the disk for temporary files.
MAX_MEMBER_BYTES = 2**30
# Names of members are held in memory.
MAX_MEMBERS = 2**21
_MAX_DIRECTORY_BYTES = 2**28
# What stands before a member's content, in all its blocks: a path of a few hundred bytes.
_MAX_HEADER_BYTES = 2**20
_MOST_IN_MEMORY = 2**26
_CHUNK_BYTES = 2**18
_HAS_PROC = Path("/proc/self/fd").is_dir()
_INTO = re.compile(r"\.(zip|tar|npz)[/\\]", re.IGNORECASE)
_NESTED = re.compile(r".*\.(zip|tar|npz|7z|rar|tgz|tbz2?|txz|tar\.\w+)", re.IGNORECASE | re.DOTALL)
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:[/\\]")
# The others (bzip2, LZMA) let a few bytes ask for gigabytes of working memory.
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ZIP_HEADER_BYTES, _ZIP_END_BYTES = 30, 22
_ZIP64_LOCATOR_BYTES, _ZIP64_END_BYTES = 20, 56
_TAR_BLOCK_BYTES = 512


class Member(NamedTuple):
    """A path that leads into a container, as ``scans.zip/a/1.png``."""

    container: Path
    name: str


def member_of(path: Path) -> Member | None:
    """Returns the container that a path leads into and the path inside; None for any other."""
    text = os.fspath(path)
    for match in _INTO.finditer(text):
        container = Path(text[: match.end() - 1])
        if container.is_file():
            return Member(container, text[match.end() :].replace(os.sep, "/"))
    return None


def stamp(path: str | Path) -> tuple[int, int] | None:
    """Returns size and time of change of a file, or of the container that holds it."""
    try:
        status = os.stat(path)  # noqa: PTH116 - of a string, for speed
    except NotADirectoryError:
        member = member_of(Path(path))
        return None if member is None else stamp(member.container)
    except (OSError, ValueError):  # A name too long, or with a NUL: no such file.
        return None
    return status.st_size, status.st_mtime_ns


def is_there(path: Path) -> bool:
    """Returns whether a file lies at a path, or in the container that it leads into."""
    try:
        if path.is_file():
            return True
        member = member_of(path)
        return member is not None and member.name in open_container(member.container).members
    except (OSError, ValueError):
        return False


def head(path: Path, num_bytes: int) -> bytes:
    """Returns the first bytes of a file or member; none of what is no regular file.

    Raises:
        OSError: It may not be read.
        Undecodable: It is damaged in its archive.
    """
    member = member_of(path)
    if member is not None:
        return next(open_container(member.container).chunks(member.name), b"")[:num_bytes]
    # A pipe would be waited for without end.
    if not path.is_file():
        return b""
    with open_regular(path) as file:
        return file.read(num_bytes)


def as_file(path: Path, suffixes: tuple[str, ...]) -> AbstractContextManager[Path]:
    """Gives a path that readers can open: itself, or a temporary copy of an archive's member.

    The copy is in memory where that is possible, and on disk where it is large or its reader looks
    at its ending.

    Args:
        suffixes: Endings that readers look at; of a member's name nothing else is used on disk.

    Raises:
        Undecodable: The member is not there or damaged.
        ScanlearnError: The disk for temporary files is full.
    """
    member = member_of(path)
    # A generator would take longer, for every file of a source.
    return nullcontext(path) if member is None else _copied(member, suffixes)


@contextmanager
def _copied(member: Member, suffixes: tuple[str, ...]) -> Iterator[Path]:
    container, name = open_container(member.container), member.name
    suffix = next((end for end in suffixes if name.lower().endswith(end)), "")
    num_bytes, _ = container.members.get(name, (0, None))
    if sys.platform == "linux" and not suffix and num_bytes <= _MOST_IN_MEMORY and _HAS_PROC:
        with os.fdopen(os.memfd_create("scan"), "wb") as file:
            for chunk in container.chunks(name):
                file.write(chunk)
            file.flush()
            yield Path(f"/proc/self/fd/{file.fileno()}")
        return
    with tempfile.TemporaryDirectory(prefix="scanlearn-") as folder:
        _copy(container, name, Path(folder, f"scan{suffix}"))
        # The voxels of a pair lie beside their header.
        voxels = f"{name[:-4]}.img"
        if suffix == ".hdr" and voxels in container.members:
            _copy(container, voxels, Path(folder, "scan.img"))
        yield Path(folder, f"scan{suffix}")


def _copy(container: Container, name: str, target: Path) -> None:
    with disk_errors(target.parent.parent), target.open("wb") as file:
        for chunk in container.chunks(name):
            file.write(chunk)


class Listed(NamedTuple):
    """A member as its archive lists it; ``reason`` says why it may not be read, if it may not."""

    name: str
    num_bytes: int
    place: Any
    reason: str | None


class Container:
    """An opened zip or tar archive; hidden members are left out, as hidden files of a folder are.

    Args:
        read: Yields the content at a place, a piece at a time.

    Attributes:
        members: Size and place of every member that may be read, by its path.
        refused: Path and reason of every other one; another may have the same path.
    """

    def __init__(
        self, listed: Iterable[Listed], read: Callable[[Any, int], Iterator[bytes]]
    ) -> None:
        self.members: dict[str, tuple[int, Any]] = {}
        self.refused: list[tuple[str, str]] = []
        self._read = read
        name_bytes = 0
        for number, member in enumerate(listed):
            name_bytes += len(member.name)
            if name_bytes > _MAX_DIRECTORY_BYTES:
                raise Undecodable(f"has names of more than {_MAX_DIRECTORY_BYTES:,} bytes")
            if number == MAX_MEMBERS:
                raise Undecodable(f"holds more than {MAX_MEMBERS:,} members")
            # "./a//b" and "a/b" are one path.
            parts = [part for part in member.name.split("/") if part not in ("", ".")]
            name = "/".join(parts)
            if any(part.startswith(".") for part in parts) and not _leads_out(member.name):
                continue
            reason = _name_refused(member.name) or member.reason
            if reason is None and member.num_bytes > MAX_MEMBER_BYTES:
                reason = f"claims {member.num_bytes:,} bytes, more than {MAX_MEMBER_BYTES:,}"
            if reason is None and name in self.members:
                reason = "has the path of an earlier member of its archive"
            if reason is None:
                self.members[name] = (member.num_bytes, member.place)
            else:
                self.refused.append((as_text(name), reason))

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yields the content of a member, a piece at a time.

        Raises:
            Undecodable: There is no such member, or its content is damaged.
        """
        if name not in self.members:
            raise Undecodable("file not found")
        num_bytes, place = self.members[name]
        try:
            yield from self._read(place, num_bytes)
        except Exception as error:
            # Whatever the parsers of archives raise on damaged bytes; they may give the name.
            kind = type(error).__name__
            raise Undecodable(f"is cut short or damaged in its archive ({kind})") from error


def open_container(path: Path) -> Container:
    """Returns an archive; the last few stay open in their process.

    Raises:
        Undecodable: It is damaged, or what it claims cannot be.
    """
    try:
        status = path.stat()
        return _opened(path, status.st_size, status.st_mtime_ns)
    except Undecodable:
        raise
    except Exception as error:
        # Not in the error's own words, which may give a path.
        kind = getattr(error, "strerror", None) or type(error).__name__
        raise Undecodable(f"is damaged or not an archive ({kind})") from error


def as_text(name: str) -> str:
    """Returns a file name that can be written down: bytes that are no UTF-8 become escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@lru_cache(maxsize=4)
def _opened(path: Path, size: int, time_ns: int) -> Container:
    del size, time_ns  # A changed file is another key.
    return _open_tar(path) if path.suffix.lower() == ".tar" else _open_zip(path)


def _open_zip(path: Path) -> Container:
    file = open_zip(path)
    by_place = sorted(file.infolist(), key=lambda member: member.header_offset)
    for member, following in pairwise(by_place):
        end = member.header_offset + _ZIP_HEADER_BYTES + member.compress_size
        if end > following.header_offset:
            raise Undecodable("has overlapping members, as decompression bombs do")

    def read(member: zipfile.ZipInfo, num_bytes: int) -> Iterator[bytes]:
        del num_bytes
        with file.open(member) as content:
            while chunk := content.read(_CHUNK_BYTES):
                yield chunk

    members = (member for member in file.infolist() if not member.is_dir())
    listed = (Listed(info.filename, info.file_size, info, _zip_refused(info)) for info in members)
    return Container(listed, read)


def open_zip(path: Path) -> zipfile.ZipFile:
    """Opens a zip archive whose list of members does not fill the memory.

    Raises:
        Undecodable: It claims more members, or a longer list of them, than are read.
    """
    with open_regular(path) as file:
        _check_directory(file)
    return zipfile.ZipFile(path)


def _check_directory(file: IO[bytes]) -> None:
    """Refuses a list of members that would fill the memory, which zipfile reads in one go."""
    num_bytes = file.seek(0, os.SEEK_END)
    file.seek(max(0, num_bytes - 2**16 - _ZIP_END_BYTES - _ZIP64_END_BYTES))
    tail = file.read()
    start = num_bytes - len(tail)
    place = tail.rfind(b"PK\x05\x06")
    size = int.from_bytes(tail[place + 12 : place + 16], "little")
    wide = place - _ZIP64_LOCATOR_BYTES - _ZIP64_END_BYTES
    is_wide = wide >= 0 and tail[wide : wide + 4] == b"PK\x06\x06"
    if is_wide:
        size = int.from_bytes(tail[wide + 40 : wide + 48], "little")
    if place >= 0 and size > _MAX_DIRECTORY_BYTES:
        raise Undecodable(f"claims a list of members of {size:,} bytes")
    end = place - _ZIP64_LOCATOR_BYTES - _ZIP64_END_BYTES if is_wide else place
    file.seek(max(0, start + end - size))
    # An upper bound, found at once: a thousand bytes of memory stand behind each.
    if place >= 0 and file.read(size).count(b"PK\x01\x02") > MAX_MEMBERS:
        raise Undecodable(f"holds more than {MAX_MEMBERS:,} members")


def _open_tar(path: Path) -> Container:
    def read(place: int, num_bytes: int) -> Iterator[bytes]:
        end = place + num_bytes
        while place < end:
            file.seek(place)
            chunk = file.read(min(end - place, _CHUNK_BYTES))
            if not chunk:
                raise EOFError
            place += len(chunk)
            yield chunk

    with open_regular(path) as headers:
        # Of a list of holes, a long path or other records tarfile reads as much as they claim.
        headers.bytes_left = _MAX_HEADER_BYTES
        with tarfile.open(fileobj=headers, mode="r:") as archive:
            container = Container(_tar_members(archive, headers), read)
            end = archive.offset
    file = open_regular(path)
    weakref.finalize(container, file.close)
    # A damaged header is taken for the end by tarfile.
    file.seek(end)
    if file.read(_TAR_BLOCK_BYTES).strip(b"\0"):
        raise Undecodable(f"is damaged at byte {end:,}")
    return container


def _tar_members(archive: tarfile.TarFile, headers: Metered) -> Iterator[Listed]:
    while (member := archive.next()) is not None:
        headers.bytes_left = _MAX_HEADER_BYTES
        # It keeps every member it has passed, and records that hold for all that follow.
        archive.members.clear()  # type: ignore[attr-defined]
        archive.pax_headers.clear()  # type: ignore[attr-defined]
        if not member.isdir():
            yield Listed(member.name, member.size, member.offset_data, _tar_refused(member))


def _leads_out(name: str) -> bool:
    return _ABSOLUTE.match(name) is not None or ".." in re.split(r"[/\\]", name)


def _name_refused(name: str) -> str | None:
    if as_text(name) != name:
        return "has a name that is not UTF-8"
    if _leads_out(name):
        return "has a path that points outside its archive"
    if _NESTED.fullmatch(name):
        return "is an archive inside an archive; unpack the outer one"
    return None


def _zip_refused(member: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "is a link, pipe or device"
    if member.flag_bits & 1:
        return "is encrypted"
    return None if member.compress_type in _ZIP_METHODS else "is neither deflated nor stored"


def _tar_refused(member: tarfile.TarInfo) -> str | None:
    if not member.isreg():
        return "is a link, pipe or device"
    return "is stored as a sparse file" if member.issparse() else None
