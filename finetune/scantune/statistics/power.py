"""What a comparison can show before it runs: the smallest difference found with power .8.

The test is that of `intervals.paired_difference`: variance C + s2/n + q2/J, Student's t with
Satterthwaite's degrees of freedom. Each part is told by what a plan says of its patients, seeds and
label subsets, and by how networks were measured to vary, in this study so far or elsewhere.

Arms that truly differ vary otherwise than those that were measured. Each arm's variance goes by its
own AUROC, the two lying half the difference above and below the mean; what is hard about a patient
moves the lower arm more, which no seed averages out; and a seed that makes a network so much better
shows less in an AUROC near 1. Held at what arms of one recipe vary by, a plan told of larger
differences what belongs to none; and where one arm alone rises from the height at which seeds were
measured, they vary by less than there, and .78 was found for .53 promised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import gammaincinv, ndtr, ndtri, stdtrit

from scantune.statistics.few_patients import (
    FEWEST,
    Sides,
    effective_fewest,
    least_difference_variance,
    model_variance,
)
from scantune.statistics.intervals import (
    Component,
    Estimate,
    paired_difference,
    refit_variance,
)

POWER = 0.8
# How alike two scans of one patient and side are: of k scans each counts k / (1 + (k - 1) rho).
_WITHIN_PATIENT = 0.5
# No plan is made for an arm without an error.
_HIGHEST = 0.999
_ROUNDS = 12
# Values of a variance that power is averaged over; one of few degrees of freedom needs more.
_FINE, _COARSE, _FEW = 100, 12, 20.0


@dataclass(frozen=True)
class Variation:
    """How AUROCs of two arms vary together, whatever the number of patients.

    Args:
        auroc: Mean of the two.
        scale: Variance over patients of one network's AUROC, over that of `model_variance` of as
            many independent scans as the patients of each side are worth; refits are in it.
        unshared: Variance over patients of the difference of two networks, as a share of the sum
            of theirs: 1 - r, r the correlation of paired AUROCs.
        shared: The part of it that all pretraining seeds share.
            Both are of arms without a difference; below 0 where the measured one explains more.
        seed_variance: Variance between seeds of the difference, beyond what is particular to each
            network on these patients; below 0 where that was measured as more than the whole.
        subset_sd: The same between draws of the label subset; there is none with all labels.
        source: Where it was measured, in words.
        difference: Of the two AUROCs, 0 or more, where this was measured.

    Source: r: Hanley and McNeil 1983, "A method of comparing the areas under receiver operating
    characteristic curves derived from the same cases"; the shared part: Obuchowski and Rockette
    1995.
    """

    auroc: float
    scale: float
    unshared: float
    shared: float
    seed_variance: float
    subset_sd: float
    source: str
    difference: float = 0.0


# SimCLR, resnet10t at 64 px on 5,840 paediatric X-rays (kermany_cxr), scales 0, .5 and 1 with three
# seeds, linear probe of pneumonia on 682 adults (nih1000), three label seeds of 50 and 100 labels:
# the first study of benchmarks/RESULTS.md. Root mean squares over the three pairs of arms.
XRAYS = Variation(
    0.885,
    0.9,
    0.33,
    0.11,
    0.009**2,
    0.013,
    "chest X-rays (SimCLR, resnet10t at 64 px)",
)
# The demo's own study, three arms with four seeds, lesion and pallor of 300 drawn patients by kNN;
# its subsets were not measured and are taken to vary as those of the X-rays.
PHANTOM = Variation(0.7, 1.4, 0.89, 0.21, 0.06**2, 0.013, "the phantom's demo (SimCLR, 32 px, kNN)")


@dataclass(frozen=True)
class PlannedTest:
    """What a plan says of its primary comparison.

    Args:
        sides: Tested patients with and without each class asked about.
        scans_per_patient: Of one side, mean.
        seeds: Pretraining seeds; 1 speaks of two networks alone.
        label_draws: Label seeds, where the budget leaves out scans; None with all labels.
        trained_arms: Trained arms of the study, which together tell how seeds vary; with two or
            fewer each pair tells for itself.
    """

    sides: tuple[Sides, ...]
    scans_per_patient: float = 1.0
    seeds: int = 3
    label_draws: int | None = None
    trained_arms: int = 2


def variation_of(
    first: Sequence[Estimate],
    second: Sequence[Estimate],
    *,
    seed_variance: float | None = None,
    subset_sd: float = 0.0,
    scans_per_patient: float = 1.0,
    otherwise: Variation = XRAYS,
) -> Variation:
    """Returns how two arms of a study so far vary, paired by seed.

    Args:
        seed_variance: Between seeds of the difference, moderated by other arms; None is their own.
        otherwise: What one seed cannot tell: how seeds vary, and what they share.
    """
    auroc = float(np.mean([each.auroc for each in (*first, *second)]))
    difference = abs(
        float(np.mean([a.auroc - b.auroc for a, b in zip(first, second, strict=True)]))
    )
    of_one = float(np.mean([_patient_variance(each) for each in (*first, *second)]))
    sides = _worth(first[0].sides, scans_per_patient)
    scale = of_one / float(np.mean([model_variance(at, sides) for at in _arms(auroc, difference)]))
    sds = _patient_sds(auroc, difference, scale, sides)
    pairs = [paired_difference([a], [b]) for a, b in zip(first, second, strict=True)]
    single = float(np.mean([pair.patient_variance for pair in pairs]))
    unshared = 1 - (2 * of_one - single) / (2 * sds[0] * sds[1])
    variation = replace(
        otherwise,
        auroc=auroc,
        scale=scale,
        unshared=unshared,
        shared=otherwise.shared / otherwise.unshared * unshared,
        subset_sd=subset_sd,
        source=f"this study's {len(first)} seed{'s' if len(first) > 1 else ''} so far",
        difference=difference,
    )
    if len(first) == 1:
        return variation
    whole = paired_difference(first, second)
    if seed_variance is None:
        seed_variance = float(np.var(whole.per_seed, ddof=1))
    # Seeds differ on the same patients by what is particular to a network there, too. Not cut at 0:
    # with as many patients the variance found comes out again, and means of studies are not biased.
    particular = max(0.0, single - whole.patient_variance)
    shared = whole.patient_variance - (1 - unshared) * (sds[0] - sds[1]) ** 2
    return replace(
        variation, shared=shared / (2 * of_one), seed_variance=seed_variance - particular
    )


def _patient_variance(estimate: Estimate) -> float:
    if estimate.refits is not None:
        return refit_variance(estimate.refits)
    return float(np.nanvar(estimate.replicates, ddof=1))


def _worth(sides: Sequence[Sides], scans_per_patient: float) -> tuple[Sides, ...]:
    """Returns the sides in independent scans."""
    k = max(1.0, scans_per_patient)
    times = k / (1 + (k - 1) * _WITHIN_PATIENT)
    return tuple(
        Sides(side.name, round(side.positives * times), round(side.negatives * times))
        for side in sides
    )


def _arms(auroc: float, difference: float) -> tuple[float, float]:
    """Returns two AUROCs with a mean and a difference, both lower where one would pass 1.

    Where they cannot differ so much the lower one is at chance.
    """
    upper = min(auroc + difference / 2, max(auroc, _HIGHEST))
    return upper, max(upper - difference, min(auroc, 0.5))


def _patient_sds(
    auroc: float, difference: float, scale: float, sides: Sequence[Sides]
) -> tuple[float, float]:
    """Returns the standard deviation over patients of one network of either arm."""
    upper, lower = (math.sqrt(scale * model_variance(at, sides)) for at in _arms(auroc, difference))
    return upper, lower


def _seed_slopes(auroc: float, difference: float) -> float:
    """Returns how much of what seeds change in two networks shows in their AUROCs, as variance.

    With normal scores it is the squared slope of Phi at the AUROC's quantile.
    """
    return sum(math.exp(-(ndtri(at) ** 2)) for at in _arms(auroc, difference))


def components(
    planned: PlannedTest, variation: Variation, true: float = 0.0, *, auroc: float | None = None
) -> tuple[Component, Component, Component]:
    """Returns what patients, seeds and label subsets add to the variance of the difference.

    Args:
        true: Difference of the two arms, 0 or more.
        auroc: Mean of the two; None is that at which they were measured.
    """
    auroc = variation.auroc if auroc is None else auroc
    sides = _worth(planned.sides, planned.scans_per_patient)
    upper, lower = _patient_sds(auroc, true, variation.scale, sides)
    n, draws, both = planned.seeds, planned.label_draws, upper**2 + lower**2
    # Of a network r is shared with the other arm's, and the more uneven the two are the less of it
    # cancels, with any number of seeds.
    r = 1 - variation.unshared
    single = both - 2 * r * upper * lower
    shared = max(0.0, variation.shared * both + r * (upper - lower) ** 2)
    patients = min(shared, single) if n > 1 else single
    patients = max(patients, least_difference_variance(planned.sides))
    ratio = _seed_slopes(auroc, true) / _seed_slopes(variation.auroc, variation.difference)
    # All arms but one beside the pair's own seeds, as `moderation` caps the prior.
    arms = max(1, planned.trained_arms - 1)
    of_seeds = max(0.0, variation.seed_variance * ratio + max(0.0, single - shared))
    seeds = Component(of_seeds / n, arms * (n - 1))
    subsets = Component(0.0, math.inf)
    if draws is not None and draws > 1:
        subsets = Component(variation.subset_sd**2 / draws, arms * (draws - 1))
    return (
        Component(patients, max(1.0, effective_fewest(planned.sides) - 1)),
        seeds if n > 1 else Component(0.0, math.inf),
        subsets,
    )


def power_at(
    true: float,
    planned: PlannedTest,
    variation: Variation,
    *,
    auroc: float | None = None,
    alpha: float = 0.05,
) -> float:
    """Returns how often a true difference is called different, whichever its sign.

    Args:
        auroc: As in `components`. Where one arm alone is raised or lowered, so is the mean, and the
            nearer an arm is to 1 the less it varies.
    """
    return _power(true, *_limits(components(planned, variation, abs(true), auroc=auroc), alpha))


def _limits(parts: Sequence[Component], alpha: float) -> tuple[float, Float[np.ndarray, " q"]]:
    """Returns the standard error, and what a found difference must exceed, equally likely values.

    Each variance is found as chi-square over its degrees of freedom, and Satterthwaite's are of the
    found ones: with two seeds the noncentral t with those of the true variances promised .80 of
    tests that found .75.
    """
    known = [part for part in parts if part.variance > 0]
    num = [_FINE if part.df < _FEW else _COARSE for part in known]
    estimated = []
    for part, count in zip(known, num, strict=True):
        shares = (np.arange(count) + 0.5) / count
        times = 2 / part.df * gammaincinv(part.df / 2, shares)
        estimated.append(part.variance * times)
    grid = np.array([each.ravel() for each in np.meshgrid(*estimated)])
    total = grid.sum(axis=0)
    df = total**2 / (grid**2 / np.array([[part.df] for part in known])).sum(axis=0)
    limits = stdtrit(df, 1 - alpha / 2) * np.sqrt(total)
    return math.sqrt(sum(part.variance for part in known)), limits


def _power(true: float, error: float, limits: Float[np.ndarray, " q"]) -> float:
    return float(np.mean(ndtr((true - limits) / error) + ndtr((-true - limits) / error)))


def smallest_difference(
    planned: PlannedTest, variation: Variation, *, power: float = POWER, alpha: float = 0.05
) -> float:
    """Returns the true difference in AUROC that is found with a power; NaN with too few patients.

    It may be larger than any two AUROCs can differ: such a plan shows nothing.

    Example:
        >>> planned = PlannedTest((Sides("ill", 120, 180),), seeds=5)
        >>> f"{smallest_difference(planned, XRAYS):.3f}"
        '0.034'
    """
    if effective_fewest(planned.sides) < FEWEST:
        return math.nan
    difference = 0.0
    # Variances go by the difference, though slowly: a few rounds agree to three digits and more.
    for _ in range(_ROUNDS):
        before = difference
        difference = _with_power(components(planned, variation, before), power, alpha)
        if abs(difference - before) < 1e-5 * difference:
            break
    return difference


def _with_power(parts: Sequence[Component], power: float, alpha: float) -> float:
    """Returns the difference that is found with a power where variances do not go by it."""
    error, limits = _limits(parts, alpha)
    high = error
    while _power(high, error, limits) < power:
        high *= 2
    return float(brentq(lambda true: _power(true, error, limits) - power, 0.0, high, xtol=1e-7))


def what_helps(planned: PlannedTest, variation: Variation) -> str:
    """Returns which of patients, seeds and label seeds makes the smallest difference smaller.

    Each is doubled in turn.
    """
    if planned.seeds == 1:
        return "more pretraining seeds"
    wider = replace(planned, seeds=2 * planned.seeds)
    more = tuple(
        replace(side, positives=2 * side.positives, negatives=2 * side.negatives)
        for side in planned.sides
    )
    gains = {
        "more pretraining seeds": smallest_difference(wider, variation),
        "more labeled patients": smallest_difference(replace(planned, sides=more), variation),
    }
    if planned.label_draws is not None:
        draws = replace(planned, label_draws=2 * planned.label_draws)
        gains["more label seeds"] = smallest_difference(draws, variation)
    return min(gains, key=lambda name: gains[name])
