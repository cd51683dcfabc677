from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from scantune.labels.truth import Truth
from scantune.scores import Scores
from scantune.statistics.agreement import grade_agreement, predicted_grades, quadratic_kappa
from scantune.statistics.intervals import patient_weights


def graded(patients: int = 80, folds: int = 4, seeds: int = 2, noise: float = 0.8) -> Scores:
    """Grades 0 to 3 of patients with two scans, and probabilities that know them a little."""
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(patients), 2)
    y = np.arange(patients)[owner] % 4
    fold_of = np.stack([rng.permutation(np.arange(patients) % folds)[owner] for _ in range(seeds)])
    seen = y + noise * rng.normal(size=(seeds, len(y)))
    values = np.exp(-np.square(seen[..., None] - np.arange(4)))
    values /= values.sum(axis=-1, keepdims=True)
    used = np.full((1, seeds, folds), 10)
    return Scores(
        learners=("linear",),
        budgets=("all",),
        classes=("none", "mild", "moderate", "severe"),
        truth=Truth.of_classes(y, 4, "ordinal"),
        patients=owner,
        fold_of=fold_of,
        values=values[None, None],
        thresholds=np.zeros((1, 1, seeds, folds, 4)),
        train_scans=used,
        train_patients=used,
    )


def test_kappa_is_that_of_scikit_learn_under_every_weighting() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 5, 60), rng.integers(0, 5, 60)
    predicted = np.where(rng.random(60) < 0.5, truth, predicted)
    weights = rng.integers(0, 4, (20, 60))
    found = quadratic_kappa(truth, predicted, 5, weights)
    for value, row in zip(found, weights, strict=True):
        expected = cohen_kappa_score(
            truth, predicted, labels=range(5), weights="quadratic", sample_weight=row
        )
        assert value == pytest.approx(expected)


def test_kappa_is_one_where_all_agree_and_undefined_where_all_are_of_one_grade() -> None:
    grades = np.array([0, 1, 2, 2])
    weights = np.array([[1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]])
    found = quadratic_kappa(grades, grades, 3, weights)
    assert found[0] == 1.0
    assert np.isnan(found[1:]).all()


def test_a_grade_far_off_costs_more_than_a_near_one() -> None:
    truth = np.array([0, 1, 2, 3])
    ones = np.ones((1, 4))
    near, far = np.array([1, 1, 2, 3]), np.array([3, 1, 2, 3])
    assert quadratic_kappa(truth, near, 4, ones) > quadratic_kappa(truth, far, 4, ones)


def test_a_predicted_grade_is_the_cheapest_by_its_probabilities() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.full(5, 0.4), size=200)
    cost = probabilities @ np.square(np.subtract.outer(np.arange(5), np.arange(5)))
    np.testing.assert_array_equal(predicted_grades(probabilities), cost.argmin(axis=1))
    assert (predicted_grades(probabilities) != probabilities.argmax(axis=1)).any()


def test_agreement_is_the_mean_over_models_and_never_pooled() -> None:
    scores = graded()
    weights = patient_weights(scores, replicates=500)
    found = grade_agreement(scores, "linear", "all", weights)
    cells, drawn = [], []
    for seed in range(2):
        for fold in range(4):
            rows = np.flatnonzero(scores.fold_of[seed] == fold)
            both = scores.truth.classes[rows], predicted_grades(scores.values[0, 0, seed, rows])
            cells.append(cohen_kappa_score(*both, labels=range(4), weights="quadratic"))
            drawn.append(quadratic_kappa(*both, 4, weights[:, scores.patients[rows]]))
    assert found.kappa == pytest.approx(np.mean(cells))
    half = stats.t.ppf(0.975, 79) * np.nanmean(drawn, axis=0).std(ddof=1)
    assert (found.low, found.high) == pytest.approx((found.kappa - half, found.kappa + half))
    assert found.undefined == 0


def test_agreement_stays_within_its_range_and_shuffled_grades_agree_by_chance() -> None:
    sure = graded(noise=0.01)
    weights = patient_weights(sure, replicates=200)
    assert grade_agreement(sure, "linear", "all", weights).high == 1.0
    blind = graded()
    blind.values[:] = np.random.default_rng(1).permutation(blind.values, axis=3)
    found = grade_agreement(blind, "linear", "all", weights)
    assert found.low < 0 < found.high


def test_folds_of_one_grade_are_undefined_and_counted() -> None:
    scores = graded(patients=8, folds=4, seeds=1, noise=0.01)
    scores.fold_of[0] = scores.truth.classes
    found = grade_agreement(scores, "linear", "all", patient_weights(scores, replicates=50))
    assert found.undefined == 4
    assert np.isnan([found.kappa, found.low, found.high]).all()
