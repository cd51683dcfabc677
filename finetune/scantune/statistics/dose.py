"""AUROC over the augmentation scale: a curve, its best scale with an interval, or that it is flat.

The mean AUROC of each tested scale varies with the patients, alike for all scales, and with the
pretraining seeds. A seed moves all scales together, for they start from the same weights, and each
by itself. The curve is fitted to the means by least squares, which needs no weights to be unbiased;
what it may have been otherwise is drawn from the covariance of both parts.

A quadratic is taken unless the means lie further from it than they vary (`_LACK`), then a natural
cubic spline of one parameter more; where that lies too far off as well, the tested scales alone are
spoken of, without a curve between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import fdtrc

from scantune.statistics.few_patients import effective_fewest
from scantune.statistics.intervals import (
    Component,
    Estimate,
    are_enough,
    arm_interval,
    paired_difference,
    satterthwaite_df,
)
from scantune.statistics.moderation import moderate

CurveKind = Literal["quadratic", "spline", "points"]
Basis = Callable[[Float[np.ndarray, " x"]], Float[np.ndarray, "x p"]]

FEWEST_SCALES = 4
_GRID = 41
_DRAWS = 4000
_LEVEL = 0.95
# Share of true curves that are taken for another: rather one parameter too many than a bent curve.
_LACK = 0.2


@dataclass(frozen=True)
class DoseFit:
    """AUROC over the scale.

    Args:
        at: ``[x]`` scales of the curve, from the least to the largest tested; with ``points`` the
            tested ones.
        low: ``[x]`` lower end of the 95 % band, for each scale by itself.
        best: Scale of the highest AUROC on the curve.
        best_low: Lower end of the 95 % interval of the best scale.
        is_within: ``[x]`` whether a scale is shown to be less than the margin below the best one.
        is_possible: ``[x]`` whether a scale is not shown to be below the best one.
        lack_p: That the means lie so far from the curve by chance; NaN with ``points``.
        near: The least tested scale at most one standard error below the highest tested one.
    """

    kind: CurveKind
    at: Float[np.ndarray, " x"]
    auroc: Float[np.ndarray, " x"]
    low: Float[np.ndarray, " x"]
    high: Float[np.ndarray, " x"]
    best: float
    best_low: float
    best_high: float
    is_within: Bool[np.ndarray, " x"]
    is_possible: Bool[np.ndarray, " x"]
    lack_p: float
    near: float

    @property
    def is_flat(self) -> bool:
        """Whether no scale is shown to differ from the best one."""
        return bool(self.is_possible.all())


def fit_dose(
    scales: Sequence[float], arms: Sequence[Sequence[Estimate]], *, margin: float
) -> DoseFit | None:
    """Returns the curve of several scales at one learner and label budget.

    None with fewer than four scales or two pretraining seeds, or where an AUROC is undefined or
    patients are too few for any interval.

    Args:
        scales: Ascending.
        arms: Of each scale one estimate per pretraining seed, the same seeds in all, with the
            weights of `patient_weights`.
        margin: Smallest difference that matters.
    """
    if len(scales) < FEWEST_SCALES or min(len(members) for members in arms) < 2:
        return None
    values = np.array([[each.auroc for each in members] for members in arms])
    fewest = effective_fewest(arms[0][0].sides) if arms[0][0].sides else arms[0][0].num_patients
    patients = patient_covariance(arms)
    if not (np.isfinite(values).all() and np.isfinite(patients).all()):
        return None
    fit = fit_curve(scales, values, patients, max(1.0, fewest - 1), margin=margin)
    # Where even no patient at all who tells two scales apart could hide the margin.
    return fit if are_enough(fewest, margin) else replace(fit, is_within=fit.is_within & False)


def patient_covariance(arms: Sequence[Sequence[Estimate]]) -> Float[np.ndarray, "k k"]:
    """Returns how the AUROCs of several arms vary together over patients, in what seeds share.

    From the variances of arms and of their paired differences, as the report has them, models
    refitted where they are: C_ab = (V_a + V_b - V_(a-b)) / 2. NaN where there is no interval.
    """
    nothing = Component(0.0, math.inf)
    own = [arm_interval(members, between_seeds=nothing) for members in arms]
    found = np.diag([np.nan if math.isnan(each.low) else each.patient_variance for each in own])
    for a, b in np.ndindex(found.shape):
        if a < b:
            pair = paired_difference(arms[a], arms[b], between_seeds=nothing)
            found[a, b] = found[b, a] = (found[a, a] + found[b, b] - pair.patient_variance) / 2
    if not np.isfinite(found).all():
        return found
    # Made of parts, it may be no covariance by a little.
    lengths, axes = np.linalg.eigh(found)
    return np.asarray((axes * np.maximum(lengths, 0)) @ axes.T)


def seed_variances(
    values: Float[np.ndarray, "k n"],
) -> tuple[Float[np.ndarray, " k"], float, float]:
    """Returns what pretraining seeds add to each scale, and to all together, and the df of both.

    Y_ki = mean_k + seed_i + e_ki. The variance of e is that of each scale, moderated by the other
    scales; centred by seed it is v_k = s_k (1 - 2/K) + sum(s) / K^2, which is solved for s.

    Returns:
        ``[k]`` the variance of e of one seed, that of seed_i, and degrees of freedom of the first.
    """
    num_scales, n = values.shape
    centred = values - values.mean(axis=0)
    spread = centred.var(axis=1, ddof=1)
    total = spread.sum() / (1 - 1 / num_scales)
    alone = np.maximum((spread - total / num_scales**2) / (1 - 2 / num_scales), 0.0)
    known = moderate(alone.tolist(), n - 1, (num_scales - 2) * (n - 1))
    variances = np.array([each.variance for each in known])
    together = max(0.0, float(values.mean(axis=0).var(ddof=1) - variances.mean() / num_scales))
    return variances, together, known[0].df


def fit_curve(
    scales: Sequence[float],
    values: Float[np.ndarray, "k n"],
    patients: Float[np.ndarray, "k k"],
    patient_df: float,
    *,
    margin: float,
    seed: int = 0,
) -> DoseFit:
    """Returns the curve through the means of several seeds.

    Args:
        values: AUROC of each scale and pretraining seed.
        patients: Covariance over patients of the scales.
        seed: Of the draws of the curve.
    """
    at, means, n = np.asarray(scales, dtype=np.float64), values.mean(axis=1), values.shape[1]
    own, together, seed_df = seed_variances(values)
    apart = np.diag(own) / n
    covariance = patients + apart + together / n
    # Degrees of freedom of what tells scales apart.
    centre = np.eye(len(at)) - 1 / len(at)
    parts = [
        Component(max(0.0, float(np.trace(centre @ part @ centre))), df)
        for part, df in ((patients, patient_df), (apart, seed_df))
    ]
    df = satterthwaite_df(*parts)
    kind, basis, lack_p = _chosen(at, means, covariance, df)
    points = at if kind == "points" else np.unique([*np.linspace(at[0], at[-1], _GRID), *at])
    through = np.linalg.pinv(basis(at))
    rows = basis(points) @ through
    curve, spread = rows @ means, rows @ covariance @ rows.T
    rng = np.random.default_rng(seed)
    lengths, axes = np.linalg.eigh(covariance)
    normal = rng.standard_normal((_DRAWS, len(at))) * np.sqrt(np.maximum(lengths, 0)) @ axes.T
    drawn = normal @ rows.T / np.sqrt(rng.chisquare(df, (_DRAWS, 1)) / df)
    half = np.quantile(np.abs(drawn), _LEVEL, axis=0)
    best, tails = int(curve.argmax()), ((1 - _LEVEL) / 2, (1 + _LEVEL) / 2)
    best_low, best_high = np.quantile(points[(curve + drawn).argmax(axis=1)], tails)
    lost = (curve + drawn).max(axis=1, keepdims=True) - (curve + drawn)
    # Of any two scales, for the best one was not named in advance.
    first, second = np.triu_indices(len(points), 1)
    variances = np.diagonal(spread)
    error = np.sqrt(
        np.maximum(variances[first] + variances[second] - 2 * spread[first, second], 1e-18)
    )
    most = (np.abs(drawn[:, first] - drawn[:, second]) / error).max(axis=1)
    to_best = np.sqrt(np.maximum(variances + variances[best] - 2 * spread[best], 1e-18))
    behind = (curve[best] - curve) / to_best
    tested = np.flatnonzero(np.isin(points, at))
    top = tested[curve[tested].argmax()]
    to_top = np.sqrt(np.maximum(variances + variances[top] - 2 * spread[top], 0))
    is_near = curve[top] - curve <= to_top
    return DoseFit(
        kind=kind,
        at=points,
        auroc=curve,
        low=curve - half,
        high=curve + half,
        best=float(points[best]),
        best_low=float(best_low),
        best_high=float(best_high),
        is_within=np.quantile(lost, _LEVEL, axis=0) < margin,
        is_possible=behind <= np.quantile(most, _LEVEL),
        lack_p=lack_p,
        near=float(points[tested[is_near[tested]][0]]),
    )


def _chosen(
    at: Float[np.ndarray, " k"],
    means: Float[np.ndarray, " k"],
    covariance: Float[np.ndarray, "k k"],
    df: float,
) -> tuple[CurveKind, Basis, float]:
    """Returns the first curve that lies no further from the means than they vary, and its p."""
    curves: list[tuple[CurveKind, Basis]] = [("quadratic", _quadratic)]
    if len(at) > FEWEST_SCALES:
        curves.append(("spline", _natural_spline(np.quantile(at, (0, 1 / 3, 2 / 3, 1)))))
    for kind, basis in curves:
        design = basis(at)
        rest = np.eye(len(at)) - design @ np.linalg.pinv(design)
        free = len(at) - design.shape[1]
        off = rest @ means
        distance = float(off @ np.linalg.pinv(rest @ covariance @ rest, rcond=1e-8) @ off)
        p = float(fdtrc(free, df, distance / free))
        if p > _LACK:
            return kind, basis, p
    return "points", lambda x: (x[:, None] == at).astype(np.float64), math.nan


def _quadratic(x: Float[np.ndarray, " x"]) -> Float[np.ndarray, "x 3"]:
    return np.stack([np.ones_like(x), x, x**2], axis=1)


def _natural_spline(knots: Float[np.ndarray, " q"]) -> Basis:
    """Returns the basis of natural cubic splines, as many functions as knots.

    Source: Hastie, Tibshirani and Friedman 2009, "The elements of statistical learning", equations
    5.4 and 5.5.
    """

    def truncated(x: Float[np.ndarray, " x"], k: int) -> Float[np.ndarray, " x"]:
        last = np.maximum(x - knots[-1], 0) ** 3
        return np.asarray((np.maximum(x - knots[k], 0) ** 3 - last) / (knots[-1] - knots[k]))

    def basis(x: Float[np.ndarray, " x"]) -> Float[np.ndarray, "x q"]:
        last = truncated(x, len(knots) - 2)
        curved = [truncated(x, k) - last for k in range(len(knots) - 2)]
        return np.stack([np.ones_like(x), x, *curved], axis=1)

    return basis
