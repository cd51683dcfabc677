"""Files and folders that appear complete or not at all, and disk errors in one sentence."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from platform import node

from scanlearn.errors import ScanlearnError, did_you_mean

_FULL = (
    "the disk is full; free some space there or choose another folder, then run the same command "
    "again: files that were complete are kept"
)
_NOT_WRITABLE = "may not be written to; choose a folder that you own"
_IS_FILE = "part of this path is a file; choose another folder"
_REASONS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), _FULL),
    **dict.fromkeys((errno.EACCES, errno.EROFS, errno.EPERM), _NOT_WRITABLE),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), _IS_FILE),
}
# Of a folder so many names are compared with a misspelt one.
_MOST_NAMES = 2000
# Stands for the process in the name of a folder that was left behind on purpose.
_NOBODY = 0


def check_exists(path: Path, where: str = "") -> None:
    """Refuses a path at which there is nothing, with the nearest name that is there.

    Args:
        where: The setting that names it, for the message.

    Raises:
        ScanlearnError: There is nothing, or the name is none that a file can have.
    """
    try:
        path.stat()
    except (OSError, ValueError):
        raise ScanlearnError(
            f"{where}{path}: there is no such file or folder{nearest_name(path)}; check the path"
        ) from None


def nearest_name(path: Path) -> str:
    """Returns ``(did you mean 'x'?)`` with a name beside a path at which there is nothing."""
    names: list[str] = []
    with suppress(OSError, ValueError), os.scandir(path.parent) as entries:
        names = [entry.name for entry in itertools.islice(entries, _MOST_NAMES)]
    return did_you_mean(path.name, names)


def write_atomically(path: Path, data: bytes | str, *, mode: int = 0o644) -> None:
    """Writes a file so that a reader, a crash or a full disk never sees half of it.

    The data are written aside, flushed to the disk and renamed over ``path``.

    Raises:
        ScanlearnError: The disk or the quota is full; what stood at ``path`` is untouched.
    """
    content = data.encode() if isinstance(data, str) else data
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with disk_errors(path):
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
            try:
                write_all(descriptor, content)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            aside.replace(path)
            _sync_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def write_all(descriptor: int, content: bytes) -> None:
    """Writes all of ``content`` to an open file; the system may take it in several bites."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync_folder(folder: Path) -> None:
    # A rename is durable once its folder is; Windows cannot open a folder and needs no help.
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns a full disk or a ``path`` that may not be written to into one sentence.

    Raises:
        ScanlearnError: The disk or the user's quota is full, or the place may not be written to.
    """
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0)
        if reason is None:
            raise
        raise ScanlearnError(f"{path}: {reason}") from error


def _partial_prefix(target: Path) -> str:
    # The machine is part of the name: on a shared disk only its own machine can tell whether
    # the process that left a folder is still alive.
    return f".{target.name}.partial-{zlib.crc32(node().encode()):08x}-"


def _is_alive(process: int) -> bool:
    if process == _NOBODY:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _left_behind(target: Path) -> list[Path]:
    """Returns what processes of this machine that have ended left beside ``target``."""
    if os.name != "posix" or not target.parent.is_dir():
        return []  # Elsewhere signal 0 would end the process it asks after.
    prefix = _partial_prefix(target)
    folders = []
    for left in target.parent.iterdir():
        process = left.name.removeprefix(prefix).split(".")[0]
        if left.name.startswith(prefix) and process.isdigit() and not _is_alive(int(process)):
            folders.append(left)
    return sorted(folders)


def _claim(left: Path, target: Path, process: int) -> Path | None:
    """Gives a folder to a process in one step; returns None where another was faster."""
    for number in itertools.count():
        mine = target.parent / f"{_partial_prefix(target)}{process}.{number}"
        if not mine.exists():
            break
    try:
        return left.rename(mine)
    except OSError:
        return None


def take_up(target: Path, is_wanted: Callable[[Path], bool]) -> Path | None:
    """Returns a folder that a process which has ended left beside ``target``, now this one's."""
    for left in _left_behind(target):
        if is_wanted(left):
            mine = _claim(left, target, os.getpid())
            if mine is not None:
                return mine
    return None


def release(partial: Path, target: Path) -> None:
    """Leaves a folder behind for `take_up`, as if this process had ended."""
    _claim(partial, target, _NOBODY)


def sweep(target: Path) -> None:
    """Removes what processes of this machine that have ended left beside ``target``."""
    for left in _left_behind(target):
        # Claimed first: another process may be about to go on from there.
        mine = _claim(left, target, os.getpid())
        if mine is not None:
            shutil.rmtree(mine, ignore_errors=True)


def require_free(target: Path) -> None:
    """Checks that nothing would be overwritten.

    Raises:
        ScanlearnError: Something else than an empty folder lies at ``target``.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ScanlearnError(
            f"{target}: something lies there already; remove it or choose another path"
        )


def start_partial(target: Path) -> Path:
    """Makes and returns an empty folder beside ``target``, to be published there later.

    Raises:
        ScanlearnError: The disk is full or may not be written to.
    """
    with disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target)
        number = 0
        while True:
            partial = target.parent / f"{_partial_prefix(target)}{os.getpid()}.{number}"
            try:
                partial.mkdir()
            except FileExistsError:
                number += 1
            else:
                return partial


def publish(partial: Path, target: Path) -> bool:
    """Moves ``partial`` to ``target`` in one step; returns False where something lies there."""
    if target.is_dir() and not any(target.iterdir()):
        target.rmdir()
    if target.exists():
        return False
    try:
        partial.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def link_or_copy(file: Path, to: Path) -> None:
    """Gives a file a second name, or copies it where the file system knows no such thing."""
    try:
        os.link(file, to)
    except OSError:
        shutil.copyfile(file, to)
