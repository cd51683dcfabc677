from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from scanlearn.config import dump_config
from scanlearn.threads import SET_BY_HAND
from scantune.study import jobs
from scantune.study.folder import StudyFolder
from scantune.study.jobs import Sharing, gpus_of_jobs, jobs_started, warn_of_threads
from scantune.study.plan import CompareConfig

Plan = Callable[..., CompareConfig]
# Says how many threads it has, and ends with its starter.
CHILD = (
    "import os, sys; print(os.environ['OMP_NUM_THREADS'], flush=True); os.read(0, 1);"
    "print('ended', flush=True)"
)
STARTER = (
    "import sys, time; from pathlib import Path; from scanlearn.config import load_config;"
    "from scantune.study import jobs; from scantune.study.folder import StudyFolder;"
    "from scantune.study.plan import CompareConfig;"
    "jobs._COMMAND = (sys.executable, '-c', sys.argv[2]);"
    "config = load_config(CompareConfig, sys.argv[1], kind='compare');"
    "block = jobs.jobs_started(config, StudyFolder(Path(config.output)));"
    "block.__enter__(); time.sleep(60)"
)


def wait_for(file: Path, text: str) -> None:
    end = time.monotonic() + 60
    while not file.is_file() or text not in file.read_text():
        assert time.monotonic() < end, f"{file} never said {text}"
        time.sleep(0.02)


@pytest.fixture
def folder(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> StudyFolder:
    monkeypatch.setattr(jobs, "_COMMAND", (sys.executable, "-c", CHILD))
    monkeypatch.setattr(jobs, "usable_cores", lambda: frozenset(range(6)))
    for name in SET_BY_HAND:
        monkeypatch.delenv(name, raising=False)
    return StudyFolder(Path(plan().output))


def test_jobs_share_the_cores_and_end_with_an_exception(plan: Plan, folder: StudyFolder) -> None:
    logs = [folder.logs / f"job-{number}.log" for number in (2, 3)]
    block = jobs_started(plan(jobs=3), folder)
    block.__enter__()
    for log in logs:
        wait_for(log, "2\n")
    stop = KeyboardInterrupt()
    assert not block.__exit__(KeyboardInterrupt, stop, None)
    assert [log.read_text() for log in logs] == ["2\nended\n"] * 2


def test_one_job_starts_nothing(plan: Plan, folder: StudyFolder) -> None:
    with jobs_started(plan(), folder):
        pass
    assert not folder.path.exists()


def test_a_job_that_dies_is_told_of(
    plan: Plan,
    folder: StudyFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(jobs, "_COMMAND", (sys.executable, "-c", "raise SystemExit(7)"))
    with jobs_started(plan(jobs=2), folder):
        pass
    said = capsys.readouterr()
    assert "2 jobs share the study" in said.out
    assert "job 2 ended with exit code 7" in said.err


def test_jobs_do_not_outlive_a_killed_starter(plan: Plan, tmp_path: Path) -> None:
    config = plan(jobs=2)
    (tmp_path / "study.yaml").write_text(dump_config(config))
    command = [sys.executable, "-c", STARTER, str(tmp_path / "study.yaml"), CHILD]
    log = StudyFolder(Path(config.output)).logs / "job-2.log"
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        wait_for(log, "1\n")
        process.send_signal(signal.SIGKILL)
    wait_for(log, "ended")


@pytest.mark.parametrize(
    ("count", "threads", "is_warned"), [(1, 6, False), (2, 3, False), (2, 4, True), (9, 1, False)]
)
def test_more_threads_than_cores_are_told(
    folder: StudyFolder, capsys: pytest.CaptureFixture[str], count: int, threads: int, *,
    is_warned: bool,
) -> None:  # fmt: skip
    warn_of_threads(count, threads)
    assert ("begun with" in capsys.readouterr().err) is is_warned


@pytest.mark.parametrize(
    ("jobs", "gpus", "devices", "seen"),
    [
        (2, (), None, (None, None)),
        (3, ("0", "1"), None, ("0", "1", "0")),
        (4, ("0", "1"), None, ("0", "1", "0", "1")),
        (2, ("0", "1", "2", "3"), None, ("0,1", "2,3")),
        (2, ("4", "7", "9"), None, ("4", "7")),
        (3, ("0", "1", "2", "3"), 2, ("0,1", "2,3", "0,1")),
        (2, ("0",), 2, ("0", "0")),
    ],
)
def test_jobs_take_gpus_in_turns(
    jobs: int, gpus: tuple[str, ...], devices: int | None, seen: tuple[str | None, ...]
) -> None:
    assert gpus_of_jobs(jobs, gpus, devices) == seen


@pytest.mark.parametrize(
    ("jobs", "gpus", "devices", "at_once", "fitting"),
    [
        (1, (), None, 1, None),
        (2, (), None, 1, None),
        (4, (), None, 1, 2),
        # Two fit on each.
        (4, ("0", "1"), None, 2, None),
        (6, ("0", "1"), None, 2, 4),
        (5, ("0",), None, 1, 2),
        (3, ("0", "1", "2", "3"), 2, 2, None),
        (5, ("0", "1", "2", "3"), 2, 2, 4),
        # The third job's second GPU is the first one's.
        (3, ("0", "1", "2", "3", "4"), 2, 2, None),
    ],
)
def test_jobs_that_do_not_fit_are_told_how_many_do(
    jobs: int, gpus: tuple[str, ...], devices: int | None, at_once: int, fitting: int | None
) -> None:
    sharing = Sharing(jobs, gpus, devices, memory=20_000_000_000)
    assert sharing.at_once == at_once
    said = sharing.warning(8_000_000_000)
    assert (said is None) == (fitting is None)
    assert said is None or said.endswith(f"has 20 GB: give jobs={fitting}")
    assert sharing.warning(None) is None
    assert replace(sharing, memory=None).warning(8_000_000_000) is None


def test_a_plan_shares_the_memory_of_the_machine_on_a_cpu(plan: Plan) -> None:
    here = Sharing.of(plan(jobs=2))
    assert (here.jobs, here.gpus) == (2, ())
    assert here.memory is not None
    # The tasks of a cluster share nothing.
    assert Sharing.of(plan(jobs=2, launcher="local")).jobs == 1
