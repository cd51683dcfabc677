"""One process at a time writes to a folder: locks of the system, which a holder's death frees.

Process numbers told nothing: in a container every program is process 1, and another machine's
cannot be asked after. A killed `pack` left its scans behind for ever, and two runs wrote into one
folder.
"""

from __future__ import annotations

import datetime
import errno
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from platform import node
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from scanlearn.console import say, warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.files import disk_errors, make_folder

_Made = TypeVar("_Made")

BUSY_EXIT_CODE = 3
_TOKEN = secrets.token_hex(8)
_POLL_S, _LOOK_AGAIN_S = 0.2, 10.0
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_DENIED = (errno.EACCES, errno.EPERM)
_MARK = ".partial"
# What releases before locks left beside a target: a machine, a process and a number.
_EARLIER = re.compile(r"-[0-9a-f]{8}-\d+(\.\d+)?")


class BusyError(ScanlearnError):
    """Another process is at work where this one would write."""

    exit_code = BUSY_EXIT_CODE


def beside(target: Path) -> Path:
    """Returns the lock of a file or folder that is yet to be made."""
    return target.parent / f".{target.name}.lock"


def inside(folder: Path) -> Path:
    """Returns the lock of a folder that is written to in place."""
    return folder / ".lock"


class Lock:
    """Holds a lock until it is released or this process ends; forked processes do not hold it.

    Its file says who holds it. It is made, with the folders that it needs, and removed again.

    Args:
        file: See `beside` and `inside`.
        what: What is written, as messages call it.
        wait: Whether to wait, with a word, for another process; if not, it is an error.

    Raises:
        BusyError: Another process holds it.
        ScanlearnError: The lock is another user's, who left it behind.
    """

    def __init__(self, file: Path, what: Path, *, wait: bool = False) -> None:
        self._file = Path(os.path.abspath(file))  # noqa: PTH100 - links stay
        self._made = [folder for folder in self._file.parents if not folder.exists()]
        self._is_released = False
        # Of no thread: whoever closes an archive may be another than the one that opened it.
        self._lock = FileLock(
            self._file,
            thread_local=False,
            fallback_to_soft=False,
            on_acquired=_sign,
            poll_interval=_POLL_S,
        )
        try:
            self._acquire(what, wait)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                _warn_no_locks(self._file.parent)
            elif error.errno in _DENIED and self._file.exists():
                raise ScanlearnError(
                    f"{what}: another user's lock lies there, {self._file}; if that user is not at"
                    " work on it, have the file removed"
                ) from error
            # Where nothing may be written nothing needs a lock, and the first file will say so.
            elif error.errno not in (errno.EROFS, *_DENIED):
                with disk_errors(what):
                    raise

    def _acquire(self, what: Path, wait: bool) -> None:
        has_said = False
        while True:
            try:
                make_folder(self._file.parent)
                self._lock.acquire(timeout=0)
            except Timeout:
                sentence = f"{what}: {_holder(self._file)}"
                if not wait:
                    raise BusyError(
                        f"{sentence}; let it end, choose another place, or give wait=true to wait"
                        " for it"
                    ) from None
                if not has_said:
                    say(f"{sentence}; waiting until it ends")
                has_said = True
                with suppress(Timeout):
                    self._lock.acquire(timeout=_LOOK_AGAIN_S)
            except FileNotFoundError:
                continue  # Whoever made the folder has removed it again.
            if self._lock.is_locked:
                # A file that its holder removed meanwhile locks nothing.
                if _is_mine(self._file):
                    return
                self._lock.release()

    @property
    def is_held(self) -> bool:
        """Whether it is not released yet; True too where the file system has no locks."""
        return not self._is_released

    def release(self) -> None:
        """Lets go of the lock and removes its file, and folders that were made for nothing."""
        self._is_released = True
        if not self._lock.is_locked:
            return
        if _is_mine(self._file):
            with suppress(OSError):
                self._file.unlink()
                for folder in self._made:
                    folder.rmdir()
        self._lock.release()


