from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scanlearn.backbones import weights
from scanlearn.backbones.backbone import BackboneConfig, build_backbone
from scanlearn.backbones.card import Card


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    backbone = build_backbone(BackboneConfig(name="test_resnet"), 3, 0)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.mul_(1.1)
    card = Card.of(backbone, size=32, mean=(0.5,) * 3, std=(0.25,) * 3)
    with pytest.MonkeyPatch.context() as patch:
        # A fresh process proves exports elsewhere; here it would only take time.
        patch.setattr(weights, "check_reload", lambda *_: None)
        return weights.export_backbone(backbone, tmp_path_factory.mktemp("run") / "backbone", card)
