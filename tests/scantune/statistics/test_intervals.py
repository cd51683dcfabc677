from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from scantune.statistics.intervals import (
    ONE_SEED,
    Component,
    Difference,
    Estimate,
    arm_interval,
    equivalence_p,
    estimate,
    holm,
    paired_difference,
    patient_weights,
    satterthwaite_df,
    verdict,
)


def plain(auroc: float, replicates: Any, patients: int = 100) -> Estimate:
    return Estimate(auroc, np.array([[auroc]]), np.asarray(replicates, float), patients, 0)


def spread(mean: float, deviation: float, r: int = 4000, seed: int = 0) -> np.ndarray:
    """Replicates with exactly this mean and standard deviation."""
    values = np.random.default_rng(seed).normal(size=r)
    standard: np.ndarray = (values - values.mean()) / values.std(ddof=1)
    return mean + deviation * standard


def test_a_resample_draws_as_many_patients_as_are_tested(make_scores: Any) -> None:
    y, patients = np.array([0, 1, 0, 1, 1]), np.array([0, 1, 2, 2, 3])
    fold_of = np.array([[0, 0, 0, 0, -1]])
    weights = patient_weights(make_scores(y, patients, np.arange(5.0), fold_of), replicates=300)
    assert weights.shape == (300, 4)
    assert (weights.sum(axis=1) == 3).all()
    assert (weights[:, 3] == 0).all()
    np.testing.assert_allclose(weights[:, :3].mean(axis=0), 1, atol=0.2)


def test_resamples_are_shared_by_arms_and_depend_on_the_seed(make_scores: Any) -> None:
    y, patients = np.array([0, 1, 0, 1]), np.arange(4)
    first = patient_weights(make_scores(y, patients, np.arange(4.0)))
    second = patient_weights(make_scores(y, patients, -np.arange(4.0)))
    assert len(first) == 2000
    np.testing.assert_array_equal(first, second)
    other = patient_weights(make_scores(y, patients, np.arange(4.0)), seed=1)
    assert not np.array_equal(first, other)


def test_an_estimate_is_the_mean_over_folds_and_label_seeds_and_never_pooled(
    make_scores: Any,
) -> None:
    rng = np.random.default_rng(0)
    y, patients = rng.integers(0, 2, 60), np.repeat(np.arange(30), 2)
    values = rng.normal(size=(2, 60)) + y
    fold_of = rng.integers(0, 3, (2, 30))[:, patients]
    # Folds are on scales of their own: pooling would mix them up.
    values = values + 100 * fold_of
    scores = make_scores(y, patients, values, fold_of)
    weights = patient_weights(scores, replicates=40)
    found = estimate(scores, "linear", "all", weights)
    expected = np.array(
        [
            [roc_auc_score(y[f == k], v[f == k]) for k in range(3)]
            for v, f in zip(values, fold_of, strict=True)
        ]
    )
    np.testing.assert_allclose(found.per_fold, expected)
    assert found.auroc == pytest.approx(expected.mean())
    assert found.num_patients == 30
    for replicate, row in zip(found.replicates, weights, strict=True):
        cells = [
            roc_auc_score(y[f == k], v[f == k], sample_weight=row[patients][f == k])
            for v, f in zip(values, fold_of, strict=True)
            for k in range(3)
        ]
        assert replicate == pytest.approx(np.mean(cells))


def test_a_fold_that_a_resample_leaves_without_a_class_is_left_out_of_its_mean(
    make_scores: Any,
) -> None:
    y, patients = np.array([0, 1, 0, 1]), np.arange(4)
    scores = make_scores(y, patients, np.array([0.1, 0.9, 0.8, 0.2]), np.array([[0, 0, 1, 1]]))
    weights = np.array([[1, 1, 1, 1], [1, 1, 2, 0], [2, 0, 1, 1], [0, 2, 2, 0]])
    found = estimate(scores, "linear", "all", weights)
    assert found.replicates[:3].tolist() == [0.5, 1.0, 0.0]
    assert np.isnan(found.replicates[3])


def test_a_fold_without_a_class_is_undefined_and_counted(make_scores: Any) -> None:
    y, patients = np.array([0, 1, 0, 0]), np.arange(4)
    scores = make_scores(y, patients, np.array([0.1, 0.9, 0.8, 0.2]), np.array([[0, 0, 1, 1]]))
    found = estimate(scores, "linear", "all", patient_weights(scores))
    assert found.auroc == 1.0
    assert np.isnan(found.per_fold[0, 1])
    assert found.undefined == 1


