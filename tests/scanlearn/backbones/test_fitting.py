from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from scanlearn.backbones.backbone import Backbone, BackboneConfig, build_backbone, weights_hash
from scanlearn.backbones.fitting import load_adapted, load_fitted
from scanlearn.backbones.naming import rename
from scanlearn.errors import ScanlearnError


def _build(name: str, channels: int = 1, seed: int = 0, size: int = 64) -> Backbone:
    return build_backbone(BackboneConfig(name=name), channels, seed, size=size)


def _load(backbone: Backbone, tensors: dict[str, Tensor]) -> None:
    load_fitted(backbone, rename(tensors, backbone.network), "x.pth")


def _weights(backbone: Backbone) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in backbone.network.state_dict().items()}


def _views(channels: int, size: int = 64) -> Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))


def test_a_network_adapted_to_more_channels_answers_gray_views_alike() -> None:
    gray, colour = _build("test_resnet", 1).eval(), _build("test_resnet", 3, seed=9).eval()
    load_adapted(colour.network, gray.network.state_dict(), trained_on=1, channels=3)
    views = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(colour(views.repeat(1, 3, 1, 1)), gray(views))


def test_a_first_layer_that_cannot_be_adapted_is_refused() -> None:
    backbone = _build("test_resnet", 3)
    broken = {k: v for k, v in backbone.network.state_dict().items() if k != "conv1.0.weight"}
    with pytest.raises(ScanlearnError, match="cannot be adapted to 3"):
        load_adapted(backbone.network, broken, trained_on=1, channels=3)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_loaded_weights_are_those_given(name: str) -> None:
    given, own = _build(name, seed=5), _build(name)
    assert weights_hash(given) != weights_hash(own)
    _load(own, _weights(given))
    assert weights_hash(own) == weights_hash(given)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_colour_weights_answer_gray_views_as_colour_views_of_equal_channels(name: str) -> None:
    colour, gray = _build(name, 3, seed=5).eval(), _build(name, 1).eval()
    _load(gray, _weights(colour))
    with torch.no_grad():
        torch.testing.assert_close(gray(_views(1)), colour(_views(1).repeat(1, 3, 1, 1)))


def test_a_position_table_of_the_same_grid_is_loaded_as_it_is() -> None:
    given, own = _build("test_vit", seed=5), _build("test_vit")
    _load(own, _weights(given))
    assert torch.equal(own.network.pos_embed, given.network.pos_embed)


def test_a_position_table_of_another_grid_is_interpolated() -> None:
    given, own = _build("test_vit", size=64), _build("test_vit", size=96)
    weights = _weights(given)
    # A table that grows evenly with the row stays so at any resolution, but for its borders.
    rows = torch.arange(4.0).repeat_interleave(4)
    weights["pos_embed"] = torch.cat([torch.tensor([9.0]), rows])[None, :, None].repeat(1, 1, 64)
    _load(own, weights)
    table = own.network.pos_embed.detach()[0, :, 0]
    assert table.shape == (1 + 36,)
    assert table[0] == 9
    grid = table[1:].reshape(6, 6)
    expected = (torch.arange(6.0) + 0.5) * 4 / 6 - 0.5
    torch.testing.assert_close(grid[2:4], expected[2:4, None].expand(2, 6), atol=0.02, rtol=0)
    assert bool((grid.diff(dim=0) > 0).all())


def test_a_file_without_counters_of_batches_is_whole() -> None:
    given, own = _build("test_resnet", seed=5), _build("test_resnet")
    _load(own, {n: t for n, t in _weights(given).items() if not n.endswith("batches_tracked")})
    assert weights_hash(own) == weights_hash(given)


def _refused(own: Backbone, tensors: dict[str, Tensor]) -> str:
    before = weights_hash(own)
    with pytest.raises(ScanlearnError) as caught:
        _load(own, tensors)
    assert weights_hash(own) == before
    return str(caught.value)


def test_a_misspelt_weight_is_named_with_the_nearest_spelling() -> None:
    own = _build("test_resnet")
    weights = _weights(own)
    weights["layer1.0.conv1.wieght"] = weights.pop("layer1.0.conv1.weight")
    text = _refused(own, weights)
    right, wrong = "layer1.0.conv1.weight", "layer1.0.conv1.wieght"
    assert f"1 missing, such as {right} (did you mean '{wrong}'?)" in text
    assert f"1 unexpected, such as {wrong} (did you mean '{right}'?)" in text


def test_a_weight_of_another_shape_is_named_with_both_shapes() -> None:
    own = _build("test_resnet")
    weights = _weights(own)
    weights["bn1.weight"] = torch.ones(7)
    assert re.search(
        r"1 of another shape, such as bn1\.weight \(7, not \d+\)", _refused(own, weights)
    )


def test_a_deeper_network_of_the_same_family_is_refused() -> None:
    own, deeper = _build("resnet18"), _build("resnet34")
    text = _refused(own, _weights(deeper))
    assert "x.pth does not hold the weights of 'resnet18': 96 unexpected" in text
    assert "and 93 more" in text


def test_another_family_is_refused() -> None:
    text = _refused(_build("test_resnet"), _weights(_build("test_vit")))
    assert "missing" in text
    assert "unexpected" in text


def test_a_first_convolution_of_another_kernel_is_refused_whatever_its_channels() -> None:
    own = _build("resnet18", 1)
    weights = _weights(_build("resnet18", 3))
    weights["conv1.weight"] = weights["conv1.weight"][..., :3, :3]
    assert "conv1.weight (64 x 3 x 3 x 3, not 64 x 1 x 7 x 7)" in _refused(own, weights)
