"""What a draw leaves open about how it is rendered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64

Background = Literal["black", "reflect", "reflect_moved"]
Pivot = Literal["centre", "apex"]

# Raised when one draw comes to give other pixels, so that no run mixes two kinds of views.
# 2: blur is integrated over pixels and scales with the global views.
# 3: scans that are not square keep their aspect.
VIEWS_VERSION = 3

# Published blur widths are stated for global views of this side.
BLUR_REFERENCE_SIZE = 224
# A blur up to this sigma in pixels of the view is left out: it would move no value by more than a
# fiftieth of a step of 8 bits. What the resolved table calls without effect then is exactly that.
LEAST_BLUR_PX = 0.12
# Side of a local view over that of a global one, in DINO.
LOCAL_SHARE = 96 / 224


@dataclass(frozen=True)
class RenderSettings:
    """What a draw leaves open.

    Args:
        scale_blur: Whether a blur's sigma, stated for global views of 224 px, shrinks with them.
        background: What rotation and the like bring in from beyond the scan: "black", or
            "reflect", the scan mirrored at its edges; or "reflect_moved", the same but in views
            that are cropped alone, whose bars stay black as evaluation shows them.
        global_size: Side of the global views, by which blur shrinks in local ones too; None for
            the side of the view itself.
        pivot: What rotation, shear and stretch leave in its place: the "centre" of the view, or
            the "apex", the middle of the upper edge of what it shows of the scan.
        dynamic_range_db: Of the log-compressed amplitudes that ultrasound and OCT show.
    """

    scale_blur: bool = True
    background: Background = "black"
    global_size: int | None = None
    pivot: Pivot = "centre"
    dynamic_range_db: float = 60.0

    def blur_px(self, sigma: Float64[np.ndarray, " b"], size: int) -> Float64[np.ndarray, " b"]:
        """Returns sigmas stated at 224 px in pixels of a view of side ``size``.

        Local views once had their own side in place of the global one's, and .43 of DINO's blur.

        Source: DINO's released code draws U(.1, 2) for views of 224 and of 96 px alike.
        """
        side = self.global_size or size
        return sigma * (side / BLUR_REFERENCE_SIZE) if self.scale_blur else sigma


DEFAULT_SETTINGS = RenderSettings()


@dataclass(frozen=True)
class Standard:
    """How finished views are standardised.

    Args:
        linear: ``[2 c]`` factor and offset per channel, or of one for all.
    """

    linear: Float32[np.ndarray, "2 c"]

    @classmethod
    def of(cls, mean: Sequence[float], std: Sequence[float]) -> Standard:
        """Returns what makes views ``(views - mean) / std``."""
        spread = np.asarray(std, dtype=np.float64)
        numbers = np.stack([1 / spread, -np.asarray(mean, dtype=np.float64) / spread])
        return cls(numbers.astype(np.float32))
