"""From scores to estimates, intervals, differences and verdicts.

AUROC is taken within each fold, on one fitted model, and then averaged; scores of different
models are never pooled. A replicate resamples patients: the same patients in all folds, label
seeds, pretraining seeds and arms, the models held fixed. Intervals are conditional on the folds
and label subsets, which all arms share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped
from scipy.special import stdtr, stdtrit

from scanlearn.features.auroc import macro_auroc, macro_auroc_replicates
from scantune.scores import Scores

VerdictKind = Literal["better", "worse", "equivalent", "none"]

ONE_SEED = "one pretraining seed: this holds for these two networks only, not for their recipes"
_ONE_SEED_ARM = "one pretraining seed: this holds for this network only, not for its recipe"


@dataclass(frozen=True)
class Estimate:
    """The AUROC of one backbone with one learner at one label budget.

    Args:
        auroc: Mean over label seeds and folds; NaN where no fold defines it.
        per_fold: ``[j f]`` macro AUROC of each label seed and fold; NaN where undefined.
        replicates: ``[r]`` the same mean under each patient resample. A fold or class that a
            resample leaves without positives or negatives is left out of that replicate's mean.
        undefined: Classes without a positive or a negative in a fold, or in what it was trained
            on, summed over folds.
    """

    auroc: float
    per_fold: Float[np.ndarray, "j f"]
    replicates: Float[np.ndarray, " r"]
    num_patients: int
    undefined: int


@dataclass(frozen=True)
class Component:
    """One part of the variance of a mean, from one kind of draw: patients, seeds or subsets.

    Args:
        variance: What it adds: the variance of one draw divided by the number of draws.
        df: Degrees of freedom with which it is known; infinite where it is.
    """

    variance: float
    df: float

    @classmethod
    def of(cls, values: Sequence[float] | Float[np.ndarray, " n"]) -> Component:
        """Returns that of the mean of independent draws; one draw cannot tell and adds nothing."""
        n = len(values)
        return cls(float(np.var(values, ddof=1)) / n, n - 1) if n > 1 else _NOTHING


_NOTHING = Component(0.0, math.inf)


@dataclass(frozen=True)
class Interval:
    """An arm's AUROC with its 95 % interval, clipped to [0, 1].

    Args:
        df: Degrees of freedom of Student's t.
        seed_variance: Variance between pretraining seeds divided by their number; 0 with one.
        note: What a person must know to read it; empty where nothing.
        subset_variance: Variance between label subsets divided by their number; 0 where the
            interval holds for the subsets at hand.
    """

    estimate: float
    low: float
    high: float
    df: float
    patient_variance: float
    seed_variance: float
    per_seed: tuple[float, ...]
    note: str = ""
    subset_variance: float = 0.0

    @property
    def variance(self) -> float:
        """Variance of the estimate: the sum of its components."""
        return self.patient_variance + self.seed_variance + self.subset_variance


@dataclass(frozen=True)
class Difference(Interval):
    """The paired difference of two arms, the first minus the second; nothing is clipped."""

    p: float = math.nan


def patient_weights(
    scores: Scores, *, replicates: int = 2000, seed: int = 0
) -> Shaped[np.ndarray, "r m"]:
    """Returns how often each resample draws each patient; one matrix serves all arms.

    Any arm's scores will do: all arms of a task share labels and folds.

    Returns:
        ``[r m]`` uint16, a column per patient code; patients who are never tested have 0.
    """
    tested = scores.tested_patients
    weights = np.zeros((replicates, int(scores.patients.max()) + 1), dtype=np.uint16)
    draws = np.random.default_rng(seed).multinomial(
        len(tested), np.full(len(tested), 1 / len(tested)), size=replicates
    )
    weights[:, tested] = draws
    return weights


def estimate(
    scores: Scores, learner: str, budget: str | int, weights: Shaped[np.ndarray, "r m"]
) -> Estimate:
    """Returns the AUROC of one learner at one label budget, and its replicates.

    The weights are those of ``patient_weights``, the same for everything compared.
    """
    values, asked = scores.of(learner, budget), list(scores.truth.asked)
    per_fold = np.full((scores.num_label_seeds, scores.num_folds), np.nan)
    total, count = np.zeros(len(weights)), np.zeros(len(weights), dtype=np.int64)
    undefined = 0
    for label_seed in range(scores.num_label_seeds):
        for fold in range(scores.num_folds):
            rows = scores.test_rows(label_seed, fold)
            tested = values[label_seed, rows][:, asked]
            truth = scores.tested_truth(label_seed, fold, budget)
            macro = macro_auroc(tested, truth)
            per_fold[label_seed, fold] = macro.auroc
            undefined += macro.undefined
            resampled = macro_auroc_replicates(tested, truth, weights[:, scores.patients[rows]])
            defined = ~np.isnan(resampled)
            total += np.where(defined, resampled, 0.0)
            count += defined
    return Estimate(
        auroc=float(np.nanmean(per_fold)) if np.isfinite(per_fold).any() else float("nan"),
        per_fold=per_fold,
        replicates=np.divide(total, count, out=np.full(len(weights), np.nan), where=count > 0),
        num_patients=len(scores.tested_patients),
        undefined=undefined,
    )


def arm_interval(
    seeds: Sequence[Estimate],
    *,
    level: float = 0.95,
    between_seeds: Component | None = None,
    between_subsets: Component | None = None,
) -> Interval:
    """Returns the interval of one arm over its pretraining seeds.

    Args:
        between_seeds: Stands for the variance between these seeds alone, where others help to
            know it.
        between_subsets: Of label subsets; None has the interval hold for those at hand.
    """
    values, replicates = [seed.auroc for seed in seeds], [seed.replicates for seed in seeds]
    parts = (between_seeds, between_subsets)
    wide = _interval(values, replicates, seeds[0].num_patients, level, *parts)
    return replace(
        wide,
        low=max(0.0, wide.low),
        high=min(1.0, wide.high),
        note=_ONE_SEED_ARM if len(seeds) == 1 else "",
    )


def paired_difference(
    first: Sequence[Estimate],
    second: Sequence[Estimate],
    *,
    level: float = 0.95,
    between_seeds: Component | None = None,
    between_subsets: Component | None = None,
) -> Difference:
    """Returns the difference of two arms, paired by pretraining seed and by patient.

    V = V_pat + s2(d)/n with n seeds; Student's t with Satterthwaite's degrees of freedom. With
    one seed V = V_pat, m - 1 degrees of freedom, and the note says what that holds for.

    Args:
        first: One estimate per pretraining seed.
        second: The same seeds of the other arm, with the same weights. What has no seed, such as
            the thumbnail, is repeated.
        between_seeds: As in `arm_interval`, of the differences.
        between_subsets: As in `arm_interval`, of the differences.

    Raises:
        ValueError: If the arms have different numbers of seeds or of replicates.
    """
    if len(first) != len(second) or not first:
        raise ValueError(
            f"a paired difference needs the same seeds in both arms, not {len(first)} and "
            f"{len(second)}"
        )
    pairs = list(zip(first, second, strict=True))
    interval = _interval(
        [a.auroc - b.auroc for a, b in pairs],
        [a.replicates - b.replicates for a, b in pairs],
        first[0].num_patients,
        level,
        between_seeds,
        between_subsets,
    )
    if interval.variance == 0:
        p = 1.0 if interval.estimate == 0 else 0.0
    else:
        p = float(2 * stdtr(interval.df, -abs(interval.estimate) / np.sqrt(interval.variance)))
    note = ONE_SEED if len(first) == 1 else ""
    return Difference(**vars(replace(interval, note=note)), p=p)


def _interval(
    values: Sequence[float],
    replicates: Sequence[Float[np.ndarray, " r"]],
    num_patients: int,
    level: float,
    between_seeds: Component | None,
    between_subsets: Component | None,
) -> Interval:
    """Returns mean, variances and unclipped interval of one value per pretraining seed."""
    resampled = np.mean(replicates, axis=0)
    resampled = resampled[~np.isnan(resampled)]
    patient_variance = float(resampled.var(ddof=1)) if len(resampled) > 1 else math.nan
    patients = Component(patient_variance, max(1, num_patients - 1))
    seeds = between_seeds or Component.of(values)
    subsets = between_subsets or _NOTHING
    df = satterthwaite_df(patients, seeds, subsets)
    mean = float(np.mean(values))
    variance = patients.variance + seeds.variance + subsets.variance
    half = float(stdtrit(df, (1 + level) / 2) * np.sqrt(variance))
    return Interval(
        mean,
        mean - half,
        mean + half,
        df,
        patients.variance,
        seeds.variance,
        per_seed=tuple(float(value) for value in values),
        subset_variance=subsets.variance,
    )


def satterthwaite_df(*components: Component) -> float:
    """Returns the degrees of freedom of a sum of variances: V^2 / sum of V_i^2 / df_i.

    Those of the first where all variances are 0.

    Source: Satterthwaite 1946, equation 17.
    """
    parts = [part for part in components if part.variance != 0] or [components[0]]
    if len(parts) == 1:
        return float(parts[0].df)
    # Shares instead of variances: the squares of tiny variances would underflow.
    shares = np.array([part.variance for part in parts])
    shares /= shares.max()
    return float(shares.sum() ** 2 / (shares**2 / [part.df for part in parts]).sum())


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Returns Holm's adjusted p-values, in the order given; NaN stays NaN and is not counted.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".

    Example:
        >>> [round(p, 2) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p, kind="stable")[: int((~np.isnan(p)).sum())]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return tuple(float(value) for value in adjusted)


def equivalence_p(difference: Difference, margin: float) -> float:
    """Returns the p-value of two one-sided tests that the true difference is within the margin.

    It is under .025 where the 95 % interval is within the margin.

    Source: Schuirmann 1987, "A comparison of the two one-sided tests procedure and the power
    approach for assessing the equivalence of average bioavailability".
    """
    room = margin - abs(difference.estimate)
    if difference.variance == 0:
        return 0.0 if room > 0 else 1.0
    return float(stdtr(difference.df, -room / np.sqrt(difference.variance)))


def verdict(
    difference: Difference,
    *,
    margin: float = 0.01,
    p: float | None = None,
    p_equivalent: float | None = None,
    alpha: float = 0.05,
) -> VerdictKind:
    """Returns what a difference shows about its first arm.

    An interval wholly within the margin is "equivalent", even where it excludes 0: the margin is
    the smallest difference that matters. Otherwise a p-value under ``alpha`` is "better" or
    "worse", and all else "none": no difference shown.

    Args:
        margin: Half width of the range of equivalence, in AUROC.
        p: Adjusted for several comparisons; that of the difference where None.
        p_equivalent: That of `equivalence_p`, adjusted likewise, which must be under half of
            ``alpha``; None where the interval alone decides.
    """
    if -margin < difference.low and difference.high < margin:
        is_sure = p_equivalent is None or p_equivalent < alpha / 2
        return "equivalent" if is_sure else "none"
    if (difference.p if p is None else p) < alpha:
        return "better" if difference.estimate > 0 else "worse"
    return "none"
