from __future__ import annotations

import numpy as np
import pytest

from scantune.labels.truth import Truth
from scantune.learners.weighting import (
    PLAIN,
    Balance,
    ProbeRows,
    balanced_shares,
    class_weights,
    effective_weights,
)


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


Y = np.array([0] * 30 + [1] * 9 + [2])
TRUTH = Truth.of_classes(Y, 3)
Z = np.random.default_rng(0).normal(size=(40, 3))


def test_plain_rows_are_the_scans_and_count_one_each() -> None:
    z, y, shares = PLAIN.of(Z, TRUTH, 0)
    assert z is Z
    np.testing.assert_array_equal(y, Y)
    np.testing.assert_array_equal(shares, np.ones(40))


@pytest.mark.parametrize("balance", ["none", "sampling", "effective"])
@pytest.mark.parametrize(("mixup", "noise"), [(0.0, 0.2), (0.4, 0.0), (0.4, 0.2)])
def test_rows_count_for_as_many_scans_as_there_are(
    balance: Balance, mixup: float, noise: float
) -> None:
    z, y, shares = ProbeRows(mixup, noise, balance).of(Z, TRUTH, 0)
    assert len(z) == len(y) == len(shares) == (120 if mixup else 80)
    assert shares.sum() == pytest.approx(40)
    assert (shares >= 0).all()


def test_a_mixture_lies_between_its_pair_where_its_label_does() -> None:
    numbers = np.arange(40.0)[:, None]
    z, y, shares = ProbeRows(mixup=0.4).of(numbers, Truth.of_classes(np.arange(40), 40), 0)
    np.testing.assert_array_equal(z[40:80], z[80:])
    own, other = shares[40:80], shares[80:]
    np.testing.assert_allclose(z[40:80, 0], (own * y[40:80] + other * y[80:]) / (own + other))
    assert shares[:40].sum() == pytest.approx(20)


def test_noise_is_as_wide_as_it_is_asked_to_be() -> None:
    z = np.zeros((4000, 2))
    found, _, _ = ProbeRows(noise=0.3).of(z, Truth.of_classes(np.zeros(4000, int), 1), 0)
    np.testing.assert_array_equal(found[:4000], z)
    np.testing.assert_allclose(found[4000:].std(axis=0), 0.3, rtol=0.05)


def test_sampling_weighs_every_class_alike_and_effective_numbers_nearly_so() -> None:
    for balance, most in (("sampling", 1.001), ("effective", 1.1)):
        _, y, shares = ProbeRows(balance=balance).of(Z, TRUTH, 0)  # type: ignore[arg-type]
        totals = [shares[y == code].sum() for code in range(3)]
        assert max(totals) / min(totals) < most


def test_the_same_seed_draws_the_same() -> None:
    first, again, other = (ProbeRows(0.4, 0.1).of(Z, TRUTH, seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
