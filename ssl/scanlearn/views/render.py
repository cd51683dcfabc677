"""Rendering: from packed scans and a draw to views. Pure; one geometric resample per view.

A CPU renders in compiled code (`fused.py`). What stands here is the same in batches, with torch: a
GPU's renderer, and what the compiled one is tested against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from scanlearn.core import ScanBatch
from scanlearn.views.draw import Draw
from scanlearn.views.operations.operation import Rendering, column
from scanlearn.views.operations.table import OPERATIONS
from scanlearn.views.operations.tone import moved_window
from scanlearn.views.resample import Taps, crop_taps, resample
from scanlearn.views.settings import DEFAULT_SETTINGS, RenderSettings, Standard
from scanlearn.views.warp import Way, warp, ways_of


def render(
    batch: ScanBatch,
    draw: Draw,
    view: int,
    size: int,
    settings: RenderSettings = DEFAULT_SETTINGS,
) -> Float[Tensor, "b c s s"]:
    """Returns one view of every scan on the unit range, before standardisation.

    All geometry is one antialiased resample of the packed scan; the other operations follow in the
    order of `table.OPERATIONS`. The canvas's padding never enters. Outside the field of view, where
    the batch has a mask or the crop or other geometry reaches beyond the scan, a view is 0 and no
    operation changes that.

    Args:
        batch: On the device to render on.
        size: Side of the view in pixels.
    """
    return render_views(batch, draw, (view,), size, settings)[0]


def render_views(
    batch: ScanBatch,
    draw: Draw,
    views: Sequence[int],
    size: int,
    settings: RenderSettings = DEFAULT_SETTINGS,
    standard: Standard | None = None,
) -> tuple[Float[Tensor, "b c s s"], ...]:
    """Returns several views of every scan.

    Args:
        standard: How they are standardised last; None leaves them on the unit range.
    """
    assert len(batch) == len(draw), "a draw belongs to its batch"
    if batch.pixels.device.type == "cpu":
        # numba takes a second to import.
        from scanlearn.views.fused import render_fused

        return render_fused(batch, draw, views, size, settings, standard)
    return render_batched(batch, draw, views, size, settings, standard)


def render_batched(
    batch: ScanBatch,
    draw: Draw,
    views: Sequence[int],
    size: int,
    settings: RenderSettings = DEFAULT_SETTINGS,
    standard: Standard | None = None,
) -> tuple[Float[Tensor, "b c s s"], ...]:
    """Returns what `render_views` does, with torch on any device."""
    ways = ways_of(batch, draw, settings)
    rendered = []
    for view in views:
        # Scans of each way by themselves, so that none depends on its neighbours.
        parts = [(way, np.flatnonzero(ways[:, view] == way)) for way in Way]
        parts = [(way, rows) for way, rows in parts if len(rows)]
        if len(parts) == 1:
            planes = _render(batch, draw, view, size, settings, parts[0][0])
        else:
            planes = batch.pixels.new_empty(
                (len(batch), batch.pixels.shape[1], size, size), dtype=torch.float32
            )
            for way, rows in parts:
                where = torch.from_numpy(rows).to(planes.device)
                part, drawn = batch.take(rows), draw.take(rows)
                planes[where] = _render(part, drawn, view, size, settings, way)
        rendered.append(planes if standard is None else standardise(planes, standard))
    return tuple(rendered)


def standardise(views: Float[Tensor, "b c s s"], standard: Standard) -> Float[Tensor, "b c s s"]:
    """Standardises views in place and returns them."""
    linear = torch.from_numpy(standard.linear).to(views.device, non_blocking=True)
    factor, offset = linear[..., None, None]
    return views.mul_(factor).add_(offset)


def _render(
    batch: ScanBatch, draw: Draw, view: int, size: int, settings: RenderSettings, way: Way
) -> Float[Tensor, "b c s s"]:
    """Views that all take a grid, or that all are crops and flips: two banded passes."""
    channels = batch.pixels.shape[1]
    if way == Way.WARPED:
        batch = _inside_only(batch)
        planes = warp(
            _content(batch),
            batch.valid_box.cpu().numpy().astype(np.float64),
            draw,
            view,
            size,
            settings.background,
            settings.pivot,
            batch.spacing_mm.cpu().numpy().astype(np.float64),
        )
    else:
        rows, columns = _crop(batch, draw, view, size, way)
        planes = resample(_content(batch), rows, columns)
        if way == Way.BEYOND and batch.mask is None:
            planes = torch.cat([planes, _covered(rows, columns).to(planes.device)], dim=1)
        _turn(planes, draw.quarter_turns[:, view])
    change(planes, batch, draw, view, settings)
    return planes[:, :channels]


def _crop(batch: ScanBatch, draw: Draw, view: int, size: int, way: Way) -> tuple[Taps, Taps]:
    canvas = batch.pixels.shape[-2:]
    box = batch.valid_box.cpu().numpy().T if way == Way.BEYOND else None
    rows, columns = (
        crop_taps(
            *draw.crop_box[:, view, axis::2].T,
            size=size,
            extent=canvas[axis],
            longest=max(canvas),
            inside=None if box is None else (box[axis], box[axis + 2]),
            reverse=reverse[:, view],
        )
        for axis, reverse in enumerate((draw.vflip, draw.flip))
    )
    return rows, columns


def _covered(rows: Taps, columns: Taps) -> Float[Tensor, "b 1 s s"]:
    """Share of each pixel that lies on the scan: a box, of which it is a product."""
    return (rows.weight.sum(-1)[:, :, None] * columns.weight.sum(-1)[:, None, :])[:, None]


def _turn(planes: Float[Tensor, "b p s s"], turns: Int64[np.ndarray, " b"]) -> None:
    """Turns views by quarters, in place and to the bit."""
    for number in set(turns.tolist()) - {0}:
        chosen = torch.from_numpy(np.flatnonzero(turns == number)).to(planes.device)
        planes[chosen] = planes[chosen].rot90(number, (-2, -1))


def change(
    planes: Float[Tensor, "b p s s"],
    batch: ScanBatch,
    draw: Draw,
    view: int,
    settings: RenderSettings,
) -> None:
    """Brings resampled planes to the unit range and does the rest of the recipe, in place.

    The last plane is the coverage where the batch has a mask or was warped.
    """
    c = batch.pixels.shape[1]
    x, coverage = planes[:, :c], planes[:, c:] if planes.shape[1] > c else None
    low, high = (batch.value_range[:, i].to(x).view(-1, 1, 1, 1) for i in range(2))
    width, level = draw.window_width[:, view], draw.window_level[:, view]
    if width.any() or level.any():
        low, high = moved_window(low, high, column(width, x), column(level, x))
    x.sub_(low if coverage is None else low * coverage).div_(high - low).clamp_(0, 1)
    unit_hu = None
    if batch.hu_per_value is not None and draw.noise_hu[:, view].any():
        unit_hu = batch.hu_per_value * (high - low).flatten().double().cpu().numpy()
    rendering = Rendering(draw, view, coverage, settings, unit_hu)
    for operation in OPERATIONS:
        if operation.apply is not None:
            operation.apply(x, rendering)
    if coverage is not None:
        x.masked_fill_(coverage == 0, 0.0)


def _inside_only(batch: ScanBatch) -> ScanBatch:
    """The batch with a mask that leaves out padding."""
    h, w = batch.pixels.shape[-2:]
    top, left, bottom, right = batch.valid_box.to(batch.pixels.device).T[..., None]
    row, column = (torch.arange(n, device=batch.pixels.device) for n in (h, w))
    rows, columns = (row >= top) & (row < bottom), (column >= left) & (column < right)
    inside = rows[:, :, None] & columns[:, None, :]
    return replace(batch, mask=inside if batch.mask is None else inside & batch.mask)


def _content(batch: ScanBatch) -> Shaped[Tensor, "b c h w"]:
    """Stored values; with a mask, as floats times the mask, which comes as one more plane.

    Resampled together they stay in step: a pixel half inside the field of view holds half its
    content and says so.
    """
    if batch.mask is None:
        return batch.pixels
    # uint16 has next to no arithmetic in torch; it is made float before anything else.
    inside = batch.mask[:, None].to(torch.float32)
    return torch.cat([batch.pixels.to(torch.float32) * inside, inside], dim=1)