def test_an_arms_interval_in_closed_form() -> None:
    values, deviation = [0.80, 0.83, 0.81], 0.02
    arm = [plain(value, spread(value, deviation)) for value in values]
    found = arm_interval(arm)
    seed_variance = np.var(values, ddof=1) / 3
    variance = deviation**2 + seed_variance
    df = variance**2 / (deviation**4 / 99 + seed_variance**2 / 2)
    half = stats.t.ppf(0.975, df) * np.sqrt(variance)
    assert found.estimate == pytest.approx(np.mean(values))
    assert found.df == pytest.approx(df)
    assert found.low == pytest.approx(np.mean(values) - half)
    assert found.high == pytest.approx(np.mean(values) + half)
    assert found.per_seed == tuple(values)
    assert found.note == ""


def test_an_arms_interval_stays_within_zero_and_one() -> None:
    found = arm_interval([plain(0.99, spread(0.99, 0.02))])
    assert found.high == 1.0
    assert "this network only" in found.note


def test_a_paired_difference_in_closed_form() -> None:
    a, b = [0.84, 0.86, 0.83], [0.80, 0.81, 0.82]
    first = [plain(v, spread(v, 0.02, seed=1) + spread(0, 0.01, seed=i)) for i, v in enumerate(a)]
    second = [plain(v, spread(v, 0.02, seed=1)) for v in b]
    found = paired_difference(first, second)
    d = np.subtract(a, b)
    patients = np.var(
        np.mean([x.replicates - y.replicates for x, y in zip(first, second, strict=True)], axis=0),
        ddof=1,
    )
    seeds = np.var(d, ddof=1) / 3
    df = (patients + seeds) ** 2 / (patients**2 / 99 + seeds**2 / 2)
    t = d.mean() / np.sqrt(patients + seeds)
    assert found.estimate == pytest.approx(d.mean())
    assert found.df == pytest.approx(df)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), df))
    half = stats.t.ppf(0.975, df) * np.sqrt(patients + seeds)
    assert (found.low, found.high) == pytest.approx((d.mean() - half, d.mean() + half))
    assert found.note == ""
    swapped = paired_difference(second, first)
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low))
    assert swapped.p == pytest.approx(found.p)


def test_what_both_arms_share_leaves_the_difference() -> None:
    common = spread(0, 0.05, seed=1)
    first = [plain(0.8, 0.8 + common + spread(0, 0.001, seed=2))]
    second = [plain(0.78, 0.78 + common)]
    assert paired_difference(first, second).patient_variance == pytest.approx(1e-6)


def test_one_seed_speaks_of_these_two_networks_only() -> None:
    found = paired_difference([plain(0.8, spread(0.8, 0.02))], [plain(0.7, np.full(4000, 0.7))])
    assert found.df == 99
    assert found.seed_variance == 0
    assert found.note == ONE_SEED
    assert "these two networks only" in found.note
    assert found.p == pytest.approx(2 * stats.t.sf(5, 99))


