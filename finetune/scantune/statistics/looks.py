"""Looks at a study that grows seed by seed: when they are, and the level that each is tested at.

A study that adds seeds until it shows something is wrong more often than its level says. Looks are
planned before the first, and each is tested at one level, lower than that of the whole, at which
the error over all of them is kept.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float

FIRST = 3
_GROWTH = 1.6
_DRAWS = 200_000


def planned_looks(most: int) -> tuple[int, ...]:
    """Returns the numbers of seeds at which is looked, each some 1.6 times the one before.

    Example:
        >>> planned_looks(8)
        (3, 5, 8)
    """
    looks = [FIRST]
    while looks[-1] < most:
        looks.append(min(most, round(_GROWTH * looks[-1])))
    return tuple(looks)


@cache
def look_level(looks: tuple[int, ...], alpha: float = 0.05) -> float:
    """Returns the level of each look at which some look errs with probability ``alpha``.

    Simulated with seeds alone to draw: what patients add is the same at every look, which makes
    looks more alike and the error smaller. It is the lower of two: the variance between seeds
    known, and estimated from the seeds at hand; moderated variances lie between.

    Args:
        looks: Numbers of seeds, ascending.

    Source: one level for all looks: Pocock 1977, "Group sequential methods in the design and
    analysis of clinical trials".
    """
    if len(looks) == 1:
        return alpha
    levels = (np.quantile(_least_p(looks, is_known=is_known), alpha) for is_known in (True, False))
    return float(min(levels))


def _least_p(looks: tuple[int, ...], *, is_known: bool) -> Float[np.ndarray, " r"]:
    """Returns the least of the looks' p-values in each of many studies without a difference."""
    # A plan is checked by its looks without scipy, which takes a second.
    from scipy.special import ndtr, stdtr

    drawn = np.random.default_rng(0).normal(size=(_DRAWS, looks[-1]))
    least = np.ones(_DRAWS)
    for n in looks:
        seeds = drawn[:, :n]
        if is_known:
            p = 2 * ndtr(-np.abs(seeds.mean(axis=1)) * n**0.5)
        else:
            t = np.abs(seeds.mean(axis=1)) / (seeds.std(axis=1, ddof=1) / n**0.5)
            p = 2 * stdtr(n - 1, -t)
        least = np.minimum(least, p)
    return least