@contextmanager
def held(file: Path, what: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds a lock inside the block; see `Lock`."""
    lock = Lock(file, what, wait=wait)
    try:
        yield
    finally:
        lock.release()


def _sign(descriptor: int) -> None:
    since = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    holder = {"host": node(), "process": os.getpid(), "since": since, "token": _TOKEN}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _read(file: Path) -> dict[str, Any]:
    try:
        holder = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _is_mine(file: Path) -> bool:
    holder = _read(file)
    return (holder.get("token"), holder.get("process")) == (_TOKEN, os.getpid())


def _holder(file: Path) -> str:
    holder = _read(file)
    if not {"host", "process", "since"} <= holder.keys():
        return "another process is at work on it"
    return (
        f"process {holder['process']} on {holder['host']} has been at work on it since"
        f" {holder['since']}"
    )


@cache
def _warn_no_locks(folder: Path) -> None:
    warn_user(
        f"{folder}: its file system has no locks; make sure yourself that no two commands write"
        " there at once"
    )


class PartialFolder:
    """A folder beside its target that one process at a time fills, to be published there whole.

    What a killed process left there is taken up or removed by the next one.

    Args:
        is_wanted: Whether to go on with what was left; it is given the folder.

    Raises:
        BusyError: Another process is filling it.
        ScanlearnError: The disk is full or may not be written to.
    """

    def __init__(
        self,
        target: Path,
        is_wanted: Callable[[Path], bool] = lambda _: False,
        *,
        wait: bool = True,
    ) -> None:
        self.target, self.path = target, _partial(target)
        self._lock = Lock(beside(self.path), target, wait=wait)
        try:
            self.is_taken_up = self.path.is_dir() and is_wanted(self.path)
            if not self.is_taken_up:
                _remove_left(target)
                with disk_errors(target.parent):
                    make_folder(self.path)
        except BaseException:
            self._lock.release()
            raise

    def publish(self) -> bool:
        """Moves it to its target in one step; returns False where something lies there."""
        if self.target.is_dir() and not any(self.target.iterdir()):
            # Somebody who made it for a few people must not find it open to more.
            both = self.path.stat().st_mode & self.target.stat().st_mode
            self.path.chmod(stat.S_IMODE(both) | stat.S_IRWXU)
            self.target.rmdir()
        if self.target.exists():
            return False
        try:
            self.path.rename(self.target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        self._lock.release()
        return True

    def leave(self) -> None:
        """Leaves it to whoever takes it up, as if this process had ended."""
        self._lock.release()

    def discard(self) -> None:
        """Removes it, unless it is published."""
        if self._lock.is_held:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()


def publish_once(
    target: Path, make: Callable[[Path], _Made], already: Callable[[], _Made]
) -> _Made:
    """Makes a folder aside and publishes it whole, unless something lies there.

    Args:
        make: Fills the folder that it is given; nothing is published where it fails.
        already: Called instead where the target is there, and is not an empty folder.

    Returns:
        What the one that was called returned.

    Raises:
        BusyError: Another process is making it.
        ScanlearnError: The disk is full or may not be written to.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        return already()
    partial = PartialFolder(target)
    try:
        made = make(partial.path)
        return made if partial.publish() else already()
    finally:
        partial.discard()


def sweep(target: Path) -> list[Path]:
    """Removes and returns what killed processes left beside a target, if none is at work there."""
    if not _left_behind(target):
        return []
    try:
        with held(beside(_partial(target)), target):
            return _remove_left(target)
    except BusyError:
        return []


def remove_whole(folder: Path) -> None:
    """Removes a folder so that a kill leaves none of it at its place.

    Raises:
        BusyError: Another process is about to replace it.
    """
    with held(beside(_partial(folder)), folder):
        _remove_left(folder)
        folder.rename(_partial(folder))
        _remove_left(folder)


def target_of(left: Path) -> Path | None:
    """Returns what a folder was to become that a killed process left; None of any other folder."""
    name, mark, earlier = left.name.removeprefix(".").partition(_MARK)
    is_left = left.name.startswith(".") and mark and (not earlier or _EARLIER.fullmatch(earlier))
    return left.parent / name if is_left else None


def _partial(target: Path) -> Path:
    return target.parent / f".{target.name}{_MARK}"


def _left_behind(target: Path) -> list[Path]:
    if not target.parent.is_dir():
        return []
    prefix = _partial(target).name
    return sorted(
        left
        for left in target.parent.iterdir()
        if left.name.startswith(prefix) and target_of(left) == target
    )


def _remove_left(target: Path) -> list[Path]:
    left = _left_behind(target)
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
    return left
