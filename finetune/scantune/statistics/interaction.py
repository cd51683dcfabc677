"""Whether two arms differ by more in some classes than in others: a test of interaction.

Of each class the difference of the arms is set against the mean of the other classes' differences,
on normal scores, where a difference does not shrink because a class is easy. Patients and
pretraining seeds are those of all classes, so that what classes share cancels; Holm's correction
covers the classes, and the least of their p-values is that of there being any difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scanlearn.features.auroc import mean_of_defined
from scantune.statistics.few_patients import (
    Sides,
    effective_fewest,
    least_difference_variance,
    too_few,
)
from scantune.statistics.intervals import (
    Component,
    Estimate,
    combined,
    contrast,
    holm,
    shared_variance,
)
from scantune.statistics.moderation import moderate
from scantune.statistics.probit import bounded, on_probit_scale, slope


@dataclass(frozen=True)
class ClassContrast:
    """How the difference of two arms in one class stands to that in the others.

    Args:
        difference: AUROC of the first arm minus that of the second; NaN where undefined.
        p: Of the class differing by as much as the others do on the mean, corrected; NaN where it
            was not tested.
    """

    difference: float
    p: float


def interaction(
    first: Sequence[Sequence[Estimate]],
    second: Sequence[Sequence[Estimate]],
    *,
    draws_subsets: bool = False,
) -> list[ClassContrast]:
    """Returns how each class's difference of two arms stands to the others'.

    Not tested are classes whose AUROC is undefined or whose patients are too few for an interval,
    and none where fewer than two are left.

    Args:
        first: Of each class one estimate per pretraining seed, which tests that class alone, with
            the weights that all classes share.
        second: The same classes and seeds of the other arm.
        draws_subsets: Whether label seeds draw subsets of the labels, over which it then speaks.

    Source: Holm 1979; the variance is that of `intervals.paired_difference`.
    """
    differences = [
        float(np.mean([a.auroc - b.auroc for a, b in zip(*arms, strict=True)]))
        for arms in zip(first, second, strict=True)
    ]
    tested = [
        place
        for place, arms in enumerate(zip(first, second, strict=True))
        if math.isfinite(differences[place]) and not too_few(_sides_of(arms[0]))
    ]
    p_values = np.full(len(differences), math.nan)
    if len(tested) > 1:
        pairs = [_pairs(first[place], second[place]) for place in tested]
        units = np.array(
            [_unit([*first[place], *second[place]], _sides_of(first[place])) for place in tested]
        )
        sides = [_sides_of(first[place]) for place in tested]
        p_values[tested] = _p_values(pairs, units, sides, draws_subsets=draws_subsets)
    return [ClassContrast(*each) for each in zip(differences, p_values.tolist(), strict=True)]


def _sides_of(seeds: Sequence[Estimate]) -> tuple[Sides, ...]:
    first = seeds[0]
    return first.sides or (Sides("", first.num_patients, first.num_patients),)


def _pairs(first: Sequence[Estimate], second: Sequence[Estimate]) -> list[Estimate]:
    """Returns the difference of each seed's networks on normal scores."""
    return [
        combined([on_probit_scale(each) for each in pair], (1.0, -1.0))
        for pair in zip(first, second, strict=True)
    ]


def _unit(estimates: Sequence[Estimate], sides: Sequence[Sides]) -> float:
    """Returns what one AUROC is as a normal score at the height of a class."""
    height = float(np.mean([each.auroc for each in estimates]))
    return slope(bounded(height, effective_fewest(sides)))


def _p_values(
    pairs: Sequence[Sequence[Estimate]],
    units: np.ndarray,
    sides: Sequence[Sequence[Sides]],
    *,
    draws_subsets: bool,
) -> list[float]:
    count = len(pairs)
    patient = np.array([shared_variance(each) for each in pairs])
    least = units**2 * np.array([least_difference_variance(each) for each in sides])
    df = np.array([max(1.0, effective_fewest(each) - 1) for each in sides])
    # Of two classes the contrast is the same, whichever comes first.
    rows = [
        [1.0 if place == number else -1 / (count - 1) for place in range(count)]
        for number in range(count if count > 2 else 1)
    ]
    contrasts = [[combined(of_seed, row) for of_seed in zip(*pairs, strict=True)] for row in rows]
    of_seeds = _between([[each.auroc for each in of_row] for of_row in contrasts], count)
    tests = []
    for row, of_row, between in zip(rows, contrasts, of_seeds, strict=True):
        squares = np.square(row)
        parts = squares * np.maximum(patient, least)
        subsets = Component.of(())
        if draws_subsets:
            of_draw = mean_of_defined(np.array([mean_of_defined(e.per_fold.T) for e in of_row]))
            subsets = Component.of(of_draw[np.isfinite(of_draw)])
        tests.append(
            contrast(
                of_row,
                patient_df=float(parts.sum() ** 2 / (parts**2 / df).sum()),
                least_variance=float((squares * least).sum()),
                between_seeds=between,
                between_subsets=subsets,
            )
        )
    adjusted = list(holm([test.p for test in tests]))
    return adjusted * (1 if count > 2 else 2)


def _between(values: Sequence[Sequence[float]], count: int) -> list[Component]:
    """Returns what seeds add to each contrast, moderated by the others."""
    n = len(values[0])
    if n == 1:
        return [Component.of(each) for each in values]
    variances = [float(np.var(each, ddof=1)) for each in values]
    known = moderate(variances, n - 1, (count - 2) * (n - 1))
    return [Component(each.variance / n, each.df) for each in known]
