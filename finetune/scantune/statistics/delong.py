"""DeLong's intervals and paired tests of AUROCs on one fixed test set, for clustered scans too.

The models are fixed and the test patients are drawn: nothing is said of other folds, label subsets
or pretraining seeds. Where several models score the same test set, as with several label subsets,
their mean is taken with all their covariances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.special import stdtr, stdtrit

from scantune.scores import Scores
from scantune.statistics.few_patients import (
    Sides,
    auroc_df,
    auroc_limits,
    effective_fewest,
    least_difference_variance,
    too_few,
)

# A difference of AUROCs, or a standard error, that is nothing but rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class CorrelatedAurocs:
    """AUROCs of several models on one test set.

    Args:
        aurocs: ``[a]``; NaN without a positive or a negative.
        covariance: ``[a a]``; NaN with fewer than two patients that have a positive, or a negative.
    """

    aurocs: Float[np.ndarray, " a"]
    covariance: Float[np.ndarray, "a a"]


@dataclass(frozen=True)
class DelongInterval:
    """A mean AUROC on one test set with its interval within [0, 1]; NaN where undefined.

    The ends are NaN where patients are too few.
    """

    estimate: float
    low: float
    high: float
    variance: float


@dataclass(frozen=True)
class DelongDifference:
    """The paired difference of two mean AUROCs on one test set, the first minus the second.

    ``p`` is the two-sided p-value of no difference; nothing is clipped. It and the ends are NaN
    where patients are too few. ``variance`` is at least that of `least_difference_variance`.
    """

    estimate: float
    low: float
    high: float
    p: float
    variance: float


def correlated_aurocs(
    scores: Float[np.ndarray, "n a"],
    positives: Bool[np.ndarray, " n"],
    patients: Shaped[np.ndarray, " n"] | None = None,
) -> CorrelatedAurocs:
    """Returns the AUROCs of several models on the same scans, and their covariance.

    Args:
        patients: ``[n]`` patient of each scan, who may have positives and negatives; None takes
            each scan for a patient of its own.

    Raises:
        ValueError: If a score is NaN or the lengths differ.

    Source: DeLong, DeLong, Clarke-Pearson 1988, equations 3 to 6, each component found by sorting
    as in Sun and Xu 2014; sums over patients as in Obuchowski 1997, "Nonparametric analysis of
    clustered ROC curve data", which gives DeLong's where each patient has one scan.
    """
    patients = np.arange(len(scores)) if patients is None else patients
    if not len(scores) == len(positives) == len(patients):
        raise ValueError(
            f"{len(scores)} rows of scores, {len(positives)} positives and {len(patients)} "
            "patients must be of the same scans"
        )
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} scores are NaN; an AUROC needs numbers")
    num_models = scores.shape[1]
    if positives.all() or not positives.any():
        return CorrelatedAurocs(
            np.full(num_models, np.nan), np.full((num_models, num_models), np.nan)
        )
    won = np.stack([_components(column, positives) for column in scores.T], axis=1)
    aurocs = won[positives].mean(axis=0)
    of_patient = np.unique(patients, return_inverse=True)[1]
    sides = [
        _sums(won[side] - aurocs, of_patient[side], of_patient.max() + 1)
        for side in (positives, ~positives)
    ]
    return CorrelatedAurocs(aurocs, _covariance(sides[0], sides[1]))


def delong_interval(
    scores: Float[np.ndarray, "n a"],
    positives: Bool[np.ndarray, " n"],
    patients: Shaped[np.ndarray, " n"] | None = None,
    *,
    level: float = 0.95,
) -> DelongInterval:
    """Returns the mean AUROC of one or more models on one test set, and its interval.

    Arguments and errors are those of `correlated_aurocs`; ``level`` is the nominal coverage.

    Example:
        >>> scores = np.array([[0.1], [0.4], [0.4], [0.9]])
        >>> delong_interval(scores, np.array([False, False, True, True])).estimate
        0.875
    """
    models = correlated_aurocs(scores, positives, patients)
    estimate, variance = float(models.aurocs.mean()), _without_rounding(models.covariance.mean())
    sides = (_sides(positives, patients),)
    if np.isnan(variance) or too_few(sides):
        return DelongInterval(estimate, float("nan"), float("nan"), variance)
    low, high = auroc_limits(estimate, variance, variance, auroc_df(sides), sides, level=level)
    return DelongInterval(estimate, low, high, variance)


def delong_difference(
    first: Float[np.ndarray, "n a"],
    second: Float[np.ndarray, "n b"],
    positives: Bool[np.ndarray, " n"],
    patients: Shaped[np.ndarray, " n"] | None = None,
    *,
    level: float = 0.95,
) -> DelongDifference:
    """Returns the difference of two mean AUROCs on the same scans, and the paired test of none.

    Arguments and errors are those of `correlated_aurocs`; ``level`` is the nominal coverage.
    """
    models = correlated_aurocs(np.concatenate([first, second], axis=1), positives, patients)
    a, b = first.shape[1], second.shape[1]
    contrast = np.repeat([1 / a, -1 / b], [a, b])
    estimate = float(contrast @ models.aurocs)
    variance = _without_rounding(contrast @ models.covariance @ contrast)
    sides = (_sides(positives, patients),)
    if np.isnan(variance) or too_few(sides):
        nan = float("nan")
        return DelongDifference(estimate, low=nan, high=nan, p=nan, variance=variance)
    variance = max(variance, least_difference_variance(sides))
    df = effective_fewest(sides) - 1
    half = float(stdtrit(df, (1 + level) / 2)) * variance**0.5
    p = float(2 * stdtr(df, -abs(estimate) / variance**0.5))
    return DelongDifference(estimate, estimate - half, estimate + half, p, variance)


def _sides(positives: Bool[np.ndarray, " n"], patients: Shaped[np.ndarray, " n"] | None) -> Sides:
    patients = np.arange(len(positives)) if patients is None else patients
    counts = [len(np.unique(patients[side])) for side in (positives, ~positives)]
    return Sides("positives", *counts)


def _components(
    scores: Float[np.ndarray, " n"], positives: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Returns, for each scan, the share of scans of the other side that it is told from rightly.

    A tie counts one half: the mean of "strictly below" and "below or equal" is the difference of
    Sun and Xu's midranks.
    """
    won = np.empty(len(scores))
    for side, sign in ((positives, 1), (~positives, -1)):
        others = np.sort(sign * scores[~side])
        values = sign * scores[side]
        below, not_above = (np.searchsorted(others, values, side=end) for end in ("left", "right"))
        won[side] = (below + not_above) / (2 * len(others))
    return won


