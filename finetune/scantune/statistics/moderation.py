"""Variances of a few draws each, moderated by what the other cells of a study show of theirs.

Two pretraining seeds tell a variance with one degree of freedom, and an interval from them reaches
over more than every AUROC there is. The cells of one place of a study (pairs of arms on a task, by
a learner, at a budget) vary alike: a prior is fitted to their variances, and each is drawn towards
it. Places do not: with 50 labels seeds differed five times as much as with all. Each has a scale of
its own, and how much cells differ around it is learned from all places.

Source: Smyth 2004, "Linear models and empirical Bayes methods for assessing differential expression
in microarray experiments" (limma), sections 3 and 6.2; a scale that depends on what is known of a
cell: Law et al. 2014, "voom: precision weights unlock linear model analysis tools" (limma-trend).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

# A variance of 0 has no logarithm: limma raises it to this share of the median.
_LEAST_SHARE = 1e-5
_MOST_DF = 1e8


@dataclass(frozen=True)
class Variance:
    """A variance and the degrees of freedom with which it is known."""

    variance: float
    df: float


def fit_priors(places: Mapping[Hashable, Sequence[float]], df: float) -> dict[Hashable, Variance]:
    """Returns the scaled inverse chi-square prior of each place's variances, by moments.

    The mean of their logarithms in each place, and the variance within all places, are set equal to
    those of log F(df, prior df).

    Args:
        places: Variances of each place's cells, more than one in some place; none all 0.
        df: Degrees of freedom of each of them.

    Returns:
        The priors' scales and their common degrees of freedom: infinite where the cells of a place
        differ by no more than chance.
    """
    logs = {place: _logs(np.asarray(values), df) for place, values in places.items()}
    squares = sum(float(((each - each.mean()) ** 2).sum()) for each in logs.values())
    excess = squares / sum(len(each) - 1 for each in logs.values()) - polygamma(1, df / 2)
    if excess <= polygamma(1, _MOST_DF):
        return {place: Variance(math.exp(each.mean()), math.inf) for place, each in logs.items()}
    half = _trigamma_inverse(float(excess))
    shift = float(digamma(half)) - math.log(half)
    return {
        place: Variance(math.exp(each.mean() + shift), 2 * half) for place, each in logs.items()
    }


def _logs(values: Float[np.ndarray, " c"], df: float) -> Float[np.ndarray, " c"]:
    raised = np.maximum(values, _LEAST_SHARE * np.median(values[values > 0]))
    return np.asarray(np.log(raised) + math.log(df / 2) - digamma(df / 2))


def _trigamma_inverse(value: float) -> float:
    """Returns x with trigamma(x) = value."""
    # 1/x < trigamma(x) < 1/x + 1/x^2.
    low, high = 0.5 / value, 2 * max(1 / value, value**-0.5)
    return float(brentq(lambda x: polygamma(1, x) - value, low, high, xtol=1e-12 * low))


def moderate(
    variances: Sequence[float],
    df: float,
    most_df: float,
    places: Sequence[Hashable] | None = None,
) -> tuple[Variance, ...]:
    """Returns every cell's variance drawn towards the prior of its place, with the df of both.

    Args:
        variances: One per cell; NaN where it is undefined, which stays so.
        df: Degrees of freedom of each of them.
        most_df: Bound of the prior's degrees of freedom. Cells of the same networks are no
            independent draws, which the moments cannot see.
        places: That of each cell; None is one place.
    """
    unmoderated = tuple(Variance(value, df) for value in variances)
    places = ("",) * len(unmoderated) if places is None else places
    cells: dict[Hashable, list[float]] = {}
    for place, value in zip(places, variances, strict=True):
        if math.isfinite(value):
            cells.setdefault(place, []).append(value)
    # Where no seed differs, as on a saturated task, there is nothing to learn.
    cells = {place: values for place, values in cells.items() if any(values)}
    if most_df <= 0 or all(len(values) < 2 for values in cells.values()):
        return unmoderated
    priors = fit_priors(cells, df)

    def drawn(cell: Variance, prior: Variance) -> Variance:
        weight = min(prior.df, most_df)
        drawn_to = (weight * prior.variance + df * cell.variance) / (weight + df)
        return Variance(drawn_to, weight + df)

    return tuple(
        drawn(cell, priors[place]) if place in priors else cell
        for place, cell in zip(places, unmoderated, strict=True)
    )
