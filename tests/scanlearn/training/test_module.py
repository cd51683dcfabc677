from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from scanlearn.archive.reader import Archive
from scanlearn.core import Losses, Views
from scanlearn.errors import ScanlearnError
from scanlearn.methods import Method
from scanlearn.training.batches import rows_of_steps
from scanlearn.training.run import Run
from scanlearn.training.settings import PretrainConfig
from scanlearn.training.trainer import train
from scanlearn.views.generator import ViewGenerator

Configure = Callable[..., PretrainConfig]
GRADIENTS = r"the loss is \d\S*, but \d+ of \d+ gradients \(.+, \.\.\.\) are not finite"


@pytest.mark.parametrize(
    ("of_loss", "of_gradient", "words"),
    [
        (float("nan"), 1.0, "the loss is nan at step 3"),
        (1.0, float("nan"), GRADIENTS),
        (1.0, float("inf"), GRADIENTS),
    ],
)
def test_a_loss_or_a_gradient_that_is_not_finite_stops_before_the_optimiser_step(
    configure: Configure, archive: Archive, monkeypatch: pytest.MonkeyPatch,
    of_loss: float, of_gradient: float, words: str,
) -> None:  # fmt: skip
    run = Run.of(configure(checkpoint_steps=1), archive)
    loss = type(run.method).loss
    seen: list[dict[str, torch.Tensor]] = []

    def failing(method: Method, views: Views, at: Any) -> Losses:
        losses = loss(method, views, at)
        if at.step < 3:
            return losses
        # BatchNorm's statistics moved in the forward pass; the optimiser moves parameters.
        seen.append({name: p.detach().clone() for name, p in method.named_parameters()})
        losses.total.register_hook(lambda gradient: gradient * of_gradient)
        return replace(losses, total=losses.total * of_loss)

    monkeypatch.setattr(type(run.method), "loss", failing)
    with pytest.raises(ScanlearnError, match=words) as caught:
        train(run)
    rows = next(rows_of_steps(20, 8, 0, 3, 4))
    for said in ("at step 3", f"scan{rows[0]:02d}.png", "lower method.learning_rate"):
        assert said in str(caught.value)
    saved = torch.load(run.folder.checkpoint, weights_only=True)
    assert saved["global_step"] == 3
    for name, p in run.method.named_parameters():
        assert torch.equal(p, seen[0][name])
        assert torch.equal(saved["state_dict"][f"method.{name}"], p)


def test_a_large_gradient_whose_square_overflows_is_no_reason_to_stop(
    configure: Configure, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.of(configure(steps=1), archive)
    loss = type(run.method).loss
    lengths: list[float] = []

    def large(method: Method, views: Views, at: Any) -> Losses:
        losses = loss(method, views, at)
        losses.total.register_hook(lambda gradient: gradient * 1e25)
        return losses

    def after_backward(method: Method, at: Any) -> None:
        gradients = [p.grad for p in method.parameters() if p.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
        lengths.append(float(torch.nn.utils.get_total_norm(gradients)))
        for gradient in gradients:
            gradient.zero_()

    monkeypatch.setattr(type(run.method), "loss", large)
    monkeypatch.setattr(type(run.method), "after_backward", after_backward)
    train(run)
    assert lengths == [float("inf")]


def test_scans_whose_views_are_not_finite_are_named(
    configure: Configure, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.of(configure(), archive)
    generate = ViewGenerator.__call__

    def broken(generator: ViewGenerator, batch: Any, key: Any) -> Views:
        views = generate(generator, batch, key)
        views.global_views[1][2] = float("inf")
        return views

    monkeypatch.setattr(ViewGenerator, "__call__", broken)
    rows = next(rows_of_steps(20, 8, 0, 0, 1))
    with pytest.raises(ScanlearnError, match=rf"1 of its scans .*\(scan{rows[2]:02d}\.png\)"):
        train(run)


def test_weights_move_and_the_rate_follows_the_schedule(
    configure: Configure, archive: Archive
) -> None:
    run = Run.of(configure(steps=6), archive)
    before = {name: p.detach().clone() for name, p in run.method.named_parameters()}
    module = train(run)
    assert all(not torch.equal(p, before[name]) for name, p in run.method.named_parameters())
    optimiser = module.trainer.optimizers[0]
    assert {group["lr"] for group in optimiser.param_groups} == {run.resolved.schedule.at(5)}


def test_views_lie_in_memory_as_the_network_does(
    configure: Configure, draw_archive: Callable[[int], Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.of(configure(steps=1, channels_last=True), draw_archive(3))
    loss = type(run.method).loss
    layouts: list[tuple[int, ...]] = []

    def watching(method: Method, views: Views, at: Any) -> Losses:
        layouts.extend(view.stride() for view in views.global_views)
        return loss(method, views, at)

    monkeypatch.setattr(type(run.method), "loss", watching)
    train(run)
    assert layouts == [(768, 1, 48, 3)] * 2


@pytest.mark.parametrize(
    ("method", "decays"), [("mocov3", True), ("dino", False), ("mocov2", True), ("simclr", False)]
)
def test_weight_decay_moves_in_every_group_that_has_it(
    configure: Configure, archive: Archive, method: str, decays: bool
) -> None:
    small = {"mocov3": {"head_hidden": 16}, "dino": {"num_prototypes": 8, "local_views": 0}}
    optimiser = {"mocov3": "adamw", "dino": "adamw", "mocov2": "sgd", "simclr": "sgd"}[method]
    settings = {
        "name": method,
        "optimiser": optimiser,
        "learning_rate": 1e-4,
        **small.get(method, {}),
    }
    decay = {"weight_decay": 0.1, "end_weight_decay": 0.4}
    module = train(Run.of(configure(method={**settings, **decay}, steps=3), archive))
    groups = {group["name"]: group for group in module.trainer.optimizers[0].param_groups}
    assert groups["decayed"]["weight_decay"] == pytest.approx(0.4)
    assert groups["plain"]["weight_decay"] == pytest.approx(0.4 if decays else 0.0)
