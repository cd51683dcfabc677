"""From scores to estimates, intervals, differences and verdicts.

AUROC is taken within each fold, on one fitted model, and then averaged; scores of different
models are never pooled. A replicate resamples patients: the same patients in all folds, label
seeds, pretraining seeds and arms, the models held fixed.

A fold's test patients train the other folds' models. With folds the variance over patients is
therefore that of refits, each without a group of the patients (`refit_variance`); resamples of
fixed models covered .86 to .91 where 95 % were promised. Where a given split is tested the models
are fixed, and so they are where nothing was refitted, which the note then says.

Few patients say little, and may seem to say all: two perfect arms never differ in a resample. The
variance is made up towards what so few patients would vary by (`few_patients.py`), and below
five of the rarer class there is no interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped
from scipy.special import stdtr, stdtrit

from scanlearn.features.auroc import macro_auroc, macro_auroc_replicates, mean_of_defined
from scantune.scores import Scores
from scantune.statistics.few_patients import (
    Sides,
    auroc_df,
    auroc_limits,
    effective_fewest,
    least_difference_variance,
    sides_of,
    too_few,
)

VerdictKind = Literal["better", "worse", "equivalent", "none"]

ONE_SEED = "one pretraining seed: this holds for these two networks only, not for their recipes"
_ONE_SEED_ARM = "one pretraining seed: this holds for this network only, not for its recipe"
MODELS_FIXED = (
    "the interval holds the cross-validated models fixed, although their folds share training "
    "patients: it is too narrow and covers about 9 times in 10"
)


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
        sides: Patients on both sides of each class asked about; empty where nobody counted, and
            each patient is then taken to be on both.
        refits: ``[a a]`` the AUROC with a group of patients left out of training and one out of
            test, as `Scores.refits`; None where models are held fixed.
        is_crossed: Whether models were trained on each other's test patients.
    """

    auroc: float
    per_fold: Float[np.ndarray, "j f"]
    replicates: Float[np.ndarray, " r"]
    num_patients: int
    undefined: int
    sides: tuple[Sides, ...] = ()
    refits: Float[np.ndarray, "a a"] | None = None
    is_crossed: bool = False


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
    """An arm's AUROC with its 95 % interval within [0, 1]; NaN ends where patients are too few.

    Args:
        df: Degrees of freedom of Student's t.
        seed_variance: Variance between pretraining seeds divided by their number; 0 with one.
        note: What a person must know to read it, such as why it has no ends; empty where nothing.
        patient_variance: What seeds share of the variance over patients; with one seed all of it.
        fewest: Patients of the rarer side of the rarest class.
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
    fewest: float = math.inf

    @property
    def variance(self) -> float:
        """Variance of the estimate: the sum of its components."""
        return self.patient_variance + self.seed_variance + self.subset_variance


@dataclass(frozen=True)
class Difference(Interval):
    """The paired difference of two arms, the first minus the second; nothing is clipped.

    Its ends and ``p`` are NaN where patients are too few.
    """

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
        sides=tuple(sides_of(scores, code) for code in asked),
        refits=scores.refits_of(learner, budget, asked),
        is_crossed=scores.num_folds > 1,
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
    sides = _sides(seeds[0])
    values = [each.auroc for each in seeds]
    unbounded = _interval(seeds, values, auroc_df(sides), between_seeds, between_subsets)
    if math.isnan(unbounded.low):
        return unbounded
    # Of one network: the mean of several varies less, and lacks nothing for it.
    fixed = float(np.mean([_variance([each.replicates]) for each in seeds]))
    low, high = auroc_limits(
        unbounded.estimate, unbounded.variance, fixed, unbounded.df, sides, level=level
    )
    return replace(
        unbounded, low=low, high=high, note=_joined(unbounded.note, seeds, _ONE_SEED_ARM)
    )


def paired_difference(
    first: Sequence[Estimate],
    second: Sequence[Estimate],
    *,
    level: float = 0.95,
    unit: float = 1.0,
    between_seeds: Component | None = None,
    between_subsets: Component | None = None,
) -> Difference:
    """Returns the difference of two arms, paired by pretraining seed and by patient.

    V = C + s2(d)/n with n seeds, C the covariance over patients of two seeds' differences, which
    is what seeds share; Student's t with Satterthwaite's degrees of freedom. The variance over
    patients of the mean, in place of C, counted twice what one network alone gets wrong, which s2
    holds already: arms of one recipe were called different in 1 to 2 % instead of 5. With one seed
    V is the variance over patients, and the note says what that holds for. V is at least
    `least_difference_variance`.

    Args:
        first: One estimate per pretraining seed.
        second: The same seeds of the other arm, with the same weights. What has no seed, such as
            the thumbnail, is repeated.
        unit: What one AUROC is on the scale of the estimates.
        between_seeds: As in `arm_interval`, of the differences.
        between_subsets: As in `arm_interval`, of the differences.

    Raises:
        ValueError: If the arms have different numbers of seeds or of replicates.

    Source: Obuchowski and Rockette 1995, with networks for readers and patients for cases; Hillis
    2007 for the degrees of freedom.
    """
    if len(first) != len(second) or not first:
        raise ValueError(
            f"a paired difference needs the same seeds in both arms, not {len(first)} and "
            f"{len(second)}"
        )
    pairs = [combined(pair, (1.0, -1.0)) for pair in zip(first, second, strict=True)]
    sides = _sides(pairs[0])
    return contrast(
        pairs,
        patient_df=max(1.0, effective_fewest(sides) - 1),
        least_variance=unit**2 * least_difference_variance(sides),
        level=level,
        between_seeds=between_seeds,
        between_subsets=between_subsets,
    )


def contrast(
    seeds: Sequence[Estimate],
    *,
    patient_df: float,
    least_variance: float,
    level: float = 0.95,
    between_seeds: Component | None = None,
    between_subsets: Component | None = None,
) -> Difference:
    """Returns the interval and test of a weighted sum of AUROCs, one for each pretraining seed.

    Args:
        seeds: As `combined` makes them.
        patient_df: Degrees of freedom of the variance over patients.
        least_variance: What it is at least.
        between_seeds: As in `arm_interval`, of the sums.
        between_subsets: As in `arm_interval`, of the sums.
    """
    unbounded = _interval(
        seeds, [each.auroc for each in seeds], patient_df, between_seeds, between_subsets
    )
    if math.isnan(unbounded.low):
        return Difference(**vars(unbounded))
    mean, variance = unbounded.estimate, max(unbounded.variance, least_variance)
    half = float(stdtrit(unbounded.df, (1 + level) / 2) * np.sqrt(variance))
    return Difference(
        **vars(
            replace(
                unbounded,
                low=mean - half,
                high=mean + half,
                # What was made up is not known to be shared by seeds or not.
                patient_variance=unbounded.patient_variance + variance - unbounded.variance,
                note=_joined(unbounded.note, seeds, ONE_SEED),
            )
        ),
        p=float(2 * stdtr(unbounded.df, -abs(mean) / np.sqrt(variance))),
    )


def combined(estimates: Sequence[Estimate], weights: Sequence[float]) -> Estimate:
    """Returns a weighted sum of estimates of the same patients, resampled together."""
    parts = list(zip(weights, estimates, strict=True))
    refits = [weight * each.refits for weight, each in parts if each.refits is not None]
    return replace(
        estimates[0],
        auroc=sum(weight * each.auroc for weight, each in parts),
        per_fold=np.sum([weight * each.per_fold for weight, each in parts], axis=0),
        replicates=np.sum([weight * each.replicates for weight, each in parts], axis=0),
        refits=np.sum(refits, axis=0) if len(refits) == len(parts) else None,
        undefined=sum(each.undefined for each in estimates),
    )


def _sides(estimate: Estimate) -> tuple[Sides, ...]:
    return estimate.sides or (Sides("", estimate.num_patients, estimate.num_patients),)


def limits_note(seeds: Sequence[Estimate]) -> str:
    """Returns why there is no interval, or why it is too narrow; empty where neither is so."""
    is_narrow = any(each.is_crossed and each.refits is None for each in seeds)
    return too_few(_sides(seeds[0])) or (MODELS_FIXED if is_narrow else "")


def _joined(note: str, seeds: Sequence[Estimate], one_seed: str) -> str:
    return "; ".join(filter(None, (note, one_seed if len(seeds) == 1 else "")))


def _interval(
    seeds: Sequence[Estimate],
    values: Sequence[float],
    patient_df: float,
    between_seeds: Component | None,
    between_subsets: Component | None,
) -> Interval:
    """Returns mean and variances of one value per pretraining seed.

    Its ends are still to be found: they are the mean, or NaN where there can be none.
    """
    sides = _sides(seeds[0])
    is_refitted = all(each.refits is not None for each in seeds)
    shared = shared_variance(seeds)
    patients = Component(shared, patient_df)
    by_seed = between_seeds or Component.of(values)
    subsets = between_subsets or _NOTHING
    if is_refitted:
        # A refit draws training patients anew, and so their subset: what both hold counts once.
        refits = np.mean([each.refits for each in seeds if each.refits is not None], axis=0)
        by_training = refit_variance(refits) * (1 - 1 / widening(refits))
        subsets = replace(subsets, variance=max(0.0, subsets.variance - by_training))
    mean = float(np.mean(values))
    end = math.nan if too_few(sides) or not math.isfinite(shared) else mean
    return Interval(
        mean,
        end,
        end,
        satterthwaite_df(patients, by_seed, subsets),
        patients.variance,
        by_seed.variance,
        per_seed=tuple(float(value) for value in values),
        note=limits_note(seeds),
        subset_variance=subsets.variance,
        fewest=min(side.fewest for side in sides),
    )


def shared_variance(seeds: Sequence[Estimate]) -> float:
    """Returns what seeds share of the variance over patients: the mean covariance of two seeds.

    With one seed it is the variance. Of n seeds the variance W of the mean and the mean U of the
    seeds' variances give it: W = C + (U - C) / n.
    """
    n = len(seeds)
    refits = [each.refits for each in seeds if each.refits is not None]
    if len(refits) == n:
        whole = refit_variance(np.mean(refits, axis=0))
        of_each = [refit_variance(each) for each in refits]
    else:
        replicates = [each.replicates for each in seeds]
        whole = _variance(replicates)
        of_each = [_variance([each]) for each in replicates]
    if n == 1 or math.isnan(whole):
        return whole
    return max(0.0, (n * whole - float(np.mean(of_each))) / (n - 1))


def _variance(replicates: Sequence[Float[np.ndarray, " r"]]) -> float:
    """Returns the variance of the mean of several networks over patient resamples."""
    resampled = np.mean(replicates, axis=0)
    resampled = resampled[~np.isnan(resampled)]
    return float(resampled.var(ddof=1)) if len(resampled) > 1 else math.nan


def refit_variance(refits: Float[np.ndarray, "a a"]) -> float:
    """Returns the variance over patients of a cross-validated AUROC, models fitted anew.

    The jackknife over groups of patients, left out of training and of test alike, counts what a
    patient does as a tested and as a training one, but what is particular to a pair of both twice
    (J); less these interactions it is second order right and somewhat low with few patients
    (J - I), for refits are not linear. The models fixed it is F. The mean of (J + F) / 2 and
    J - I, each at least F, was nearest to the truth of logistic regressions on 60 to 500 patients.

    Args:
        refits: ``[a a]`` row g without group g in training, column h without group h in test; the
            first of either without nothing.

    Source: Efron and Stein 1981, "The jackknife estimate of variance", section 2 and its second
    order correction.
    """
    groups = len(refits) - 1
    fixed, both = _jackknife(refits[0, 1:]), _jackknife(np.diagonal(refits)[1:])
    pairs = refits[1:, 1:] - refits[1:, :1] - refits[:1, 1:] + refits[0, 0]
    pairs = pairs - mean_of_defined(pairs)
    pairs = pairs - mean_of_defined(pairs.T)[:, None]
    interactions = float(((groups - 1) / groups) ** 2 * np.nansum(pairs**2))
    halfway, corrected = (both + fixed) / 2, both - interactions
    return (max(fixed, halfway) + max(fixed, corrected)) / 2


def widening(refits: Float[np.ndarray, "a a"] | None) -> float:
    """Returns by how much refits widen a variance over patients, 1 or more; 1 without refits."""
    fixed = 0.0 if refits is None else _jackknife(refits[0, 1:])
    return 1.0 if refits is None or not fixed > 0 else refit_variance(refits) / fixed


def _jackknife(left_out: Float[np.ndarray, " g"]) -> float:
    """Returns the variance by what is found without each of several groups."""
    left_out = left_out[np.isfinite(left_out)]
    return float((len(left_out) - 1) * left_out.var()) if len(left_out) > 1 else math.nan


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


def are_enough(fewest: float, margin: float) -> bool:
    """Whether 3 / n is below the margin; a class without a patient on one side has n = 0."""
    return margin * fewest > 3


def equivalence_p(difference: Difference, margin: float) -> float:
    """Returns the p-value of two one-sided tests that the true difference is within the margin.

    It is under .025 where the 95 % interval is within the margin.

    Source: Schuirmann 1987, "A comparison of the two one-sided tests procedure and the power
    approach for assessing the equivalence of average bioavailability".
    """
    if math.isnan(difference.low):
        return math.nan
    if not are_enough(difference.fewest, margin):
        return 1.0
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
    the smallest difference that matters. So many patients must be of the rarer class that even
    where none of them tells the arms apart, the share who would is below the margin with 95 %: the
    rule of three, 3 / n. Otherwise a p-value under ``alpha`` is "better" or
    "worse", and all else "none": no difference shown.

    Args:
        margin: Half width of the range of equivalence, in AUROC.
        p: Adjusted for several comparisons; that of the difference where None.
        p_equivalent: That of `equivalence_p`, adjusted likewise, which must be under half of
            ``alpha``; None where the interval alone decides.
    """
    is_within = -margin < difference.low and difference.high < margin
    if is_within and are_enough(difference.fewest, margin):
        is_sure = p_equivalent is None or p_equivalent < alpha / 2
        return "equivalent" if is_sure else "none"
    if is_within:
        return "none"
    if (difference.p if p is None else p) < alpha:
        return "better" if difference.estimate > 0 else "worse"
    return "none"
