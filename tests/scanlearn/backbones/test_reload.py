from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from scanlearn.backbones import reload
from scanlearn.backbones.build import Backbone, weights_hash
from scanlearn.core import ScanlearnError

Make = Callable[[str, int], Backbone]


def _answer(monkeypatch: pytest.MonkeyPatch, answer: Callable[[Tensor], Tensor]) -> None:
    """Puts an answer in the place of the fresh process."""
    monkeypatch.setattr(reload, "stranger_features", lambda folder, views, **_: answer(views))


def test_a_fresh_process_returns_the_features_of_an_export(exported: Path, trained: Make) -> None:
    views = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = trained("test_resnet", 1).eval()(views)
    torch.testing.assert_close(reload.stranger_features(exported, views), expected)


def test_equal_features_pass_and_the_backbone_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, trained: Make
) -> None:
    reference = trained("test_resnet", 1).eval()
    _answer(monkeypatch, lambda views: reference(views).detach())
    backbone = trained("test_resnet", 1).to(memory_format=torch.channels_last)
    before = weights_hash(backbone)
    reload.check_reload(Path("unused"), backbone, 32)
    assert backbone.training
    assert weights_hash(backbone) == before


@pytest.mark.parametrize(
    "wrong",
    [
        lambda features: features * 1.001,
        lambda features: features[:, 1:],
        lambda features: features * float("nan"),
    ],
)
def test_other_features_do_not_pass(
    monkeypatch: pytest.MonkeyPatch, trained: Make, wrong: Callable[[Tensor], Tensor]
) -> None:
    backbone = trained("test_resnet", 1).eval()
    _answer(monkeypatch, lambda views: wrong(backbone(views).detach()))
    with pytest.raises(ScanlearnError, match="features differ"):
        reload.check_reload(Path("unused"), backbone, 32)


@pytest.mark.long
def test_a_folder_timm_cannot_load_says_why(tmp_path: Path, exported: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "bb"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architecture": "resnet19"}))
    with pytest.raises(ScanlearnError, match=r"fresh process: .*resnet19"):
        reload.stranger_features(folder, torch.zeros(2, 1, 32, 32))
