"""Rendering: from packed scans and a draw to views. Pure; one geometric resample per view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scanlearn.core import ScanBatch
from scanlearn.views.colour import gray, jitter
from scanlearn.views.draw import Draw
from scanlearn.views.resample import Taps, blur_taps, crop_taps, resample

# Published blur widths are stated for views of this side.
BLUR_REFERENCE_SIZE = 224
# As many scans are made float at a time as fit a CPU's cache (4 MiB); on a GPU, all of them.
_ELEMENTS_AT_ONCE = 2**20


def render(batch: ScanBatch, draw: Draw, view: int, size: int) -> Float[Tensor, "b c s s"]:
    """Returns one view of every scan on the unit range, before standardisation.

    Crop, resize and flip are one antialiased resample of the crop box; colour jitter, grayscale
    and blur follow. What lies outside the crop box, padding first of all, never enters. Outside
    the field of view, where the batch has a mask, a view is 0 and no operation changes that.

    Args:
        batch: Packed scans, on the device to render on.
        draw: The draw of these scans.
        view: Which of its views.
        size: Side of the view in pixels.
    """
    return render_views(batch, draw, (view,), size)[0]


def render_views(
    batch: ScanBatch, draw: Draw, views: Sequence[int], size: int
) -> tuple[Float[Tensor, "b c s s"], ...]:
    """Returns several views of every scan; the scans are made float once for all of them."""
    assert len(batch) == len(draw), "a draw belongs to its batch"
    b, c, h, w = batch.pixels.shape
    taps = [_geometry(draw, view, size, (h, w)) for view in views]
    num_planes = c if batch.mask is None else c + 1
    planes = torch.empty((len(views), b, num_planes, size, size), device=batch.pixels.device)
    step = b if batch.pixels.is_cuda else _ELEMENTS_AT_ONCE // (num_planes * h * w)
    for start in range(0, b, max(step, 1)):
        stop = min(start + max(step, 1), b)
        content = _content(batch, start, stop)
        for planes_of_view, (rows, columns) in zip(planes, taps, strict=True):
            planes_of_view[start:stop] = resample(
                content, rows.rows(start, stop), columns.rows(start, stop)
            )
    for planes_of_view, view in zip(planes, views, strict=True):
        _change(planes_of_view, c, batch.value_range, draw, view)
    return tuple(planes[:, :, :c].unbind(0))


def _geometry(draw: Draw, view: int, size: int, canvas: tuple[int, int]) -> tuple[Taps, Taps]:
    top, left, bottom, right = draw.crop_box[:, view].T
    rows = crop_taps(top, bottom, size=size, extent=canvas[0])
    columns = crop_taps(left, right, size=size, extent=canvas[1], reverse=draw.flip[:, view])
    return rows, columns


def _content(batch: ScanBatch, start: int, stop: int) -> Float[Tensor, "b c h w"]:
    """Stored values as floats; with a mask, times the mask, which comes as one more plane.

    Resampled together they stay in step: a pixel half inside the field of view holds half its
    content and says so.
    """
    # uint16 has next to no arithmetic in torch; it is made float before anything else.
    pixels = batch.pixels[start:stop].to(torch.float32)
    if batch.mask is None:
        return pixels
    inside = batch.mask[start:stop, None].to(torch.float32)
    return torch.cat([pixels * inside, inside], dim=1)


def _change(
    planes: Float[Tensor, "b c s s"],
    channels: int,
    value_range: Float[Tensor, "b 2"],
    draw: Draw,
    view: int,
) -> None:
    """Brings resampled planes to the unit range and does the rest of the recipe, in place."""
    x = planes[:, :channels]
    coverage = planes[:, channels:] if planes.shape[1] > channels else None
    low, high = (value_range[:, i].to(x).view(-1, 1, 1, 1) for i in range(2))
    x.sub_(low if coverage is None else low * coverage).div_(high - low).clamp_(0, 1)
    jitter(x, draw, view, coverage)
    _remove_colour(x, draw, view)
    _blur(x, draw, view)
    if coverage is not None:
        x.masked_fill_(coverage == 0, 0.0)


def _remove_colour(x: Float[Tensor, "b c s s"], draw: Draw, view: int) -> None:
    chosen = np.flatnonzero(draw.gray[:, view])
    if x.shape[1] == 3 and len(chosen):
        rows = torch.from_numpy(chosen).to(x.device)
        x[rows] = gray(x[rows]).expand(-1, 3, -1, -1)


def _blur(x: Float[Tensor, "b c s s"], draw: Draw, view: int) -> None:
    chosen = np.flatnonzero(draw.blur[:, view])
    if len(chosen):
        size = x.shape[-1]
        taps = blur_taps(draw.blur_sigma[chosen, view] * (size / BLUR_REFERENCE_SIZE), size=size)
        rows = torch.from_numpy(chosen).to(x.device)
        x[rows] = resample(x[rows], taps, taps)
