from __future__ import annotations

import numpy as np
import pytest

from scantune.truth import Truth
from scantune.tuning.balance import balanced_shares, class_weights, effective_weights


def test_every_class_is_drawn_as_often_as_any_other() -> None:
    y = np.array([0] * 90 + [1] * 9 + [2])
    shares = balanced_shares(Truth.of_classes(y, 3))
    assert shares.sum() == pytest.approx(1)
    for code in range(3):
        assert shares[y == code].sum() == pytest.approx(1 / 3)


def test_a_scan_of_several_findings_counts_for_the_rarest_and_one_of_none_apart() -> None:
    matrix = np.array([[1, 1], [1, 0], [1, -1], [0, 0]], np.int8)
    shares = balanced_shares(Truth(matrix, "multilabel"))
    np.testing.assert_allclose(shares, [1 / 3, 1 / 6, 1 / 6, 1 / 3])


@pytest.mark.parametrize("beta", [0.9, 0.999])
def test_effective_weights_are_those_of_the_paper(beta: float) -> None:
    counts = np.array([1000, 50, 3])
    expected = np.array([(1 - beta) / (1 - beta**n) for n in counts.tolist()])
    found = effective_weights(counts, beta)
    np.testing.assert_allclose(found / found[0], expected / expected[0], rtol=1e-9)
    assert (found * counts).sum() / counts.sum() == pytest.approx(1)


def test_a_class_without_scans_weighs_nothing() -> None:
    np.testing.assert_array_equal(effective_weights(np.array([5, 0]), 0.9), [1.0, 0.0])


def test_findings_are_balanced_each_for_itself() -> None:
    matrix = np.array([[1, 1]] + [[0, 1]] * 9 + [[-1, 0]] * 10, np.int8)
    having, lacking = class_weights(Truth(matrix, "multilabel"), 0.999)
    assert having[0] > 4 * lacking[0]
    assert having[1] == pytest.approx(lacking[1])


def test_classes_that_exclude_each_other_weigh_by_their_own_count() -> None:
    having, lacking = class_weights(Truth.of_classes(np.array([0, 0, 0, 1]), 2), 0.999)
    assert having[1] > 2 * having[0]
    np.testing.assert_array_equal(lacking, [1.0, 1.0])
