from __future__ import annotations

import pytest
import torch

from scanlearn.backbones.build import BackboneConfig, build_backbone, check_views
from scanlearn.backbones.parts import (
    drop_no_path,
    has_batch_norm,
    hold_statistics,
    local_side,
    patch_projection,
    patch_side,
)
from scanlearn.core import ScanlearnError


def _network(name: str, **settings: object) -> torch.nn.Module:
    return build_backbone(BackboneConfig(name=name, **settings), 1, 0, size=64)


def test_a_transformer_has_a_patch_projection() -> None:
    projection = patch_projection(_network("test_vit"))
    assert isinstance(projection, torch.nn.Conv2d)
    assert patch_projection(_network("test_resnet")) is None


def test_the_side_of_a_patch_is_one_without_patches() -> None:
    assert patch_side(_network("test_vit")) == 16
    assert patch_side(_network("test_resnet")) == 1


@pytest.mark.parametrize(
    ("name", "size", "local"),
    [("test_vit", 224, 96), ("test_vit", 64, 32), ("test_vit", 32, 16), ("test_resnet", 64, 27)],
)
def test_a_local_view_is_the_nearest_multiple_of_the_patch(
    name: str, size: int, local: int
) -> None:
    assert local_side(_network(name), size) == local


def test_a_network_of_one_image_size_refuses_local_views_in_words() -> None:
    backbone = build_backbone(BackboneConfig(name="test_vit"), 1, 0, size=64)
    with pytest.raises(ScanlearnError, match="a multiple of 16, such as 16 or 32"):
        check_views(backbone, 27, "the side of a local view")
    check_views(backbone, 32)


def test_drop_path_of_a_method_is_for_transformers_alone() -> None:
    for name, drops in (("test_vit", True), ("test_resnet", False)):
        backbone = build_backbone(BackboneConfig(name=name), 1, 0, size=32, drop_path=0.9).train()
        views = torch.randn(8, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        assert torch.equal(backbone(views), backbone(views)) is not drops


def test_a_drop_path_set_by_hand_comes_before_that_of_the_method() -> None:
    config = BackboneConfig(name="test_vit", drop_path=0.0)
    backbone = build_backbone(config, 1, 0, size=32, drop_path=0.9).train()
    views = torch.randn(8, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(backbone(views), backbone(views))


def test_stochastic_depth_is_switched_off() -> None:
    backbone = _network("test_vit", drop_path=0.9).train()
    drop_no_path(backbone)
    views = torch.randn(8, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(backbone(views), backbone(views))


def test_batch_norm_is_found_where_there_is_some() -> None:
    assert has_batch_norm(_network("test_resnet"))
    assert has_batch_norm(_network("test_efficientnet"))
    assert not has_batch_norm(_network("test_vit"))


def test_held_statistics_serve_a_training_network_and_stay() -> None:
    backbone = build_backbone(BackboneConfig(name="test_resnet"), 1, 0).train()
    views = torch.randn(8, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    before = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    hold_statistics(backbone)
    found = backbone(views)
    assert all(torch.equal(before[name], buffer) for name, buffer in backbone.named_buffers())
    torch.testing.assert_close(found, backbone.eval()(views))
    assert not torch.allclose(backbone.train()(views), found)
