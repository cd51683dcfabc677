from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from scanlearn.cluster import Task
from scanlearn.config import dump_config
from scanlearn.errors import ScanlearnError
from scanlearn.locks import BusyError, Lock, beside
from scantune.comparison.compare import compare
from scantune.study.folder import StudyFolder, open_study
from scantune.study.plan import CompareConfig
from scantune.study.sharing import SharedPiece, make_all, taking_part

Plan = Callable[..., CompareConfig]

HOLD = (
    "import sys, time; from pathlib import Path; from scanlearn.locks import Lock, beside;"
    "lock = Lock(beside(Path(sys.argv[1])), Path(sys.argv[1]));"
    "print('held', flush=True); time.sleep(60)"
)
RUN = (
    "import sys; from scanlearn.config import load_config;"
    "from scantune.study.plan import CompareConfig;"
    "from scantune.study.run import run_study;"
    "run_study(load_config(CompareConfig, sys.argv[1], kind='compare'))"
)


def pieces(folder: Path, made: list[str]) -> list[SharedPiece]:
    return [SharedPiece(name, folder / name, partial(made.append, name)) for name in "abc"]


def test_what_others_make_is_skipped_and_come_back_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[str] = []
    other = Lock(beside(tmp_path / "a"), tmp_path / "a")
    calls = iter((True, False, False))

    def meanwhile() -> bool:
        more = next(calls, False)
        if not more and "waiting" in capsys.readouterr().out:
            other.release()
        return more

    make_all(pieces(tmp_path, made), meanwhile)
    assert made == ["b", "c", "a"]


def test_others_are_waited_for_with_one_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    other = Lock(beside(tmp_path / "b"), tmp_path / "b")
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            other.release()

    monkeypatch.setattr(time, "sleep", nap)
    make_all(pieces(tmp_path, made))
    assert made == ["a", "c", "b"]
    assert capsys.readouterr().out.count("other commands on this study are making b; waiting") == 1
    assert len(naps) == 3


