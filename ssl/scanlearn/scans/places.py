"""Paths of scans: files, and members of archives, as ``scans.zip/a/1.png``."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scanlearn.scans.atomic import disk_errors
from scanlearn.scans.containers import Container, open_container

CONTAINER_SUFFIXES = (".zip", ".tar", ".npz")
_MOST_IN_MEMORY = 2**26
_HAS_PROC = Path("/proc/self/fd").is_dir()
_INTO = re.compile(r"\.(zip|tar|npz)[/\\]", re.IGNORECASE)


def inside(path: Path) -> tuple[Path, str] | None:
    """Returns the container that a path leads into and the path inside; None for any other."""
    text = os.fspath(path)
    for match in _INTO.finditer(text):
        container = Path(text[: match.end() - 1])
        if container.is_file():
            return container, text[match.end() :].replace(os.sep, "/")
    return None


def stamp(path: str | Path) -> tuple[int, int] | None:
    """Returns size and time of change of a file, or of the container that holds it."""
    try:
        status = os.stat(path)  # noqa: PTH116 - of a string, for speed
    except NotADirectoryError:
        place = inside(Path(path))
        return None if place is None else stamp(place[0])
    except (OSError, ValueError):  # A name too long, or with a NUL: no such file.
        return None
    return status.st_size, status.st_mtime_ns


def is_there(path: Path) -> bool:
    """Returns whether a file lies at a path, or in the container that it leads into."""
    try:
        if path.is_file():
            return True
        place = inside(path)
        return place is not None and place[1] in open_container(place[0]).members
    except (OSError, ValueError):
        return False


def head(path: Path, num_bytes: int) -> bytes:
    """Returns the first bytes of a file or member; none of what is no regular file.

    Raises:
        OSError: It may not be read.
        Undecodable: It is damaged in its archive.
    """
    place = inside(path)
    if place is not None:
        return next(open_container(place[0]).chunks(place[1]), b"")[:num_bytes]
    # A pipe would be waited for without end.
    if not path.is_file():
        return b""
    with path.open("rb", buffering=0) as file:
        return file.read(num_bytes)


@contextmanager
def as_file(path: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Gives a path that readers can open: itself, or a temporary copy of an archive's member.

    The copy is in memory where that is possible, and on disk where it is large or its reader looks
    at its ending.

    Args:
        path: A file, or a path into an archive.
        suffixes: Endings that readers look at; of a member's name nothing else is used on disk.

    Raises:
        Undecodable: The member is not there or damaged.
        ScanlearnError: The disk for temporary files is full.
    """
    place = inside(path)
    if place is None:
        yield path
        return
    container, name = open_container(place[0]), place[1]
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
