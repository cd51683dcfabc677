from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scanlearn.backbones.backbone import Backbone
from scantune.learners.learner import LabeledScans
from scantune.learners.settings import TuneConfig
from scantune.learners.trial import Trial


def trial(scans: LabeledScans, backbone: Backbone, **settings: object) -> Trial:
    config = TuneConfig.model_validate(settings)
    rows = np.arange(20)
    return Trial(backbone, scans, config, config.plan("finetune", 20), rows, rows[:5] + 20, 3)


def test_features_of_all_scans_are_kept_and_those_of_some_are_not(
    scans: LabeledScans, backbone: Callable[[str], Backbone], cache: Path
) -> None:
    kept = LabeledScans(scans.archives, scans.labeled, scans.view, cache)
    some = kept.outputs(backbone("test_resnet"), np.array([3, 1]))
    assert not cache.exists()
    everyone = kept.outputs(backbone("test_resnet"))
    assert len(list(cache.iterdir())) == 1
    np.testing.assert_allclose(some, everyone[[3, 1]], rtol=1e-4, atol=1e-6)


def test_the_loss_and_the_draw_follow_the_balance(
    scans: LabeledScans, backbone: Callable[[str], Backbone]
) -> None:
    network = backbone("test_resnet")
    plain = trial(scans, network)
    assert plain.shares is None
    assert plain.objective.having.tolist() == [1.0, 1.0]
    sampled = trial(scans, network, balance="sampling")
    assert sampled.shares is not None
    assert sampled.shares[plain.truth.positives(1)].sum() == 0.5
    weighed = trial(scans, network, balance="effective", beta=0.9)
    assert weighed.shares is None
    assert weighed.objective.having.tolist() != [1.0, 1.0]


def test_streams_of_one_seed_are_independent(
    scans: LabeledScans, backbone: Callable[[str], Backbone]
) -> None:
    one = trial(scans, backbone("test_resnet"))
    assert one.rng(1).random() == one.rng(1).random() != one.rng(2).random()
    assert len(one.truth) == 20
    assert one.validation is not None
    assert len(one.validation) == 5


def test_an_external_test_set_is_scored_and_never_trained_on(
    scans: LabeledScans, backbone: Callable[[str], Backbone]
) -> None:
    labeled = scans.labeled
    sources = np.repeat([0, 1], [100, 20])
    both = LabeledScans(scans.archives * 2, replace(labeled, sources=sources), scans.view)
    network = backbone("test_resnet")
    np.testing.assert_allclose(both.outputs(network), scans.outputs(network), atol=1e-4)
    assert both.stored(np.array([3, 99])).ids.tolist() == labeled.rows[[3, 99]].tolist()
    with pytest.raises(AssertionError, match="an external test set trains nothing"):
        both.stored(np.array([99, 100]))
