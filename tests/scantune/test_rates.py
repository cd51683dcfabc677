from __future__ import annotations

import numpy as np
import pytest

from scantune.rates import share_interval, share_replicates


def clustered(
    share: float, patients: int, rng: np.random.Generator, per_patient: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Returns hits and patients; scans of one patient are alike."""
    own = rng.beta(share * 7 / 3, (1 - share) * 7 / 3, patients)
    owner = np.repeat(np.arange(patients), rng.integers(1, per_patient + 1, patients))
    return rng.random(len(owner)) < own[owner], owner


def interval(hits: np.ndarray, owner: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    patients = int(owner.max()) + 1
    weights = rng.multinomial(patients, np.full(patients, 1 / patients), size=200)
    replicates = share_replicates(hits, weights[:, owner])[None]
    return share_interval(float(hits.mean()), replicates, patients, len(hits))


def test_replicates_are_the_shares_of_copied_scans() -> None:
    rng = np.random.default_rng(0)
    hits, weights = rng.random(30) < 0.4, rng.integers(0, 3, (5, 30))
    slow = [np.repeat(hits, row).mean() for row in weights]
    np.testing.assert_allclose(share_replicates(hits, weights), slow, rtol=1e-6)
    assert np.isnan(share_replicates(hits, np.zeros((1, 30), np.uint16))).all()


def test_independent_scans_have_wilsons_interval() -> None:
    rng = np.random.default_rng(1)
    hits = np.arange(50) < 40
    weights = rng.multinomial(50, np.full(50, 0.02), size=20_000)
    found = share_interval(0.8, share_replicates(hits, weights)[None], 50, 50)
    # Wilson's interval of 40 of 50, as in tables.
    np.testing.assert_allclose(found, (0.6696, 0.8876), atol=0.004)


@pytest.mark.parametrize(("share", "patients"), [(0.6, 40), (0.9, 15), (0.97, 40)])
def test_95_percent_of_intervals_over_patients_hold_the_share(share: float, patients: int) -> None:
    rng = np.random.default_rng(2)
    times, covered, plain = 400, 0, 0
    for _ in range(times):
        hits, owner = clustered(share, patients, rng)
        low, high = interval(hits, owner, rng)
        covered += low <= share <= high
        # Each scan for itself, as if no two were of one patient.
        one = share_interval(hits.mean(), np.full((1, 2), hits.mean()), len(hits), len(hits))
        plain += one[0] <= share <= one[1]
    assert 0.91 <= covered / times <= 0.985
    assert covered >= plain


def test_a_share_of_one_is_not_sure() -> None:
    low, high = share_interval(1.0, np.ones((1, 50)), 10, 30)
    assert high == pytest.approx(1.0)
    assert low == pytest.approx(10 / (10 + 1.96**2), abs=1e-3)


def test_an_undefined_share_has_no_interval() -> None:
    assert np.isnan(share_interval(float("nan"), np.full((2, 9), np.nan), 5, 9)).all()
    assert np.isnan(share_interval(float("nan"), np.empty(0), 0, 0)).all()
