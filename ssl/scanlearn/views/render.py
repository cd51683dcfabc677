"""Rendering: from packed scans and a draw to views. Pure; one geometric resample per view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import IntEnum

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from scanlearn.core import ScanBatch
from scanlearn.views.draw import Draw
from scanlearn.views.operations.operation import Rendering
from scanlearn.views.operations.table import OPERATIONS
from scanlearn.views.operations.tone import moved_window
from scanlearn.views.resample import Taps, crop_taps, resample
from scanlearn.views.settings import DEFAULT_SETTINGS, RenderSettings
from scanlearn.views.warp import is_warped, warp

# On a CPU a view of more elements is finished alone, in the cache; smaller ones all together, in
# fewer calls.
_LARGE = 2**16
# So many elements are made float at a time (4 MiB).
_ELEMENTS_AT_ONCE = 2**20

Last = Callable[[Tensor], object]
# A hair beyond the scan is rounding.
_BEYOND_PX = 1e-6


class _Way(IntEnum):
    """How a scan's view is resampled: along the axes, inside the scan or beyond; or by a grid."""

    INSIDE = 0
    BEYOND = 1
    WARPED = 2


def _nothing(views: Tensor) -> None:
    """Leaves finished views as they are."""


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
    last: Last = _nothing,
) -> tuple[Float[Tensor, "b c s s"], ...]:
    """Returns several views of every scan.

    Args:
        last: Changes some scans' finished views ``[k c s s]`` in place, while they are in the
            cache: on a CPU a pass over the whole batch costs ten times as much.
    """
    assert len(batch) == len(draw), "a draw belongs to its batch"
    ways = _ways(batch, draw, settings)
    if not ways[:, list(views)].any():
        return _render(batch, draw, views, size, settings, last, way=_Way.INSIDE)
    return tuple(_render_mixed(batch, draw, view, ways, size, settings, last) for view in views)


def _ways(batch: ScanBatch, draw: Draw, settings: RenderSettings) -> Int64[np.ndarray, "b v"]:
    """How each view of each scan is resampled."""
    valid = batch.valid_box.cpu().numpy()[:, None]
    inwards = (draw.crop_box - valid) * np.array([1, 1, -1, -1])
    # A grid alone mirrors the scan.
    beyond = _Way.WARPED if settings.background == "reflect" else _Way.BEYOND
    ways = np.where((inwards < -_BEYOND_PX).any(-1), int(beyond), int(_Way.INSIDE))
    warped = np.stack([is_warped(draw, view) for view in range(ways.shape[1])], axis=1)
    return np.where(warped, int(_Way.WARPED), ways)


def _render_mixed(
    batch: ScanBatch,
    draw: Draw,
    view: int,
    ways: Int64[np.ndarray, "b v"],
    size: int,
    settings: RenderSettings,
    last: Last,
) -> Float[Tensor, "b c s s"]:
    """Scans of each way part by part, so that none depends on its neighbours."""
    shape = (len(batch), batch.pixels.shape[1], size, size)
    rendered = torch.empty(shape, device=batch.pixels.device)
    for way in _Way:
        rows = np.flatnonzero(ways[:, view] == way)
        if len(rows):
            part, drawn = batch.take(rows), draw.take(rows)
            where = torch.from_numpy(rows).to(rendered.device)
            (rendered[where],) = _render(part, drawn, (view,), size, settings, last, way=way)
    return rendered


def _render(
    batch: ScanBatch,
    draw: Draw,
    views: Sequence[int],
    size: int,
    settings: RenderSettings,
    last: Last,
    *,
    way: _Way,
) -> tuple[Float[Tensor, "b c s s"], ...]:
    """Views that all take a grid, or that all are crops and flips: two banded passes."""
    warped = way == _Way.WARPED
    batch = _inside_only(batch) if warped else batch
    b, c, h, w = batch.pixels.shape
    num_planes = c if batch.mask is None and way == _Way.INSIDE else c + 1
    # One tensor a view: an allocation that is too large comes back as pages to be faulted in.
    shape = (b, num_planes, size, size)
    rendered = [torch.empty(shape, device=batch.pixels.device) for _ in views]
    taps = [] if warped else [_crop(batch, draw, view, size, way) for view in views]
    # On a GPU all scans are worked on together; on a CPU as many as fit its cache.
    is_large = num_planes * size * size > _LARGE
    step = 1 if is_large else max(_ELEMENTS_AT_ONCE // (num_planes * h * w), 1)
    step = b if batch.pixels.is_cuda else step
    for start in range(0, b, step):
        part, drawn = batch.rows(start, start + step), draw.take(slice(start, start + step))
        content = _content(part)
        for number, (planes, view) in enumerate(zip(rendered, views, strict=True)):
            if warped:
                box = part.valid_box.cpu().numpy().astype(np.float64)
                chunk = warp(
                    content,
                    box,
                    drawn,
                    view,
                    size,
                    settings.background,
                    settings.pivot,
                    part.spacing_mm.cpu().numpy().astype(np.float64),
                )
            else:
                rows, columns = (along.rows(start, start + step) for along in taps[number])
                chunk = resample(content, rows, columns)
                if chunk.shape[1] < num_planes:
                    chunk = torch.cat([chunk, _covered(rows, columns).to(chunk.device)], dim=1)
                _turn(chunk, drawn.quarter_turns[:, view])
            if is_large:
                change(chunk, part, drawn, view, settings)
                last(chunk[:, :c])
            planes[start : start + step] = chunk
    for planes, view in zip(rendered, views, strict=True):
        if not is_large:
            change(planes, batch, draw, view, settings)
            last(planes[:, :c])
    return tuple(planes[:, :c] for planes in rendered)


def _crop(batch: ScanBatch, draw: Draw, view: int, size: int, way: _Way) -> tuple[Taps, Taps]:
    canvas = batch.pixels.shape[-2:]
    box = batch.valid_box.cpu().numpy().T if way == _Way.BEYOND else None
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
    low, high = moved_window(low, high, draw, view)
    # Asking a GPU whether there is anything to subtract would wait for it.
    if x.is_cuda or bool(low.any()):
        x.sub_(low if coverage is None else low * coverage)
    x.div_(high - low).clamp_(0, 1)
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
