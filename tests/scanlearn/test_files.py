from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.files import cache_folder, disk_errors, require_free, write_atomically


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
