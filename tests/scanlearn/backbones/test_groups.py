from __future__ import annotations

from typing import Any

import pytest

from scanlearn.backbones.build import Backbone, BackboneConfig, build_backbone
from scanlearn.backbones.classifying import build_classifying, classifier_names
from scanlearn.backbones.groups import layer_groups


def groups(name: str, layer_decay: float) -> tuple[Backbone, dict[str, dict[str, Any]]]:
    """The group of each weight by its name."""
    network = build_classifying(build_backbone(BackboneConfig(name=name), 1, 0, size=32), 3, 0)
    found = layer_groups(network, learning_rate=2.0, weight_decay=0.1, layer_decay=layer_decay)
    by_id = {id(weight): group for group in found for weight in group["params"]}
    named = dict(network.network.named_parameters())
    assert len(by_id) == len(named)
    return network, {key: by_id[id(weight)] for key, weight in named.items()}


def test_a_vits_rate_decays_block_by_block_from_the_classifier() -> None:
    _, found = groups("test_vit", 0.65)
    depth = 6
    for block in range(depth):
        rate = found[f"blocks.{block}.attn.qkv.weight"]["lr"]
        assert rate == pytest.approx(2 * 0.65 ** (depth - block))
    assert found["head.weight"]["lr"] == 2
    assert found["patch_embed.proj.weight"]["lr"] == pytest.approx(2 * 0.65 ** (depth + 1))


def test_scales_shifts_and_position_tables_have_no_weight_decay() -> None:
    network, found = groups("test_vit", 0.65)
    for name, weight in network.network.named_parameters():
        is_free = weight.ndim == 1 or name in ("pos_embed", "cls_token")
        assert found[name]["weight_decay"] == (0 if is_free else 0.1)


def test_the_first_layer_of_a_long_convolutional_network_still_moves() -> None:
    network, found = groups("densenet121", 0.65)
    rates = [group["lr"] for group in found.values()]
    assert min(rates) == pytest.approx(2 * 0.65**13)
    assert all(found[name]["lr"] == 2 for name in classifier_names(network))
    assert len(set(rates)) > 50


def test_without_decay_all_layers_have_the_whole_rate() -> None:
    _, found = groups("test_resnet", 1.0)
    assert {group["lr"] for group in found.values()} == {2.0}
