from __future__ import annotations

import numpy as np
import pytest

from scanlearn.phantom.brush import blur, smooth_field, soft_disc, splat, spots_cover
from scanlearn.phantom.camera import frame


def test_blur_equals_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(6, 5)).astype(np.float32)
    sigma = 0.9
    expected = np.zeros((6, 5))
    for row in range(6):
        for column in range(5):
            rows = np.exp(-0.5 * ((np.arange(6) - row) / sigma) ** 2)
            columns = np.exp(-0.5 * ((np.arange(5) - column) / sigma) ** 2)
            weight = np.outer(rows / rows.sum(), columns / columns.sum())
            expected[row, column] = (weight * image).sum()
    assert blur(image, sigma) == pytest.approx(expected, abs=1e-5)


def test_blur_keeps_a_constant() -> None:
    image = np.full((3, 12, 9), 0.4, dtype=np.float32)
    assert blur(image, 2.0) == pytest.approx(image, abs=1e-6)


def test_a_point_is_shared_among_the_four_pixels_around_it() -> None:
    # Pixel centres lie at halves: (2.25, 1.5) is a quarter right of a quarter, on a row's centre.
    points = np.array([[2.25, 1.5]])
    drawn = splat(points, np.array([8.0]), 4, 5)
    assert drawn[1, 1] == pytest.approx(2.0)
    assert drawn[1, 2] == pytest.approx(6.0)
    assert drawn.sum() == pytest.approx(8.0)


def test_points_off_the_canvas_leave_nothing_on_it() -> None:
    points = np.array([[-9.0, 2.0], [99.0, 2.0], [2.0, -9.0], [2.0, 99.0]])
    assert splat(points, np.ones(4), 4, 5).sum() == 0


def test_a_smooth_field_is_smooth_and_centred() -> None:
    rng = np.random.default_rng(0)
    fields = np.stack([smooth_field(rng, 64, 48, 9) for _ in range(200)])
    assert abs(float(fields.mean())) < 0.03
    assert 0.3 < float(fields.std()) < 0.7
    assert float(np.abs(np.diff(fields, axis=1)).mean()) < 0.1 * float(fields.std())


def test_a_soft_disc_covers_its_area() -> None:
    view = frame(200, 200, 1.0, 1.0)
    cover = soft_disc(view, (0.2, -0.1), (0.3, 0.2), 0.05)
    assert cover.min() == 0
    assert cover.max() == 1
    assert cover.sum() / 100**2 == pytest.approx(np.pi * 0.3 * 0.2, rel=0.03)


def test_spots_have_the_area_of_their_radius_wherever_they_lie() -> None:
    view = frame(100, 80, 1.0, 1.0)
    for place in ((0.0, 0.0), (0.313, -0.207)):
        cover = spots_cover(view, np.array([place]), np.array([5 / view.radius_px]))
        assert cover.sum() == pytest.approx(np.pi * 25, rel=0.03)
    assert spots_cover(view, np.array([[9.0, 9.0]]), np.array([0.05])).sum() == 0
