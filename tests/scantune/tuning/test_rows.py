from __future__ import annotations

import numpy as np
import pytest

from scantune.truth import Truth
from scantune.tuning.rows import PLAIN, Balance, ProbeRows

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