@dataclass(frozen=True)
class _PatientSums:
    """Deviations of one side's scans summed over patients, ``[m a]``, and who has any."""

    sums: Float[np.ndarray, "m a"]
    has_any: Bool[np.ndarray, " m"]
    num_scans: int


def _sums(
    deviations: Float[np.ndarray, "u a"], of_patient: Shaped[np.ndarray, " u"], num_patients: int
) -> _PatientSums:
    sums = np.zeros((num_patients, deviations.shape[1]))
    np.add.at(sums, of_patient, deviations)
    return _PatientSums(sums, np.bincount(of_patient, minlength=num_patients) > 0, len(of_patient))


def _covariance(positive: _PatientSums, negative: _PatientSums) -> Float[np.ndarray, "a a"]:
    """Returns Obuchowski's covariance: both sides' own parts, and what patients of both share."""

    def part(side: _PatientSums, other: _PatientSums, num: int) -> Float[np.ndarray, "a a"]:
        product: np.ndarray = side.sums.T @ other.sums
        return product * (num / (num - 1) / (side.num_scans * other.num_scans))

    counts = [int(side.has_any.sum()) for side in (positive, negative)]
    if min(counts) < 2:
        return np.full((positive.sums.shape[1],) * 2, np.nan)
    shared = part(positive, negative, len(positive.sums))
    within = part(positive, positive, counts[0]) + part(negative, negative, counts[1])
    return np.asarray(within + shared + shared.T)


def _without_rounding(variance: float) -> float:
    # The covariance has no negative direction, but where its terms cancel rounding is left.
    return 0.0 if variance < _ROUNDING**2 else float(variance)


# Of the scores of a given split, whose one test set every model scores.


def class_interval(scores: Scores, learner: str, budget: str | int, code: int) -> DelongInterval:
    """Returns the interval of a class's AUROC, mean over label seeds, its patients clustered.

    It speaks of the models at hand: test patients are drawn, label subsets are not. NaN where folds
    test different scans.
    """
    rows = _fixed_rows(scores, budget, code)
    if rows is None:
        return DelongInterval(*[float("nan")] * 4)
    positives = scores.truth.positives(code)[rows]
    return delong_interval(
        _columns([scores], learner, budget, code, rows), positives, scores.patients[rows]
    )


def class_difference(
    first: Sequence[Scores], second: Sequence[Scores], learner: str, budget: str | int, code: int
) -> DelongDifference:
    """Returns the paired difference of two arms' mean AUROC of a class, and its test.

    It speaks of the networks at hand and not of their recipes: pretraining seeds are not drawn.
    NaN where folds test different scans.
    """
    rows = _fixed_rows(first[0], budget, code)
    if rows is None:
        return DelongDifference(*[float("nan")] * 5)
    return delong_difference(
        _columns(first, learner, budget, code, rows),
        _columns(second, learner, budget, code, rows),
        first[0].truth.positives(code)[rows],
        first[0].patients[rows],
    )


def _fixed_rows(scores: Scores, budget: str | int, code: int) -> Int[np.ndarray, " u"] | None:
    """Returns the known rows of a class that all models test; None where they differ.

    None too where no model's training subset taught the class.
    """
    if scores.num_folds > 1 or (scores.fold_of != scores.fold_of[0]).any():
        return None
    if not scores.is_learned(budget)[..., code].any():
        return None
    return scores.test_rows(0, 0, code)


def _columns(
    networks: Sequence[Scores],
    learner: str,
    budget: str | int,
    code: int,
    rows: Int[np.ndarray, " u"],
) -> Float[np.ndarray, "u a"]:
    """Returns a class's scores by each network and label seed whose subset taught it."""
    return np.concatenate(
        [
            scores.of(learner, budget)[scores.is_learned(budget)[:, 0, code]][:, rows, code]
            for scores in networks
        ]
    ).T
