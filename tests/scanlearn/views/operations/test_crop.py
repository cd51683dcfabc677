from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop

from scanlearn.views.operations.crop import accepted_area, accepted_boxes

RATIO = math.log(4 / 3)


def _torchvision(
    height: int, width: int, scale: tuple[float, float], draws: int
) -> tuple[np.ndarray, np.ndarray]:
    """Area shares and log aspects of torchvision's boxes, its fallback left out."""
    torch.manual_seed(0)
    canvas = torch.empty(1, height, width)
    boxes = np.array(
        [RandomResizedCrop.get_params(canvas, list(scale), [3 / 4, 4 / 3]) for _ in range(draws)]
    )
    rows, columns = boxes[:, 2], boxes[:, 3]
    area, aspect = rows * columns / (height * width), np.log(columns / rows)
    fallback = (
        ((rows == height) | (columns == width))
        & (boxes[:, 0] == (height - rows) // 2)
        & (boxes[:, 1] == (width - columns) // 2)
    )
    return area[~fallback], aspect[~fallback]


def _boxes(
    draws: int, height: float, width: float, low: float, high: float, half_range: float = RATIO
) -> np.ndarray:
    u = np.random.default_rng(1).random((draws, 1, 4))
    return accepted_boxes(
        u,
        np.array([low]),
        np.array([high]),
        np.array([half_range]),
        np.tile(np.array([0.0, 0.0, height, width]), (draws, 1)),
    )[:, 0]


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [
        (4000, 4000, (0.08, 1.0)),
        (2560, 3200, (0.2257, 1.0)),
        (4000, 2000, (0.05, 0.4)),
        (4000, 4000, (0.4, 1.0)),
    ],
)
def test_area_and_aspect_follow_what_torchvision_accepts(
    height: int, width: int, scale: tuple[float, float]
) -> None:
    area, aspect = _torchvision(height, width, scale, 4000)
    box = _boxes(8000, height, width, *scale)
    rows, columns = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
    # torchvision accepts none that reaches beyond the scan.
    inside = (rows <= height) & (columns <= width)
    assert inside.all() == (height == width)
    rows, columns = rows[inside], columns[inside]
    assert ks_2samp(area, rows * columns / (height * width)).pvalue > 1e-3
    assert ks_2samp(aspect, np.log(columns / rows)).pvalue > 1e-3


@pytest.mark.parametrize(
    ("width", "half"), [(1.0, RATIO), (1.2, RATIO), (1 / 1.2, RATIO), (2.5, 0.2), (0.4, 0.2)]
)
def test_the_quantile_of_the_area_inverts_a_numerical_integral(width: float, half: float) -> None:
    low, d = 0.1, math.log(width)
    grid = np.linspace(low, 1, 400_001)
    fit = -np.log(grid)
    inside = np.minimum(half, max(d, 0) + fit) - np.maximum(-half, min(d, 0) - fit)
    cumulative = np.cumsum(np.clip(inside, 0, None))
    u = np.linspace(0.001, 0.999, 101)
    expected = np.interp(u, cumulative / cumulative[-1], grid)
    found = accepted_area(
        u[:, None], np.array([low]), np.array([1.0]), np.array([half]), np.full((101, 1), d)
    )[:, 0]
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize(("height", "width"), [(87, 53), (87, 87), (53, 87), (30, 200)])
@pytest.mark.parametrize(("low", "high"), [(0.02, 1.0), (0.5, 1.0), (0.05, 0.4)])
def test_a_box_sees_the_share_it_was_drawn_for_and_is_squeezed_no_more_than_allowed(
    height: int, width: int, low: float, high: float
) -> None:
    limit = 0.25
    box = _boxes(5000, height, width, low, high, limit)
    rows, columns = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
    assert np.abs(np.log(columns / rows)).max() <= limit + 1e-9
    # Inside the square around the scan, and beyond the scan along one axis at most, centred.
    assert max(rows.max(), columns.max()) <= max(height, width) + 1e-9
    for start, stop, length in ((0, 2, height), (1, 3, width)):
        beyond = box[:, stop] - box[:, start] > length + 1e-9
        assert np.allclose(box[beyond, start] + box[beyond, stop], length)
        assert (box[~beyond, start] >= -1e-9).all()
        assert (box[~beyond, stop] <= length + 1e-9).all()
    seen = np.minimum(rows, height) * np.minimum(columns, width) / (height * width)
    assert low - 1e-9 <= seen.min() < seen.max() <= high + 1e-9
    u = np.random.default_rng(1).random((5000, 1, 4))
    drawn = accepted_area(
        u[..., 0], np.array([low]), np.array([high]), np.array([limit]),
        np.full((5000, 1), math.log(width / height)),
    )  # fmt: skip
    assert np.allclose(seen, drawn[:, 0])


def test_positions_are_uniform_in_what_is_left() -> None:
    box = _boxes(20_000, 100, 100, 0.2, 0.3)
    room = 100 - (box[:, 2] - box[:, 0])
    share = box[:, 0] / room
    assert abs(share.mean() - 0.5) < 0.01
    assert abs(share.var() - 1 / 12) < 0.005


@pytest.mark.parametrize(
    ("height", "width", "around"),
    [
        (256, 256, [0, 0, 256, 256]),
        (256, 320, [-32, 0, 288, 320]),
        (320, 256, [0, -32, 320, 288]),
        (100, 246, [-73, 0, 173, 246]),
    ],
)
def test_an_area_of_one_is_the_square_around_the_scan_to_the_bit(
    height: int, width: int, around: list[int]
) -> None:
    assert (_boxes(100, height, width, 1.0, 1.0, 0.0) == np.array(around)).all()


def test_a_range_of_areas_without_a_range_of_aspects_is_uniform() -> None:
    box = _boxes(20_000, 100, 100, 0.2, 1.0, half_range=0.0)
    rows, columns = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
    area = rows * columns / 1e4
    assert np.allclose(rows, columns)
    assert ks_2samp(area, np.random.default_rng(2).uniform(0.2, 1, 20_000)).pvalue > 1e-3
