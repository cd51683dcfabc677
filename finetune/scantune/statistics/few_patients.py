"""What few patients cannot show: least variances, limits of an AUROC, and too few to say.

An AUROC is as well known as its rarer side is large: the patients who have a positive scan, or
those who have a negative one. Near 1 a resample, or DeLong's formula, hardly varies, or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtrit

from scantune.scores import Scores

# Patients of the rarer side below which no interval was simulated to cover what it says.
FEWEST = 5
# How many patients of the rarer side the model's variance counts for, where the data's is smaller.
_MODEL_PATIENTS = 40
# How far one more patient of each class would tell two arms apart, as a share of the other class.
_ONE_PATIENT = 0.3


@dataclass(frozen=True)
class Sides:
    """Patients with a tested positive of a class, and with a negative; one may be among both."""

    name: str
    positives: int
    negatives: int

    @property
    def fewest(self) -> int:
        """Those of the rarer side."""
        return min(self.positives, self.negatives)


def sides_of(scores: Scores, code: int) -> Sides:
    """Returns the tested patients of a class."""
    tested = (scores.fold_of >= 0).any(axis=0) & scores.truth.known(code)
    is_positive = scores.truth.positives(code)
    counts = [
        len(np.unique(scores.patients[tested & side])) for side in (is_positive, ~is_positive)
    ]
    return Sides(scores.classes[code], *counts)


def effective_fewest(sides: Sequence[Sides]) -> float:
    """Returns the patients of the rarer side; of several classes as many as their mean is worth.

    A class's variance goes by 1 / n, known with n - 1 degrees of freedom; Satterthwaite's formula
    gives those of the mean, and one patient more is returned.
    """
    fewest = np.array([side.fewest for side in sides if side.fewest > 0], dtype=np.float64)
    if not len(fewest):
        return 0.0
    parts = 1 / fewest
    return float(1 + parts.sum() ** 2 / (parts**2 / np.maximum(fewest - 1, 0.5)).sum())


def too_few(sides: Sequence[Sides]) -> str:
    """Returns why there can be no interval, and what it would need; empty where there can be."""
    if effective_fewest(sides) >= FEWEST:
        return ""
    rarest = min(sides, key=lambda side: side.fewest)
    side = "with" if rarest.positives == rarest.fewest else "without"
    return (
        f"too few patients to say: {rarest.fewest} {side} {rarest.name}, where at least {FEWEST} "
        "are needed"
    )


def model_variance(auroc: float, sides: Sequence[Sides]) -> float:
    """Returns the variance of a mean AUROC of so many patients, by a model of their scores.

    Source: Newcombe 2006, "Confidence intervals for an effect size measure based on the
    Mann-Whitney statistic, part 2", method 5: Hanley and McNeil's variance, its two sides balanced.
    """
    total = 0.0
    for side in sides:
        p, q = max(1, side.positives), max(1, side.negatives)
        balanced = (p + q) / 2 - 1
        shares = (1 - auroc) / (2 - auroc) + auroc / (1 + auroc)
        total += auroc * (1 - auroc) * (1 + balanced * shares) / (p * q)
    return total / len(sides) ** 2


def auroc_limits(
    auroc: float,
    variance: float,
    fixed: float,
    df: float,
    sides: Sequence[Sides],
    *,
    level: float = 0.95,
) -> tuple[float, float]:
    """Returns the ends of the interval of an AUROC, within [0, 1].

    They are the AUROCs from which the found one is t standard errors away, the variance going by
    the model's: like a logit it is narrow near 1, and unlike it has ends where the found AUROC is
    1. What the variance of fixed models lacks to the model's is made up by 40 / (n + 40), n
    patients being of the rarer side: benchmarks/RESULTS.md has what it covers.

    Args:
        variance: Of the estimate, of all draws.
        fixed: Its part over patients, the models fixed.
        df: Degrees of freedom of the variance.

    Source: Wilson 1927, for the score interval; Newcombe 2006.
    """
    fewest = effective_fewest(sides)
    middle = (auroc * fewest + 0.5) / (fewest + 1)
    by_model = model_variance(middle, sides)
    scale = (variance + model_share(sides) * max(0.0, by_model - fixed)) / by_model
    t = float(stdtrit(df, (1 + level) / 2))

    def beyond(value: float) -> float:
        return (auroc - value) ** 2 - t**2 * scale * model_variance(value, sides)

    def limit(bound: float) -> float:
        # At the estimate itself it is 0 where that is 0 or 1, so the search begins beside it.
        beside = auroc + (bound - auroc) * 1e-9
        if bound == auroc or beyond(beside) >= 0:
            return auroc
        return float(brentq(beyond, bound, beside, xtol=1e-9))

    return limit(0.0), limit(1.0)


def model_share(sides: Sequence[Sides]) -> float:
    """Returns what share of the variance that the data lack is made up by the model's."""
    return _MODEL_PATIENTS / (effective_fewest(sides) + _MODEL_PATIENTS)


def auroc_df(sides: Sequence[Sides]) -> float:
    """Returns the degrees of freedom of an arm's variance over patients, the model's among them."""
    return max(1.0, effective_fewest(sides) - 1) + _MODEL_PATIENTS * model_share(sides)


def least_difference_variance(sides: Sequence[Sides]) -> float:
    """Returns the least variance of a paired difference: as if one more patient of each side told.

    Two arms that err on no patient at hand, or on the same ones, would differ on the next. Perfect
    against constant on six patients had p = 0.
    """
    classes = [1 / max(1, side.positives) ** 2 + 1 / max(1, side.negatives) ** 2 for side in sides]
    return _ONE_PATIENT**2 * math.fsum(classes) / len(sides) ** 2
