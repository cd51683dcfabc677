from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scanlearn.backbones.backbone import Backbone
from scantune.learners.course import LabeledScans
from scantune.learners.settings import TuneConfig
from scantune.learners.stepwise import token_features
from scantune.learners.tuned import scores_of, tune_network

TRAIN = np.arange(0, 100)


def test_tokens_of_four_blocks_stand_side_by_side(
    scans: LabeledScans, backbone: Callable[[str], Backbone]
) -> None:
    vit = backbone("test_vit")
    tokens = token_features(vit, scans)
    assert tokens.shape == (len(scans.labeled), 4 * vit.num_features)
    resnet = backbone("test_resnet")
    np.testing.assert_array_equal(token_features(resnet, scans), scans.seen_by(resnet))


def test_the_probe_is_a_linear_layer_on_the_tokens(
    scans: LabeledScans, backbone: Callable[[str], Backbone]
) -> None:
    vit = backbone("test_vit")
    config = TuneConfig(epochs=20, learning_rate=1.0)
    tuned = tune_network(vit, scans, config, "sgd", TRAIN, seed=0)
    assert tuned.probe is not None
    assert tuned.network is vit
    weights = tuned.probe.weight.detach().numpy()
    logits = token_features(vit, scans) @ weights.T + tuned.probe.bias.detach().numpy()
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = exponents / exponents.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scores_of(tuned, scans, TRAIN), expected[TRAIN], atol=1e-5)
    assert tuned.lessons.losses[-1] < tuned.lessons.losses[0]
