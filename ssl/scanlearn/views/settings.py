"""What a draw leaves open about how it is rendered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from scanlearn.core import ScanBatch
from scanlearn.views.operations.geometry import Background
from scanlearn.views.resample import Taps, resample, resample_by_matrices

# Published blur widths are stated for views of this side.
BLUR_REFERENCE_SIZE = 224


@dataclass(frozen=True)
class RenderSettings:
    """What a draw leaves open.

    Args:
        scale_blur: Whether a blur's sigma, stated at 224 px, shrinks with the view.
        background: What rotation and the like bring in from beyond the scan: "black", or
            "reflect", the scan mirrored at its edges.
        resampler: "bands" sums in fp32; "matrices" multiplies in bf16, which hardware with bf16
            matrix units does faster, to within 3/255 of the range; scans of more than 8 bits are
            always summed.
    """

    scale_blur: bool = True
    background: Background = "black"
    resampler: Literal["bands", "matrices"] = "bands"

    def resample(self, planes: Shaped[Tensor, "b c h w"], rows: Taps, columns: Taps) -> Tensor:
        """Resamples planes of up to 256 values, or of any number where that keeps all digits."""
        if self.resampler == "matrices":
            return resample_by_matrices(planes, rows, columns)
        return resample(planes, rows, columns)

    def blur_px(self, sigma: Float64[np.ndarray, " b"], size: int) -> Float64[np.ndarray, " b"]:
        """Returns sigmas stated at 224 px in pixels of a view of side ``size``."""
        return sigma * (size / BLUR_REFERENCE_SIZE) if self.scale_blur else sigma

    def fit_for(self, batch: ScanBatch) -> RenderSettings:
        """Returns the settings that lose no digits of the batch's values."""
        keeps = self.resampler == "bands" or batch.pixels.dtype == torch.uint8
        return self if keeps else replace(self, resampler="bands")


DEFAULT_SETTINGS = RenderSettings()
