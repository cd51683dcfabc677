from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scanlearn.core import ScanlearnError
from scantune.probe import score_features
from scantune.statistics import arm_interval, estimate, patient_weights
from scantune.truth import Truth


def test_every_scan_is_scored_once_under_each_label_seed(informative: Any, labeled: Any) -> None:
    data = labeled()
    scores = score_features(informative(data), data, budgets=(20, "all"), label_seeds=2)
    assert scores.values.shape == (2, 2, 2, len(data), 2)
    assert np.isfinite(scores.values).all()
    np.testing.assert_allclose(scores.values.sum(axis=-1), 1)
    assert sorted(np.unique(scores.fold_of)) == [0, 1, 2, 3, 4]
    assert (scores.train_scans[0] >= 20).all()
    assert (scores.train_scans[0] <= 22).all()
    assert (scores.train_patients < scores.train_scans).all()


def test_folds_and_subsets_are_the_same_for_every_backbone(informative: Any, labeled: Any) -> None:
    data = labeled()
    first, second = (
        score_features(informative(data, seed=seed), data, learners=("knn",), budgets=(20, "all"))
        for seed in (0, 1)
    )
    assert first.design_hash() == second.design_hash()
    assert not np.array_equal(first.values, second.values)


def test_the_same_call_gives_the_same_scores(informative: Any, labeled: Any) -> None:
    data = labeled(patients=30)
    features = informative(data)
    first, second = (score_features(features, data, label_seeds=1, folds=3) for _ in range(2))
    np.testing.assert_array_equal(first.values, second.values)


def test_a_budget_beyond_the_fold_is_said_and_equals_all(informative: Any, labeled: Any) -> None:
    data = labeled()
    scores = score_features(informative(data), data, budgets=(9999, "all"), label_seeds=1)
    np.testing.assert_array_equal(scores.of("linear", 9999), scores.of("linear", "all"))
    assert "9999 labels is larger" in scores.notes[0]


def test_several_classes_are_scored(informative: Any, labeled: Any) -> None:
    data = labeled(patients=120, classes=4)
    scores = score_features(informative(data, strength=4.0), data, label_seeds=1)
    weights = patient_weights(scores, replicates=50)
    for learner in ("knn", "linear"):
        found = estimate(scores, learner, "all", weights)
        assert 0.75 < found.auroc < 1.0
        assert found.undefined == 0


@pytest.mark.parametrize("learner", ["knn", "linear"])
def test_shuffled_labels_give_half_within_the_interval(
    informative: Any, labeled: Any, learner: str
) -> None:
    inside = 0
    for seed in range(8):
        data = labeled(patients=100, seed=seed)
        features = informative(data, strength=2.0, seed=seed)
        # Whole patients are shuffled: what their scans share stays together.
        order = np.random.default_rng(seed).permutation(data.patients.max() + 1)
        majority = np.array(
            [
                data.truth.classes[data.patients == p].mean() > 0.5
                for p in range(data.patients.max() + 1)
            ]
        )
        drawn = majority[order][data.patients].astype(int)
        shuffled = replace(data, truth=Truth.of_classes(drawn, 2))
        scores = score_features(features, shuffled, learners=(learner,), label_seeds=2)
        found = arm_interval([estimate(scores, learner, "all", patient_weights(scores))])
        inside += found.low <= 0.5 <= found.high
        assert abs(found.estimate - 0.5) < 0.2
    assert inside >= 6


def test_progress_is_told_once_for_each_model(informative: Any, labeled: Any) -> None:
    data, told = labeled(), []
    score_features(
        informative(data),
        data,
        budgets=(20, "all"),
        folds=3,
        label_seeds=2,
        on_fit=lambda: told.append(1),
    )
    assert len(told) == 2 * 2 * 3 * 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"learners": ("forest",)}, "learner 'forest' is unknown; give knn or linear"),
        ({"budgets": ("some",)}, "label budget 'some'"),
        ({"budgets": (0,)}, "label budget '0'"),
        ({"label_seeds": 0}, "label_seeds is empty"),
        ({"learners": ()}, "learners is empty"),
    ],
)
def test_an_unknown_option_is_one_sentence(
    informative: Any, labeled: Any, options: Any, said: str
) -> None:
    data = labeled()
    with pytest.raises(ScanlearnError, match=said):
        score_features(informative(data), data, **options)


def test_features_that_are_not_finite_are_refused_with_their_row(
    informative: Any, labeled: Any
) -> None:
    data = labeled()
    features = informative(data)
    features[6, 3] = np.nan
    with pytest.raises(ScanlearnError, match=r"1 of \d+ scans are not finite, first in row 7"):
        score_features(features, data)


@pytest.mark.long
def test_a_thousand_scans_are_scored_in_under_forty_seconds(informative: Any, labeled: Any) -> None:
    data = labeled(patients=500)
    rng = np.random.default_rng(0)
    features = informative(data, d=64) @ rng.normal(size=(64, 512))
    features = np.maximum(features + rng.normal(size=features.shape), 0)
    start = time.process_time()
    score_features(features, data, budgets=(50, 100, "all"))
    assert time.process_time() - start < 40


def test_test_labels_enter_nothing(informative: Any, labeled: Any) -> None:
    data = labeled(split=True, patients=80)
    assert data.split is not None
    features = informative(data)
    y = np.where(data.split == "test", 1 - data.truth.classes, data.truth.classes)
    flipped = replace(data, truth=Truth.of_classes(y, 2))
    options: dict[str, Any] = {"budgets": (30, "all"), "label_seeds": 2}
    first, second = (score_features(features, one, **options) for one in (data, flipped))
    np.testing.assert_array_equal(first.values, second.values)
