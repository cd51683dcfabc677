"""From resampled planes to a finished view: everything of a recipe but its geometry; in place."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scanlearn.core import ScanBatch
from scanlearn.views.draw import Draw
from scanlearn.views.operations.acquisition import acquire
from scanlearn.views.operations.colour import gray, jitter
from scanlearn.views.operations.tone import bend, solarize
from scanlearn.views.resample import blur_taps, resample
from scanlearn.views.settings import RenderSettings


def change(
    planes: Float[Tensor, "b p s s"],
    batch: ScanBatch,
    draw: Draw,
    view: int,
    settings: RenderSettings,
) -> None:
    """Brings resampled planes to the unit range and does the rest of the recipe, in place."""
    change_tones(planes, batch, draw, view)
    chosen = np.flatnonzero(draw.blur[:, view])
    if len(chosen):
        c, size = batch.pixels.shape[1], planes.shape[-1]
        taps = blur_taps(settings.blur_px(draw.blur_sigma[chosen, view], size), size=size)
        rows = torch.from_numpy(chosen).to(planes.device)
        planes[rows, :c] = resample(planes[rows, :c], taps, taps)
    finish(planes, batch, draw, view)


def change_tones(planes: Float[Tensor, "b p s s"], batch: ScanBatch, draw: Draw, view: int) -> None:
    """What a recipe does before its blur, in place: all of it pixel by pixel."""
    x, coverage = _split(planes, batch)
    low, high = (batch.value_range[:, i].to(x).view(-1, 1, 1, 1) for i in range(2))
    # Asking a GPU whether there is anything to subtract would wait for it.
    if x.is_cuda or bool(low.any()):
        x.sub_(low if coverage is None else low * coverage)
    x.div_(high - low).clamp_(0, 1)
    jitter(x, draw, view, coverage)
    _remove_colour(x, draw, view)
    bend(x, draw, view, coverage)


def finish(planes: Float[Tensor, "b p s s"], batch: ScanBatch, draw: Draw, view: int) -> None:
    """What a recipe does after its blur, in place."""
    x, coverage = _split(planes, batch)
    solarize(x, draw, view, coverage)
    acquire(x, draw, view, coverage)
    if coverage is not None:
        x.masked_fill_(coverage == 0, 0.0)


def _split(
    planes: Float[Tensor, "b p s s"], batch: ScanBatch
) -> tuple[Float[Tensor, "b c s s"], Float[Tensor, "b 1 s s"] | None]:
    """Content, and the share of each pixel inside the field of view where it is a last plane."""
    c = batch.pixels.shape[1]
    return planes[:, :c], planes[:, c:] if planes.shape[1] > c else None


def _remove_colour(x: Float[Tensor, "b c s s"], draw: Draw, view: int) -> None:
    chosen = np.flatnonzero(draw.gray[:, view])
    if x.shape[1] != 3:
        return
    if len(chosen) == len(x):
        x.copy_(gray(x).expand_as(x))
    elif len(chosen):
        rows = torch.from_numpy(chosen).to(x.device)
        x[rows] = gray(x[rows]).expand(-1, 3, -1, -1)
