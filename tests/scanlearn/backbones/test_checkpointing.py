"""Gradient checkpointing changes memory, and neither loss nor gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scanlearn.backbones.build import Backbone, BackboneConfig, build_backbone, weights_hash
from scanlearn.backbones.checkpointing import checkpoint_gradients
from scanlearn.core import ScanlearnError


def _built(name: str = "test_vit", drop_path: float = 0.0) -> Backbone:
    config = BackboneConfig(name=name, drop_path=drop_path)
    return build_backbone(config, 1, 0, size=32)


def _learned(backbone: Backbone) -> tuple[Tensor, list[Tensor | None], int]:
    """Loss, gradients, and the bytes that the forward pass keeps for the backward pass."""
    views = torch.randn((4, 1, 32, 32), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = backbone(views).square().mean()
    loss.backward()
    return loss.detach(), [p.grad for p in backbone.parameters()], sum(kept.values())


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_loss_and_gradients_stay_as_they_are(drop_path: float) -> None:
    plain, checkpointed = _built(drop_path=drop_path), _built(drop_path=drop_path)
    checkpoint_gradients(checkpointed)
    loss, grads, kept = _learned(plain)
    again, found, kept_less = _learned(checkpointed)
    assert torch.equal(again, loss)
    for one, other in zip(found, grads, strict=True):
        torch.testing.assert_close(one, other)
    assert kept_less < kept / 2


def test_weights_stay_as_they_are() -> None:
    plain, checkpointed = _built(), _built()
    checkpoint_gradients(checkpointed)
    assert weights_hash(checkpointed) == weights_hash(plain)


def test_a_network_with_batch_norm_is_refused() -> None:
    with pytest.raises(ScanlearnError, match="'test_resnet' holds BatchNorm"):
        checkpoint_gradients(_built("test_resnet"))


def test_a_network_without_checkpointing_is_refused() -> None:
    backbone = build_backbone(BackboneConfig(name="convit_tiny"), 1, 0)
    with pytest.raises(ScanlearnError, match="timm has none for 'convit_tiny'"):
        checkpoint_gradients(backbone)
