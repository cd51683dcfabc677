"""AUROC over the augmentation scale: a curve, its best scale with an interval, or that it is flat.

The mean AUROC of each tested scale varies with the patients, alike for all scales, and with the
pretraining seeds. A seed moves all scales together, for they start from the same weights, and each
by itself. The curve is fitted to the means by least squares, which needs no weights to be unbiased;
what it may have been otherwise is drawn from the covariance of both parts. With one seed the tested
scales' scatter about the curve stands for the seeds'.

Several label budgets and learners share one shape, each at its own level (`fit_joint`): on normal
scores, where the same gain is as large at every height of AUROC, and each counts the more the
better it tells scales apart. As all have the same scales, least squares is then the curve of their
weighted mean.

A quadratic is taken unless the means lie further from it than they vary (`_LACK`), then a natural
cubic spline of one parameter more; where that lies too far off as well, the tested scales alone are
spoken of, without a curve between them. Flatness is judged by what level curves show that are drawn
and chosen among likewise: judged by the chosen curve alone, 7 to 8 % were called otherwise, not 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import chdtri, fdtrc, ndtr, ndtri

from scantune.statistics.few_patients import effective_fewest
from scantune.statistics.intervals import (
    Component,
    Estimate,
    are_enough,
    combined,
    paired_difference,
    satterthwaite_df,
    shared_variance,
)
from scantune.statistics.moderation import moderate
from scantune.statistics.probit import on_probit_scale, slope

CurveKind = Literal["quadratic", "spline", "points"]
Basis = Callable[[Float[np.ndarray, " x"]], Float[np.ndarray, "x p"]]
Transform = Callable[[Float[np.ndarray, "*x"]], Float[np.ndarray, "*x"]]

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
        flat_p: Share of level curves that show two scales to lie as far apart.
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
    flat_p: float

    @property
    def is_flat(self) -> bool:
        """Whether no scale is shown to differ from the best one."""
        return bool(self.is_possible.all())


def fit_dose(
    scales: Sequence[float],
    arms: Sequence[Sequence[Estimate]],
    *,
    margin: float,
    fewest_seeds: int = 2,
    to_auroc: Transform = np.asarray,
    unit: float = 1.0,
) -> DoseFit | None:
    """Returns the curve of several scales at one learner and label budget.

    None with fewer than four scales (five with one seed) or too few seeds, or where an AUROC is
    undefined or patients are too few for any interval.

    Args:
        scales: Ascending.
        arms: Of each scale one estimate per pretraining seed, the same seeds in all, with the
            weights of `patient_weights`.
        margin: Smallest difference in AUROC that matters.
        to_auroc: From the scale of the estimates, where that is another; rising.
        unit: What one AUROC is on it.
    """
    seeds = min(map(len, arms), default=0)
    if seeds < fewest_seeds or len(scales) < FEWEST_SCALES + (seeds == 1):
        return None
    values = np.array([[each.auroc for each in members] for members in arms])
    fewest = effective_fewest(arms[0][0].sides) if arms[0][0].sides else arms[0][0].num_patients
    patients = patient_covariance(arms, unit)
    if not (np.isfinite(values).all() and np.isfinite(patients).all()):
        return None
    patient_df = max(1.0, fewest - 1)
    fit = fit_curve(scales, values, patients, patient_df, margin=margin, to_auroc=to_auroc)
    # Where even no patient at all who tells two scales apart could hide the margin.
    return fit if are_enough(fewest, margin) else replace(fit, is_within=fit.is_within & False)


@dataclass(frozen=True)
class JointFit:
    """The curve that several cells, learners and label budgets, share.

    Args:
        fit: At the level of one of them.
        levels: Of each cell how far it lies above that one, as a normal score.
        shape_p: P-value of the cells sharing one shape: of the flattest of what sets one apart
            from the others, times their number.
    """

    fit: DoseFit
    levels: tuple[float, ...]
    shape_p: float


def at_level(auroc: Float[np.ndarray, " x"], level: float) -> Float[np.ndarray, " x"]:
    """Returns AUROCs raised by a normal score."""
    return np.asarray(ndtr(ndtri(auroc) + level))


def fit_joint(
    scales: Sequence[float],
    cells: Sequence[Sequence[Sequence[Estimate]]],
    *,
    margin: float,
    told: int = 0,
) -> JointFit | None:
    """Returns the curve that several learners and label budgets share, each at its own level.

    Least squares of level + curve on normal scores, over cells with the same scales and seeds, is
    the curve of the cells' weighted mean. Its best scale is theirs where effects differ by the
    height of the AUROC alone.

    Args:
        cells: As ``arms`` of `fit_dose`, for each learner and budget; two or more.
        told: The cell at whose level the curve is told and the margin is meant.

    Returns:
        None as `fit_dose`.
    """
    if len(scales) < FEWEST_SCALES:
        return None
    normal = [[[on_probit_scale(each) for each in arm] for arm in cell] for cell in cells]
    heights = np.array([np.mean([[each.auroc for each in arm] for arm in cell]) for cell in normal])
    # What one AUROC is as a normal score.
    units = np.array([slope(float(ndtr(height))) for height in heights])
    weights = _weights(normal, units)
    if weights is None:
        return None
    level = float(heights[told] - weights @ heights)
    fit = fit_dose(
        scales,
        _mean_arms(normal, weights),
        margin=margin,
        to_auroc=lambda curve: np.asarray(ndtr(curve + level)),
        unit=float(weights @ units),
    )
    apart, count = [], len(cells)
    # Of two cells the difference is the same, whichever comes first.
    for number in range(count if count > 2 else 1):
        others = -weights / (1 - weights[number])
        others[number] = 1.0
        unit = float(np.abs(others) @ units)
        apart.append(fit_dose(scales, _mean_arms(normal, others), margin=margin, unit=unit))
    ps = [each.flat_p for each in apart if each is not None]
    if fit is None or not ps:
        return None
    levels = tuple(float(height - heights[told]) for height in heights)
    return JointFit(fit, levels, min(1.0, len(ps) * min(ps)))


def _weights(
    cells: Sequence[Sequence[Sequence[Estimate]]], units: Float[np.ndarray, " c"]
) -> Float[np.ndarray, " c"] | None:
    """Returns the share of each cell: the inverse of the variance with which it tells scales apart.

    With 50 labels seeds differ several times as much as with all, and its curve would drown the
    others'. None where patients are too few for a variance.
    """
    variances = []
    for cell, unit in zip(cells, units, strict=True):
        values = np.array([[each.auroc for each in members] for members in cell])
        of_seeds = seed_variances(values)[0] if values.shape[1] > 1 else np.zeros(len(values))
        apart = patient_covariance(cell, unit) + np.diag(of_seeds) / values.shape[1]
        centre = np.eye(len(values)) - 1 / len(values)
        variances.append(float(np.trace(centre @ apart @ centre)))
    if not np.isfinite(variances).all():
        return None
    weights = 1 / np.array(variances)
    return np.asarray(weights / weights.sum())


def _mean_arms(
    cells: Sequence[Sequence[Sequence[Estimate]]], weights: Float[np.ndarray, " c"]
) -> list[list[Estimate]]:
    return [
        [combined(of_seed, weights.tolist()) for of_seed in zip(*of_arm, strict=True)]
        for of_arm in zip(*cells, strict=True)
    ]


def patient_covariance(
    arms: Sequence[Sequence[Estimate]], unit: float = 1.0
) -> Float[np.ndarray, "k k"]:
    """Returns how the AUROCs of several arms vary together over patients, in what seeds share.

    From the variances of arms and of their paired differences, as the report has them, models
    refitted where they are: C_ab = (V_a + V_b - V_(a-b)) / 2. NaN where there is no interval.

    Args:
        unit: What one AUROC is on the scale of the estimates.
    """
    nothing = Component(0.0, math.inf)
    covariance = np.diag([shared_variance(members) for members in arms])
    for a, b in np.ndindex(covariance.shape):
        if a < b:
            pair = paired_difference(arms[a], arms[b], unit=unit, between_seeds=nothing)
            shared = (covariance[a, a] + covariance[b, b] - pair.patient_variance) / 2
            covariance[a, b] = covariance[b, a] = np.nan if math.isnan(pair.low) else shared
    if not np.isfinite(covariance).all():
        return covariance
    # Made of parts, it may be no covariance by a little.
    lengths, axes = np.linalg.eigh(covariance)
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


@dataclass(frozen=True)
class _Form:
    """A form of curve: linear in the means of the tested scales.

    Args:
        points: ``[x]`` scales at which it is known.
        rows: ``[x k]`` the curve of the means.
        rest: ``[k k]`` what it leaves of them, of ``free`` degrees of freedom.
    """

    kind: CurveKind
    points: Float[np.ndarray, " x"]
    rows: Float[np.ndarray, "x k"]
    rest: Float[np.ndarray, "k k"]
    free: int

    @classmethod
    def of(cls, kind: CurveKind, basis: Basis, at: Float[np.ndarray, " k"]) -> _Form:
        """Returns the form with this basis, between the least and the largest tested scale."""
        points = at if kind == "points" else np.unique([*np.linspace(at[0], at[-1], _GRID), *at])
        design = basis(at)
        through = np.linalg.pinv(design)
        rest = np.eye(len(at)) - design @ through
        return cls(kind, points, basis(points) @ through, rest, len(at) - design.shape[1])

    def lack_p(
        self, means: Float[np.ndarray, "d k"], covariance: Float[np.ndarray, "k k"], df: float
    ) -> Float[np.ndarray, " d"]:
        """Returns the p-value of each draw's distance to its curve."""
        off = means @ self.rest
        inverse = np.linalg.pinv(self.rest @ covariance @ self.rest, rcond=1e-8)
        distance = np.einsum("dk,kl,dl->d", off, inverse, off)
        return np.asarray(fdtrc(self.free, df, distance / self.free))

    def largest_gap(
        self, means: Float[np.ndarray, "d k"], covariance: Float[np.ndarray, "k k"]
    ) -> Float[np.ndarray, " d"]:
        """Returns the largest difference of any two scales of each draw's curve, in its errors.

        Of any two, for the best one was not named in advance.
        """
        # A smooth curve's largest gap is seen at every fourth point as well.
        rows = self.rows if self.kind == "points" else self.rows[::4]
        curves, error = means @ rows.T, _errors(rows @ covariance @ rows.T)
        gaps = [
            (np.abs(curves[:, place, None] - curves[:, place + 1 :]) / error[place, place + 1 :])
            for place in range(len(rows) - 1)
        ]
        return np.asarray(np.max([gap.max(axis=1) for gap in gaps], axis=0))


