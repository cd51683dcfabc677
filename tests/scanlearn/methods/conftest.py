from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from scanlearn.backbones.backbone import BackboneConfig, build_backbone
from scanlearn.core import Progress, Views
from scanlearn.methods import Method, MethodConfig, MethodSettings, RunFacts

FACTS = RunFacts(num_scans=64, batch_size=8, ranks=1, total_steps=40, steps_per_epoch=8)


def resolve(
    name: str, network: str = "test_resnet", facts: dict[str, int] | None = None, **settings: object
) -> tuple[Any, tuple[str, ...]]:
    """The settings of a method without open ones, and the reasons."""
    config: MethodSettings = TypeAdapter(MethodConfig).validate_python({"name": name, **settings})
    backbone = build_backbone(BackboneConfig(name=network), 1, 0, size=32)
    return config.resolved(replace(FACTS, **(facts or {})), backbone)


@pytest.fixture
def resolved() -> Callable[..., tuple[Any, tuple[str, ...]]]:
    return resolve


@pytest.fixture
def make() -> Callable[..., Any]:
    """Builds a method on a small network, its open settings resolved."""

    def build(name: str, network: str = "test_resnet", seed: int = 0, **settings: Any) -> Method:
        config, _ = resolve(name, network, **settings)
        backbone = build_backbone(BackboneConfig(name=network), 1, seed, size=32)
        method: Method = config.build(backbone, seed)
        return method

    return build


@pytest.fixture
def sights() -> Callable[..., Views]:
    """Two noisy sights of each scan, and small parts of them."""

    def draw(step: int = 0, scans: int = 8, local_views: int = 0) -> Views:
        generator = torch.Generator().manual_seed(step)
        scan = torch.randn(scans, 1, 32, 32, generator=generator)

        def sight() -> torch.Tensor:
            return scan + 0.3 * torch.randn(scan.shape, generator=generator)

        large = (sight(), sight())
        small = tuple(sight()[..., 8:24, 8:24].contiguous() for _ in range(local_views))
        return Views(large, small, torch.arange(scans))

    return draw


@pytest.fixture
def losses_of(at: Callable[..., Progress]) -> Callable[..., list[float]]:
    """Takes steps with a method, and returns the loss of each."""

    def train(
        method: Method,
        optimiser: torch.optim.Optimizer,
        views: Callable[[int], Views],
        steps: int = 5,
    ) -> list[float]:
        losses = []
        for step in range(steps):
            optimiser.zero_grad()
            loss = method.loss(views(step), at(step)).total
            loss.backward()
            method.after_backward(at(step))
            optimiser.step()
            method.after_step(at(step))
            losses.append(float(loss.detach()))
        return losses

    return train


@pytest.fixture
def at() -> Callable[..., Progress]:
    def progress(step: int = 0, total_steps: int = 40, steps_per_epoch: int = 8) -> Progress:
        return Progress(step, total_steps, steps_per_epoch)

    return progress
