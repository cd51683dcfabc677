from __future__ import annotations

import numpy as np
import pytest
from scipy.special import stdtrit

from scantune.statistics import looks
from scantune.statistics.looks import look_level, planned_looks


def test_looks_grow_to_the_most_and_end_there() -> None:
    assert planned_looks(3) == (3,)
    assert planned_looks(4) == (3, 4)
    assert planned_looks(8) == (3, 5, 8)
    assert planned_looks(20) == (3, 5, 8, 13, 20)


@pytest.mark.parametrize(("count", "level"), [(2, 0.0294), (3, 0.0221), (5, 0.0158)])
def test_known_variances_give_pococks_levels(count: int, level: float) -> None:
    """Pocock 1977, table 1, for looks that are equally far apart."""
    least = looks._least_p(tuple(range(10, 10 * count + 1, 10)), is_known=True)
    assert np.quantile(least, 0.05) == pytest.approx(level, abs=0.0007)


def test_one_look_is_tested_at_the_whole_level() -> None:
    assert look_level((3,)) == 0.05


@pytest.mark.parametrize("shared", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("prior", [0, 2])
def test_the_error_over_all_looks_is_kept(shared: float, prior: int) -> None:
    """Studies without a difference, by the formula of `paired_difference` written out.

    ``shared`` is the variance over 60 patients, of which no seed brings others; ``prior`` the
    pairs of other arms that tell how seeds vary.
    """
    rng, studies, plan = np.random.default_rng(1), 20_000, (3, 5, 8)
    patients = rng.normal(size=studies) * shared**0.5
    seeds = rng.normal(size=(studies, 8))
    others = rng.normal(size=(studies, prior, 8))
    of_patients = shared * rng.chisquare(59, studies) / 59
    called = np.zeros(studies, np.bool_)
    at_full_level = called.copy()
    for n in plan:
        pooled = [
            seeds[:, :n].var(axis=1, ddof=1),
            *others[:, :, :n].var(axis=2, ddof=1).swapaxes(0, 1),
        ]
        variance, df = np.mean(pooled, axis=0) / n, (1 + prior) * (n - 1)
        total = of_patients + variance
        whole_df = total**2 / (of_patients**2 / 59 + variance**2 / df)
        t = np.abs(patients + seeds[:, :n].mean(axis=1)) / total**0.5
        called |= t > stdtrit(whole_df, 1 - look_level(plan) / 2)
        at_full_level |= t > stdtrit(whole_df, 0.975)
    assert called.mean() < 0.05 + 3 * (0.05 * 0.95 / studies) ** 0.5
    if not shared:
        assert called.mean() == pytest.approx(0.05, abs=0.008)
        assert at_full_level.mean() > 0.085
