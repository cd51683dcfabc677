from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score, roc_curve

from scantune.labels.truth import Truth
from scantune.scores import Scores
from scantune.statistics.intervals import patient_weights
from scantune.statistics.metrics import (
    ClinicalScores,
    calibration_error,
    grade_agreement,
    predicted_grades,
    quadratic_kappa,
    share_interval,
    share_replicates,
    threshold_at,
    thresholds_of,
)


def drawn(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that tell the truth of themselves, and the truth."""
    rng = np.random.default_rng(seed)
    probabilities = rng.beta(1, 3, n).round(2)
    return probabilities, rng.random(n) < probabilities


def test_threshold_reaches_the_specificity_and_no_lower_one_does() -> None:
    scores, positives = drawn()
    for wanted in (0.0, 0.5, 0.9, 0.95, 1.0):
        threshold = threshold_at(scores, positives, wanted)
        assert (scores[~positives] < threshold).mean() >= wanted
        lower = np.unique(scores)[np.unique(scores) < threshold]
        if len(lower):
            assert (scores[~positives] < lower[-1]).mean() < wanted


def test_sensitivity_at_the_threshold_is_that_of_the_roc_curve() -> None:
    scores, positives = drawn()
    threshold = threshold_at(scores, positives, 0.9)
    false_positives, true_positives, _ = roc_curve(positives, scores, drop_intermediate=False)
    best = true_positives[false_positives <= 0.1 + 1e-12].max()
    found = ClinicalScores.of(scores, positives, threshold)
    assert found.sensitivity == pytest.approx(best)
    assert found.specificity >= 0.9
    assert found.balanced_accuracy == pytest.approx((found.sensitivity + found.specificity) / 2)


def test_threshold_is_undefined_without_negatives_or_scores() -> None:
    assert np.isnan(threshold_at(np.array([0.2, 0.3]), np.array([True, True])))
    assert np.isnan(threshold_at(np.array([0.2, np.nan]), np.array([True, False])))


def test_brier_is_the_mean_squared_error_of_the_probability() -> None:
    scores, positives = np.array([0.1, 0.8, 0.6]), np.array([False, True, False])
    found = ClinicalScores.of(scores, positives, 0.5)
    assert found.brier == pytest.approx((0.01 + 0.04 + 0.36) / 3)
    assert (found.sensitivity, found.specificity) == (1.0, 0.5)


def test_calibration_error_is_that_of_a_slow_loop_over_bins() -> None:
    rng = np.random.default_rng(3)
    scores, positives = rng.random(500), rng.random(500) < 0.4
    slow = 0.0
    for part in np.array_split(np.argsort(scores, kind="stable"), 10):
        slow += len(part) / 500 * abs(positives[part].mean() - scores[part].mean())
    assert calibration_error(scores, positives) == pytest.approx(slow)


def test_calibration_error_is_small_for_honest_probabilities_and_large_for_bold_ones() -> None:
    scores, positives = drawn(20_000)
    assert calibration_error(scores, positives) < 0.02
    bold = np.where(scores > 0.25, 0.99, 0.01)
    assert calibration_error(bold, positives) > 0.2


def test_scans_of_one_probability_share_a_bin() -> None:
    positives = np.arange(40) % 4 == 0
    assert calibration_error(np.full(40, 0.25), positives) == pytest.approx(0.0)


def test_a_class_without_positives_or_negatives_has_no_scores() -> None:
    for positives in (np.zeros(4, bool), np.ones(4, bool)):
        found = ClinicalScores.of(np.linspace(0, 1, 4), positives, 0.5)
        assert np.isnan([found.auroc, found.auprc, found.brier, found.sensitivity]).all()


def test_without_a_threshold_what_needs_none_is_still_scored() -> None:
    scores, positives = drawn()
    found = ClinicalScores.of(scores, positives, float("nan"))
    assert np.isnan([found.sensitivity, found.specificity, found.balanced_accuracy]).all()
    assert 0.5 < found.auroc < 1
    assert positives.mean() < found.auprc < 1


def test_every_class_has_a_threshold_of_its_own() -> None:
    rng = np.random.default_rng(0)
    validation, y = rng.random((60, 3)), rng.integers(0, 3, 60)
    found = thresholds_of(validation, Truth.of_classes(y, 3))
    assert found.tolist() == [threshold_at(validation[:, c], y == c) for c in range(3)]


def test_a_threshold_is_set_on_scans_that_are_known_and_validated() -> None:
    rng = np.random.default_rng(1)
    validation, truth = rng.random((60, 2)), rng.integers(-1, 2, (60, 2)).astype(np.int8)
    validation[:7] = np.nan
    found = thresholds_of(validation, Truth(truth, "multilabel"))
    for column in (0, 1):
        rows = (truth[:, column] >= 0) & (np.arange(60) >= 7)
        expected = threshold_at(validation[rows, column], truth[rows, column] == 1)
        assert found[column] == expected


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


def clustered(
    share: float, patients: int, rng: np.random.Generator, per_patient: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Returns hits and patients; scans of one patient are alike."""
    own = rng.beta(share * 7 / 3, (1 - share) * 7 / 3, patients)
    owner = np.repeat(np.arange(patients), rng.integers(1, per_patient + 1, patients))
    return rng.random(len(owner)) < own[owner], owner


def interval(hits: np.ndarray, owner: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    patients = int(owner.max()) + 1
    weights = rng.multinomial(patients, np.full(patients, 1 / patients), size=200)
    replicates = share_replicates(hits, weights[:, owner])[None]
    return share_interval(float(hits.mean()), replicates, patients, len(hits))


def test_replicates_are_the_shares_of_copied_scans() -> None:
    rng = np.random.default_rng(0)
    hits, weights = rng.random(30) < 0.4, rng.integers(0, 3, (5, 30))
    slow = [np.repeat(hits, row).mean() for row in weights]
    np.testing.assert_allclose(share_replicates(hits, weights), slow, rtol=1e-6)
    assert np.isnan(share_replicates(hits, np.zeros((1, 30), np.uint16))).all()


def test_independent_scans_have_wilsons_interval() -> None:
    rng = np.random.default_rng(1)
    hits = np.arange(50) < 40
    weights = rng.multinomial(50, np.full(50, 0.02), size=20_000)
    found = share_interval(0.8, share_replicates(hits, weights)[None], 50, 50)
    # Wilson's interval of 40 of 50, as in tables.
    np.testing.assert_allclose(found, (0.6696, 0.8876), atol=0.004)


@pytest.mark.parametrize(("share", "patients"), [(0.6, 40), (0.9, 15), (0.97, 40)])
def test_95_percent_of_intervals_over_patients_hold_the_share(share: float, patients: int) -> None:
    rng = np.random.default_rng(2)
    times, covered, plain = 400, 0, 0
    for _ in range(times):
        hits, owner = clustered(share, patients, rng)
        low, high = interval(hits, owner, rng)
        covered += low <= share <= high
        # Each scan for itself, as if no two were of one patient.
        one = share_interval(hits.mean(), np.full((1, 2), hits.mean()), len(hits), len(hits))
        plain += one[0] <= share <= one[1]
    assert 0.91 <= covered / times <= 0.985
    assert covered >= plain


def test_a_share_of_one_is_not_sure() -> None:
    low, high = share_interval(1.0, np.ones((1, 50)), 10, 30)
    assert high == pytest.approx(1.0)
    assert low == pytest.approx(10 / (10 + 1.96**2), abs=1e-3)


def test_an_undefined_share_has_no_interval() -> None:
    assert np.isnan(share_interval(float("nan"), np.full((2, 9), np.nan), 5, 9)).all()
    assert np.isnan(share_interval(float("nan"), np.empty(0), 0, 0)).all()
