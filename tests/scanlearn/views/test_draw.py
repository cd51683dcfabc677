from __future__ import annotations

from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torchvision.transforms import ColorJitter

from scanlearn.errors import ScanlearnError
from scanlearn.views.draw import Draw
from scanlearn.views.ranges import Ranges, ViewRanges
from scanlearn.views.recipes import RECIPES
from scanlearn.views.scale import Scale
from scanlearn.views.uniforms import DrawKey, uniforms

SIMCLR = RECIPES["simclr"]


def _drawn(s: float, scans: int = 2000, box: tuple[int, ...] = (0, 0, 256, 320)) -> Draw:
    u = uniforms(DrawKey(0, 0, np.arange(scans)), 2)
    return SIMCLR.at(Scale.of(s)).draw(u, np.tile(np.array(box), (scans, 1)))


def test_scale_zero_is_the_square_around_the_valid_box_and_no_operation() -> None:
    draw = _drawn(0, box=(0, 0, 250, 320))
    assert (draw.crop_box == np.array([-35, 0, 285, 320])).all()
    for name in ("flip", "jitter", "gray", "blur"):
        assert not getattr(draw, name).any(), name
    for name in ("brightness", "contrast", "saturation"):
        assert (getattr(draw, name) == 1).all(), name
    assert (draw.hue == 0).all()


@pytest.mark.parametrize("s", [0.5, 1.0])
def test_operations_strike_as_often_as_the_recipe_says(s: float) -> None:
    draw = _drawn(s, 10_000)
    for name, probability in (("flip", 0.5), ("jitter", 0.8), ("gray", 0.2), ("blur", 0.5)):
        assert getattr(draw, name).mean() == pytest.approx(probability, abs=0.012), name


@pytest.mark.parametrize(("s", "strength"), [(0.5, 0.4), (1.0, 0.8)])
def test_factors_are_uniform_on_the_ranges_of_color_jitter(s: float, strength: float) -> None:
    draw = _drawn(s, 4000)
    published = ColorJitter(strength, strength, 0.8, 0.2)
    for name in ("brightness", "contrast", "saturation", "hue"):
        low, high = getattr(published, name)
        spread = kstest(getattr(draw, name).ravel(), "uniform", args=(low, high - low))
        assert spread.pvalue > 1e-3, name


def test_factors_stop_at_black_beyond_a_strength_of_one() -> None:
    draw = _drawn(1.5, 4000)
    assert draw.brightness.min() >= 0
    assert draw.brightness.max() == pytest.approx(1.9, abs=0.01)
    beyond = ViewRanges(jitter_p=1.0, brightness=1.2)
    drawn = Ranges((beyond,)).draw(
        uniforms(DrawKey(0, 0, np.arange(4000)), 1), np.tile([0, 0, 64, 64], (4000, 1))
    )
    assert drawn.brightness.min() >= 0
    assert drawn.brightness.max() == pytest.approx(2.2, abs=0.01)


def test_blur_is_uniform_between_a_tenth_and_two() -> None:
    assert kstest(_drawn(1).blur_sigma.ravel(), "uniform", args=(0.1, 1.9)).pvalue > 1e-3


def test_every_order_of_the_jitter_is_equally_likely() -> None:
    orders, counts = np.unique(_drawn(1, 6000).order.reshape(-1, 4), axis=0, return_counts=True)
    torch.manual_seed(0)
    possible = {tuple(torch.randperm(4).tolist()) for _ in range(500)}
    assert {tuple(order) for order in orders.tolist()} == possible
    assert counts.min() > 0.8 * counts.mean()


def test_the_same_uniforms_give_one_draw_that_grows_with_the_scale() -> None:
    draws = [_drawn(s, 300) for s in (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.25, 1.5)]
    for low, high in pairwise(draws):
        for name in ("flip", "jitter", "gray", "blur"):
            assert (getattr(high, name) >= getattr(low, name)).all(), name
        assert (np.abs(high.hue) >= np.abs(low.hue) - 1e-12).all()
        assert (high.blur_sigma >= low.blur_sigma - 1e-12).all()
        assert np.array_equal(high.order, low.order)
    # Up to 1, where no range is cut off at black, factors keep their side of 1 as they grow.
    for low, high in pairwise(draws[:7]):
        for name in ("brightness", "contrast", "saturation"):
            near, far = (getattr(draw, name) - 1 for draw in (low, high))
            assert (far * np.sign(near) >= np.abs(near) - 1e-12).all(), name


