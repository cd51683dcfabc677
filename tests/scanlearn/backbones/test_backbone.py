from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from scanlearn.backbones.backbone import (
    Backbone,
    BackboneConfig,
    build_backbone,
    check_views,
    checkpoint_gradients,
    drop_no_path,
    has_batch_norm,
    hold_statistics,
    local_side,
    patch_projection,
    patch_side,
    seeded_weights,
    weights_hash,
)
from scanlearn.errors import ScanlearnError


def _build(name: str, channels: int = 1, seed: int = 0, size: int = 64) -> Backbone:
    return build_backbone(BackboneConfig(name=name), channels, seed, size=size)


def test_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    first = weights_hash(_build("test_resnet", seed=3))
    torch.manual_seed(6)
    assert weights_hash(_build("test_resnet", seed=3)) == first
    assert weights_hash(_build("test_resnet", seed=4)) != first


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_building_leaves_the_global_generator_as_it_was(name: str) -> None:
    before = torch.get_rng_state()
    _build(name)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_error_while_building_puts_the_generator_back() -> None:
    before = torch.get_rng_state()

    def fail() -> None:
        with seeded_weights(0, "x"):
            torch.rand(3)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert torch.equal(torch.get_rng_state(), before)


def test_parts_with_different_names_get_different_weights() -> None:
    with seeded_weights(0, "backbone"):
        first = torch.rand(4)
    with seeded_weights(0, "head"):
        second = torch.rand(4)
    assert not torch.equal(first, second)


def test_drop_path_does_not_change_initial_weights() -> None:
    dropping = build_backbone(BackboneConfig(name="test_vit", drop_path=0.1), 1, 0, size=64)
    assert weights_hash(dropping) == weights_hash(_build("test_vit"))


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_vit", "test_convnext", "mobilenetv3_small_050"]
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_features_are_one_vector_a_view_as_long_as_promised(name: str, channels: int) -> None:
    backbone = _build(name, channels).eval()
    with torch.no_grad():
        features = backbone(torch.randn(2, channels, 64, 64))
    assert features.shape == (2, backbone.num_features)


def test_a_transformer_takes_views_of_other_sizes() -> None:
    backbone = _build("test_vit", size=64).eval()
    with torch.no_grad():
        assert backbone(torch.randn(2, 1, 96, 96)).shape == (2, backbone.num_features)


@pytest.mark.parametrize(
    ("name", "expected"), [("test_resnet", True), ("test_convnext", True), ("test_vit", False)]
)
def test_convolutional_networks_are_told_from_transformers(name: str, expected: bool) -> None:
    assert _build(name).is_convolutional is expected


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: _build("resnet81"), "did you mean .*resnet18"),
        (lambda: _build("resnet18.a1_in1k"), "write 'resnet18'"),
        (lambda: _build("no such network at all"), "timm.list_models"),
        (lambda: _build("hf-hub:someone/net"), "no architecture"),
        (
            lambda: build_backbone(BackboneConfig(name="test_resnet", channels=3), 1, 0),
            r"backbone.channels is 3, .* have 1",
        ),
        (lambda: _build("test_vit", size=60), "multiple of 16, such as 48 or 64"),
        (
            lambda: _build("test_maxvit", size=70),
            r"views\.size is 70, and 'test_maxvit' cannot take",
        ),
        (lambda: build_backbone(BackboneConfig(name="vgg11", drop_path=0.1), 1, 0), "drop_path"),
        (lambda: checkpoint_gradients(_built("test_resnet")), "'test_resnet' has BatchNorm"),
        (
            lambda: checkpoint_gradients(_build("convit_tiny", size=224)),
            "timm does not support it for 'convit_tiny'",
        ),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_with_a_way_out(
    build: Callable[[], object], message: str
) -> None:
    with pytest.raises(ScanlearnError, match=message):
        build()


def test_trying_a_view_leaves_the_network_ready_to_train() -> None:
    tried, plain = _build("test_resnet"), build_backbone(BackboneConfig(name="test_resnet"), 1, 0)
    assert tried.training
    assert weights_hash(tried) == weights_hash(plain)


def test_hash_sees_values_names_and_shapes_but_not_memory_format() -> None:
    layer = nn.Conv2d(2, 3, 3)
    first = weights_hash(layer)
    assert weights_hash(layer.to(memory_format=torch.channels_last)) == first
    assert weights_hash(nn.Sequential(layer)) != first
    with torch.no_grad():
        layer.bias[0] = torch.nextafter(layer.bias[0], torch.tensor(9.0))
    assert weights_hash(layer) != first


def test_hash_sees_buffers_and_takes_bfloat16() -> None:
    norm = nn.BatchNorm1d(3).to(torch.bfloat16)
    first = weights_hash(norm)
    norm.num_batches_tracked += 1
    assert weights_hash(norm) != first


def test_a_backbone_is_hashed_under_the_names_of_timm() -> None:
    backbone = _build("test_resnet")
    assert weights_hash(backbone) == weights_hash(backbone.network)


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
