from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from scanlearn.views.draw import Draw
from scanlearn.views.operations.colour import gray, jitter, shift_hue
from scanlearn.views.operations.operation import Rendering
from scanlearn.views.recipes import RECIPES
from scanlearn.views.scale import Scale
from scanlearn.views.uniforms import DrawKey, uniforms

SCANS = 48


@pytest.fixture
def draw() -> Draw:
    u = uniforms(DrawKey(0, 0, np.arange(SCANS)), 1)
    boxes = np.tile(np.array([0, 0, 24, 24]), (SCANS, 1))
    return RECIPES["simclr"].at(Scale.STRONG).draw(u, boxes)


def _views(channels: int) -> Tensor:
    return torch.rand(SCANS, channels, 24, 24, generator=torch.Generator().manual_seed(0))


def _jittered(x: Tensor, draw: Draw, coverage: Tensor | None = None) -> Tensor:
    changed = x.clone()
    jitter(changed, Rendering(draw, 0, coverage))
    return changed


def _shifted(x: Tensor, shift: np.ndarray) -> Tensor:
    changed = x.clone()
    shift_hue(changed, shift, np.arange(len(x)))
    return changed


def _torchvision_jitter(x: Tensor, draw: Draw, scan: int) -> Tensor:
    operations: list[Callable[[Tensor], Tensor]] = [
        lambda x: functional.adjust_brightness(x, float(draw.brightness[scan, 0])),
        lambda x: functional.adjust_contrast(x, float(draw.contrast[scan, 0])),
        lambda x: functional.adjust_saturation(x, float(draw.saturation[scan, 0])),
        lambda x: functional.adjust_hue(x, float(draw.hue[scan, 0])),
    ]
    for operation in draw.order[scan, 0]:
        x = operations[operation](x)
    return x


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_is_torchvisions_in_the_drawn_order(channels: int, draw: Draw) -> None:
    before = _views(channels)
    after = _jittered(before, draw)
    for scan in range(SCANS):
        expected = before[scan]
        if draw.jitter[scan, 0]:
            expected = _torchvision_jitter(expected, draw, scan)
        assert (after[scan] - expected).abs().max() < 1e-5


@pytest.mark.parametrize("channels", [1, 3])
def test_a_scan_that_drew_no_jitter_keeps_its_values_exactly(channels: int, draw: Draw) -> None:
    before = _views(channels)
    after = _jittered(before, draw)
    calm = torch.from_numpy(~draw.jitter[:, 0])
    assert 0 < calm.sum() < SCANS
    assert torch.equal(after[calm], before[calm])


def test_a_hue_shift_of_zero_is_exactly_nothing(draw: Draw) -> None:
    still = replace(draw, hue=np.zeros_like(draw.hue))
    for name in ("brightness", "contrast", "saturation"):
        still = replace(still, **{name: np.ones_like(draw.hue)})
    before = _views(3)
    assert torch.equal(_jittered(before, still), before)


def test_hue_turns_red_into_green_and_leaves_gray() -> None:
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    third = np.array([1 / 3])
    assert torch.allclose(_shifted(red, third).flatten(), torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)
    dull = torch.full((1, 3, 2, 2), 0.4)
    assert torch.equal(_shifted(dull, third), dull)


def test_luma_is_torchvisions() -> None:
    x = _views(3)
    assert torch.allclose(gray(x), functional.rgb_to_grayscale(x), atol=1e-6)
    assert gray(_views(1)).shape == (SCANS, 1, 24, 24)


def test_contrast_turns_about_the_mean_inside_the_field_of_view(draw: Draw) -> None:
    content = _views(1)
    coverage = torch.zeros(SCANS, 1, 24, 24)
    coverage[..., 4:20, 6:18] = 1
    found = _jittered(content * coverage, draw, coverage)
    inside = _jittered(content[..., 4:20, 6:18], draw)
    assert (found[..., 4:20, 6:18] - inside).abs().max() < 1e-6
    assert (found[coverage == 0] == 0).all()


def test_hue_is_torchvisions_all_around_the_circle() -> None:
    shift = np.linspace(-0.5, 0.5, SCANS)
    before = _views(3)
    before[:, 1, :2] = before[:, 0, :2]
    before[:, :, 2] = before[:, :1, 2]
    together = _shifted(before, shift)
    for scan in range(SCANS):
        expected = functional.adjust_hue(before[scan], float(shift[scan]))
        assert (together[scan] - expected).abs().max() < 1e-5
        alone = _shifted(before[scan : scan + 1], shift[scan : scan + 1])
        assert torch.equal(alone[0], together[scan])


def test_hue_of_some_scans_leaves_the_others() -> None:
    before, rows = _views(3), np.array([1, 5, 6])
    after = before.clone()
    shift_hue(after, np.array([0.1, -0.2, 0.4]), rows)
    assert torch.equal(after[rows], _shifted(before[rows], np.array([0.1, -0.2, 0.4])))
    others = np.setdiff1d(np.arange(SCANS), rows)
    assert torch.equal(after[others], before[others])
