"""Rendering crops on a CPU: scan by scan, lying on their side, in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from scanlearn.core import ScanBatch
from scanlearn.views.change import change_tones, finish
from scanlearn.views.draw import Draw
from scanlearn.views.resample import (
    ScanTaps,
    Taps,
    blur_taps,
    resample_sideways,
    sum_lines,
    upright,
)
from scanlearn.views.settings import RenderSettings


@dataclass(frozen=True)
class Crops:
    """One view of some scans, as a crop, for a CPU.

    Args:
        draw: The draw of these scans.
        view: Which of its views.
        rows: Taps of each scan along the height, for all of its planes.
        columns: Taps of each scan along the width.
        blur: Taps of the blur.
        sigma: Standard deviation of each scan's blur in pixels of the view; 0 without one.
    """

    draw: Draw
    view: int
    rows: Sequence[ScanTaps]
    columns: Sequence[ScanTaps]
    blur: Taps
    sigma: Float64[np.ndarray, " b"]

    @classmethod
    def of(
        cls,
        draw: Draw,
        view: int,
        taps: tuple[Taps, Taps],
        planes: int,
        size: int,
        settings: RenderSettings,
    ) -> Crops:
        """Prepares one view of all scans, whose resample takes ``taps``."""
        sigma = settings.blur_px(draw.blur_sigma[:, view], size)
        rows, columns = taps
        return cls(
            draw,
            view,
            rows.each(planes),
            columns.each(),
            blur_taps(sigma, size=size),
            np.where(draw.blur[:, view], sigma, 0.0),
        )

    def part(self, start: int, stop: int) -> Crops:
        """Returns those of the scans from ``start`` up to ``stop``."""
        part = slice(start, stop)
        return Crops(
            self.draw.rows(start, stop),
            self.view,
            self.rows[part],
            self.columns[part],
            self.blur.rows(start, stop),
            self.sigma[part],
        )


def render_sideways(
    views: Float[Tensor, "k p s s"],
    content: Shaped[Tensor, "k p h w"],
    batch: ScanBatch,
    crops: Crops,
) -> None:
    """Renders crops into ``views``.

    Turning a picture over costs as much as all weighted sums along one of its axes. So it is
    turned after its rows are resampled, its colours change while it lies on its side, and it is
    turned back between the two passes of its blur.

    Args:
        views: Where the views go; the last of ``p`` planes is the coverage, where there is one.
        content: Stored values of the scans, with their masks where they have any.
        batch: These scans.
        crops: What to render.
    """
    k, p, size = views.shape[:3]
    lines = torch.empty(k, size, p * size)
    for mine, planes, rows, columns in zip(lines, content, crops.rows, crops.columns, strict=True):
        mine.copy_(resample_sideways(planes, rows, columns))
    change_tones(lines.view(k, size, p, size).permute(0, 2, 3, 1), batch, crops.draw, crops.view)
    _turn_back(views, lines, batch.pixels.shape[1], crops)
    finish(views, batch, crops.draw, crops.view)


def _turn_back(
    views: Float[Tensor, "k p s s"], lines: Float[Tensor, "k s q"], channels: int, crops: Crops
) -> None:
    """Sets the pictures upright, blurring those that are to be."""
    p, size = views.shape[1:3]
    width = channels * size
    for scan, sigma in enumerate(crops.sigma.tolist()):
        found, mine = views[scan], lines[scan]
        if sigma == 0:
            found.view(p * size, size).copy_(mine.t())
            continue
        taps = crops.blur.rows(scan, scan + 1).narrowed(sigma)
        turned = sum_lines(mine[:, :width].contiguous(), taps.each()[0]).t().contiguous()
        found[:channels].view(width, size).copy_(sum_lines(turned, taps.each(channels)[0]))
        if p > channels:
            # The coverage is no content: it stays sharp.
            found[channels:] = upright(mine[:, width:], p - channels)
