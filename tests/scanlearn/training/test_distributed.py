"""How many processes share a run's batches, who goes first, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import nn

from scanlearn.errors import ScanlearnError
from scanlearn.training.distributed import ALONE, ProcessLayout
from scanlearn.training.settings import PretrainConfig
from scanlearn.training.trainer import build_trainer

Configure = Callable[..., PretrainConfig]
CPU = torch.device("cpu")
GPU = torch.device("cuda")


# Joins as a launcher's child would, and goes through `first` twice: once well, once badly.
_JOINING = """
import json, os, sys, time
import torch
from pathlib import Path
from scanlearn.errors import ScanlearnError
from scanlearn.training.distributed import ProcessLayout

folder = Path(sys.argv[1])
layout = ProcessLayout(torch.device("cpu"), devices=2)
assert not layout.must_start()
with layout.joined() as ranks:
    print("spoken by", ranks.rank)
    def make():
        if ranks.is_first:
            time.sleep(0.5)
            (folder / "made").write_text("by the first")
        return (folder / "made").read_text()
    (folder / f"found{ranks.rank}").write_text(ranks.first(make))
    def fail():
        (folder / f"tried{ranks.rank}").touch()
        raise ScanlearnError("cannot be used")
    try:
        ranks.first(fail)
    except BaseException as error:
        (folder / f"error{ranks.rank}").write_text(f"{type(error).__name__} {error}")
"""


@pytest.fixture(autouse=True)
def _started_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "LOCAL_RANK", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    # A Trainer leaves the rank it has found in here; put back after the test.
    monkeypatch.setattr(rank_zero_only, "rank", 0)


def test_a_run_is_one_process_unless_asked_otherwise(configure: Configure) -> None:
    layout = ProcessLayout.of(configure(), CPU)
    assert layout.ranks == 1
    assert not layout.must_start()
    assert layout.trainer_arguments()["strategy"] == "auto"
    assert layout.in_words(nn.BatchNorm1d(2)) == ""


def test_auto_is_one_process_on_a_cpu(configure: Configure) -> None:
    assert ProcessLayout.of(configure(devices="auto"), CPU).ranks == 1


def test_auto_is_all_visible_gpus(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert ProcessLayout.of(configure(devices="auto", nodes=2), GPU).ranks == 8


def test_more_gpus_than_there_are_is_refused(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ScanlearnError, match="devices is 4, but 2 GPUs are visible"):
        ProcessLayout.of(configure(devices=4), GPU)


@pytest.mark.parametrize(("devices", "sizes"), [(3, "6 or 9"), (16, "16")])
def test_a_batch_that_cannot_be_shared_evenly_is_refused(
    configure: Configure, devices: int, sizes: str
) -> None:
    with pytest.raises(ScanlearnError, match=f"batch_size is 8, .* set it to {sizes}."):
        ProcessLayout.of(configure(devices=devices), CPU)


def test_several_processes_on_one_machine_are_started_from_here() -> None:
    assert ProcessLayout(CPU, devices=2).must_start()


def _start(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


TORCHRUN = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "1"}
SRUN = {
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_JOB_NAME": "pretrain",
    "SLURM_JOB_ID": "123456",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}


@pytest.mark.parametrize("variables", [TORCHRUN, SRUN], ids=["torchrun", "srun"])
def test_what_a_launcher_started_is_not_started_again(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    _start(monkeypatch, **variables)
    assert not ProcessLayout(CPU, devices=2, nodes=2).must_start()


@pytest.mark.parametrize("per_node", [{}, {"SLURM_NTASKS_PER_NODE": "4"}], ids=["", "per node"])
def test_a_slurm_job_of_several_tasks_is_not_taken_for_processes_that_srun_started(
    monkeypatch: pytest.MonkeyPatch, per_node: dict[str, str]
) -> None:
    for name in ("SLURM_NTASKS_PER_NODE", "SLURM_JOB_NAME"):
        monkeypatch.delenv(name, raising=False)
    # In a batch script, or in the shell that salloc opens: four tasks may be started, one runs.
    _start(monkeypatch, SLURM_NTASKS="4", SLURM_JOB_ID="12", SLURM_PROCID="0", **per_node)
    assert ProcessLayout(CPU, devices=2).must_start()
    alone = ProcessLayout(CPU)
    assert not alone.must_start()
    trainer = build_trainer(layout=alone, precision="fp32", steps=1, folder=Path())
    assert trainer.world_size == 1


@pytest.mark.parametrize("devices", [1, 4])
def test_a_launcher_that_started_another_number_is_refused(
    monkeypatch: pytest.MonkeyPatch, devices: int
) -> None:
    _start(monkeypatch, **{**TORCHRUN, "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"})
    with pytest.raises(ScanlearnError, match=f"2 processes .* devices x nodes is {devices} x 1"):
        ProcessLayout(CPU, devices=devices).must_start()


def test_several_nodes_without_a_launcher_are_refused() -> None:
    with pytest.raises(ScanlearnError, match="nodes is 2, but this process was started alone"):
        ProcessLayout(CPU, devices=2, nodes=2).must_start()


def test_batch_norm_is_shared_on_gpus_and_warned_of_on_a_cpu() -> None:
    with_norm, without = nn.Sequential(nn.BatchNorm1d(2)), nn.Linear(2, 2)
    gpus, cpus = ProcessLayout(GPU, devices=2, nodes=2), ProcessLayout(CPU, devices=2)
    assert gpus.trainer_arguments()["sync_batchnorm"]
    assert not cpus.trainer_arguments()["sync_batchnorm"]
    assert "2 GPUs on each of 2 nodes, BatchNorm over all of them" in gpus.in_words(with_norm)
    assert "BatchNorm" not in gpus.in_words(without)
    assert gpus.warnings(with_norm) == cpus.warnings(without) == ()
    assert "BatchNorm uses only the scans of its own process" in cpus.warnings(with_norm)[0]


def test_alone_a_process_makes_things_itself() -> None:
    assert ALONE.is_first
    assert ALONE.first(lambda: 3) == 3


@pytest.mark.long
def test_the_first_process_goes_first_and_speaks_alone(tmp_path: Path) -> None:
    shared = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": _free_port(),
        "WORLD_SIZE": "2",
    }
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _JOINING, str(tmp_path)],
            env={**shared, "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in running]
    assert said == ["spoken by 0\n", ""]
    assert [(tmp_path / f"found{rank}").read_text() for rank in range(2)] == ["by the first"] * 2
    errors = [(tmp_path / f"error{rank}").read_text() for rank in range(2)]
    assert errors == ["ScanlearnError cannot be used", "SystemExit 0"]
    assert not (tmp_path / "tried1").exists()


def _free_port() -> str:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
