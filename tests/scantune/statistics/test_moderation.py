from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from scantune.statistics.intervals import Component, satterthwaite_df
from scantune.statistics.moderation import Variance, fit_priors, moderate


def fit_prior(variances: list[float], df: float) -> Variance:
    return fit_priors({"": variances}, df)[""]


def drawn(cells: int, df: int, prior_df: float, seed: int = 0) -> np.ndarray:
    """Variances of cells whose true ones follow a scaled inverse chi-square of scale 4e-4."""
    rng = np.random.default_rng(seed)
    truth = 4e-4 * prior_df / rng.chisquare(prior_df, cells)
    variances: np.ndarray = truth * rng.chisquare(df, cells) / df
    return variances


@pytest.mark.parametrize(("df", "prior_df"), [(1, 3.0), (2, 4.0), (2, 12.0), (4, 30.0)])
def test_the_prior_has_the_moments_of_the_log_variances(df: int, prior_df: float) -> None:
    variances = drawn(400, df, prior_df)
    # None so small that it would be raised.
    variances = variances[variances > 1e-4 * np.median(variances)]
    prior = fit_prior(variances.tolist(), df)
    # By integration, where the code has digamma and trigamma.
    ratio = stats.f(df, prior.df)
    mean = ratio.expect(np.log)
    spread = ratio.expect(lambda x: (np.log(x) - mean) ** 2)
    assert np.log(variances).mean() == pytest.approx(np.log(prior.variance) + mean, abs=1e-5)
    assert np.log(variances).var(ddof=1) == pytest.approx(spread, rel=1e-4)


def test_the_prior_is_found_again() -> None:
    prior = fit_prior(drawn(40_000, 2, 6.0).tolist(), 2)
    assert prior.variance == pytest.approx(4e-4, rel=0.03)
    assert prior.df == pytest.approx(6.0, rel=0.1)


def test_places_have_a_scale_each_and_one_spread_around_it() -> None:
    quiet, loud = drawn(30_000, 2, 6.0), 25 * drawn(10_000, 2, 6.0, seed=1)
    priors = fit_priors({"all": quiet.tolist(), "50": loud.tolist()}, 2)
    assert priors["all"].variance == pytest.approx(4e-4, rel=0.04)
    assert priors["50"].variance == pytest.approx(1e-2, rel=0.06)
    assert priors["all"].df == priors["50"].df == pytest.approx(6.0, rel=0.1)


def test_a_place_where_nothing_varies_is_left_out() -> None:
    variances = [4e-4, 1e-4, 2e-4, 0.0, 0.0, 0.0]
    found = moderate(variances, 2, 4, ["a"] * 3 + ["saturated"] * 3)
    assert found[:3] == moderate(variances[:3], 2, 4)
    assert found[3:] == (Variance(0.0, 2),) * 3


def test_cells_that_differ_by_chance_alone_have_one_variance() -> None:
    variances = [1e-4, 1.1e-4, 0.9e-4, 1.05e-4]
    prior = fit_prior(variances, 2)
    assert prior.df == np.inf
    # The mean of log chi-square with 2 degrees of freedom, over 2, is minus Euler's constant.
    assert prior.variance == pytest.approx(np.exp(np.log(variances).mean() + 0.5772156649))


def test_a_variance_is_drawn_towards_the_prior_by_no_more_than_the_bound() -> None:
    variances = drawn(20, 2, 50.0).tolist()
    prior = fit_prior(variances, 2)
    assert prior.df > 4
    for before, after in zip(variances, moderate(variances, 2, 4), strict=True):
        assert after.variance == pytest.approx((4 * prior.variance + 2 * before) / 6)
        assert after.df == 6


@pytest.mark.parametrize(
    ("variances", "most_df"),
    [([3e-4], 4), ([3e-4, 1e-4], 0), ([3e-4, 1e-4], -1), ([0.0, 0.0], 4), ([np.nan, 2e-4], 4)],
)
def test_what_has_no_others_to_learn_from_stays(variances: list[float], most_df: float) -> None:
    found = moderate(variances, 2, most_df)
    assert [one.df for one in found] == [2] * len(variances)
    np.testing.assert_array_equal([one.variance for one in found], variances)


def test_an_undefined_cell_stays_so_and_a_variance_of_zero_is_raised() -> None:
    first, zero, undefined = moderate([4e-4, 0.0, np.nan], 1, 2)
    assert 0 < zero.variance < first.variance
    assert np.isnan(undefined.variance)


def coverage(seeds: int, *, is_moderated: bool, repetitions: int = 1500) -> tuple[float, float]:
    """How many 95 % intervals of six differences of four arms hold the truth, and their width."""
    rng = np.random.default_rng(seeds)
    deviations, patients = np.array([0.01, 0.02, 0.03, 0.045]), 0.015**2
    covered, widths = [], []
    for _ in range(repetitions):
        effects = deviations[:, None] * rng.normal(size=(4, seeds))
        pairs = [effects[a] - effects[b] for a, b in combinations(range(4), 2)]
        known = [Variance(float(pair.var(ddof=1)), seeds - 1) for pair in pairs]
        if is_moderated:
            variances = [one.variance for one in known]
            known = list(moderate(variances, seeds - 1, 2 * (seeds - 1)))
        for pair, one in zip(pairs, known, strict=True):
            v_pat = Component(patients * rng.chisquare(99) / 99, 99)
            between = Component(one.variance / seeds, one.df)
            reach = stats.t.ppf(0.975, satterthwaite_df(v_pat, between))
            half = reach * np.sqrt(v_pat.variance + between.variance)
            covered.append(abs(pair.mean() + rng.normal() * patients**0.5) < half)
            widths.append(2 * half)
    return float(np.mean(covered)), float(np.median(widths))


@pytest.mark.long
@pytest.mark.parametrize(("seeds", "least"), [(2, 0.925), (3, 0.925), (5, 0.93)])
def test_moderated_intervals_of_few_seeds_cover_what_they_promise(seeds: int, least: float) -> None:
    alone, width_alone = coverage(seeds, is_moderated=False)
    moderated, width = coverage(seeds, is_moderated=True)
    assert least <= moderated <= 0.97
    assert moderated >= alone - 0.005
    assert width < 1.1 * width_alone


@pytest.mark.long
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_they_cover_where_seeds_differ_little_and_where_they_differ_much(seeds: int) -> None:
    # By a linear probe of all labels and of 50, of chest X-rays: .007 and .030.
    rng, places = np.random.default_rng(seeds), np.array([0.007, 0.015, 0.03])
    covered = []
    for _ in range(1200):
        shared, of_place = rng.normal(size=(2, 4, seeds, 1)), rng.normal(size=(4, seeds, 3))
        effects = places * (shared[0] + of_place) / 2**0.5
        pairs = np.stack([effects[a] - effects[b] for a, b in combinations(range(4), 2)])
        variances = pairs.var(axis=1, ddof=1)
        names = ["all", "100", "50"] * len(pairs)
        known = moderate(variances.ravel().tolist(), seeds - 1, 2 * (seeds - 1), names)
        reach = [(stats.t.ppf(0.975, one.df), (one.variance / seeds) ** 0.5) for one in known]
        half = np.prod(reach, axis=1).reshape(variances.shape)
        covered.append(np.abs(pairs.mean(axis=1)) < half)
    assert np.all(np.abs(np.mean(covered, axis=(0, 1)) - 0.945) < 0.025)
