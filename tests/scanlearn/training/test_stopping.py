from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from scanlearn.archive.reader import Archive
from scanlearn.console import SIGNALS, STOPPED_EXIT_CODE
from scanlearn.locks import BusyError, held, inside
from scanlearn.training import pretrain as pretraining
from scanlearn.training import trainer
from scanlearn.training.module import Pretrainer
from scanlearn.training.pretrain import pretrain
from scanlearn.training.recorder import Recorder
from scanlearn.training.run import Run
from scanlearn.training.settings import PretrainConfig
from scanlearn.training.stopping import Stopped, StopRequest

CPU = torch.device("cpu")
Configure = Callable[..., PretrainConfig]
StopAt = Callable[..., AbstractContextManager[None]]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_run_asked_to_stop_finishes_the_step_keeps_it_and_says_so(
    configure: Configure,
    stop_at: StopAt,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    tmp_path: Path,
) -> None:
    whole = pretrain(configure(output=str(tmp_path / "whole")))
    capsys.readouterr()
    with stop_at(number, step=2), pytest.raises(Stopped) as caught:
        pretrain(configure())
    assert caught.value.code == STOPPED_EXIT_CODE == 75
    assert f"stopped by {number.name} after step 3 of 5" in capsys.readouterr().out
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 3
    resumed = pretrain(configure())
    assert resumed.final_hash == whole.final_hash
    assert resumed.order_hash == whole.order_hash
    assert resumed.metrics.read_text().count("\n") == 6


def test_ctrl_c_is_a_stop_too_and_stays_a_keyboard_interrupt(
    configure: Configure, stop_at: StopAt, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    whole = pretrain(configure(output=str(tmp_path / "whole")))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with stop_at(signal.SIGINT, step=2), pytest.raises(KeyboardInterrupt) as caught:
            pretrain(configure())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert str(caught.value).startswith("stopped by Ctrl-C after step 3 of 5, which is in the")
    assert capsys.readouterr().err == ""
    resumed = pretrain(configure())
    assert resumed.final_hash == whole.final_hash
    assert [row.split(",")[0] for row in resumed.metrics.read_text().split()[1:]] == list("12345")


def test_a_second_ctrl_c_stops_at_once(configure: Configure, stop_at: StopAt) -> None:
    # Whatever shell began the tests: one in its background ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with (
            stop_at(signal.SIGINT, step=2, method="on_train_batch_start"),
            stop_at(signal.SIGINT, step=2),
            pytest.raises(KeyboardInterrupt, match="Ctrl-C in a step"),
        ):
            pretrain(configure())
    finally:
        signal.signal(signal.SIGINT, before)
    assert pretrain(configure()).steps == 5


