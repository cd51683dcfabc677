from __future__ import annotations

import errno
import json
import os
import platform
import random
import re
import subprocess
import sys
from getpass import getuser
from pathlib import Path

import numpy as np
import pytest
import torch

from scanlearn import console as console_module
from scanlearn.console import say, track, warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.files import (
    disk_errors,
    publish,
    release,
    require_free,
    start_partial,
    take_up,
    write_atomically,
)
from scanlearn.provenance import provenance, seed_step


def test_say_prints_one_line_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    say("12 scans packed")
    assert capsys.readouterr() == ("12 scans packed\n", "")


def test_a_warning_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    warn_user("look at this")
    assert capsys.readouterr() == ("", "Warning: look at this\n")


def test_track_is_silent_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with track(3, "packing") as progress:
        for _ in range(3):
            progress.advance(views="5/s")
    assert capsys.readouterr() == ("", "")


def test_track_shows_rate_and_figures_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    console = console_module.Console(force_terminal=True, record=True, width=120)
    monkeypatch.setattr(console_module, "Console", lambda **_: console)
    with track(2, "pretraining") as progress:
        progress.advance(data_wait="1.5%")
        progress.advance()
    text = console.export_text()
    assert "pretraining" in text
    assert "2/2" in text
    assert "data wait 1.5%" in text


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


def _drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def test_a_step_seeds_every_global_generator() -> None:
    seed_step(1, 7)
    first = _drawn()
    seed_step(1, 7)
    assert _drawn() == first
    seed_step(1, 8)
    assert all(a != b for a, b in zip(_drawn(), first, strict=True))
    seed_step(2, 7)
    assert all(a != b for a, b in zip(_drawn(), first, strict=True))


def test_provenance_names_versions_and_nobody() -> None:
    found = provenance()
    assert set(found) == {"versions", "commit", "platform"}
    text = json.dumps(found)
    assert torch.__version__.split("+")[0] in text
    words = {platform.node(), str(Path.home()), str(Path.cwd())} - {"", "/"}
    assert not any(word in text for word in words)
    assert getuser() not in re.findall(r"\w+", text)


def test_wandb_is_not_imported_unless_asked_for() -> None:
    code = "import sys, scanlearn.training.wandb_log; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.long
def test_wandb_offline_writes_nothing_that_identifies(tmp_path: Path) -> None:
    # In a process of its own: wandb starts a service that outlives its run.
    folder = tmp_path / "a_folder_of_mine"
    folder.mkdir()
    code = (
        "import sys; from pathlib import Path; from scanlearn.training.wandb_log import WandbRun\n"
        "for start in range(2):\n"
        "    run = WandbRun(Path(sys.argv[1]), mode='offline', project='p', run_id='abc',"
        " config={'seed': 3})\n"
        "    run.hold(1 + start, {'loss': 1.5})\n"
        "    run.release()\n"
        "    run.hold(9, {'loss': 9.0})\n"
        "    run.finish()\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=environment,
    )
    assert done.stdout == ""
    written = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    starts = [path for path in written if path.suffix == ".wandb"]
    assert len(starts) == 2
    assert {path.name for path in starts} == {"run-abc.wandb"}
    content = b"".join(path.read_bytes() for path in written)
    assert b"loss" in content
    secrets = [folder.name, str(Path.cwd()), platform.node() * (len(platform.node()) > 3)]
    secrets += [sys.executable, Path(__file__).name]
    assert not [word for word in secrets if word and word.encode() in content]


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
