"""Variances of a few draws each, moderated by what the other cells of a study show of theirs.

Two pretraining seeds tell a variance with one degree of freedom, and an interval from them reaches
over more than every AUROC there is. The cells of a study (pairs of arms, tasks, learners, budgets)
vary alike: a prior is fitted to all their variances, and each is drawn towards it.

Source: Smyth 2004, "Linear models and empirical Bayes methods for assessing differential expression
in microarray experiments" (limma), sections 3 and 6.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
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


def fit_prior(variances: Sequence[float], df: float) -> Variance:
    """Returns the scaled inverse chi-square prior of several cells' variances, by moments.

    The mean and the variance of their logarithms are set equal to those of log F(df, prior df).

    Args:
        variances: One per cell, two or more, not all 0.
        df: Degrees of freedom of each of them.

    Returns:
        The prior's scale and degrees of freedom: infinite where the cells differ by no more than
        chance.
    """
    values = np.asarray(variances, dtype=np.float64)
    logs = np.log(np.maximum(values, _LEAST_SHARE * np.median(values[values > 0])))
    logs += math.log(df / 2) - digamma(df / 2)
    excess = float(logs.var(ddof=1) - polygamma(1, df / 2))
    if excess <= polygamma(1, _MOST_DF):
        return Variance(math.exp(logs.mean()), math.inf)
    half = _trigamma_inverse(excess)
    return Variance(math.exp(logs.mean() + digamma(half) - math.log(half)), 2 * half)


def _trigamma_inverse(value: float) -> float:
    """Returns x with trigamma(x) = value."""
    # 1/x < trigamma(x) < 1/x + 1/x^2.
    low, high = 0.5 / value, 2 * max(1 / value, value**-0.5)
    return float(brentq(lambda x: polygamma(1, x) - value, low, high, xtol=1e-12 * low))


def moderate(variances: Sequence[float], df: float, most_df: float) -> tuple[Variance, ...]:
    """Returns every cell's variance drawn towards the prior of all, with the df of both.

    Args:
        variances: One per cell; NaN where it is undefined, which stays so.
        df: Degrees of freedom of each of them.
        most_df: Bound of the prior's degrees of freedom. Cells of the same networks are no
            independent draws, which the moments cannot see.
    """
    known = [value for value in variances if math.isfinite(value)]
    if most_df <= 0 or len(known) < 2 or not any(known):
        return tuple(Variance(value, df) for value in variances)
    prior = fit_prior(known, df)
    weight = min(prior.df, most_df)
    return tuple(
        Variance((weight * prior.variance + df * value) / (weight + df), weight + df)
        for value in variances
    )
