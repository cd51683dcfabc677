"""Rendering crops on a CPU: scan by scan, lying on their side, in the cache."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from scanlearn.core import ScanBatch
from scanlearn.views.draw import Draw
from scanlearn.views.operations.apply import change_tones, finish
from scanlearn.views.resample import (
    BLUR_REACH,
    ScanTaps,
    Taps,
    blur_kernels,
    reflections,
    resample_sideways,
    sum_lines,
)
from scanlearn.views.settings import RenderSettings


@dataclass(frozen=True)
class Crops:
    """One view of some scans, as a crop, for a CPU.

    Args:
        view: Which of the views of a draw.
        rows: Taps of each scan along the height, for all of its planes.
        columns: Taps of each scan along the width, for all of its planes.
        blur: Taps of each scan's blur, for all of its channels; None without one.
    """

    view: int
    rows: Sequence[ScanTaps]
    columns: Sequence[ScanTaps]
    blur: Sequence[ScanTaps | None]

    @classmethod
    def of(
        cls,
        draw: Draw,
        view: int,
        taps: tuple[Taps, Taps],
        content: tuple[int, int],
        settings: RenderSettings,
    ) -> Crops:
        """Prepares one view of all scans.

        Args:
            draw: The draw of these scans.
            view: Which of its views.
            taps: What its resample takes along the height and the width.
            content: Number of channels, and of planes with the coverage.
            settings: What the draw leaves open.
        """
        channels, planes = content
        rows, columns = (pair.each(planes) for pair in taps)
        blur = _blurs(draw, view, taps[0].index.shape[1], channels, settings)
        return cls(view, rows, columns, blur)


def _blurs(
    draw: Draw, view: int, size: int, channels: int, settings: RenderSettings
) -> list[ScanTaps | None]:
    """Taps of each scan's blur, without those whose weights do not matter."""
    sigma = settings.blur_px(draw.blur_sigma[:, view], size)
    weights = torch.from_numpy(blur_kernels(sigma, size=size))
    one = torch.from_numpy(reflections(size))
    index = torch.cat([one + plane * size for plane in range(channels)])
    found: list[ScanTaps | None] = []
    for weight, reach, blurred in zip(weights, sigma * BLUR_REACH, draw.blur[:, view], strict=True):
        left_out = max(one.shape[1] // 2 - math.ceil(reach), 0)
        kept = slice(left_out, one.shape[1] - left_out)
        each = weight[kept].expand(len(index), -1)
        found.append(ScanTaps(0, size, index[:, kept], each) if blurred else None)
    return found


def render_sideways(
    view: Float[Tensor, "1 p s s"],
    content: Shaped[Tensor, "p h w"],
    batch: ScanBatch,
    draw: Draw,
    crops: Crops,
    scan: int,
) -> None:
    """Renders a crop of one scan into ``view``.

    Turning a picture over costs as much as all weighted sums along one of its axes. So it is
    turned after its rows are resampled, its colours change while it lies on its side, and it is
    turned back between the two passes of its blur.

    Args:
        view: Where the view goes; the last of ``p`` planes is the coverage, where there is one.
        content: Stored values of the scan, with its mask where it has any.
        batch: This scan.
        draw: Its draw.
        crops: What to render.
        scan: Which of the scans in ``crops`` it is.
    """
    planes = resample_sideways(content, crops.rows[scan], crops.columns[scan])
    change_tones(planes[None], batch, draw, crops.view)
    taps, channels = crops.blur[scan], batch.pixels.shape[1]
    if taps is None:
        view[0].copy_(planes.transpose(1, 2))
    else:
        turned = sum_lines(planes[:channels], taps).transpose(1, 2).contiguous()
        view[0, :channels] = sum_lines(turned, taps)
        # The coverage is no content: it stays sharp.
        view[0, channels:] = planes[channels:].transpose(1, 2)
    finish(view, batch, draw, crops.view)
