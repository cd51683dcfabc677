from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from scantune.labels.labeled_set import LabeledSet
from scantune.scores import Scores
from scantune.scoring import score_features
from scantune.statistics.curves import GRID, band, confusion, precision_recall, reliability, roc
from scantune.statistics.intervals import patient_weights
from scantune.statistics.metrics import calibration_bins, calibration_error


def drawn(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positives = rng.random(n) < 0.3
    return (rng.normal(size=n) + positives).round(1), positives


@pytest.fixture
def scores(labeled: Callable[..., LabeledSet]) -> Scores:
    data = labeled(patients=80, classes=3)
    features = np.random.default_rng(0).normal(size=(len(data), 4)) + data.truth.classes[:, None]
    return score_features(features, data, learners=("knn",), folds=2, label_seeds=2)


def test_roc_is_the_curve_whose_area_is_the_auroc() -> None:
    values, positives = drawn()
    curve = roc(values, positives, np.ones(len(values)))
    alarms, hits, _ = roc_curve(positives, values, drop_intermediate=False)
    inside = GRID > 0
    np.testing.assert_allclose(curve[inside], np.interp(GRID, alarms, hits)[inside])
    assert np.trapezoid(curve, GRID) == pytest.approx(roc_auc_score(positives, values), abs=5e-3)


def test_precision_over_recall_averages_to_the_average_precision() -> None:
    values, positives = drawn(2000)
    curve = precision_recall(values, positives, np.ones(len(values)))
    found = float(np.trapezoid(curve, GRID))
    assert found == pytest.approx(average_precision_score(positives, values), abs=0.01)
    assert curve[-1] >= positives.mean() - 1e-12


@pytest.mark.parametrize("curve", [roc, precision_recall])
def test_weight_of_a_scan_counts_as_copies_of_it(curve: Callable[..., np.ndarray]) -> None:
    values, positives = drawn(60)
    weights = np.random.default_rng(1).integers(0, 4, 60)
    copies = np.repeat(np.arange(60), weights)
    expected = curve(values[copies], positives[copies], np.ones(len(copies)))
    np.testing.assert_allclose(curve(values, positives, weights), expected)


@pytest.mark.parametrize("curve", [roc, precision_recall])
def test_curve_without_positives_is_undefined(curve: Callable[..., np.ndarray]) -> None:
    assert np.isnan(curve(np.arange(3.0), np.zeros(3, bool), np.ones(3))).all()


def test_band_holds_its_curve_and_is_that_of_every_model(scores: Scores) -> None:
    weights = patient_weights(scores, replicates=60)
    found = band(roc, scores, "knn", "all", 1, weights)
    values = scores.of("knn", "all")[..., 1]
    slow = [
        roc(values[seed, rows], scores.truth.classes[rows] == 1, np.ones(len(rows)))
        for seed in range(2)
        for rows in (scores.test_rows(seed, fold) for fold in range(2))
    ]
    np.testing.assert_allclose(found.mean, np.mean(slow, axis=0))
    middle = slice(10, 90)
    assert (found.low[middle] <= found.mean[middle]).all()
    assert (found.mean[middle] <= found.high[middle]).all()
    assert (found.high - found.low)[middle].mean() > 0.02


def test_reliability_of_honest_probabilities_is_the_diagonal(
    make_scores: Callable[..., Scores],
) -> None:
    rng = np.random.default_rng(0)
    probability = rng.random(20_000)
    y = (rng.random(20_000) < probability).astype(np.int64)
    means, shares = reliability(make_scores(y, np.arange(20_000), probability), "linear", "all", 1)
    assert len(means) == 10
    np.testing.assert_allclose(means, shares, atol=0.04)


def test_confusion_counts_every_tested_scan_once_a_label_seed(scores: Scores) -> None:
    counts = confusion(scores, "knn", "all")
    np.testing.assert_array_equal(counts.sum(axis=1), np.bincount(scores.truth.classes))
    values = scores.of("knn", "all")
    right = (
        sum(float((values[seed].argmax(axis=1) == scores.truth.classes).sum()) for seed in (0, 1))
        / 2
    )
    assert np.trace(counts) == right


def test_bins_of_the_calibration_curve_are_those_of_the_calibration_error(
    make_scores: Callable[..., Scores],
) -> None:
    rng = np.random.default_rng(3)
    probability = rng.random(400).round(2)
    y = (rng.random(400) < probability**2).astype(np.int64)
    means, shares = reliability(make_scores(y, np.arange(400), probability), "linear", "all", 1)
    weights = np.bincount(calibration_bins(probability)) / 400
    error = float((np.abs(means - shares) * weights).sum())
    assert error == pytest.approx(calibration_error(probability, y == 1))


def test_scans_of_one_probability_are_one_point(make_scores: Callable[..., Scores]) -> None:
    y = np.arange(40) % 2
    found = reliability(make_scores(y, np.arange(40), np.full(40, 0.3)), "linear", "all", 1)
    np.testing.assert_allclose(found, [[0.3], [0.5]])


def test_confusion_of_grades_is_of_the_grade_nearest_to_the_expected(scores: Scores) -> None:
    graded = replace(scores, truth=replace(scores.truth, task="ordinal"))
    counts = confusion(graded, "knn", "all")
    values = graded.of("knn", "all")
    nearest = np.rint(values @ np.arange(3))
    right = [float((nearest[seed] == scores.truth.classes).sum()) for seed in (0, 1)]
    assert np.trace(counts) == pytest.approx(np.mean(right))
    assert not np.array_equal(counts, confusion(scores, "knn", "all"))
