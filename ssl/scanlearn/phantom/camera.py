"""The cameras of the phantom: what part of an eye they show.

Lengths are in radii of the field of view, angles in radians, with the field's centre at the
origin, x to the right and y down.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float32


@dataclass(frozen=True)
class Camera:
    """How a make of camera pictures every eye.

    Args:
        gain: ``[3]`` factor on red, green and blue.
        contrast: Factor on the distance from mid-gray; 1 leaves the picture as it is.
        blur: Standard deviation of the lens' blur, in field radii.
        noise: Standard deviation of the sensor's noise, on the unit range.
        vignetting: Share of the light that is lost at the edge of the field.
        zoom: Anatomical length that one field radius shows.
        field_radius: Field radius as a multiple of half the canvas (geometric mean of its sides).
        cut: Height above and below the centre at which the field ends, in field radii.
    """

    gain: tuple[float, float, float]
    contrast: float
    blur: float
    noise: float
    vignetting: float
    zoom: float
    field_radius: float
    cut: float


@dataclass(frozen=True)
class FieldGrid:
    """Where each canvas pixel has its centre, in field radii; the mask is True inside the field."""

    x: Float32[np.ndarray, "h w"]
    y: Float32[np.ndarray, "h w"]
    mask: Bool[np.ndarray, "h w"]
    radius_px: float


@lru_cache(maxsize=64)
def camera(number: int) -> Camera:
    """Returns the look of camera ``number``, the same in every phantom.

    Cameras are spread over their ranges by steps of the golden ratio's kin, so that any number
    of them differ from each other.
    """

    def spread(step: float, low: float, high: float) -> float:
        return low + (high - low) * ((0.5 + number * step) % 1.0)

    warmth = spread(0.6180, -0.10, 0.10)
    green = spread(0.7549, -0.05, 0.05)
    return Camera(
        gain=(1.0 + 0.5 * warmth, 1.0 + green, 1.0 - 1.6 * warmth),
        contrast=spread(0.5698, 0.90, 1.12),
        blur=spread(0.8192, 0.004, 0.016),
        noise=spread(0.4142, 0.008, 0.022),
        vignetting=spread(0.3247, 0.25, 0.50),
        zoom=spread(0.6711, 0.92, 1.10),
        field_radius=(0.98, 1.10, 0.95)[number % 3],
        cut=(1.0, 1.0, 0.84)[number % 3],
    )


@lru_cache(maxsize=32)
def frame(height: int, width: int, field_radius: float, cut: float) -> FieldGrid:
    """Returns the field of view of a camera on a canvas of ``height`` x ``width`` pixels."""
    radius_px = 0.5 * float(np.sqrt(height * width)) * field_radius
    rows = ((np.arange(height) + 0.5 - height / 2) / radius_px).astype(np.float32)
    columns = ((np.arange(width) + 0.5 - width / 2) / radius_px).astype(np.float32)
    y, x = (np.ascontiguousarray(a) for a in np.meshgrid(rows, columns, indexing="ij"))
    mask = (x * x + y * y <= 1.0) & (np.abs(y) <= cut)
    for array in (x, y, mask):
        array.setflags(write=False)
    return FieldGrid(x, y, mask, radius_px)
