from __future__ import annotations

from itertools import permutations
from math import isnan

import numpy as np
import pytest

from scantune.statistics.ranks import rank_correlation


def by_loop(first: list[float], second: list[float]) -> tuple[float, float]:
    """Spearman's 1 - 6 sum d^2 / (n (n^2 - 1)) of numbers without ties, and every order of them."""

    def rho(a: tuple[float, ...], b: list[float]) -> float:
        n = len(a)
        places = [[sorted(of).index(v) for v in of] for of in (list(a), b)]
        off = sum((x - y) ** 2 for x, y in zip(*places, strict=True))
        return 1 - 6 * off / (n * (n * n - 1))

    seen = rho(tuple(first), second)
    all_orders = [abs(rho(order, second)) for order in permutations(first)]
    return seen, float(np.mean([each >= abs(seen) - 1e-9 for each in all_orders]))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([1, 2, 3], [3, 2, 1]),
        ([1, 2, 3, 4], [2, 1, 4, 3]),
        ([5.5, 1, 2, 9, 3], [0.71, 0.65, 0.7, 0.73, 0.6]),
        ([1, 2, 3, 4, 5, 6], [3, 1, 2, 6, 5, 4]),
    ],
)
def test_rank_correlation_is_that_of_a_slow_loop(first: list[float], second: list[float]) -> None:
    assert rank_correlation(first, second) == pytest.approx(by_loop(first, second))


def test_many_pairs_in_order_are_hardly_chance() -> None:
    rho, p = rank_correlation(list(range(12)), [value**3 for value in range(12)])
    assert rho == pytest.approx(1)
    assert p < 0.001


@pytest.mark.parametrize(
    ("first", "second"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [0.5] * 3)]
)
def test_too_few_or_all_alike_have_no_rank_correlation(
    first: list[float], second: list[float]
) -> None:
    assert all(isnan(value) for value in rank_correlation(first, second))
