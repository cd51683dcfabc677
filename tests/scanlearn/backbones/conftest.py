from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from scanlearn.backbones.backbone import Backbone, BackboneConfig, build_backbone
from scanlearn.backbones.card import Card


@pytest.fixture(scope="session")
def trained() -> Callable[[str, int], Backbone]:
    """Makes backbones whose BatchNorm statistics are not those of a fresh network."""

    def make(name: str, channels: int) -> Backbone:
        backbone = build_backbone(BackboneConfig(name=name), channels, seed=0, size=32)
        views = torch.randn(4, channels, 32, 32, generator=torch.Generator().manual_seed(1))
        backbone(views * 2 + 1)
        return backbone

    return make


@pytest.fixture(scope="session")
def card_of() -> Callable[[Backbone], Card]:
    def make(backbone: Backbone) -> Card:
        channels = backbone.channels
        return Card.of(backbone, size=32, mean=(0.4,) * channels, std=(0.2,) * channels)

    return make


@pytest.fixture(scope="session")
def exported(
    tmp_path_factory: pytest.TempPathFactory,
    trained: Callable[[str, int], Backbone],
    card_of: Callable[[Backbone], Card],
) -> Path:
    """A one-channel convolutional backbone, exported with its reload in a fresh process."""
    from scanlearn.backbones.weights import export_backbone

    backbone = trained("test_resnet", 1)
    return export_backbone(backbone, tmp_path_factory.mktemp("export") / "bb", card_of(backbone))
