"""A batch taken in parts: one optimiser step, the mean of the parts' gradients, the same data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import weights_hash
from scanlearn.core import Progress
from scanlearn.training import trainer
from scanlearn.training.batches import StepLoader
from scanlearn.training.module import Pretrainer
from scanlearn.training.optim import build_optimiser
from scanlearn.training.recorder import Recorder
from scanlearn.training.run import Run
from scanlearn.training.settings import PretrainConfig

Configure = Callable[..., PretrainConfig]
SETTINGS: dict[str, Any] = {
    "backbone": {"name": "test_vit", "drop_path": 0.2},
    "method": {"name": "simclr", "head_batch_norm": False, "learning_rate": 0.01},
    "views": {"size": 32},
    "accumulate": 2,
    "steps": 4,
}


def _job(configure: Configure, archive: Archive, output: Path, **changes: Any) -> Run:
    return Run.of(configure(output=str(output), **{**SETTINGS, **changes}), archive)


def test_a_step_is_the_mean_of_its_parts(
    configure: Configure, archive: Archive, tmp_path: Path
) -> None:
    changes = {"steps": 1, "backbone": {"name": "test_vit", "drop_path": 0}}
    run = _job(configure, archive, tmp_path / "by-hand", **changes)
    loader = StepLoader(archive, batch_size=8, seed=run.config.seed, first=0, stop=1, parts=2)
    optimiser = build_optimiser(run.method, run.resolved.method)
    for group in optimiser.param_groups:
        group["lr"] = run.resolved.schedule.at(0)
    losses = []
    for batch in loader:
        views = run.generator(batch.scans, batch.key)
        part = run.method.loss(views, Progress(0, 1, run.resolved.steps_per_epoch)).total
        (part / 2).backward()
        losses.append(float(part.detach()))
    optimiser.step()

    other = _job(configure, archive, tmp_path / "run", **changes)
    module = trainer.train(other)
    assert module.global_step == 1
    for found, expected in zip(other.method.parameters(), run.method.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    assert module.losses is not None
    assert float(module.losses.total) == pytest.approx(sum(losses) / 2, rel=1e-5)


def test_parts_change_neither_order_nor_uniforms(
    configure: Configure, archive: Archive, tmp_path: Path
) -> None:
    trails = [
        trainer.train(_job(configure, archive, tmp_path / str(parts), accumulate=parts)).state
        for parts in (1, 2, 4)
    ]
    assert trails[0].order_hash == trails[1].order_hash == trails[2].order_hash
    assert trails[0].uniforms_hash == trails[1].uniforms_hash == trails[2].uniforms_hash


def test_a_method_follows_once_a_step(
    configure: Configure, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _job(configure, archive, tmp_path / "run")
    called: list[tuple[str, int]] = []
    for name in ("after_backward", "after_step"):
        monkeypatch.setattr(run.method, name, lambda at, name=name: called.append((name, at.step)))
    trainer.train(run)
    assert called == [
        (name, step) for step in range(4) for name in ("after_backward", "after_step")
    ]


def test_a_run_in_parts_goes_on_bit_equal(
    configure: Configure, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _job(configure, archive, tmp_path / "whole")
    expected = trainer.train(whole).state
    stepped = Recorder.stepped

    def stop_after_two(recorder: Recorder, module: Pretrainer, num_views: int) -> None:
        stepped(recorder, module, num_views)
        if module.global_step == 2:
            raise KeyboardInterrupt

    run = _job(configure, archive, tmp_path / "run", checkpoint_steps=1)
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "stepped", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(run)
    again = _job(configure, archive, tmp_path / "run", checkpoint_steps=1)
    state = trainer.train(again).state
    assert weights_hash(again.method) == weights_hash(whole.method)
    assert replace(state, seconds=0) == replace(expected, seconds=0)