def test_ctrl_c_that_is_ignored_stays_ignored(configure: Configure, stop_at: StopAt) -> None:
    """As in a shell's background: the Ctrl-C there is meant for another command."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_at(signal.SIGINT, step=2):
            assert pretrain(configure()).steps == 5
    finally:
        signal.signal(signal.SIGINT, before)


def test_two_runs_do_not_write_into_one_folder(configure: Configure, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with held(inside(folder), folder), pytest.raises(BusyError, match="at work on it since"):
        pretrain(configure())
    assert not folder.exists()
    assert pretrain(configure()).steps == 5
    assert not inside(folder).exists()


def test_lightnings_own_handler_has_no_say(
    configure: Configure, archive: Archive, monkeypatch: pytest.MonkeyPatch, stop_at: StopAt
) -> None:
    seen: list[bool] = []
    stepped = Recorder.stepped

    def watching(recorder: Recorder, module: Pretrainer, num_views: int) -> None:
        seen.append(module.trainer.received_sigterm)
        stepped(recorder, module, num_views)

    monkeypatch.setattr(Recorder, "stepped", watching)
    with stop_at(signal.SIGTERM, step=1), pytest.raises(Stopped):
        trainer.train(Run.of(configure(), archive), StopRequest())
    assert seen == [False, False]


@pytest.mark.parametrize("is_stopped", [False, True])
def test_the_handlers_of_before_are_put_back_and_told_when_the_last_step_is_kept(
    configure: Configure, stop_at: StopAt, is_stopped: bool, tmp_path: Path
) -> None:
    told: list[tuple[int, bool]] = []

    def mine(number: int, _: object) -> None:
        told.append((number, (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()))

    before = {number: signal.signal(number, mine) for number in SIGNALS}
    try:
        if is_stopped:
            with stop_at(signal.SIGTERM, step=1), pytest.raises(Stopped):
                pretrain(configure())
        else:
            pretrain(configure())
        assert all(signal.getsignal(number) is mine for number in SIGNALS)
        assert told == [(signal.SIGTERM, True)] * is_stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_request_outside_the_steps_is_followed_at_once(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slow(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("went on after the request")

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "export_backbone", slow)
        with pytest.raises(Stopped, match="between steps"):
            pretrain(configure())
    assert "continue from the last checkpoint" in capsys.readouterr().out
    assert pretrain(configure()).steps == 5


def test_a_request_in_the_last_step_leaves_only_the_export_to_do(
    configure: Configure, stop_at: StopAt
) -> None:
    with stop_at(signal.SIGTERM, step=4), pytest.raises(Stopped, match="after step 5 of 5"):
        pretrain(configure())
    with stop_at(signal.SIGTERM, step=4, method="on_train_batch_start"):
        assert pretrain(configure()).steps == 5


def test_a_run_in_another_thread_listens_to_nothing_and_works(configure: Configure) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    found: list[Any] = []

    def work() -> None:
        result = pretrain(configure())
        found.extend((result.steps, [signal.getsignal(number) for number in SIGNALS]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [5, before]


def test_a_script_that_trains_ends_with_the_code_of_a_stopped_run() -> None:
    code = (
        "import os, signal\n"
        "from scanlearn.training.stopping import listening\n"
        "with listening():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (STOPPED_EXIT_CODE, "")
    assert done.stdout.count("\n") == 1


def test_without_a_request_a_run_goes_on_until_it_has_enough() -> None:
    answers = iter([False, True])
    request = StopRequest(lambda: next(answers))
    assert request.agreed(CPU) is None
    assert request.agreed(CPU) == "enough"
    assert not request.is_asked


TWO_PROCESSES = """
import os, signal, sys
import torch
from torch import distributed
from scanlearn.training.stopping import listening

rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
with listening() as request:
    request.begin_steps()
    assert request.agreed(torch.device("cpu")) is None
    if rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    assert request.agreed(torch.device("cpu")) == "SIGTERM"
    print("both stop")
distributed.destroy_process_group()
"""


def test_one_process_that_is_asked_stops_all_after_the_same_step(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        answers = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert answers == ["both stop\n"] * 2
    assert [process.returncode for process in processes] == [0, 0]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("program", ["scanlearn pretrain", "scantune compare"])
def test_a_command_that_is_asked_to_stop_while_it_loads_can_be_run_again(
    tmp_path: Path, program: str, number: signal.Signals
) -> None:
    package, command = program.split()
    code = f"""
import os, sys
class Asking:
    def find_spec(self, name, *_):
        if name == "torch":
            os.kill(os.getpid(), {int(number)})
sys.meta_path.insert(0, Asking())
from {package}.cli import main
main()
"""
    scans = "phantom:patients=8,size=32"
    words = {
        "pretrain": ["simclr", f"archive={scans}"],
        "compare": ["weak_strong", f"unlabeled={scans}", f"labels={scans}", "target=lesion"],
    }
    done = subprocess.run(
        [sys.executable, "-c", code, command, *words[command], f"output={tmp_path / 'run'}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == STOPPED_EXIT_CODE, done.stderr
    assert f"stopped by {number.name} before work began: run the same command" in done.stdout
    assert "Traceback" not in done.stderr
