from __future__ import annotations

import numpy as np
import pytest
import torch

from scanlearn.backbones.build import Backbone, BackboneConfig, build_backbone, weights_hash
from scanlearn.backbones.classifying import (
    build_classifying,
    classifier_names,
    has_drop_path,
    norm_names,
    set_classifier,
)
from scanlearn.core import ScanlearnError

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
    with pytest.raises(ScanlearnError, match="has other layers than without one"):
        build_classifying(wrong, 3, 0)
