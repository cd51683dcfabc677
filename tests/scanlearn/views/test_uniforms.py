from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from scanlearn.errors import ScanlearnError
from scanlearn.views.uniforms import UNIFORMS, DrawKey, uniforms

MASK = 2**64 - 1


def _mixed(state: int) -> int:
    state = (state + 0x9E3779B97F4A7C15) & MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def test_a_uniform_is_the_hash_of_its_counter_in_plain_integers() -> None:
    found = uniforms(DrawKey(7, 11, np.array([5, 900])), 2)
    state = _mixed(7)
    for part in (11, 900, 1, 3):
        state = _mixed(state ^ _mixed((part + 0x9E3779B97F4A7C15) & MASK))
    assert found[1, 1, 3] == (state >> 11) / 2**53


def test_the_mixer_is_splitmix64() -> None:
    # First outputs of the reference generator seeded with 0.
    assert _mixed(0) == 0xE220A8397B1DCDAF
    assert _mixed(0x9E3779B97F4A7C15) == 0x6E789E6AA1B965F4


def test_two_ranks_draw_what_one_draws() -> None:
    whole = uniforms(DrawKey(0, 3, np.arange(8)), 2)
    halves = [uniforms(DrawKey(0, 3, np.arange(start, start + 4)), 2) for start in (0, 4)]
    assert np.array_equal(whole, np.concatenate(halves))


def test_more_views_leave_the_first_ones_as_they_are() -> None:
    key = DrawKey(0, 3, np.arange(8))
    assert np.array_equal(uniforms(key, 2), uniforms(key, 10)[:, :2])


def test_seed_step_position_view_and_parameter_all_count() -> None:
    drawn = np.concatenate(
        [
            uniforms(DrawKey(seed, step, np.arange(50)), 3).ravel()
            for seed in range(3)
            for step in range(3)
        ]
    )
    assert len(np.unique(drawn)) == len(drawn)


def test_uniforms_are_uniform_and_unrelated() -> None:
    drawn = uniforms(DrawKey(0, 0, np.arange(20_000)), 2).reshape(20_000, -1)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    for column in drawn.T:
        assert kstest(column, "uniform").pvalue > 1e-4
    correlation = np.corrcoef(drawn.T) - np.eye(drawn.shape[1])
    assert np.abs(correlation).max() < 0.035
    assert abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 0.03


def test_the_order_of_parameters_is_frozen() -> None:
    # A change here changes every seeded run: append to the end only.
    assert UNIFORMS[:14] == (
        "area", "aspect", "top", "left", "flip", "jitter", "brightness", "contrast", "saturation",
        "hue", "order", "gray", "blur", "blur_sigma",
    )  # fmt: skip


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ScanlearnError, match="seed: -1 is not from 0"):
        DrawKey(-1, 0, np.arange(2))
