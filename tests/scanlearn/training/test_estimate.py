from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.training import trial
from scanlearn.training.module import Pretrainer
from scanlearn.training.pretrain import pretrain
from scanlearn.training.settings import PretrainConfig
from scanlearn.training.stopping import Stopped
from scanlearn.training.trial import Estimate, dry_run, mean_and_deciles, num_saves

Configure = Callable[..., PretrainConfig]
StopAt = Callable[..., AbstractContextManager[None]]

ESTIMATE = Estimate(
    chosen=("pretraining for 1,000 steps",),
    steps=1000,
    epochs=12.5,
    ranks=1,
    measured_steps=8,
    step_s=0.5,
    seconds=520.0,
    low_s=480.0,
    high_s=9_000.0,
    views_per_s=512.3,
    device="cpu",
    memory=1_880_000_000,
    archive=293_000_000,
    checkpoint=42_000_000,
    backbone=19_700_000,
    metrics=57_000,
)


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_MEASURED_S", 0.0)


def test_an_estimate_is_near_what_the_run_then_takes(configure: Configure) -> None:
    config = configure(steps=40)
    expected = dry_run(config)
    assert not Path(config.output).exists()
    result = pretrain(config)
    assert expected.steps == result.steps
    assert expected.epochs == result.epochs
    assert expected.measured_steps == 8
    # A machine that others use runs at more than one speed.
    assert expected.seconds / 4 < result.seconds < expected.seconds * 4
    assert expected.views_per_s == pytest.approx(2 * config.batch_size / expected.step_s)
    checkpoint = (result.folder / "checkpoints" / "last.ckpt").stat().st_size
    assert expected.checkpoint == pytest.approx(checkpoint, rel=0.01)
    weights = (result.backbone / "model.safetensors").stat().st_size
    assert expected.backbone == pytest.approx(weights, rel=0.05)
    assert 0.4 < result.metrics.stat().st_size / expected.metrics < 1.2


MEASURED = """
import json, resource, sys
from scanlearn.training.trial import dry_run
from scanlearn.training.pretrain import pretrain
from scanlearn.training.settings import PretrainConfig

config = PretrainConfig.model_validate_json(sys.argv[2])
found = dry_run(config).memory if sys.argv[1] == "estimated" else pretrain(config)
unit = 1 if sys.platform == "darwin" else 1024
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
print(json.dumps(found if sys.argv[1] == "estimated" else peak))
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="Windows tells no high-water mark")
def test_the_memory_of_a_run_is_near_its_estimate(configure: Configure) -> None:
    found: dict[int, dict[str, int]] = {}
    for batch_size in (4, 20):
        config = configure(views={"size": 160}, batch_size=batch_size, steps=12, device="cpu")
        found[batch_size] = {}
        for what in ("estimated", "taken"):
            done = subprocess.run(
                [sys.executable, "-c", MEASURED, what, config.model_dump_json()],
                capture_output=True,
                text=True,
                check=True,
                timeout=600,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            found[batch_size][what] = int(done.stdout.splitlines()[-1])
        shutil.rmtree(config.output)
    for one in found.values():
        assert one["estimated"] == pytest.approx(one["taken"], rel=0.15), found


def test_of_a_run_that_was_stopped_the_rest_is_estimated(
    configure: Configure, stop_at: StopAt
) -> None:
    config = configure(steps=30)
    with stop_at(signal.SIGTERM, step=9), pytest.raises(Stopped):
        pretrain(config)
    before = {path: path.stat().st_mtime_ns for path in Path(config.output).rglob("*")}
    expected = dry_run(config)
    assert expected.steps == 20
    assert expected.chosen[0].startswith("resuming at step 10 of 30 steps")
    assert {path: path.stat().st_mtime_ns for path in Path(config.output).rglob("*")} == before


def test_a_dry_run_that_is_asked_to_stop_stops(configure: Configure, stop_at: StopAt) -> None:
    config = configure(steps=30)
    with stop_at(signal.SIGTERM, step=1), pytest.raises(Stopped):
        dry_run(config)
    assert not Path(config.output).exists()


def test_a_dry_run_out_of_memory_names_the_batch_that_fits(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Pretrainer, "training_step", full)
    monkeypatch.setattr(trial, "_fits", lambda config, share: share <= 4)
    with pytest.raises(ScanlearnError, match="is batch_size=4"):
        dry_run(configure())


def test_a_disk_too_small_for_the_run_is_warned_of(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = type("Usage", (), {"free": 1_000_000})()
    monkeypatch.setattr(trial.shutil, "disk_usage", lambda _: usage)
    dry_run(configure(steps=4))
    assert "has 1 MB free, but the run needs" in capsys.readouterr().err


def test_a_checkpoint_is_counted_twice_beside_the_metrics() -> None:
    assert ESTIMATE.disk == 84_057_000
    assert replace(ESTIMATE, backbone=50_000_000).disk == 92_057_000


def test_an_estimate_reads_as_a_person_would_say_it() -> None:
    text = str(ESTIMATE)
    assert text.splitlines()[0] == "pretraining for 1,000 steps"
    assert "1,000 to take, 12.5 epochs in all" in text
    assert "8.67 min, between 8 min and 2.5 h; 0.5 s a step, mean of 8" in text
    assert "512 a second" in text
    assert "1.88 GB, and up to 293 MB for the archive" in text
    assert "84.1 MB: a checkpoint of 42 MB" in text
    on_gpus = replace(ESTIMATE, device="NVIDIA H100", ranks=8, memory=7_200_000_000)
    assert "7.2 GB of NVIDIA H100" in str(on_gpus)
    assert "one of 8 processes" in str(on_gpus)
    assert "not reported by this system" in str(replace(ESTIMATE, memory=None))


def test_checkpoints_are_counted_by_step_and_by_time(configure: Configure) -> None:
    assert num_saves(configure(checkpoint_minutes=10), 1000, 6000) == pytest.approx(11)
    assert num_saves(configure(checkpoint_steps=100), 1000, 60) == pytest.approx(11)
    assert num_saves(configure(checkpoint_minutes=0), 1000, 60) == 1000
    assert num_saves(configure(), 1, 60) == 1


def test_the_spread_is_that_of_the_steps() -> None:
    assert mean_and_deciles([2.0]) == (2.0, 2.0, 2.0)
    mean, low, high = mean_and_deciles([float(number) for number in range(11)])
    assert (mean, low, high) == pytest.approx((5.0, 1.0, 9.0))


def test_an_estimate_is_plain(configure: Configure) -> None:
    expected = dry_run(configure(steps=3))
    assert json.dumps(expected.__dict__)
    assert expected.low_s <= expected.seconds <= expected.high_s
    assert expected.archive > 20 * 48 * 48
