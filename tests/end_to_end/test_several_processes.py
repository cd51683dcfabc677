"""A run of two processes is the run of one: same scans, same views, same weights."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from scanlearn.archive.layout import Origin, PackedScan
from scanlearn.archive.writer import ArchiveWriter

pytestmark = pytest.mark.long

STEPS = 8
# The command line, with a reload of the export that is proven elsewhere left out, and with what
# the environment asks for: a loss that is not finite on one process, or a wait after some step.
COMMAND = """
import os, time
from scanlearn.backbones import weights
from scanlearn.cli import main
from scanlearn.training import module as loop

weights.check_reload = lambda *_: None
step = loop.Pretrainer.training_step

def watched(module, batch, index):
    if os.environ.get("BROKEN_RANK") == str(module.global_rank) and module.global_step == 3:
        for view in batch.views.global_views:
            view[1] = float("nan")
    if module.global_step == int(os.environ.get("WAIT_AT", -1)):
        time.sleep(600)
    return step(module, batch, index)

loop.Pretrainer.training_step = watched

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    (folder / "command.py").write_text(COMMAND)
    random = np.random.default_rng(0)
    with ArchiveWriter(folder / "archive", shape=(1, 48, 48), dtype=np.uint8) as writer:
        for index in range(20):
            coarse = random.integers(0, 256, (1, 4 + index % 5, 4 + index % 5))
            pixels = coarse.repeat(12, 1).repeat(12, 2)[:, :48, :48].astype(np.uint8)
            writer.add(PackedScan(pixels), Origin(f"scan{index:02d}", str(index)))
    values = {
        "archive": str(folder / "archive"),
        "output": str(folder / "none"),
        "backbone": {"name": "test_vit", "drop_path": 0},
        # No BatchNorm, and a rate at which rounding does not grow.
        "method": {"name": "simclr", "head_batch_norm": False, "learning_rate": 0.01},
        "views": {"size": 32},
        "batch_size": 8,
        "steps": STEPS,
        "precision": "fp32",
        "checkpoint_steps": 2,
    }
    (folder / "run.yaml").write_text(json.dumps(values))
    return folder


def start(
    folder: Path, output: str, *overrides: str, launcher: tuple[str, ...] = (), **environment: str
) -> subprocess.Popen[str]:
    command = [*launcher, str(folder / "command.py"), "pretrain", str(folder / "run.yaml")]
    return subprocess.Popen(
        [sys.executable, *command, f"output={folder / output}", *overrides],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    return out


def wait_for_rows(process: subprocess.Popen[str], metrics: Path, rows: int) -> None:
    deadline = time.monotonic() + 300
    while not (metrics.is_file() and metrics.read_text().count("\n") > rows):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def read(output: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((output / "result.json").read_text())
    with (output / "metrics.csv").open() as file:
        result["rows"] = list(csv.DictReader(file))
    result["weights"] = load_file(output / "backbone" / "model.safetensors")
    return result


def assert_same_run(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name in ("initial_hash", "order_hash", "uniforms_hash", "steps", "views"):
        assert found[name] == expected[name], name
    assert [row["step"] for row in found["rows"]] == [row["step"] for row in expected["rows"]]
    losses = [[float(row["loss"]) for row in run["rows"]] for run in (found, expected)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for name, weight in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], weight, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def one(folder: Path) -> dict[str, Any]:
    finish(start(folder, "one"))
    return read(folder / "one")


@pytest.fixture(scope="module")
def said(folder: Path) -> str:
    return finish(start(folder, "two", "devices=2"))


def test_two_processes_learn_what_one_learns(folder: Path, one: dict[str, Any], said: str) -> None:
    moved = max(float(weight.abs().max()) for weight in one["weights"].values())
    assert moved > 0.01
    assert_same_run(read(folder / "two"), one)
    assert said.count("shared by 2 CPU processes") == 1
    assert said.count("steps done") == 1


def test_a_launcher_s_processes_do_the_same_and_may_be_watched(
    folder: Path, one: dict[str, Any]
) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    watched = ("devices=2", "watch.panel_epochs=2")
    said = finish(start(folder, "launched", *watched, launcher=launcher))
    assert_same_run(read(folder / "launched"), one)
    assert said.count("steps done") == 1
    with (folder / "launched" / "panel.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["4", "8"]
    assert all(np.isfinite(float(row["rankme"])) for row in rows)


def test_a_killed_run_goes_on_as_if_nothing_had_happened(folder: Path, one: dict[str, Any]) -> None:
    process = start(folder, "killed", "devices=2", WAIT_AT="5")
    wait_for_rows(process, folder / "killed" / "metrics.csv", 5)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=300)
    assert not (folder / "killed" / "result.json").exists()
    said = finish(start(folder, "killed", "devices=2"))
    assert f"resuming at step 4 of {STEPS}" in said
    assert_same_run(read(folder / "killed"), one)


def test_without_its_parent_a_process_ends_and_one_can_go_on_for_two(
    folder: Path, one: dict[str, Any]
) -> None:
    process = start(folder, "orphaned", "devices=2", WAIT_AT="5")
    wait_for_rows(process, folder / "orphaned" / "metrics.csv", 5)
    process.kill()
    # Its children hold the same pipes, which are closed once all have ended.
    process.communicate(timeout=300)
    finish(start(folder, "orphaned", "devices=1"))
    assert_same_run(read(folder / "orphaned"), one)


def test_a_broken_process_ends_all_with_one_sentence(folder: Path) -> None:
    process = start(folder, "broken", "devices=2", BROKEN_RANK="1")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2
    # A sign of life comes each minute, and after the first second.
    said = ("Warning", "pretraining ...")
    lines = [line for line in err.splitlines() if not line.startswith(said)]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: the loss is nan at step 3")
    assert (folder / "broken" / "checkpoints" / "last.ckpt").is_file()


def test_a_request_to_stop_is_followed_by_all_after_the_same_step(folder: Path) -> None:
    process = start(folder, "stopped", "devices=2", "steps=100000", "logging.every_steps=1")
    metrics = folder / "stopped" / "metrics.csv"
    wait_for_rows(process, metrics, 4)
    process.terminate()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert out.count("stopped by SIGTERM after step") == 1
    last = int(metrics.read_text().splitlines()[-1].split(",")[0])
    kept = torch.load(folder / "stopped" / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == last
