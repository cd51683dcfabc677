from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_curve

from scantune.labels.truth import Truth
from scantune.statistics.metrics import (
    METRICS,
    OneVsRest,
    calibration_error,
    roc_sensitivity,
    score_metrics,
    share_interval,
    share_replicates,
    threshold_at,
    threshold_replicates,
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
    found = score_metrics(OneVsRest(scores, positives, threshold))
    assert found["sensitivity"] == pytest.approx(best)
    assert found["specificity"] >= 0.9
    assert found["balanced_accuracy"] == pytest.approx(
        (found["sensitivity"] + found["specificity"]) / 2
    )


@pytest.mark.parametrize("specificity", [0.5, 0.9, 0.95])
def test_sensitivity_of_the_roc_is_that_of_scikit_learns_curve(specificity: float) -> None:
    scores, positives = drawn(150)
    weights = np.random.default_rng(1).multinomial(150, np.full(150, 1 / 150), size=6)
    found = roc_sensitivity(scores, positives, weights, specificity)
    for value, weight in zip(found, weights, strict=True):
        alarms, hits, _ = roc_curve(
            positives, scores, sample_weight=weight, drop_intermediate=False
        )
        assert value == pytest.approx(np.interp(1 - specificity, alarms, hits), abs=1e-6)


def test_sensitivity_of_the_roc_does_not_depend_on_the_threshold() -> None:
    # A threshold from other scanners calls nobody here, though the scores rank well.
    scores, positives = np.array([0.1, 0.2, 0.3, 0.4]), np.array([False, False, True, True])
    found = score_metrics(OneVsRest(scores, positives, 0.9))
    assert (found["sensitivity"], found["roc_sensitivity"]) == (0.0, 1.0)
    none = roc_sensitivity(scores[:2], positives[:2], np.ones((2, 2)))
    assert np.isnan(none).all()


def test_thresholds_of_resamples_are_those_of_copied_scans() -> None:
    scores, positives = drawn(60)
    rng = np.random.default_rng(2)
    weights = rng.integers(0, 3, (8, 60))
    weights[0, ~positives] = 0
    found = threshold_replicates(scores, positives, weights)
    slow = [threshold_at(np.repeat(scores, w), np.repeat(positives, w)) for w in weights]
    np.testing.assert_array_equal(found, slow)
    assert np.isnan(found[0])


def test_f1_is_that_of_scikit_learn_and_0_where_no_positive_is_called() -> None:
    scores, positives = drawn()
    for threshold in (0.1, 0.37, 0.8):
        expected = f1_score(positives, scores >= threshold)
        found = score_metrics(OneVsRest(scores, positives, threshold))
        assert found["f1"] == pytest.approx(expected)
    assert score_metrics(OneVsRest(scores, positives, 2.0))["f1"] == 0.0


def test_threshold_is_undefined_without_negatives_or_scores() -> None:
    assert np.isnan(threshold_at(np.array([0.2, 0.3]), np.array([True, True])))
    assert np.isnan(threshold_at(np.array([0.2, np.nan]), np.array([True, False])))


def test_brier_is_the_mean_squared_error_of_the_probability() -> None:
    scores, positives = np.array([0.1, 0.8, 0.6]), np.array([False, True, False])
    found = score_metrics(OneVsRest(scores, positives, 0.5))
    assert found["brier"] == pytest.approx((0.01 + 0.04 + 0.36) / 3)
    assert (found["sensitivity"], found["specificity"]) == (1.0, 0.5)


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
        found = score_metrics(OneVsRest(np.linspace(0, 1, 4), positives, 0.5))
        assert np.isnan(list(found.values())).all()


def test_without_a_threshold_what_needs_none_is_still_scored() -> None:
    scores, positives = drawn()
    found = score_metrics(OneVsRest(scores, positives, float("nan")))
    undefined = {name for name, value in found.items() if np.isnan(value)}
    assert undefined == {metric.name for metric in METRICS if metric.at_threshold}
    assert undefined >= {"sensitivity", "specificity", "balanced_accuracy"}
    assert 0.5 < found["auroc"] < 1
    assert positives.mean() < found["auprc"] < 1


def test_metrics_have_names_of_their_own_and_heads_that_fit_the_terminal() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert all(0 < len(metric.short) <= 6 and metric.about.endswith(".") for metric in METRICS)


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
