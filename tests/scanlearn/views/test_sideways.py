from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from scanlearn.core import ScanBatch
from scanlearn.views.change import change
from scanlearn.views.draw import Draw
from scanlearn.views.recipes import find_recipe
from scanlearn.views.resample import crop_taps, resample
from scanlearn.views.scale import Scale
from scanlearn.views.settings import DEFAULT_SETTINGS
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
    crops = Crops.of(draw, 0, (rows, columns), planes, size, DEFAULT_SETTINGS)
    for start in range(0, len(batch), 5):
        stop = min(start + 5, len(batch))
        part = batch.rows(start, stop)
        render_sideways(mine[start:stop], content[start:stop], part, crops.part(start, stop))
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
