from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from scanlearn.core import ScanBatch
from scanlearn.views.draw import Draw
from scanlearn.views.operations.apply import change
from scanlearn.views.recipes import find_recipe
from scanlearn.views.resample import crop_taps, resample, sum_lines
from scanlearn.views.scale import Scale
from scanlearn.views.settings import DEFAULT_SETTINGS, RenderSettings
from scanlearn.views.sideways import Crops, render_sideways
from scanlearn.views.uniforms import DrawKey, uniforms

MakeBatch = Callable[..., ScanBatch]


def _both_ways(batch: ScanBatch, draw: Draw, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The views lying on their side, and all at once as a GPU makes them."""
    c = batch.pixels.shape[1]
    content = batch.pixels.float()
    if batch.mask is not None:
        inside = batch.mask[:, None].float()
        content = torch.cat([content * inside, inside], dim=1)
    h, w = content.shape[-2:]
    top, left, bottom, right = draw.crop_box[:, 0].T
    rows = crop_taps(top, bottom, size=size, extent=h, reverse=draw.vflip[:, 0])
    columns = crop_taps(left, right, size=size, extent=w, reverse=draw.flip[:, 0])
    planes = content.shape[1]
    mine = torch.empty(len(batch), planes, size, size)
    crops = Crops.of(draw, 0, (rows, columns), (c, planes), DEFAULT_SETTINGS)
    for scan in range(len(batch)):
        part, drawn = batch.rows(scan, scan + 1), draw.rows(scan, scan + 1)
        render_sideways(mine[scan : scan + 1], content[scan], part, drawn, crops, scan)
    theirs = resample(content, rows, columns).contiguous()
    change(theirs, batch, draw, 0, DEFAULT_SETTINGS)
    return mine[:, :c], theirs[:, :c]


@pytest.mark.parametrize("size", [32, 230])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("is_masked", [False, True])
def test_one_by_one_on_their_side_views_are_what_they_are_all_at_once(
    size: int, channels: int, is_masked: bool, make_batch: MakeBatch
) -> None:
    mask = None
    if is_masked:
        rows, columns = torch.meshgrid(torch.arange(96), torch.arange(90), indexing="ij")
        mask = ((rows - 48) ** 2 + (columns - 45) ** 2 < 42**2).expand(12, 96, 90)
    batch = make_batch(12, channels, (96, 90), mask=mask)
    u = uniforms(DrawKey(0, 0, np.arange(12)), 1)
    draw = find_recipe("simclr").at(Scale.STRONG).draw(u, batch.valid_box.numpy())
    assert draw.blur.any()
    assert not draw.blur.all()
    mine, theirs = _both_ways(batch, draw, size)
    assert (mine - theirs).abs().max() < 1e-4


def test_a_narrow_blur_loses_nothing_by_the_taps_that_are_left_out(make_batch: MakeBatch) -> None:
    batch = make_batch(5, 3, (230, 230))
    u = uniforms(DrawKey(0, 0, np.arange(5)), 1)
    sigma = np.array([[0.1], [0.5], [1.0], [1.7], [9.0]])
    draw = find_recipe("simclr").at(Scale.of(0)).draw(u, batch.valid_box.numpy())
    draw = replace(draw, blur=np.ones((5, 1), bool), blur_sigma=sigma)
    taps = [crop_taps(np.zeros(5), np.full(5, 230.0), size=224, extent=230)] * 2
    crops = Crops.of(draw, 0, (taps[0], taps[1]), (3, 3), RenderSettings())
    widths = [each.index.shape[-1] for each in crops.blur if each is not None]
    assert widths == [3, 7, 13, 21, 23]
    x = torch.rand(3, 224, 224, generator=torch.Generator().manual_seed(0))
    for each, (value,) in zip(crops.blur, sigma.tolist(), strict=True):
        assert each is not None
        found = sum_lines(sum_lines(x, each).transpose(1, 2).contiguous(), each).transpose(1, 2)
        expected = functional.gaussian_blur(x, [23, 23], [value, value])
        assert (found - expected).abs().max() < 1e-5


def test_taps_that_weigh_nothing_are_left_out() -> None:
    low = np.zeros(2)
    taps = crop_taps(low, np.array([30.0, 90.0]), size=45, extent=90)
    enlarged, halved = taps.each()
    assert enlarged.index.shape == (45, 2)
    assert halved.index.shape == (45, 4)
