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
    draws: int, height: float, width: float, low: float, high: float, *, centre: float = 0.0,
    half_range: float = RATIO,
) -> np.ndarray:  # fmt: skip
    u = np.random.default_rng(1).random((draws, 1, 4))
    return accepted_boxes(
        u,
        np.array([low]),
        np.array([high]),
        (np.full((draws, 1), centre), np.array([half_range])),
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
    assert ks_2samp(area, rows * columns / (height * width)).pvalue > 1e-3
    assert ks_2samp(aspect, np.log(columns / rows)).pvalue > 1e-3


@pytest.mark.parametrize(("width", "centre", "half"), [(1.0, 0.0, RATIO), (2.5, 0.4, 0.2)])
def test_the_quantile_of_the_area_inverts_a_numerical_integral(
    width: float, centre: float, half: float
) -> None:
    low, offset = 0.1, math.log(width) - centre
    grid = np.linspace(low, 1, 400_001)
    fit = -np.log(grid)
    inside = np.minimum(fit, half - offset) - np.maximum(-fit, -half - offset)
    cumulative = np.cumsum(np.clip(inside, 0, None))
    u = np.linspace(0.001, 0.999, 101)
    expected = np.interp(u, cumulative / cumulative[-1], grid)
    found = accepted_area(
        u[:, None], np.array([low]), np.array([1.0]), np.array([half]), np.full((101, 1), offset)
    )[:, 0]
    assert np.abs(found - expected).max() < 1e-4


def test_boxes_lie_inside_the_valid_box() -> None:
    u = np.random.default_rng(0).random((5000, 2, 4))
    valid = np.tile(np.array([3.0, 7.0, 90.0, 60.0]), (5000, 1))
    one = np.ones(2)
    box = accepted_boxes(u, 0.02 * one, one, (np.zeros((5000, 2)), 0.4 * one), valid)
    assert (box[..., :2] >= valid[0, :2]).all()
    assert (box[..., 2:] <= valid[0, 2:]).all()
    assert (box[..., 2:] > box[..., :2]).all()


def test_positions_are_uniform_in_what_is_left() -> None:
    box = _boxes(20_000, 100, 100, 0.2, 0.3)
    room = 100 - (box[:, 2] - box[:, 0])
    share = box[:, 0] / room
    assert abs(share.mean() - 0.5) < 0.01
    assert abs(share.var() - 1 / 12) < 0.005


def test_an_area_of_one_is_the_whole_box_to_the_bit() -> None:
    box = _boxes(100, 256, 320, 1.0, 1.0, centre=math.log(320 / 256), half_range=0.0)
    assert (box == np.array([0, 0, 256, 320])).all()


def test_a_scan_too_long_for_every_allowed_box_gives_the_largest_that_keeps_the_aspect() -> None:
    box = _boxes(100, 100, 400, 0.9, 1.0)
    rows, columns = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
    assert np.allclose(rows, 100)
    assert np.allclose(columns, 100 * 4 / 3)


def test_a_range_of_areas_without_a_range_of_aspects_is_uniform() -> None:
    box = _boxes(20_000, 100, 100, 0.2, 1.0, half_range=0.0)
    rows, columns = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
    area = rows * columns / 1e4
    assert np.allclose(rows, columns)
    assert ks_2samp(area, np.random.default_rng(2).uniform(0.2, 1, 20_000)).pvalue > 1e-3
