"""Operations on gray values beyond colour jitter: gamma, histogram shift, solarize; in place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scanlearn.views.draw import HISTOGRAM_POINTS, Draw

SOLARIZE_THRESHOLD = 0.5
# Half a step of 8 bits of coverage: less than that of a pixel is in the field of view.
_LEAST_COVERAGE = 1 / 512

Coverage = Float[Tensor, "b 1 s s"]


def bend(x: Float[Tensor, "b c s s"], draw: Draw, view: int, coverage: Coverage | None) -> None:
    """Raises views to their power and shifts their histograms, in place.

    Args:
        x: Unit range, times the coverage.
        draw: The draw of these scans.
        view: Which of its views.
        coverage: Share of each pixel inside the field of view; None where all of it is.
    """
    _straightly(
        x, coverage, draw.gamma[:, view] != 1, lambda part, rows: _gamma(part, draw, view, rows)
    )
    shifted = (draw.histogram_shift[:, view] != 0).any(axis=-1)
    _straightly(x, coverage, shifted, lambda part, rows: _shift(part, draw, view, rows))


def solarize(x: Float[Tensor, "b c s s"], draw: Draw, view: int, coverage: Coverage | None) -> None:
    """Inverts values from one half upwards, in place.

    Source: torchvision's solarize; DINO's released code inverts 8-bit values from 128.
    """

    def invert(part: Float[Tensor, "k c s s"], rows: np.ndarray) -> Float[Tensor, "k c s s"]:  # noqa: ARG001
        return torch.where(part >= SOLARIZE_THRESHOLD, 1 - part, part)

    _straightly(x, coverage, draw.solarize[:, view], invert)


def _gamma(
    part: Float[Tensor, "k c s s"], draw: Draw, view: int, rows: np.ndarray
) -> Float[Tensor, "k c s s"]:
    exponent = torch.from_numpy(draw.gamma[rows, view]).to(part).view(-1, 1, 1, 1)
    return part.pow(exponent)


def _shift(
    part: Float[Tensor, "k c s s"], draw: Draw, view: int, rows: np.ndarray
) -> Float[Tensor, "k c s s"]:
    """A broken line through the shifted points; its ends stay at 0 and 1."""
    points = np.array([0.0, *HISTOGRAM_POINTS, 1.0])
    values = np.broadcast_to(points, (len(rows), len(points))).copy()
    values[:, 1:-1] += draw.histogram_shift[rows, view]
    # Gray values keep their order whatever was drawn.
    values = np.maximum.accumulate(np.clip(values, 0, 1), axis=1)
    slopes = torch.from_numpy(np.diff(values, axis=1) / np.diff(points)).to(part)
    bent = torch.zeros_like(part)
    for segment in range(len(points) - 1):
        width = points[segment + 1] - points[segment]
        inside = (part - points[segment]).clamp_(0, width)
        bent.add_(inside.mul_(slopes[:, segment].view(-1, 1, 1, 1)))
    return bent


def _straightly(
    x: Float[Tensor, "b c s s"],
    coverage: Coverage | None,
    applies: Bool[np.ndarray, " b"],
    change: Callable[[Float[Tensor, "k c s s"], np.ndarray], Float[Tensor, "k c s s"]],
) -> None:
    """Applies a curve to the content itself, not to the content times its coverage."""
    chosen = np.flatnonzero(applies)
    if not len(chosen):
        return
    rows = torch.from_numpy(chosen).to(x.device)
    part = x[rows]
    if coverage is None:
        x[rows] = change(part, chosen)
    else:
        share = coverage[rows]
        part = (part / share.clamp(min=_LEAST_COVERAGE)).clamp_(0, 1)
        x[rows] = change(part, chosen).mul_(share)
