from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.files import (
    cache_folder,
    csv_cell,
    csv_text,
    disk_errors,
    folder_mode,
    make_folder,
    require_free,
    without_home,
    write_atomically,
)
from scanlearn.locks import PartialFolder


def test_an_atomic_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, "old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_keeps_the_old_file_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    path = tmp_path / "last.ckpt"
    write_atomically(path, "old")

    def full(descriptor: int, data: object) -> int:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ScanlearnError, match=r"last\.ckpt: the disk is full; free some"):
        write_atomically(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_another_error_of_the_disk_is_not_called_full(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "missing" / "a", "x")


def test_only_an_empty_folder_may_be_written_over(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    require_free(tmp_path / "a")
    (tmp_path / "a" / "file").touch()
    for path in (tmp_path / "a", tmp_path / "a" / "file"):
        with pytest.raises(ScanlearnError, match="something lies there already"):
            require_free(path)


HOME = str(Path.home())


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"SCANLEARN_CACHE": "/here", "XDG_CACHE_HOME": "/there"}, "/here"),
        ({"XDG_CACHE_HOME": "/there"}, "/there/scanlearn"),
        ({"XDG_CACHE_HOME": "there"}, f"{HOME}/.cache/scanlearn"),  # The standard: ignored.
        ({"SCANLEARN_CACHE": "", "XDG_CACHE_HOME": ""}, f"{HOME}/.cache/scanlearn"),
        ({}, f"{HOME}/.cache/scanlearn"),
    ],
)
def test_the_cache_is_where_the_variables_say(
    monkeypatch: pytest.MonkeyPatch, named: dict[str, str], expected: str
) -> None:
    for name in ("SCANLEARN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def test_two_processes_of_one_number_do_not_write_into_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two containers with one cache, in each of which the program is process 1."""
    path, write, opened = tmp_path / "a", os.write, []

    def inner(descriptor: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", write)
        write_atomically(path, b"inner")
        opened.append(path.read_bytes())
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", inner)
    write_atomically(path, b"outer, and longer")
    assert (opened, path.read_bytes()) == ([b"inner"], b"outer, and longer")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "disk is full"),
        (errno.EACCES, "may not be written to"),
        (errno.EROFS, "may not be written to"),
        (errno.ENOTDIR, "part of this path is a file"),
    ],
)
def test_disk_errors_become_one_clear_sentence(number: int, message: str) -> None:
    with pytest.raises(ScanlearnError, match=f"folder: .*{message}"), disk_errors(Path("folder")):
        raise OSError(number, os.strerror(number))


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(OSError, match="Input/output"), disk_errors(Path("folder")):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize(
    ("access", "umask", "expected"),
    [
        (None, 0o022, 0o750),
        (None, 0o077, 0o700),
        (None, 0o002, 0o750),
        ("group", 0o022, 0o750),
        ("owner", 0o022, 0o700),
        ("everyone", 0o022, 0o755),
        ("everyone", 0o027, 0o750),
    ],
)
def test_folders_are_open_to_owner_and_group_or_as_a_person_says(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    access: str | None,
    umask: int,
    expected: int,
) -> None:
    monkeypatch.delenv("SCANLEARN_ACCESS", raising=False)
    if access is not None:
        monkeypatch.setenv("SCANLEARN_ACCESS", access)
    before = os.umask(umask)
    try:
        make_folder(tmp_path / "a/b")
        PartialFolder(tmp_path / "c/d").publish()
        write_atomically(tmp_path / "a/f", "text")
    finally:
        os.umask(before)
    for folder in ("a", "a/b", "c", "c/d"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == expected
    assert stat.S_IMODE((tmp_path / "a/f").stat().st_mode) == expected & 0o666


def test_an_empty_folder_made_for_one_stays_for_one(tmp_path: Path) -> None:
    target = tmp_path / "mine"
    target.mkdir(mode=0o700)
    assert PartialFolder(target).publish()
    assert stat.S_IMODE(target.stat().st_mode) == 0o700


def test_an_unknown_access_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANLEARN_ACCESS", "all")
    with pytest.raises(ScanlearnError, match="'all', not one of owner, group, everyone"):
        folder_mode()


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+49 89", "'+49 89"),
        ("-cmd", "'-cmd"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("'=1", "''=1"),
        *((text, text) for text in ("-1.5", "+2", "-1e-05", "-.5", "-inf", "a=1", "'quoted'", "")),
        (-1.5, -1.5),
        (None, None),
    ],
)
def test_no_cell_is_a_formula_and_every_text_reads_back(value: object, cell: object) -> None:
    assert csv_cell(value) == cell
    if isinstance(value, str):
        assert csv_text(str(cell)) == value


def test_the_home_folder_is_written_as_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    for path, short in {
        "/home/ann/scans": "~/scans",
        "/home/ann": "~",
        "local-dir:/home/ann/w": "local-dir:~/w",
        "/home/anna/scans": "/home/anna/scans",
        "/data/home/ann": "/data/home/ann",
        "phantom:patients=3": "phantom:patients=3",
    }.items():
        assert without_home(path) == short
    monkeypatch.setenv("HOME", "/")
    assert without_home("/data") == "/data"
