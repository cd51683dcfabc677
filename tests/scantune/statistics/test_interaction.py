from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtri

from scantune.statistics.few_patients import Sides
from scantune.statistics.interaction import interaction
from scantune.statistics.intervals import Estimate, contrast
from scantune.statistics.probit import on_probit_scale, slope

PATIENTS = 300
PREVALENCE = (0.4, 0.3, 0.2, 0.1)


def aurocs(scores: np.ndarray, positives: np.ndarray, weights: np.ndarray) -> np.ndarray:
    order = np.argsort(scores)
    ill, well = (weights[:, order] * side[order] for side in (positives, ~positives))
    return np.asarray((ill * np.cumsum(well, 1)).sum(1) / (ill.sum(1) * well.sum(1)))


def study(
    rng: np.random.Generator, gains: tuple[float, ...], seeds: int = 3
) -> tuple[list[list[Estimate]], list[list[Estimate]]]:
    """Two arms' networks on several findings, of which the first gains so much on normal scores.

    Findings share what patients and pretraining seeds do.
    """
    drawn = rng.multinomial(PATIENTS, np.full(PATIENTS, 1 / PATIENTS), size=150)
    weights = np.vstack([np.ones(PATIENTS), drawn])
    positives = [rng.permutation(PATIENTS) < share * PATIENTS for share in PREVALENCE]
    of_patient = rng.standard_normal(PATIENTS)
    common = rng.standard_normal((len(PREVALENCE), PATIENTS))
    heights = ndtri(np.linspace(0.7, 0.9, len(PREVALENCE)))
    arms: list[list[list[Estimate]]] = []
    for raised in (1, 0):
        arms.append([[] for _ in PREVALENCE])
        for _ in range(seeds):
            of_seed = 0.1 * rng.standard_normal()
            for place, side in enumerate(positives):
                z = heights[place] + raised * gains[place] + of_seed + 0.06 * rng.standard_normal()
                scores = 2**0.5 * z * side + 0.5**0.5 * common[place] + 0.2**0.5 * of_patient
                values = aurocs(scores + 0.3**0.5 * rng.standard_normal(PATIENTS), side, weights)
                sides = (Sides(str(place), int(side.sum()), int((~side).sum())),)
                plain = np.full((1, 1), values[0])
                arms[-1][place].append(
                    Estimate(float(values[0]), plain, values[1:], PATIENTS, 0, sides)
                )
    return arms[0], arms[1]


def test_a_class_that_stands_apart_is_found() -> None:
    first, second = study(np.random.default_rng(0), (0.9, 0.0, 0.0, 0.0), seeds=5)
    found = interaction(first, second)
    assert found[0].p < 0.05
    assert found[0].difference == pytest.approx(
        np.mean([a.auroc - b.auroc for a, b in zip(first[0], second[0], strict=True)])
    )


@pytest.mark.long
@pytest.mark.parametrize("seeds", [2, 3])
def test_classes_that_gain_alike_are_told_apart_in_one_of_twenty_studies(seeds: int) -> None:
    # The same on normal scores is .10 of an AUROC of .7 and .05 of one of .9.
    times, rng, called = 250, np.random.default_rng(1), 0
    for _ in range(times):
        called += min(each.p for each in interaction(*study(rng, (0.3,) * 4, seeds))) < 0.05
    # Three standard errors above a rate of .05.
    assert called <= times * (0.05 + 3 * (0.05 * 0.95 / times) ** 0.5)


def test_of_two_classes_it_is_the_difference_of_their_differences() -> None:
    first, second = (arm[:2] for arm in study(np.random.default_rng(2), (0.4, 0.0, 0.0, 0.0)))
    found = interaction(first, second)
    assert found[0].p == found[1].p
    # A slow loop, on the replicates of both.
    pairs, values = [], []
    for seed in range(3):
        z = [[on_probit_scale(arm[place][seed]) for arm in (first, second)] for place in (0, 1)]
        (a, b), (c, d) = z
        values.append((a.auroc - b.auroc) - (c.auroc - d.auroc))
        replicates = (a.replicates - b.replicates) - (c.replicates - d.replicates)
        pairs.append(Estimate(values[-1], a.per_fold, replicates, PATIENTS, 0, a.sides))
    assert found[0].p == pytest.approx(
        contrast(pairs, patient_df=70, least_variance=0.0).p, rel=0.05
    )


def test_classes_of_too_few_patients_are_left_out() -> None:
    first, second = study(np.random.default_rng(3), (0.0,) * 4)
    rare = [
        Estimate(e.auroc, e.per_fold, e.replicates, PATIENTS, 0, (Sides("3", 4, 296),))
        for e in first[3]
    ]
    found = interaction([*first[:3], rare], second)
    assert [math.isnan(each.p) for each in found] == [False, False, False, True]
    assert math.isfinite(found[3].difference)
    assert all(math.isnan(each.p) for each in interaction([first[0], rare], second[:1] * 2))


def test_normal_scores_vary_by_the_slope() -> None:
    rng = np.random.default_rng(4)
    replicates = 0.85 + 0.001 * rng.standard_normal(5000)
    z = on_probit_scale(Estimate(0.85, np.full((1, 1), 0.85), replicates, 100, 0))
    assert z.auroc == pytest.approx(ndtri(0.85))
    assert z.replicates.std() == pytest.approx(ndtri(replicates).std(), rel=0.01)
    assert slope(0.85) == pytest.approx((ndtri(0.8501) - ndtri(0.8499)) / 0.0002, rel=1e-4)
    perfect = on_probit_scale(Estimate(1.0, np.ones((1, 1)), np.ones(9), 100, 0))
    assert math.isfinite(perfect.auroc)
