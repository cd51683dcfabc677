from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from scanlearn.backbones.backbone import Backbone, BackboneConfig, build_backbone, weights_hash
from scanlearn.backbones.head import (
    build_classifying,
    classifier_names,
    has_drop_path,
    layer_groups,
    norm_names,
    set_classifier,
    with_last_tokens,
)
from scanlearn.errors import ScanlearnError

NAMES = ("test_resnet", "test_vit", "test_convnext", "test_efficientnet", "densenet121")


def made(name: str) -> Backbone:
    return build_backbone(BackboneConfig(name=name), 1, 0, size=32).eval()


@pytest.mark.parametrize("name", NAMES)
def test_a_probe_in_the_classifiers_place_gives_its_logits(name: str) -> None:
    backbone, rng = made(name), np.random.default_rng(0)
    weights, intercepts = rng.normal(size=(backbone.num_features, 3)), rng.normal(size=3)
    network = build_classifying(backbone, 3, 0)
    set_classifier(network, weights, intercepts)
    views = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, logits = backbone(views).numpy(), network(views).numpy()
    expected = features @ weights + intercepts
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    assert (network.num_classes, network.num_features) == (3, 3)


def test_the_seed_makes_the_new_weights_and_leaves_the_old() -> None:
    backbone = made("test_resnet")
    before = weights_hash(backbone)
    hashes = [weights_hash(build_classifying(backbone, 3, seed)) for seed in (0, 0, 1)]
    fresh = [weights_hash(build_classifying(backbone, 3, 0, is_fresh=True)) for _ in range(2)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert fresh[0] == fresh[1] not in hashes
    assert weights_hash(backbone) == before


def test_drop_path_is_there_in_training_where_the_network_can_have_it() -> None:
    vit = build_classifying(made("test_vit"), 3, 0, drop_path=0.9).train()
    views = torch.randn(8, 1, 32, 32)
    assert not torch.equal(vit(views), vit(views))
    assert has_drop_path(made("test_vit"))
    assert not has_drop_path(made("densenet121"))
    with pytest.raises(ScanlearnError, match="'densenet121' has no stochastic depth"):
        build_classifying(made("densenet121"), 3, 0, drop_path=0.1)


def test_names_of_norms_and_classifier_are_of_weights_that_are_there() -> None:
    for name in NAMES:
        network = build_classifying(made(name), 3, 0)
        weights = dict(network.network.named_parameters())
        assert len(classifier_names(network)) == 2
        norms = norm_names(network)
        assert len(norms) > 10
        assert all(weights[norm].ndim == 1 for norm in norms)


def test_a_probe_of_another_length_is_refused() -> None:
    network = build_classifying(made("test_resnet"), 3, 0)
    with pytest.raises(ScanlearnError, match="not one linear layer on its features"):
        set_classifier(network, np.zeros((5, 3)), np.zeros(3))


def test_another_architectures_weights_are_refused() -> None:
    network = made("test_resnet").network
    wrong = Backbone(network, name="test_efficientnet", channels=1, model_args={})
    with pytest.raises(ScanlearnError, match="has other layers with a classifier"):
        build_classifying(wrong, 3, 0)


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


def test_tokens_are_the_normalised_outputs_of_the_last_blocks() -> None:
    backbone = build_backbone(BackboneConfig(name="test_vit"), 1, 0, size=32).eval()
    views = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    seen: list[torch.Tensor] = []
    network = backbone.network
    hooks = [
        block.register_forward_hook(lambda *given: seen.append(given[2]))
        for block in network.blocks  # type: ignore[union-attr]
    ]
    with torch.no_grad():
        pooled = backbone(views)
        expected = torch.cat([network.norm(out)[:, 0] for out in seen[-4:]], dim=1)  # type: ignore[operator]
        for hook in hooks:
            hook.remove()
        found = with_last_tokens(backbone, 4)(views)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found[:, -backbone.num_features :], pooled)


@pytest.mark.parametrize(("asked", "taken"), [(1, 1), (4, 4), (99, 6)])
def test_no_more_blocks_are_taken_than_there_are(asked: int, taken: int) -> None:
    backbone = build_backbone(BackboneConfig(name="test_vit"), 1, 0, size=32)
    tokens = with_last_tokens(backbone, asked)
    assert tokens.num_features == taken * backbone.num_features
    assert f"last {taken} blocks" in tokens.name
    assert weights_hash(tokens) != weights_hash(backbone)


def test_a_network_without_class_tokens_is_returned_as_it_is() -> None:
    backbone = build_backbone(BackboneConfig(name="test_resnet"), 1, 0, size=32)
    assert with_last_tokens(backbone, 4) is backbone