def test_what_a_killed_command_held_is_taken_over(tmp_path: Path) -> None:
    made: list[str] = []
    command = [sys.executable, "-c", HOLD, str(tmp_path / "a")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"

        def kill() -> bool:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True

        make_all(pieces(tmp_path, made), kill)
    assert made == ["b", "c", "a"]


def test_another_plan_waits_until_nobody_is_at_work(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = taking_part(plan())
    folder, _ = first.__enter__()
    with taking_part(plan(wait=True)):
        pass
    with (
        pytest.raises(BusyError, match=r"another plan \(seeds was \[0\], is \[0, 1\]\)"),
        taking_part(plan(seeds=[0, 1])),
    ):
        pass
    monkeypatch.setattr(time, "sleep", lambda _: first.__exit__(None, None, None))
    with taking_part(plan(seeds=[0, 1], wait=True)):
        assert "[0, 1]); let it end" in capsys.readouterr().out
        assert len(folder.plans) == 2
    assert not (folder.path / ".at-work").exists()
    open_study(plan())


def begun(folder: StudyFolder) -> int:
    return len(list(folder.path.glob("arms/*/*/metrics.csv")))


def wait_for(process: subprocess.Popen[bytes], is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not is_so():
        assert process.poll() is None, "it ended before its job could be killed"
        assert time.monotonic() < end, "its job begins nothing"
        time.sleep(0.02)


@pytest.mark.long
def test_a_job_that_is_killed_is_taken_over_and_nothing_made_twice(
    plan: Plan, tmp_path: Path
) -> None:
    pretrain: dict[str, Any] = plan().pretrain.model_dump(mode="json") | {"steps": 200}
    arms = {"weak": {"scale": 0.5}, "strong": {"scale": 1}}
    config = plan(arms=arms, pretrain=pretrain, jobs=2)
    folder = StudyFolder(Path(config.output))
    (tmp_path / "study.yaml").write_text(dump_config(config))
    command = [sys.executable, "-c", RUN, str(tmp_path / "study.yaml")]
    some = {"OMP_NUM_THREADS": "1", "SCANLEARN_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(command, env=os.environ | some, stderr=subprocess.PIPE) as process:
        wait_for(process, lambda: begun(folder) > 0)
        # It would have made both networks before a slow machine has started its job.
        process.send_signal(signal.SIGSTOP)
        wait_for(process, lambda: begun(folder) > 1)
        locks = [json.loads(file.read_text()) for file in (folder.path / ".at-work").iterdir()]
        (job,) = {lock["process"] for lock in locks} - {process.pid}
        os.kill(job, signal.SIGKILL)
        process.send_signal(signal.SIGCONT)
        _, said = process.communicate()
    assert process.returncode == 0
    assert "job 2 ended with exit code -9" in said.decode()
    results = json.loads((folder.path / "results.json").read_text())
    assert results["matched"]["ok"]
    assert [run["steps"] for run in results["runs"]] == [200, 200]
    runs = [json.loads(path.read_text()) for path in folder.path.glob("arms/*/*/provenance.json")]
    # The killed one's network went on from a checkpoint, or was begun anew; the other was not.
    assert sorted(len(run["starts"]) for run in runs) in ([1, 1], [1, 2])


@pytest.mark.long
def test_tasks_of_a_cluster_share_a_study(plan: Plan, tmp_path: Path) -> None:
    submitit = pytest.importorskip("submitit")
    config = plan(jobs=2, launcher="local", seeds=[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCANLEARN_CACHE", str(tmp_path / "cache"))
        report = compare(config)
    tasks = report.parent / "logs" / "tasks"
    end = time.monotonic() + 300
    while len(list(tasks.glob("*_result.pkl"))) < 2:
        assert time.monotonic() < end, "".join(file.read_text() for file in tasks.glob("*.out"))
        time.sleep(0.1)
    numbers = {file.name.split("_")[0] for file in tasks.glob("*_result.pkl")}
    ended = [submitit.LocalJob(tasks, number).result() for number in numbers]
    assert ended == [str(report)] * 2
    runs = [json.loads(path.read_text()) for path in report.parent.glob("arms/*/*/provenance.json")]
    assert [len(run["starts"]) for run in runs] == [1, 1]


ANSWER = (
    "import sys; from scanlearn.config import load_config;"
    "from scantune.comparison.compare import compare;"
    "from scantune.study.plan import CompareConfig;"
    "compare(load_config(CompareConfig, sys.argv[1], kind='compare'))"
)


@pytest.mark.long
def test_commands_with_looks_take_the_same_ones_and_make_nothing_twice(
    plan: Plan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arms = {"weak": {"scale": 0.5}, "strong": {"scale": 1}}
    scored = plan().evaluation.model_dump(mode="json") | {
        "learners": ["linear"],
        "budgets": ["all"],
    }
    config = plan(arms=arms, seeds="auto", max_seeds=4, evaluation=scored)
    folder = StudyFolder(Path(config.output))
    (tmp_path / "study.yaml").write_text(dump_config(config))
    command = [sys.executable, "-c", ANSWER, str(tmp_path / "study.yaml")]
    some = os.environ | {"OMP_NUM_THREADS": "1", "SCANLEARN_CACHE": str(tmp_path / "cache")}
    two = [
        subprocess.Popen(command, env=some, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [process.communicate()[0].decode() for process in two]
    assert [process.returncode for process in two] == [0, 0]
    # A third comes when all is made: it does not go back to the first look.
    monkeypatch.setenv("SCANLEARN_CACHE", str(tmp_path / "cache"))
    compare(config)
    said.append(capsys.readouterr().out)
    assert json.loads(folder.looks.read_text()) == [3, 4]
    assert len(folder.plans) == 2
    runs = [json.loads(path.read_text()) for path in folder.path.glob("arms/*/*/provenance.json")]
    assert [len(run["starts"]) for run in runs] == [1] * 8
    assert sum(text.count("scored weak-seed-") for text in said) == 4
    results = json.loads((folder.path / "results.json").read_text())
    assert results["verdict"]["kind"] == "none"
    assert all(results["verdict"]["sentence"] in text for text in said)
    # Another plan is looked at from its first look on.
    assert folder.unsettled(config) == (3, 4)
    assert folder.unsettled(config.model_copy(update={"margin": 0.02})) == ()
    open_study(config.model_copy(update={"margin": 0.02}))
    assert not folder.looks.exists()


def test_a_task_that_runs_out_of_time_is_queued_as_it_was(plan: Plan) -> None:
    pytest.importorskip("submitit")
    task = Task(json.dumps, plan().model_dump(mode="json"))
    assert task.checkpoint().result() == json.dumps(plan().model_dump(mode="json"))


def test_a_cluster_that_is_not_there_is_told(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ScanlearnError, match="launcher=slurm: "):
        compare(plan(launcher="slurm"))
