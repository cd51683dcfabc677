from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from scantune.statistics.few_patients import Sides
from scantune.statistics.intervals import (
    MODELS_FIXED,
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
    refit_variance,
    satterthwaite_df,
    verdict,
    widening,
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
    # The data's 99 degrees of freedom, and 40 of the model by its share, 40 / (100 + 40).
    df = variance**2 / (deviation**4 / (99 + 40 * 40 / 140) + seed_variance**2 / 2)
    mean = np.mean(values)
    assert found.estimate == pytest.approx(mean)
    assert found.df == pytest.approx(df)

    def model(a: Any) -> Any:
        return a * (1 - a) * (1 + 99 * ((1 - a) / (2 - a) + a / (1 + a))) / 100**2

    by_model = model((mean * 100 + 0.5) / 101)
    scale = (variance + 40 / 140 * (by_model - deviation**2)) / by_model
    grid = np.linspace(0.5, 1, 500_001)
    within = grid[np.abs(mean - grid) <= stats.t.ppf(0.975, df) * np.sqrt(scale * model(grid))]
    assert (found.low, found.high) == pytest.approx((within[0], within[-1]), abs=2e-6)
    assert found.per_seed == tuple(values)
    assert found.note == ""


def test_an_arms_interval_stays_within_zero_and_one() -> None:
    found = arm_interval([plain(0.99, spread(0.99, 0.02))])
    assert 0.85 < found.low < 0.99 < found.high < 1
    assert "this network only" in found.note


def test_a_paired_difference_in_closed_form() -> None:
    a, b = [0.84, 0.86, 0.83], [0.80, 0.81, 0.82]
    own = [spread(0, 0.02, seed=9) + spread(0, 0.01, seed=i) for i in range(3)]
    first = [plain(v, spread(v, 0.02, seed=1) + own[i]) for i, v in enumerate(a)]
    second = [plain(v, spread(v, 0.02, seed=1)) for v in b]
    found = paired_difference(first, second)
    d = np.subtract(a, b)
    # What one network alone gets wrong is in the seeds' variance: here the covariance counts.
    covariance = np.cov([x.replicates - y.replicates for x, y in zip(first, second, strict=True)])
    patients = covariance[~np.eye(3, dtype=bool)].mean()
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
    first = [plain(0.8, 0.8 + common + spread(0, 0.01, seed=2))]
    second = [plain(0.78, 0.78 + common)]
    assert paired_difference(first, second).patient_variance == pytest.approx(1e-4)


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
    assert (found.estimate, found.p) == (0, 1)
    # As if one more patient of 100 on each side told the arms apart: nothing is known for sure.
    half = stats.t.ppf(0.975, 99) * 0.3 * np.sqrt(2) / 100
    assert (found.low, found.high) == pytest.approx((-half, half))


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
    # Three in 300 of the rarer class: the rule of three needs more for a margin of .01.
    few = verdict(replace(found, fewest=300), margin=0.01)
    assert few == ("none" if kind == "equivalent" else kind)
    assert verdict(replace(found, fewest=301), margin=0.01) == kind


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


def test_a_class_without_a_patient_on_one_side_is_never_equivalent() -> None:
    found = Difference(0.0, -0.001, 0.001, 50.0, 1e-7, 0.0, (0.0,), p=1.0, fewest=0)
    assert equivalence_p(found, 0.01) == 1.0
    assert verdict(found) == "none"


def crossed(auroc: float, refits: np.ndarray | None, sides: tuple[Sides, ...] = ()) -> Estimate:
    return replace(plain(auroc, spread(auroc, 0.02)), refits=refits, sides=sides, is_crossed=True)


def test_few_patients_give_no_interval_no_p_value_and_a_reason() -> None:
    sides = (Sides("hernia", 4, 60),)
    arm = [replace(plain(1.0, np.ones(200)), sides=sides)]
    other = [replace(plain(0.5, np.full(200, 0.5)), sides=sides)]
    for found in (arm_interval(arm), paired_difference(arm, other), paired_difference(arm, arm)):
        assert np.isnan([found.low, found.high]).all()
        assert "too few patients to say: 4 with hernia, where at least 5 are needed" in found.note
    assert np.isnan(paired_difference(arm, other).p)
    assert verdict(paired_difference(arm, arm), margin=1.0) == "none"


def test_no_verdict_rests_on_a_bootstrap_without_variance() -> None:
    sides = (Sides("yes", 6, 6),)
    perfect = [replace(plain(1.0, np.ones(200)), sides=sides)]
    constant = [replace(plain(0.5, np.full(200, 0.5)), sides=sides)]
    assert 0.0001 < paired_difference(perfect, constant).p < 0.05
    same = paired_difference(perfect, perfect)
    assert same.high - same.low > 0.2
    assert verdict(same, margin=0.5) == "none"
    arm = arm_interval(perfect)
    assert 0.4 < arm.low < 0.8
    assert arm.high == 1.0


def test_refits_widen_an_interval_and_models_held_fixed_are_said() -> None:
    rng = np.random.default_rng(0)
    test, train = 0.004 * rng.normal(size=(2, 21))
    test[0] = train[0] = 0
    fixed = 0.8 + np.zeros((21, 1)) + test
    both = fixed + train[:, None]
    assert refit_variance(fixed) == pytest.approx(19 * fixed[0, 1:].var())
    # Nothing is particular to a pair of groups: no interaction is taken off.
    expected = (3 * 19 * np.diagonal(both)[1:].var() + 19 * fixed[0, 1:].var()) / 4
    assert refit_variance(both) == pytest.approx(max(expected, 19 * fixed[0, 1:].var()))
    assert widening(both) == pytest.approx(refit_variance(both) / refit_variance(fixed))
    assert widening(None) == 1.0
    narrow, wide = (arm_interval([crossed(0.8, refits)]) for refits in (fixed, both))
    assert wide.high - wide.low > narrow.high - narrow.low
    assert MODELS_FIXED not in wide.note
    assert MODELS_FIXED in arm_interval([crossed(0.8, None)]).note
    assert MODELS_FIXED in paired_difference([crossed(0.8, None)], [crossed(0.7, both)]).note


def test_what_pairs_of_groups_do_together_is_counted_once() -> None:
    rng = np.random.default_rng(1)
    test, train = 0.004 * rng.normal(size=(2, 21))
    pairs = 0.002 * rng.normal(size=(21, 21))
    test[0] = train[0] = pairs[0] = pairs[:, 0] = 0
    refits = 0.8 + train[:, None] + test + pairs
    slow = (
        sum(
            (pairs[g, h] - pairs[1:, h].mean() - pairs[g, 1:].mean() + pairs[1:, 1:].mean()) ** 2
            for g in range(1, 21)
            for h in range(1, 21)
        )
        * (19 / 20) ** 2
    )
    fixed, both = (19 * part.var() for part in (refits[0, 1:], np.diagonal(refits)[1:]))
    expected = (max(fixed, (both + fixed) / 2) + max(fixed, both - slow)) / 2
    assert refit_variance(refits) == pytest.approx(expected)