def _errors(spread: Float[np.ndarray, "x x"]) -> Float[np.ndarray, "x x"]:
    """Returns the standard errors of differences."""
    variances = np.diagonal(spread)
    return np.asarray(np.sqrt(np.maximum(variances[:, None] + variances - 2 * spread, 1e-18)))


def fit_curve(
    scales: Sequence[float],
    values: Float[np.ndarray, "k n"],
    patients: Float[np.ndarray, "k k"],
    patient_df: float,
    *,
    margin: float,
    to_auroc: Transform = np.asarray,
    seed: int = 0,
) -> DoseFit:
    """Returns the curve through the means of several seeds, or of one, then a quadratic.

    Args:
        values: AUROC of each scale and pretraining seed, or what ``to_auroc`` makes one of.
        patients: Covariance over patients of the scales.
        seed: Of the draws of the curve.
    """
    at, means, n = np.asarray(scales, dtype=np.float64), values.mean(axis=1), values.shape[1]
    forms = _forms(at)
    if n == 1:
        smooth, forms = forms[:-1], forms[:1]
        alone, together, seed_df = _scatter(forms[0], means, patients)
    else:
        alone, together, seed_df = seed_variances(values)
    apart = np.diag(alone) / n
    covariance = patients + apart + together / n
    # Degrees of freedom of what tells scales apart.
    centre = np.eye(len(at)) - 1 / len(at)
    of_patients, of_seeds = (
        max(0.0, float(np.trace(centre @ part @ centre))) for part in (patients, apart)
    )
    # One found too small by chance would raise them, too: half of all seed variances are larger.
    of_seeds *= seed_df / float(chdtri(seed_df, 0.5))
    # One seed's is what patients leave over of a scatter, whose own are known.
    df = satterthwaite_df(Component(of_patients, patient_df), Component(of_seeds, seed_df))
    df = min(df, seed_df) if n == 1 else df
    rng = np.random.default_rng(seed)
    lengths, axes = np.linalg.eigh(covariance)
    normal = rng.standard_normal((_DRAWS, len(at))) * np.sqrt(np.maximum(lengths, 0)) @ axes.T
    level = normal / np.sqrt(rng.chisquare(df, (_DRAWS, 1)) / df)
    taken = _chosen(forms, level, covariance, df)
    most = np.empty(_DRAWS)
    for place, each in enumerate(forms):
        most[taken == place] = each.largest_gap(level[taken == place], covariance)
    form = forms[_chosen(forms, means[None], covariance, df)[0]]
    points, rows = form.points, form.rows
    curve, drawn = rows @ means, level @ rows.T
    half = np.quantile(np.abs(drawn), _LEVEL, axis=0)
    best, tails = int(curve.argmax()), ((1 - _LEVEL) / 2, (1 + _LEVEL) / 2)
    # A form is chosen for each draw anew: the best scale of a curve too stiff is wrong and certain.
    # One seed cannot tell forms apart, and each has its turn.
    at_best, again = np.empty(_DRAWS), means + level
    taken = np.arange(_DRAWS) % 2 if n == 1 else _chosen(forms, again, covariance, df)
    for place, each in enumerate(smooth if n == 1 else forms):
        of_form = again[taken == place] @ each.rows.T
        at_best[taken == place] = each.points[of_form.argmax(axis=1)]
    best_low, best_high = np.quantile(at_best, tails)
    curves = to_auroc(curve + drawn)
    lost = curves.max(axis=1, keepdims=True) - curves
    error = _errors(rows @ covariance @ rows.T)
    tested = np.flatnonzero(np.isin(points, at))
    top = tested[curve[tested].argmax()]
    is_near = curve[top] - curve <= error[top]
    return DoseFit(
        kind=form.kind,
        at=points,
        auroc=to_auroc(curve),
        low=to_auroc(curve - half),
        high=to_auroc(curve + half),
        best=float(points[best]),
        best_low=float(best_low),
        best_high=float(best_high),
        is_within=np.quantile(lost, _LEVEL, axis=0) < margin,
        is_possible=(curve[best] - curve) / error[best] <= np.quantile(most, _LEVEL),
        lack_p=float(form.lack_p(means[None], covariance, df)[0]) if form.free else math.nan,
        near=float(points[tested[is_near[tested]][0]]),
        flat_p=float((most >= form.largest_gap(means[None], covariance)).mean()),
    )


