from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torchvision.transforms.v2 import functional

from scanlearn.core import ScanBatch
from scanlearn.views.draw import Draw
from scanlearn.views.operations.apply import change, change_tones, finish
from scanlearn.views.operations.parameters import ViewRanges
from scanlearn.views.ranges import Ranges
from scanlearn.views.settings import DEFAULT_SETTINGS
from scanlearn.views.uniforms import DrawKey, uniforms

MakeBatch = Callable[..., ScanBatch]


def _plain(batch: ScanBatch) -> Draw:
    u = uniforms(DrawKey(0, 0, np.arange(len(batch))), 1)
    return Ranges((ViewRanges(),)).draw(u, batch.valid_box.numpy())


def test_stored_values_come_to_the_unit_range_and_stay_in_it(make_batch: MakeBatch) -> None:
    batch = replace(make_batch(2, 3), value_range=torch.tensor([[0.0, 255.0], [60.0, 180.0]]))
    planes = batch.pixels.float()
    change(planes, batch, _plain(batch), 0, DEFAULT_SETTINGS)
    stored = batch.pixels.float()
    assert torch.equal(planes[0], stored[0] / 255)
    assert torch.allclose(planes[1], ((stored[1] - 60) / 120).clamp(0, 1))


def test_the_published_order_is_gray_then_blur_then_solarize(make_batch: MakeBatch) -> None:
    batch = make_batch(1, 3, (64, 64))
    yes = np.ones((1, 1), bool)
    draw = replace(_plain(batch), gray=yes, blur=yes, blur_sigma=np.full((1, 1), 4.0), solarize=yes)
    planes = batch.pixels.float()
    change(planes, batch, draw, 0, DEFAULT_SETTINGS)
    x = functional.rgb_to_grayscale(batch.pixels / 255, 3)
    x = functional.gaussian_blur(x, [7, 7], [4.0 * 64 / 224] * 2)
    assert (planes - functional.solarize(x, 0.5)).abs().max() < 1e-5


def test_tones_and_finish_are_all_there_is_without_a_blur(make_batch: MakeBatch) -> None:
    batch = make_batch(4, 3)
    draw = replace(_plain(batch), gamma=np.full((4, 1), 1.4), solarize=np.ones((4, 1), bool))
    whole, parts = batch.pixels.float(), batch.pixels.float()
    change(whole, batch, draw, 0, DEFAULT_SETTINGS)
    change_tones(parts, batch, draw, 0)
    finish(parts, batch, draw, 0)
    assert torch.equal(whole, parts)
