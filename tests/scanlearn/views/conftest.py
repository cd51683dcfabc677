from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from scipy.stats import norm

from scanlearn.core import ScanBatch

MakeBatch = Callable[..., ScanBatch]
Blur = Callable[[torch.Tensor, float], torch.Tensor]


@pytest.fixture
def blurred() -> Blur:
    """Blurs views by a Gaussian of some pixels, integrated over pixels: scipy, in float64."""

    def blur(x: torch.Tensor, sigma_px: float) -> torch.Tensor:
        offset = np.arange(-np.ceil(8 * sigma_px), np.ceil(8 * sigma_px) + 1)
        weights = np.diff(norm.cdf([offset - 0.5, offset + 0.5], scale=sigma_px), axis=0)[0]
        values = x.numpy().astype(np.float64)
        for axis in (-1, -2):
            values = correlate1d(values, weights, axis=axis, mode="mirror")
        return torch.from_numpy(values).float()

    return blur


@pytest.fixture
def make_batch() -> MakeBatch:
    """Smooth random scans on a padded canvas, stored as uint8 or uint16."""

    def make(
        scans: int = 4,
        channels: int = 1,
        canvas: tuple[int, int] = (96, 96),
        box: tuple[int, int, int, int] | None = None,
        *,
        padding: int = 0,
        dtype: torch.dtype = torch.uint8,
        mask: torch.Tensor | None = None,
        seed: int = 0,
    ) -> ScanBatch:
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand(scans, channels, 12, 12, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, canvas, mode="bicubic").clamp(0, 1)
        valid = (0, 0, *canvas) if box is None else box
        eight_bit = (smooth * 255).round()
        kept = torch.zeros(canvas, dtype=torch.bool)
        kept[valid[0] : valid[2], valid[1] : valid[3]] = True
        top = 1 if dtype == torch.uint8 else 257
        stored = torch.where(kept, eight_bit, float(padding)) * top
        return ScanBatch(
            pixels=torch.from_numpy(
                stored.numpy().astype(np.uint8 if dtype == torch.uint8 else np.uint16)
            ),
            valid_box=torch.tensor([valid] * scans),
            mask=mask,
            spacing_mm=torch.full((scans, 2), float("nan")),
            value_range=torch.tensor([[0.0, 255.0 * top]] * scans),
            ids=torch.arange(scans),
        )

    return make
