"""Whether one measure puts things in the order of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations

import numpy as np
from scipy.stats import rankdata

# Of so few things every order is tried: 7! are 5,040. Of more, so many at random.
_FEW, _ORDERS = 7, 9999


def label_free_rank(measures: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Returns the mean rank of each scale over measures that are better when higher.

    Args:
        measures: Of each scale, the same measures in one order; NaN ranks lowest.

    Returns:
        From 1, the worst in all, to the number of scales.

    Example:
        >>> label_free_rank({"a": (3.0, 0.5), "b": (2.0, 0.9), "c": (1.0, 0.1)})
        {'a': 2.5, 'b': 2.5, 'c': 1.0}
    """
    table = np.nan_to_num(np.array(list(measures.values()), np.float64), nan=-np.inf)
    ranks = np.stack([rankdata(column) for column in table.T]).mean(axis=0)
    return dict(zip(measures, ranks.tolist(), strict=True))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Returns Spearman's correlation and how often chance alone gives one as far from 0.

    Both are NaN where either is the same throughout, or there are fewer than three pairs. The
    p-value is by permutation: of up to seven pairs by every order, of more by 9,999 at random.

    Args:
        first: As many numbers as ``second``, all finite.

    Source: Spearman 1904, "The proof and measurement of association between two things".

    Example:
        >>> rho, p = rank_correlation([1, 2, 3], [10, 20, 40])
        >>> round(rho, 6), round(p, 6)
        (1.0, 0.333333)
    """
    if len(first) < 3 or len(set(first)) == 1 or len(set(second)) == 1:
        return float("nan"), float("nan")
    one, other = (rankdata(each) - (len(each) + 1) / 2 for each in (first, second))
    size = float(np.sqrt(np.square(one).sum() * np.square(other).sum()))
    rho = float(one @ other) / size
    if len(first) <= _FEW:
        orders = np.array(list(permutations(one)))
        by_chance, known = orders @ other / size, 0
    else:
        drawn = np.tile(one, (_ORDERS, 1))
        by_chance, known = np.random.default_rng(0).permuted(drawn, axis=1) @ other / size, 1
    hits = int((np.abs(by_chance) >= abs(rho) - 1e-9).sum())
    # Of drawn orders that at hand is one, so that p is never 0.
    return rho, (hits + known) / (len(by_chance) + known)
