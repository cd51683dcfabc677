from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from scanlearn.core import ScanBatch
from scanlearn.views.draw import Draw
from scanlearn.views.ranges import Ranges, ViewRanges
from scanlearn.views.render import render
from scanlearn.views.settings import LEAST_BLUR_PX
from scanlearn.views.uniforms import DrawKey, uniforms

MakeBatch = Callable[..., ScanBatch]
Blur = Callable[[torch.Tensor, float], torch.Tensor]


def _plain(batch: ScanBatch) -> Draw:
    u = uniforms(DrawKey(0, 0, np.arange(len(batch))), 1)
    return Ranges((ViewRanges(),)).draw(u, batch.valid_box.numpy())


def _gray(batch: ScanBatch) -> ScanBatch:
    return replace(batch, pixels=torch.full_like(batch.pixels, 128))


def test_noise_has_the_stated_standard_deviation(make_batch: MakeBatch) -> None:
    batch = _gray(make_batch(3, 3, (128, 128)))
    std = np.array([[0.0], [0.02], [0.1]])
    noise = render(batch, replace(_plain(batch), noise_std=std), 0, 128).double() - 128 / 255
    assert noise[0].abs().max() < 1e-6
    for scan in (1, 2):
        assert float(noise[scan].std()) == pytest.approx(std[scan, 0], rel=0.02)
        assert float(noise[scan].mean()) == pytest.approx(0, abs=0.03 * std[scan, 0])


def test_outside_the_field_of_view_there_is_no_noise(make_batch: MakeBatch) -> None:
    columns = torch.arange(96).expand(2, 96, 96)
    batch = make_batch(2, 1, mask=columns < 48)
    draw = replace(_plain(batch), noise_std=np.full((2, 1), 0.2))
    view = render(batch, draw, 0, 96)
    assert (view[..., 49:] == 0).all()
    assert (view[..., :47] != batch.pixels[..., :47] / 255).float().mean() > 0.9


def test_soft_is_a_gaussian_blur_in_pixels_of_the_view(
    make_batch: MakeBatch, blurred: Blur
) -> None:
    batch = make_batch(2, 1, (64, 64))
    draw = replace(_plain(batch), soft_sigma=np.array([[0.0], [0.9]]))
    found = render(batch, draw, 0, 64)
    unit = batch.pixels.float() / 255
    assert torch.equal(found[0], unit[0])
    assert (found[1] - blurred(unit[1], 0.9)).abs().max() < 1e-4


def test_a_blur_of_a_tenth_of_a_pixel_is_no_blur_at_all(
    make_batch: MakeBatch, blurred: Blur
) -> None:
    batch = make_batch(2, 1, (64, 64))
    draw = replace(_plain(batch), soft_sigma=np.full((2, 1), 0.1))
    assert torch.equal(render(batch, draw, 0, 64), render(batch, _plain(batch), 0, 64))
    # Nor by the filter itself: the nearest neighbour's weight vanishes beside the centre's.
    unit = batch.pixels.float() / 255
    assert (blurred(unit, 0.1) - unit).abs().max() < 1e-6
    assert (blurred(unit, LEAST_BLUR_PX) - unit).abs().max() < 0.02 / 255


def test_a_bias_field_multiplies_smoothly(make_batch: MakeBatch) -> None:
    batch = _gray(make_batch(2, 3, (64, 64)))
    draw = replace(_plain(batch), bias_field=np.array([[0.0], [0.1]]))
    ratio = render(batch, draw, 0, 64) / (128 / 255)
    assert torch.allclose(ratio[0], torch.ones(3, 64, 64))
    assert ratio[1].std() > 0.01
    assert torch.allclose(ratio[1, 0], ratio[1, 2])
    assert ratio[1].diff(dim=-1).abs().max() < 0.03
