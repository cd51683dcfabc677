from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.files import (
    csv_cell,
    csv_text,
    disk_errors,
    folder_mode,
    make_folder,
    publish,
    release,
    require_free,
    start_partial,
    take_up,
    without_home,
    write_atomically,
)


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


def test_published_folder_appears_at_its_target(tmp_path: Path) -> None:
    partial = start_partial(tmp_path / "deep" / "a")
    (partial / "file").touch()
    assert not (tmp_path / "deep" / "a").exists()
    assert publish(partial, tmp_path / "deep" / "a")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a"]


def test_what_lies_at_the_target_is_never_replaced(tmp_path: Path) -> None:
    partial = start_partial(tmp_path / "a")
    (tmp_path / "a").mkdir()
    require_free(tmp_path / "a")
    (tmp_path / "a" / "file").touch()
    assert not publish(partial, tmp_path / "a")
    with pytest.raises(ScanlearnError, match="something lies there already"):
        require_free(tmp_path / "a")
    with pytest.raises(ScanlearnError, match="something lies there already"):
        require_free(tmp_path / "a" / "file")


def test_only_what_dead_processes_left_is_swept_away(tmp_path: Path) -> None:
    mine = start_partial(tmp_path / "a")
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    dead = mine.with_name(mine.name.replace(str(os.getpid()), done.stdout.strip()))
    dead.mkdir()
    other = tmp_path / ".b.partial-00000000-1.0"
    other.mkdir()
    second = start_partial(tmp_path / "a")
    assert sorted(tmp_path.iterdir()) == sorted([mine, second, other])


def test_folder_of_a_living_process_is_not_taken_up(tmp_path: Path) -> None:
    start_partial(tmp_path / "a")
    assert take_up(tmp_path / "a", lambda folder: True) is None


def test_released_folder_is_taken_up_once_and_only_if_wanted(tmp_path: Path) -> None:
    partial = start_partial(tmp_path / "a")
    (partial / "file").write_text("half done")
    release(partial, tmp_path / "a")
    assert take_up(tmp_path / "a", lambda folder: False) is None
    mine = take_up(tmp_path / "a", lambda folder: (folder / "file").is_file())
    assert mine is not None
    assert (mine / "file").read_text() == "half done"
    assert take_up(tmp_path / "a", lambda folder: True) is None
    assert publish(mine, tmp_path / "a")


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
        publish(start_partial(tmp_path / "c/d"), tmp_path / "c/d")
        write_atomically(tmp_path / "a/f", "text")
    finally:
        os.umask(before)
    for folder in ("a", "a/b", "c", "c/d"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == expected
    assert stat.S_IMODE((tmp_path / "a/f").stat().st_mode) == expected & 0o666


def test_an_empty_folder_made_for_one_stays_for_one(tmp_path: Path) -> None:
    target = tmp_path / "mine"
    target.mkdir(mode=0o700)
    assert publish(start_partial(target), target)
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
