from __future__ import annotations

import pytest
import torch
from torch import nn

from scanlearn.backbones.build import (
    Backbone,
    BackboneConfig,
    build_backbone,
    seeded_weights,
    weights_hash,
)
from scanlearn.core import ScanlearnError


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
    ("name", "message"),
    [
        ("resnet81", "did you mean .*resnet18"),
        ("resnet18.a1_in1k", "write 'resnet18'"),
        ("no such network at all", "timm.list_models"),
        ("hf-hub:someone/net", "no architecture"),
    ],
)
def test_an_unknown_name_is_refused_with_a_way_out(name: str, message: str) -> None:
    with pytest.raises(ScanlearnError, match=message):
        _build(name)


def test_channels_other_than_the_archive_are_refused() -> None:
    with pytest.raises(ScanlearnError, match=r"backbone.channels is 3, .* have 1"):
        build_backbone(BackboneConfig(name="test_resnet", channels=3), 1, 0)


def test_a_view_that_patches_do_not_tile_is_refused() -> None:
    with pytest.raises(ScanlearnError, match="multiple of 16, such as 48 or 64"):
        _build("test_vit", size=60)


def test_a_view_the_network_cannot_take_is_refused_before_the_run() -> None:
    with pytest.raises(ScanlearnError, match=r"views\.size is 70, and 'test_maxvit' cannot take"):
        _build("test_maxvit", size=70)


def test_trying_a_view_leaves_the_network_ready_to_train() -> None:
    tried, plain = _build("test_resnet"), build_backbone(BackboneConfig(name="test_resnet"), 1, 0)
    assert tried.training
    assert weights_hash(tried) == weights_hash(plain)


def test_drop_path_on_a_network_without_it_is_refused() -> None:
    with pytest.raises(ScanlearnError, match="drop_path"):
        build_backbone(BackboneConfig(name="vgg11", drop_path=0.1), 1, 0)


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
