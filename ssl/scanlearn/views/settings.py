"""What a draw leaves open about how it is rendered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64

Background = Literal["black", "reflect"]

# Published blur widths are stated for views of this side.
BLUR_REFERENCE_SIZE = 224
# Side of a local view over that of a global one, in DINO.
LOCAL_SHARE = 96 / 224


@dataclass(frozen=True)
class RenderSettings:
    """What a draw leaves open.

    Args:
        scale_blur: Whether a blur's sigma, stated at 224 px, shrinks with the view.
        background: What rotation and the like bring in from beyond the scan: "black", or
            "reflect", the scan mirrored at its edges.
    """

    scale_blur: bool = True
    background: Background = "black"

    def blur_px(self, sigma: Float64[np.ndarray, " b"], size: int) -> Float64[np.ndarray, " b"]:
        """Returns sigmas stated at 224 px in pixels of a view of side ``size``."""
        return sigma * (size / BLUR_REFERENCE_SIZE) if self.scale_blur else sigma


DEFAULT_SETTINGS = RenderSettings()
