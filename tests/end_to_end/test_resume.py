"""A run killed by SIGKILL and started again ends as if nothing had happened, to the bit."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scanlearn.scans.archive import ArchiveWriter

STEPS = 8

# Runs in a process of its own. The moment says where the process kills itself.
PROGRAM = """
import os, signal, sys
from scanlearn import runs
from scanlearn.backbones import weights
from scanlearn.training import keeper, pretrain

# A further process that imports timm takes seconds; the export's own tests start it.
weights.check_reload = lambda *_: None

archive, output, moment, steps = sys.argv[1:]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

if moment == "in a checkpoint":
    write, count = runs.write_all, []
    def torn(descriptor, content):
        if len(content) > 50_000 and count.append(1) is None and len(count) == 2:
            write(descriptor, content[:30_000])
            die()
        write(descriptor, content)
    runs.write_all = torn
if moment == "in a step":
    loss = keeper.Pretrainer.training_step
    def stopped(module, batch, index):
        if module.global_step == 6:
            die()
        return loss(module, batch, index)
    keeper.Pretrainer.training_step = stopped
if moment == "in the export":
    pretrain.export_backbone = lambda *_: die()

pretrain.pretrain(
    pretrain.PretrainConfig(
        archive=archive,
        output=output,
        backbone={"name": "test_resnet", "drop_path": 0.3},
        views={"size": 32, "scale": 1},
        batch_size=8,
        steps=int(steps),
        precision="fp32",
        checkpoint_steps=2,
        checkpoint_minutes=60,
    )
)
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archives") / "tiny"
    random = np.random.default_rng(0)
    with ArchiveWriter(path, shape=(3, 72, 72), dtype=np.uint8) as writer:
        for index in range(20):
            coarse = random.integers(0, 256, (3, 6 + index % 4, 6 + index % 4))
            pixels = coarse.repeat(12, 1).repeat(12, 2)[:, :72, :72].astype(np.uint8)
            writer.add(pixels, scan_id=str(index), patient=str(index))
    return path


def start(archive: Path, output: Path, moment: str) -> subprocess.Popen[bytes]:
    arguments = [str(archive), str(output), moment, str(STEPS)]
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments])


@pytest.fixture(scope="module")
def whole(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    output = tmp_path_factory.mktemp("runs") / "whole"
    assert start(archive, output, "never").wait() == 0
    return read(output)


def read(output: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((output / "result.json").read_text())
    with (output / "metrics.csv").open() as file:
        result["rows"] = [
            (int(row["step"]), row["loss"], row["embedding_std"]) for row in csv.DictReader(file)
        ]
    hashes = ("initial_hash", "final_hash", "order_hash", "uniforms_hash", "rows")
    return {key: result[key] for key in hashes}


@pytest.mark.long
@pytest.mark.parametrize("moment", ["in a step", "in a checkpoint", "in the export"])
def test_a_run_killed_at_a_chosen_moment_ends_bit_equal(
    archive: Path, whole: dict[str, Any], tmp_path: Path, moment: str
) -> None:
    output = tmp_path / "run"
    assert start(archive, output, moment).wait() == -signal.SIGKILL
    assert not (output / "result.json").exists()
    assert start(archive, output, "never").wait() == 0
    assert read(output) == whole
    assert [step for step, *_ in whole["rows"]] == list(range(1, STEPS + 1))
    assert [path.name for path in (output / "checkpoints").iterdir()] == ["last.ckpt"]


@pytest.mark.long
def test_a_run_killed_again_and_again_ends_bit_equal(
    archive: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    metrics = output / "metrics.csv"
    for rows in (1, 4, 7):
        process = start(archive, output, "never")
        while process.poll() is None and count_rows(metrics) < rows:
            time.sleep(0.005)
        process.kill()
        process.wait()
    assert start(archive, output, "never").wait() == 0
    assert read(output) == whole


def count_rows(metrics: Path) -> int:
    return metrics.read_text().count("\n") - 1 if metrics.is_file() else 0
