from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from platform import node

import pytest

from scanlearn import locks
from scanlearn.errors import ScanlearnError
from scanlearn.locks import (
    BUSY_EXIT_CODE,
    BusyError,
    Lock,
    PartialFolder,
    beside,
    held,
    inside,
    remove_whole,
    sweep,
)

# Holds a lock until it is killed; with a word more, a forked child lives on without it.
HOLDER = """
import os, sys, time
from pathlib import Path
from scanlearn.locks import Lock
lock = Lock(Path(sys.argv[1]), Path("it"))
is_child = bool(sys.argv[2:]) and os.fork() == 0
# The child says it: only then has it let go of what it inherited.
if is_child or not sys.argv[2:]:
    print("held", flush=True)
if is_child:
    sys.stdin.read()
    os._exit(0)
time.sleep(600)
"""


@contextmanager
def holder(file: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_the_second_comer_says_who_is_at_work_and_since_when(tmp_path: Path) -> None:
    file = inside(tmp_path / "run")
    with holder(file) as process:
        with pytest.raises(BusyError) as caught:
            Lock(file, tmp_path / "run")
        said = str(caught.value)
        assert f"run: process {process.pid} on {node()} has been at work on it since 20" in said
        assert caught.value.exit_code == BUSY_EXIT_CODE == 3


@pytest.mark.parametrize("words", [(), ("a forked child lives on",)])
def test_death_frees_a_lock_whoever_the_holder_has_forked(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    file = inside(tmp_path)
    with holder(file, *words) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with held(file, tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_waiting_one_says_so_once_and_goes_on_afterwards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = inside(tmp_path)
    with holder(file) as process:
        acquire, calls = locks.FileLock.acquire, []

        def counted(lock: object, **options: float) -> object:
            calls.append(options)
            if len(calls) == 4:
                os.kill(process.pid, signal.SIGKILL)
            return acquire(lock, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(locks, "_LOOK_AGAIN_S", 0.05)
        monkeypatch.setattr(locks.FileLock, "acquire", counted)
        with held(file, tmp_path, wait=True):
            said = capsys.readouterr().out
    assert said.count("waiting until it ends") == 1
    assert len(calls) >= 4


def test_a_lock_leaves_neither_its_file_nor_folders_made_for_nothing(tmp_path: Path) -> None:
    with held(inside(tmp_path / "new" / "run"), tmp_path):
        assert (tmp_path / "new" / "run").is_dir()
    assert list(tmp_path.iterdir()) == []
    with held(inside(tmp_path / "new" / "run"), tmp_path):
        (tmp_path / "new" / "run" / "file").touch()
    assert [path.name for path in (tmp_path / "new" / "run").iterdir()] == ["file"]


def test_a_removed_file_locks_nothing_and_that_of_another_is_not_removed(tmp_path: Path) -> None:
    file = inside(tmp_path)
    first = Lock(file, tmp_path)
    file.unlink()
    with holder(file):
        first.release()
        assert file.is_file()
        with pytest.raises(BusyError):
            Lock(file, tmp_path)


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refused(lock: object, **options: float) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks.FileLock, "acquire", refused)


def test_a_file_system_without_locks_is_said_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse(monkeypatch, errno.ENOLCK)
    for _ in range(2):
        partial = PartialFolder(tmp_path / "a")
        partial.discard()
    assert capsys.readouterr().err.count("its file system has no locks") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_where_nothing_may_be_written_nothing_needs_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse(monkeypatch, number)
    with held(inside(tmp_path), tmp_path):
        pass


def test_a_lock_that_another_user_left_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside(tmp_path).touch()
    refuse(monkeypatch, errno.EACCES)
    with pytest.raises(ScanlearnError, match=r"another user's lock lies there, .*\.lock"):
        Lock(inside(tmp_path), tmp_path)


def test_published_folder_appears_at_its_target(tmp_path: Path) -> None:
    partial = PartialFolder(tmp_path / "deep" / "a")
    (partial.path / "file").touch()
    assert not (tmp_path / "deep" / "a").exists()
    assert partial.publish()
    partial.discard()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "deep" / "a").iterdir()] == ["file"]


def test_what_lies_at_the_target_is_never_replaced(tmp_path: Path) -> None:
    partial = PartialFolder(tmp_path / "a")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").touch()
    assert not partial.publish()
    partial.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_one_at_a_time_fills_a_folder(tmp_path: Path) -> None:
    partial = PartialFolder(tmp_path / "a")
    with pytest.raises(BusyError):
        PartialFolder(tmp_path / "a", wait=False)
    assert sweep(tmp_path / "a") == []
    assert partial.path.is_dir()
    partial.discard()


def test_what_was_left_is_taken_up_once_and_only_if_wanted(tmp_path: Path) -> None:
    partial = PartialFolder(tmp_path / "a")
    (partial.path / "file").write_text("half done")
    partial.leave()
    wanted = PartialFolder(tmp_path / "a", lambda folder: (folder / "file").is_file())
    assert wanted.is_taken_up
    assert (wanted.path / "file").read_text() == "half done"
    wanted.leave()
    unwanted = PartialFolder(tmp_path / "a", lambda folder: False)
    assert not unwanted.is_taken_up
    assert list(unwanted.path.iterdir()) == []
    assert unwanted.publish()


LEFT = (".a.partial", ".a.partial-0123abcd-1.0", ".a.partial-0123abcd-4711")
KEPT = (".b.partial", ".a.partial-x", ".a.partial-0123abcd-1.0.lock", ".a.b.partial", "a.partial")


def test_only_what_was_left_of_this_target_is_swept_away(tmp_path: Path) -> None:
    """Also what earlier releases left, under the numbers of machine and process."""
    for name in (*LEFT, *KEPT):
        (tmp_path / name).mkdir()
    assert [path.name for path in sweep(tmp_path / "a")] == sorted(LEFT)
    assert {path.name for path in tmp_path.iterdir()} == set(KEPT)


def test_a_folder_is_removed_whole(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").touch()
    remove_whole(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    assert beside(tmp_path / "a") == tmp_path / ".a.lock"