def test_crops_shrink_with_the_scale_on_a_square_scan() -> None:
    areas = []
    for s in np.linspace(0, 1.5, 16):
        box = _drawn(float(s), 500, (0, 0, 256, 256)).crop_box
        areas.append(((box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1])).mean())
    assert (np.diff(areas) < 0).all()


def test_a_crop_moves_continuously_with_the_scale() -> None:
    # 160 steps over the dial: no edge of any crop may jump by more than a few pixels of 320.
    boxes = np.stack([_drawn(float(s), 200).crop_box for s in np.linspace(0, 1.5, 301)])
    assert np.abs(np.diff(boxes, axis=0)).max() < 6


def test_close_to_the_identity_a_crop_is_close_to_the_whole() -> None:
    assert np.abs(_drawn(1e-6).crop_box - np.array([-32, 0, 288, 320])).max() < 0.01


def test_a_long_scan_is_continuous_too() -> None:
    dial = np.linspace(0, 1, 401)
    boxes = np.stack([_drawn(float(s), 50, (0, 0, 100, 500)).crop_box for s in dial])
    assert np.abs(np.diff(boxes, axis=0)).max() < 12


def test_a_drawing_of_the_global_batch_equals_its_parts() -> None:
    ranges = SIMCLR.at(Scale.STRONG)
    boxes = np.tile(np.array([0, 0, 90, 70]), (8, 1))
    whole = ranges.draw(uniforms(DrawKey(1, 2, np.arange(8)), 2), boxes)
    for start in (0, 4):
        rows = np.arange(start, start + 4)
        part = ranges.draw(uniforms(DrawKey(1, 2, rows), 2), boxes[rows])
        for field in fields(Draw):
            assert np.array_equal(getattr(part, field.name), getattr(whole.take(rows), field.name))


def test_ranges_of_one_view_each_are_drawn_from() -> None:
    calm, strong = SIMCLR.at(Scale.IDENTITY).views[0], SIMCLR.at(Scale.STRONG).views[0]
    u = uniforms(DrawKey(0, 0, np.arange(100)), 3)
    draw = Ranges((ViewRanges(**{**strong, "flip_p": 1.0}), calm)).draw(
        u, np.tile([0, 0, 64, 64], (100, 1))
    )
    assert draw.flip.shape[1] == 3
    assert draw.flip[:, 0].all()
    assert not draw.flip[:, 1:].any()
    assert (draw.crop_box[:, 1:] == np.array([0, 0, 64, 64])).all()


def test_a_saved_draw_is_replayed_to_the_bit(tmp_path: Path) -> None:
    draw = _drawn(1, 5)
    draw.save(tmp_path / "draw.npz")
    loaded = Draw.load(tmp_path / "draw.npz")
    for field in fields(Draw):
        assert np.array_equal(getattr(loaded, field.name), getattr(draw, field.name))
        assert getattr(loaded, field.name).dtype == getattr(draw, field.name).dtype


def test_a_draw_saved_before_there_was_posterise_is_replayed_without(tmp_path: Path) -> None:
    draw = _drawn(1, 5)
    arrays = {field.name: getattr(draw, field.name) for field in fields(Draw)}
    del arrays["posterise_bits"]
    np.savez(tmp_path / "draw.npz", **arrays)
    loaded = Draw.load(tmp_path / "draw.npz")
    assert np.array_equal(loaded.posterise_bits, draw.posterise_bits)
    assert np.array_equal(loaded.crop_box, draw.crop_box)


def test_a_file_that_holds_no_draw_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.npz").write_text("no draw")
    with pytest.raises(ScanlearnError, match="not a saved draw"):
        Draw.load(tmp_path / "other.npz")
