from __future__ import annotations

import numpy as np
import pytest

from scanlearn.phantom.camera import camera, frame


def test_no_two_of_the_first_cameras_look_the_same() -> None:
    assert len({camera(number) for number in range(24)}) == 24


@pytest.mark.parametrize("number", range(24))
def test_every_camera_shows_most_of_the_canvas_and_darkens_no_edge_to_black(number: int) -> None:
    look = camera(number)
    view = frame(64, 80, look.field_radius, look.cut)
    assert view.mask.mean() > 0.5
    assert 0 < look.vignetting < 1
    assert min(look.gain) > 0.5


def test_the_field_is_a_circle_in_units_of_its_radius() -> None:
    view = frame(101, 101, 0.9, 1.0)
    assert view.radius_px == pytest.approx(0.9 * 50.5)
    assert view.x[50, 50] == 0
    assert view.y[50, 50] == 0
    distance = np.hypot(view.x, view.y)
    assert np.array_equal(view.mask, distance <= 1.0)
    assert view.mask.sum() == pytest.approx(np.pi * view.radius_px**2, rel=0.01)


def test_a_cut_field_ends_above_and_below() -> None:
    view = frame(100, 100, 1.0, 0.8)
    assert view.mask.any(axis=1).sum() == 80
    assert view.mask.any(axis=0).sum() == 100
