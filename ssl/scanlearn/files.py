"""Files that appear complete or not at all, disk errors in one sentence, and the cache's place."""

from __future__ import annotations

import csv
import errno
import itertools
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
    errno.EFBIG: "the limit on the size of a file is reached (ulimit -f, or the file system's); "
    "raise it or choose another folder, then run the same command again",
    errno.ENAMETOOLONG: "the name is too long for the file system; choose a shorter one",
    errno.EISDIR: "is a folder where a file should be; choose another name",
}
ACCESS_VARIABLE = "SCANLEARN_ACCESS"
_ACCESS = {"owner": 0o700, "group": 0o750, "everyone": 0o777}
# What spreadsheets run, also behind the "'" that takes its sense away.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|inf|nan)")
_SETTING = re.compile(r"[a-z_]+(\.\w+)*=.*")
# Of a folder so many names are compared with a misspelt one.
_MOST_NAMES = 2000


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
        if not where and is_setting(str(path)):
            raise ScanlearnError(
                f"'{path}' is a setting and stands where a file or folder is missing; settings "
                "stand after all of these"
            ) from None
        raise ScanlearnError(
            f"{where}{path}: there is no such file or folder{nearest_name(path)}; check the path"
        ) from None


def is_setting(word: str) -> bool:
    """Returns whether a word of a command line is ``key=value`` and not the name of a file."""
    return _SETTING.fullmatch(word) is not None and not Path(word).exists()


def nearest_name(path: Path) -> str:
    """Returns ``(did you mean 'x'?)`` with a name beside a path at which there is nothing."""
    names: list[str] = []
    with suppress(OSError, ValueError), os.scandir(path.parent) as entries:
        names = [entry.name for entry in itertools.islice(entries, _MOST_NAMES)]
    return did_you_mean(path.name, names)


def write_atomically(path: Path, data: bytes | str, *, mode: int = 0o666) -> None:
    """Writes a file so that a reader, a crash or a full disk never sees half of it.

    The data are written aside, flushed to the disk and renamed over ``path``.

    Raises:
        ScanlearnError: The disk or the quota is full; what stood at ``path`` is untouched.
    """
    content = data.encode() if isinstance(data, str) else data
    # Not the process's number: in two containers with one cache both may be process 1, and would
    # write into one file.
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with disk_errors(path):
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode & folder_mode())
            try:
                write_all(descriptor, content)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            aside.replace(path)
            _sync_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def folder_mode() -> int:
    """Returns who may open new folders: owner and group, or what ``$SCANLEARN_ACCESS`` says.

    The user's umask takes away from that.

    Raises:
        ScanlearnError: The variable is none of ``owner``, ``group`` and ``everyone``.
    """
    access = os.environ.get(ACCESS_VARIABLE) or "group"
    if access not in _ACCESS:
        raise ScanlearnError(
            f"{ACCESS_VARIABLE} is {access!r}, not one of {', '.join(_ACCESS)}; it says who may"
            " open the folders that are made"
        )
    return _ACCESS[access]


def make_folder(folder: Path) -> None:
    """Makes a folder, and those above it that are missing, unless it is there."""
    # Archives and scores were readable by everybody on the machine; Path.mkdir gives its mode to
    # the last folder only.
    for missing in reversed([folder, *folder.parents]):
        if not missing.is_dir():
            missing.mkdir(mode=folder_mode(), exist_ok=True)


def without_home(text: str) -> str:
    """Returns a path with ``~`` for the user's home folder, whose name often is the user's."""
    home = os.path.expanduser("~")  # noqa: PTH111 - where there is none, it says so by "~"
    if home in ("~", os.sep):
        return text
    return re.sub(rf"^((?:local-dir:)?){re.escape(home)}(?=/|$)", r"\1~", text)


def csv_cell(value: object) -> object:
    """Returns a cell that no spreadsheet takes for a formula; numbers stay numbers.

    Text that begins like one gets a ``'`` before it, which `csv_text` takes away again.
    """
    is_formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if is_formula else value


def csv_text(cell: str) -> str:
    """Returns the text that `csv_cell` made a cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def remove_torn(folder: Path) -> None:
    """Removes the halves of files that killed writers left below a folder nobody else writes to."""
    for torn in folder.rglob(".*.part"):
        torn.unlink(missing_ok=True)


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


def reason_of(error: OSError) -> str:
    """Returns why the system refused a path, in words that say what to do where we know it."""
    # Whether something was to be read or written is not known here.
    is_known = error.errno not in (errno.EACCES, errno.EPERM, errno.EEXIST)
    reason = _REASONS.get(error.errno or 0) if is_known else None
    return reason or error.strerror or str(error)


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Turns what a damaged file of the program's own raises into one sentence.

    Raises:
        ScanlearnError: The file is not there, or not what it should be.
    """
    try:
        yield
    except ScanlearnError:
        raise
    except OSError as error:
        raise ScanlearnError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except (ValueError, TypeError, LookupError, AttributeError, csv.Error) as error:
        raise ScanlearnError(f"{path}: is damaged ({error}); {remedy}") from error


def require_free(target: Path) -> None:
    """Checks that nothing would be overwritten.

    Raises:
        ScanlearnError: Something else than an empty folder lies at ``target``.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ScanlearnError(
            f"{target}: something lies there already; remove it or choose another path"
        )


def link_or_copy(file: Path, to: Path) -> None:
    """Gives a file a second name, or copies it where the file system knows no such thing."""
    try:
        os.link(file, to)
    except OSError:
        shutil.copyfile(file, to)


def cache_folder() -> Path:
    """Returns where packed sources and features are kept.

    ``$SCANLEARN_CACHE``, or ``scanlearn`` in the user's cache folder, ``$XDG_CACHE_HOME`` or
    ``~/.cache``.

    Raises:
        ScanlearnError: There is neither a variable nor a home.
    """
    named = os.environ.get("SCANLEARN_CACHE")
    if named:
        return Path(named)
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # The standard has a relative one ignored.
        try:
            base = Path.home() / ".cache"
        except RuntimeError as error:
            raise ScanlearnError(
                "this user has no home folder to keep packed scans in; set SCANLEARN_CACHE to a"
                " folder for them"
            ) from error
    return base / "scanlearn"


def features_folder() -> Path:
    """Returns where features are kept."""
    return cache_folder() / "features"


def features_prefix(content_hash: str) -> str:
    """Returns how the names of files with features of an archive begin."""
    return f"{content_hash[:24]}-"
