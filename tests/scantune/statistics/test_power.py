from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr, ndtri, stdtrit

from scantune.labels.truth import Truth
from scantune.scores import Scores
from scantune.statistics.few_patients import Sides, model_variance
from scantune.statistics.intervals import (
    Estimate,
    estimate,
    paired_difference,
    patient_weights,
)
from scantune.statistics.power import (
    PHANTOM,
    XRAYS,
    PlannedTest,
    Variation,
    components,
    power_at,
    smallest_difference,
    variation_of,
    what_helps,
)


def sides(ill: int, well: int) -> tuple[Sides, ...]:
    return (Sides("ill", ill, well),)


PLANNED = [
    (PlannedTest(sides(30, 30), seeds=2), XRAYS),
    (PlannedTest(sides(100, 200), seeds=3), XRAYS),
    (PlannedTest(sides(100, 200), seeds=3, label_draws=3, trained_arms=4), XRAYS),
    (PlannedTest(sides(300, 300), seeds=5, trained_arms=3), PHANTOM),
    (PlannedTest(sides(40, 400), seeds=1), XRAYS),
]


@pytest.mark.parametrize(("planned", "variation"), PLANNED)
def test_the_test_finds_the_difference_four_times_in_five(
    planned: PlannedTest, variation: Variation
) -> None:
    """Satterthwaite's test on drawn variances, which need not know the noncentral t."""
    true = smallest_difference(planned, variation)
    rng, draws = np.random.default_rng(0), 20_000
    parts = components(planned, variation, true)
    variances = [part.variance for part in parts]
    found = true + rng.normal(size=draws) * math.sqrt(sum(variances))
    estimated = [
        part.variance
        * (rng.chisquare(part.df, draws) / part.df if part.df < math.inf else np.ones(draws))
        for part in parts
    ]
    total = np.sum(estimated, axis=0)
    df = total**2 / np.sum([e**2 / part.df for e, part in zip(estimated, parts, strict=True)], 0)
    called = np.abs(found) / np.sqrt(total) > stdtrit(df, 0.975)
    assert np.mean(called) == pytest.approx(0.8, abs=0.025)


AUROC, SPREAD = 0.8, 0.04


def drawn(
    rng: np.random.Generator, patients: int, aurocs: np.ndarray, replicates: int = 200
) -> list[list[Estimate]]:
    """Estimates of networks of two arms on one fixed test set, by a binormal model.

    Args:
        aurocs: ``[arm seed]`` the true AUROC of each network.
    """
    y = np.arange(patients) < patients // 2
    own, arm, network = 0.75, 0.15, 0.1
    shared = rng.normal(size=patients)
    made: list[list[Estimate]] = []
    weights = None
    for of_arm in aurocs:
        by_arm = rng.normal(size=patients)
        made.append([])
        for auroc in of_arm:
            noise = own**0.5 * shared + arm**0.5 * by_arm
            noise = noise + network**0.5 * rng.normal(size=patients)
            value = noise + y * ndtri(auroc) * 2**0.5
            scores = Scores(
                learners=("linear",),
                budgets=("all",),
                classes=("well", "ill"),
                truth=Truth.of_classes(y.astype(np.int64), 2),
                patients=np.arange(patients),
                fold_of=np.zeros((1, patients), np.int64),
                values=np.stack([-value, value], axis=-1)[None, None, None],
                thresholds=np.full((1, 1, 1, 1, 2), np.nan),
                train_scans=np.full((1, 1, 1), patients),
                train_patients=np.full((1, 1, 1), patients),
            )
            if weights is None:
                weights = patient_weights(scores, replicates=replicates)
            made[-1].append(estimate(scores, "linear", "all", weights))
    return made


def test_real_tests_of_made_up_networks_find_it_four_times_in_five() -> None:
    rng = np.random.default_rng(3)
    many = ndtri(AUROC) + SPREAD * rng.normal(size=(2, 12))
    variation = variation_of(*drawn(rng, 1500, ndtr(many), replicates=1500))
    assert variation.source == "this study's 12 seeds so far"
    assert variation.auroc == pytest.approx(AUROC, abs=0.02)
    # DeLong's covariances of 20,000 patients of this model: .96, and 1 less .71, and .88 less .71.
    assert variation.scale == pytest.approx(0.96, abs=0.1)
    assert variation.unshared == pytest.approx(0.29, abs=0.03)
    assert variation.shared == pytest.approx(0.17, abs=0.03)
    slope = math.exp(-(ndtri(AUROC) ** 2) / 2) / (2 * math.pi) ** 0.5
    of_seeds = 2 * (SPREAD * slope) ** 2
    assert variation.seed_variance == pytest.approx(of_seeds, rel=0.7)
    planned = PlannedTest(sides(60, 60), seeds=4)
    true = smallest_difference(planned, replace(variation, seed_variance=of_seeds))
    middle = np.array([[AUROC + true / 2], [AUROC - true / 2]])
    repetitions, called = 160, 0
    for _ in range(repetitions):
        networks = ndtr(ndtri(middle) + SPREAD * rng.normal(size=(2, 4)))
        called += paired_difference(*drawn(rng, 120, networks)).p < 0.05
    # Three standard errors.
    assert called / repetitions == pytest.approx(0.8, abs=0.095)


