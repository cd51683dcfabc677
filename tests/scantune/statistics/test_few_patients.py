from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scantune.statistics.few_patients import (
    Sides,
    auroc_df,
    auroc_limits,
    effective_fewest,
    least_difference_variance,
    model_variance,
    sides_of,
    too_few,
)


def test_sides_count_patients_and_one_may_be_on_both(make_scores: Any) -> None:
    y, patients = np.array([1, 1, 0, 1, 0, 0]), np.array([0, 0, 0, 1, 2, 3])
    fold_of = np.array([[0, 0, 0, 0, 0, -1]])
    sides = sides_of(make_scores(y, patients, np.arange(6.0), fold_of), 1)
    assert (sides.positives, sides.negatives, sides.fewest) == (2, 2, 2)


@pytest.mark.parametrize(
    ("fewest", "effective"),
    [([7], 7.0), ([7, 7], 13.0), ([100] * 14, 1387.0), ([0, 7], 7.0), ([], 0.0)],
)
def test_classes_count_together_by_satterthwaite(fewest: list[int], effective: float) -> None:
    sides = [Sides("a", n, 500) for n in fewest]
    assert effective_fewest(sides) == pytest.approx(effective)


def test_one_rare_class_among_many_decides() -> None:
    sides = [Sides("common", 100, 100)] * 13 + [Sides("rare", 3, 197)]
    parts = np.array([1 / 100] * 13 + [1 / 3])
    df = parts.sum() ** 2 / (13 * 1e-4 / 99 + 1 / 9 / 2)
    assert effective_fewest(sides) == pytest.approx(1 + df)
    assert too_few(sides) == ("too few patients to say: 3 with rare, where at least 5 are needed")
    assert too_few(sides[:13]) == ""
    assert "2 without yes" in too_few([Sides("yes", 9, 2)])


def test_the_models_variance_is_that_of_the_two_exponentials_where_sides_are_equal() -> None:
    # Hanley and McNeil 1982, equation 2, with 20 patients on each side.
    a, n = 0.8, 20
    q1, q2 = a / (2 - a), 2 * a**2 / (1 + a)
    expected = (a * (1 - a) + (n - 1) * (q1 - a**2 + q2 - a**2)) / n**2
    assert model_variance(a, [Sides("yes", n, n)]) == pytest.approx(expected)
    assert model_variance(a, [Sides("yes", n, n)] * 2) == pytest.approx(expected / 2)


@pytest.mark.parametrize("auroc", [0.0, 0.5, 0.97, 1.0])
def test_limits_lie_around_the_estimate_within_zero_and_one(auroc: float) -> None:
    sides = [Sides("yes", 8, 12)]
    low, high = auroc_limits(auroc, 0.0, 0.0, auroc_df(sides), sides)
    assert 0 <= low <= auroc <= high <= 1
    assert 0.15 < high - low < 0.6
    mirrored = auroc_limits(1 - auroc, 0.0, 0.0, auroc_df(sides), sides)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-6)


def test_a_difference_varies_as_if_one_more_patient_of_each_side_told() -> None:
    assert least_difference_variance([Sides("yes", 3, 4)]) == pytest.approx(0.09 / 9 + 0.09 / 16)


@pytest.mark.parametrize(
    ("patients", "auroc"),
    [((5, 15), 0.6), ((5, 95), 0.98), ((10, 10), 0.95), ((20, 80), 0.995), ((100, 100), 0.98)],
)
def test_limits_cover_what_they_say_with_few_patients(
    patients: tuple[int, int], auroc: float
) -> None:
    from scipy.special import ndtri

    from scantune.statistics.delong import delong_interval

    rng, repetitions = np.random.default_rng(0), 400
    positives = np.repeat([True, False], patients)
    gap = np.sqrt(2) * ndtri(auroc)
    found = [
        delong_interval((rng.normal(size=sum(patients)) + gap * positives)[:, None], positives)
        for _ in range(repetitions)
    ]
    covered = np.mean([each.low <= auroc <= each.high for each in found])
    assert 0.92 - 0.033 <= covered <= 0.98 + 0.02
