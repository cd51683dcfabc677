from __future__ import annotations

import numpy as np
import pytest

from scanlearn.phantom.camera import frame
from scanlearn.phantom.vessels import grow_vessels, vessel_depth

DISC = (0.52, 0.0)


def test_all_trunks_leave_the_disc() -> None:
    vessels = grow_vessels(np.random.default_rng(0), DISC, 0.3)
    trunks = vessels.points[: vessels.counts[0]].reshape(8, -1, 2)
    assert np.hypot(*(trunks[:, 0] - DISC).T).max() < 0.15
    assert sum(vessels.counts) == len(vessels.points) == len(vessels.weights)


def test_temporal_arcades_bend_around_the_macula() -> None:
    for seed in range(10):
        vessels = grow_vessels(np.random.default_rng(seed), DISC, 0.3)
        trunks = vessels.points[: vessels.counts[0]].reshape(8, -1, 2)
        fovea = np.array([-0.08, 0.04])
        assert np.hypot(*(trunks - fovea).transpose(2, 0, 1)).min() > 0.15
        assert trunks[:4, -1, 0].max() < 0.3


def test_a_left_eye_is_the_mirror_image_of_a_right_one() -> None:
    vessels = grow_vessels(np.random.default_rng(1), DISC, 0.3)
    view = frame(96, 96, 1.0, 1.0)
    right, left = (vessel_depth(vessels, view, 1.0, side) for side in (1.0, -1.0))
    assert left[:, ::-1] == pytest.approx(right, abs=1e-5)


def test_vessels_are_as_dark_at_every_size_of_canvas() -> None:
    vessels = grow_vessels(np.random.default_rng(2), DISC, 0.3)
    depths = [vessel_depth(vessels, frame(n, n, 1.0, 1.0), 1.0, 1.0) for n in (64, 128, 256)]
    means = [float(depth.mean()) for depth in depths]
    assert means == pytest.approx([means[-1]] * 3, rel=0.05)
    assert 0.5 < float(depths[-1].max()) < 5


def test_more_tortuous_vessels_wind_more() -> None:
    def winding(tortuosity: float) -> float:
        trunks = grow_vessels(np.random.default_rng(3), DISC, tortuosity).points[: 8 * 120]
        steps = np.diff(trunks.reshape(8, 120, 2), axis=1)
        return float(np.abs(np.diff(np.arctan2(steps[..., 1], steps[..., 0]))).sum())

    assert winding(0.6) > 1.5 * winding(0.1)