def _scatter(
    form: _Form, means: Float[np.ndarray, " k"], patients: Float[np.ndarray, "k k"]
) -> tuple[Float[np.ndarray, " k"], float, float]:
    """Returns as `seed_variances`, of one seed: what lies off the curve and patients leave over."""
    left = float(np.square(form.rest @ means).sum() - np.trace(form.rest @ patients @ form.rest))
    return np.full(len(means), max(0.0, left / form.free)), 0.0, form.free


def _forms(at: Float[np.ndarray, " k"]) -> list[_Form]:
    """The forms, the simplest first; the last fits all."""
    forms = [_Form.of("quadratic", _quadratic, at)]
    if len(at) > FEWEST_SCALES:
        spline = _natural_spline(np.quantile(at, (0, 1 / 3, 2 / 3, 1)))
        forms.append(_Form.of("spline", spline, at))
    points = _Form.of("points", lambda x: (x[:, None] == at).astype(np.float64), at)
    return [*forms, points]


def _chosen(
    forms: Sequence[_Form],
    means: Float[np.ndarray, "d k"],
    covariance: Float[np.ndarray, "k k"],
    df: float,
) -> Int[np.ndarray, " d"]:
    """Returns of each draw the first form that lies no further from it than means vary."""
    place = np.full(len(means), len(forms) - 1)
    for number, form in reversed(list(enumerate(forms[:-1]))):
        place[form.lack_p(means, covariance, df) > _LACK] = number
    return place


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