def test_an_arm_against_itself_differs_by_nothing() -> None:
    arm = [plain(value, spread(value, 0.02)) for value in (0.8, 0.82)]
    found = paired_difference(arm, arm)
    assert (found.estimate, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_arms_with_different_seeds_cannot_be_paired() -> None:
    arm = [plain(0.8, spread(0.8, 0.02))]
    with pytest.raises(ValueError, match="same seeds in both arms, not 1 and 2"):
        paired_difference(arm, arm * 2)


@pytest.mark.parametrize(
    ("components", "df"),
    [
        ([(2.0, 10), (1.0, 2)], 9 / (4 / 10 + 1 / 2)),
        ([(1.0, 10), (0.0, 2)], 10),
        ([(0.0, 10), (1.0, 2)], 2),
        ([(1.0, 10), (0.0, np.inf)], 10),
        ([(0.0, 10), (0.0, 2)], 10),
        ([(2.0, 10), (1.0, 2), (3.0, 4)], 36 / (4 / 10 + 1 / 2 + 9 / 4)),
        # Welch's two-sample test with samples of equal size and variance has n1 + n2 - 2.
        ([(1.0, 9), (1.0, 9)], 18),
        ([(1e-200, 9), (1e-200, 9)], 18),
    ],
)
def test_satterthwaite_in_closed_form_and_at_its_ends(
    components: list[tuple[float, float]], df: float
) -> None:
    assert satterthwaite_df(*(Component(*pair) for pair in components)) == pytest.approx(df)


def test_what_other_draws_tell_of_the_seeds_and_subsets_enters_with_its_own_df() -> None:
    a, b = [0.84, 0.86], [0.80, 0.81]
    first = [plain(v, spread(v, 0.02, seed=1)) for v in a]
    second = [plain(v, spread(v, 0.01, seed=2)) for v in b]
    seeds, subsets = Component(3e-4, 6.0), Component(2e-4, 4.0)
    found = paired_difference(first, second, between_seeds=seeds, between_subsets=subsets)
    patients = np.var(
        np.mean([x.replicates - y.replicates for x, y in zip(first, second, strict=True)], axis=0),
        ddof=1,
    )
    variance = patients + 5e-4
    df = variance**2 / (patients**2 / 99 + 3e-4**2 / 6 + 2e-4**2 / 4)
    half = stats.t.ppf(0.975, df) * np.sqrt(variance)
    assert (found.seed_variance, found.subset_variance) == (3e-4, 2e-4)
    assert (found.df, found.variance) == (pytest.approx(df), pytest.approx(variance))
    assert (found.low, found.high) == pytest.approx((0.045 - half, 0.045 + half))
    assert found.p == pytest.approx(2 * stats.t.sf(0.045 / np.sqrt(variance), df))
    arm = arm_interval(first, between_seeds=seeds, between_subsets=subsets)
    assert arm.variance == pytest.approx(0.02**2 + 5e-4)


def test_holm_on_a_worked_example() -> None:
    # Sorted .005 .01 .03 .04 times 4 3 2 1 gives .02 .03 .06 .04; never falling: .06 at the end.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.5, 0.9]) == pytest.approx((1.0, 1.0))
    assert holm([]) == ()


def test_holm_does_not_count_what_is_undefined() -> None:
    adjusted = holm([0.01, float("nan"), 0.02])
    assert adjusted[0] == pytest.approx(0.02)
    assert np.isnan(adjusted[1])
    assert adjusted[2] == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [
        (0.02, 0.06, "better"),
        (-0.06, -0.02, "worse"),
        (-0.004, 0.006, "equivalent"),
        (0.001, 0.006, "equivalent"),
        (-0.02, 0.03, "none"),
        (-0.011, 0.005, "none"),
    ],
)
def test_a_verdict_reads_the_interval_against_the_margin(
    low: float, high: float, kind: str
) -> None:
    middle, half = (low + high) / 2, (high - low) / 2
    p = float(2 * stats.norm.sf(abs(middle) / half * 1.96))
    found = Difference(middle, low, high, 50.0, 1e-4, 0.0, (middle,), p=p)
    assert verdict(found, margin=0.01) == kind


def test_a_verdict_takes_the_adjusted_p_value() -> None:
    found = Difference(0.04, 0.01, 0.07, 50.0, 1e-4, 0.0, (0.04,), p=0.02)
    assert verdict(found) == "better"
    assert verdict(found, p=0.08) == "none"
    assert verdict(replace(found, p=float("nan"), low=float("nan"), high=float("nan"))) == "none"


@pytest.mark.parametrize(("estimate", "variance", "df"), [(0.002, 9e-6, 12), (-0.006, 4e-6, 40)])
def test_equivalence_is_two_one_sided_tests(estimate: float, variance: float, df: float) -> None:
    half = stats.t.ppf(0.975, df) * np.sqrt(variance)
    found = Difference(estimate, estimate - half, estimate + half, df, variance, 0.0, (estimate,))
    above = stats.t.sf((estimate + 0.01) / np.sqrt(variance), df)
    below = stats.t.cdf((estimate - 0.01) / np.sqrt(variance), df)
    p = equivalence_p(found, 0.01)
    assert p == pytest.approx(max(above, below))
    assert (p < 0.025) == (abs(estimate) + half < 0.01)


def test_an_adjusted_equivalence_may_fail_and_is_then_no_difference_either() -> None:
    found = Difference(0.005, 0.001, 0.009, 50.0, 4e-6, 0.0, (0.005,), p=0.01)
    assert verdict(found, p_equivalent=0.02) == "equivalent"
    assert verdict(found, p=0.01, p_equivalent=0.03) == "none"