def test_with_known_variance_it_is_the_textbooks() -> None:
    # Two networks on a large test set: (z(.975) + z(.8)) standard errors, Student's t aside.
    planned = PlannedTest(sides(5000, 5000), seeds=1)
    found = smallest_difference(planned, XRAYS)
    variance = components(planned, XRAYS, found)[0].variance
    right = (ndtri(0.975) + ndtri(0.8)) * variance**0.5
    assert found == pytest.approx(right, rel=1e-3)
    assert power_at(0.0, planned, XRAYS) == pytest.approx(0.05, abs=1e-4)


def test_more_of_anything_shows_smaller_differences() -> None:
    base = PlannedTest(sides(100, 100), seeds=3, label_draws=3)
    changes = [
        {"sides": sides(200, 200)},
        {"seeds": 5},
        {"label_draws": 9},
        {"trained_arms": 5},
        {"scans_per_patient": 3.0},
    ]
    first = smallest_difference(base, XRAYS)
    for change in changes:
        assert smallest_difference(replace(base, **change), XRAYS) < first  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("planned", "words"),
    [
        (PlannedTest(sides(12, 12), seeds=8), "labeled patients"),
        (PlannedTest(sides(5000, 5000), seeds=2), "pretraining seeds"),
        (PlannedTest(sides(500, 500), seeds=1), "pretraining seeds"),
        (PlannedTest(sides(5000, 5000), seeds=9, label_draws=2, trained_arms=2), "label seeds"),
    ],
)
def test_what_helps_most_is_named(planned: PlannedTest, words: str) -> None:
    assert what_helps(planned, XRAYS) == f"more {words}"


def test_too_few_patients_show_nothing() -> None:
    assert math.isnan(smallest_difference(PlannedTest(sides(4, 100)), XRAYS))


def test_more_seeds_of_the_same_study_have_its_own_variance() -> None:
    arms = drawn(np.random.default_rng(5), 100, np.array([[0.8, 0.82, 0.78], [0.7, 0.75, 0.72]]))
    whole = paired_difference(*arms)
    planned = PlannedTest(arms[0][0].sides, seeds=3)
    patients, seeds, _ = components(planned, variation_of(*arms), whole.estimate)
    assert patients.variance == pytest.approx(whole.patient_variance, rel=1e-6)
    assert seeds.variance == pytest.approx(whole.seed_variance, rel=1e-6)


@pytest.mark.parametrize(
    ("upper", "lower", "measured", "share"),
    [
        (0.93, 0.76, 0.845, 0.6),
        (0.98, 0.85, 0.915, 0.6),
        (0.95, 0.8, 0.8, 0.6),
        (0.87, 0.72, 0.87, 0.8),
    ],
    ids=["apart", "apart-high", "one-arm-raised", "one-arm-lowered"],
)
def test_arms_that_differ_much_vary_as_planned(
    upper: float, lower: float, measured: float, share: float
) -> None:
    """Networks of one height tell how others vary: higher and lower ones, by DeLong's covariances.

    Their scores are what patients, arms and networks add up to, as `drawn` has it.
    """
    n, num_seeds, repetitions = 120, 3, 4000
    rng = np.random.default_rng(8)
    variances = {}
    for aurocs in ((measured, measured), (upper, lower)):
        y = np.arange(n) < n // 2
        shape = (repetitions, n)
        shared = rng.normal(size=shape)
        means = []
        for auroc in aurocs:
            by_arm, seeds = rng.normal(size=shape), []
            for effect in SPREAD * rng.normal(size=(num_seeds, repetitions, 1)):
                value = 0.75**0.5 * shared + 0.15**0.5 * by_arm + 0.1**0.5 * rng.normal(size=shape)
                value = value + y * (ndtri(auroc) + effect) * 2**0.5
                ranks = value.argsort(axis=1).argsort(axis=1)[:, y].sum(axis=1) + n // 2
                seeds.append((ranks / (n // 2) - (n // 2 + 1) / 2) / (n // 2))
            means.append(np.array(seeds))
        # Covariance of the differences of two seeds, and what is left of one seed's variance.
        between = np.cov(means[0] - means[1])
        common = between[~np.eye(num_seeds, dtype=np.bool_)].mean()
        variances[aurocs] = common, np.diagonal(between).mean() - common
    like, (shared_at, of_seeds_at) = variances[measured, measured], variances[upper, lower]
    of_one = model_variance(measured, sides(n // 2, n // 2))
    slope = math.exp(-(ndtri(measured) ** 2) / 2) / (2 * math.pi) ** 0.5
    by_seed = 2 * (SPREAD * slope) ** 2
    unshared = (like[0] + like[1] - by_seed) / (2 * of_one)
    variation = Variation(measured, 1.0, unshared, like[0] / (2 * of_one), by_seed, 0.0, "drawn")
    planned = PlannedTest(sides(n // 2, n // 2), seeds=num_seeds)
    middle = (upper + lower) / 2
    patients, seeds_part, _ = components(planned, variation, upper - lower, auroc=middle)
    # What arms without a difference share is a third to three quarters of it.
    assert components(planned, variation, auroc=middle)[0].variance < share * shared_at
    assert patients.variance == pytest.approx(shared_at, rel=0.2)
    assert num_seeds * seeds_part.variance == pytest.approx(of_seeds_at, rel=0.15)
