"""Gray values and sharpness: window, gamma, histogram shift, blur, solarize and posterise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from jaxtyping import Float

from scanlearn.views.operations.operation import (
    Operation,
    Parameter,
    Quantiles,
    Rendering,
    change_content,
    column,
    probability,
    smooth,
)
from scanlearn.views.settings import LEAST_BLUR_PX

if TYPE_CHECKING:
    from torch import Tensor

_Values = TypeVar("_Values", "Tensor", np.ndarray[Any, Any])

# Where a histogram shift moves the curve of gray values; its ends stay.
HISTOGRAM_POINTS = (0.25, 0.5, 0.75)
BLUR_SIGMA_MIN = 0.1
SOLARIZE_THRESHOLD = 0.5
POSTERISE_BITS = 8.0


def moved_window(
    low: _Values, high: _Values, width: _Values, level: _Values
) -> tuple[_Values, _Values]:
    """Returns the stored values that mean 0 and 1 in a window of another width and level.

    Moved before anything is cut off: where all Hounsfield units are kept, a wider window shows
    what lay beyond the packed one. Moved afterwards it turned the air around a patient gray.
    """
    span = high - low
    shift, half = level * span, width * span / 2
    return low + (shift - half), high + (shift + half)


def raise_to_power(x: Float[Tensor, "b c s s"], rendering: Rendering) -> None:
    """Raises gray values to the drawn power, in place."""
    exponent = rendering.draw.gamma[:, rendering.view]
    change_content(
        x, rendering, exponent != 1, lambda part, rows: part.pow(column(exponent[rows], part))
    )


def shift_histogram(x: Float[Tensor, "b c s s"], rendering: Rendering) -> None:
    """Bends gray values along a broken line through the shifted points, in place.

    Its ends stay at 0 and 1, and gray values keep their order whatever was drawn.
    """
    import torch

    shift = rendering.draw.histogram_shift[:, rendering.view]
    points = np.array([0.0, *HISTOGRAM_POINTS, 1.0])

    def bent(part: Float[Tensor, "k c s s"], rows: np.ndarray) -> Float[Tensor, "k c s s"]:
        values = np.broadcast_to(points, (len(rows), len(points))).copy()
        values[:, 1:-1] += shift[rows]
        values = np.maximum.accumulate(np.clip(values, 0, 1), axis=1)
        slopes = torch.from_numpy(np.diff(values, axis=1) / np.diff(points)).to(part)
        total = torch.zeros_like(part)
        for segment, width in enumerate(np.diff(points).tolist()):
            inside = (part - points[segment]).clamp_(0, width)
            total.add_(inside.mul_(slopes[:, segment].view(-1, 1, 1, 1)))
        return total

    change_content(x, rendering, (shift != 0).any(axis=-1), bent)


def blur(x: Float[Tensor, "b c s s"], rendering: Rendering) -> None:
    """Blurs views, in place, by sigmas stated at 224 px."""
    draw, view = rendering.draw, rendering.view
    sigma = rendering.settings.blur_px(draw.blur_sigma[:, view], x.shape[-1])
    smooth(x, rendering, np.where(draw.blur[:, view], sigma, 0.0))


def solarize(x: Float[Tensor, "b c s s"], rendering: Rendering) -> None:
    """Inverts values from one half upwards, in place.

    Source: torchvision's solarize; DINO's released code inverts 8-bit values from 128.
    """
    import torch

    change_content(
        x,
        rendering,
        rendering.draw.solarize[:, rendering.view],
        lambda part, _: torch.where(part >= SOLARIZE_THRESHOLD, 1 - part, part),
    )


def posterise(x: Float[Tensor, "b c s s"], rendering: Rendering) -> None:
    """Rounds gray values down to those that the drawn number of bits can hold, in place.

    With a whole number of bits it is the published operation on 8-bit values; between two whole
    numbers the width of a step lies between theirs.

    Source: posterize of AutoAugment (Cubuk et al., CVPR 2019), which keeps 4 to 8 bits;
    torchvision's posterize, which keeps the highest bits.
    """
    bits = rendering.draw.posterise_bits[:, rendering.view]

    def rounded(part: Float[Tensor, "k c s s"], rows: np.ndarray) -> Float[Tensor, "k c s s"]:
        width = column(2.0 ** (POSTERISE_BITS - bits[rows]), part)
        # A hair up: an 8-bit value must not fall a step for a rounding error of its float.
        return (part * 255 + 1e-3).div_(width).floor_().mul_(width / 255)

    change_content(x, rendering, bits != POSTERISE_BITS, rounded)


def _draw_histogram_shift(quantiles: Quantiles) -> dict[str, np.ndarray]:
    points = [f"histogram_shift_{number}" for number in (1, 2, 3)]
    shifts = [quantiles.either_way("histogram_shift", "histogram_shift", name) for name in points]
    return {"histogram_shift": np.stack(shifts, axis=-1)}


def _draw_blur(quantiles: Quantiles) -> dict[str, np.ndarray]:
    width = quantiles.span("blur_sigma") - BLUR_SIGMA_MIN
    sigma = BLUR_SIGMA_MIN + quantiles.uniform("blur_sigma") * width
    return {"blur": quantiles.happens("blur"), "blur_sigma": sigma}


def _draw_posterise(quantiles: Quantiles) -> dict[str, np.ndarray]:
    dropped = quantiles.uniform("posterise_bits") * (
        POSTERISE_BITS - quantiles.span("posterise_bits")
    )
    bits = np.where(quantiles.happens("posterise"), POSTERISE_BITS - dropped, POSTERISE_BITS)
    return {"posterise_bits": bits}


WINDOW = Operation(
    "window",
    "photometric",
    (
        probability("window", "Window moved"),
        Parameter("window_width", "Width of the window", "± of the width", highest=0.9),
        Parameter("window_level", "Level of the window", "± of the width", highest=0.5),
    ),
    lambda quantiles: {
        name: quantiles.either_way("window", name, name)
        for name in ("window_width", "window_level")
    },
    # Done as stored values are brought to the unit range: `moved_window`.
    None,
)
GAMMA = Operation(
    "gamma",
    "photometric",
    (
        probability("gamma", "Gamma"),
        Parameter("gamma", "Gamma", "± ln exponent", highest=math.log(4)),
    ),
    lambda quantiles: {"gamma": np.exp(quantiles.either_way("gamma", "gamma", "gamma_exponent"))},
    raise_to_power,
    lambda draw: draw.gamma != 1,
)
HISTOGRAM_SHIFT = Operation(
    "histogram_shift",
    "photometric",
    (
        probability("histogram_shift", "Histogram shift"),
        Parameter(
            "histogram_shift", "Histogram shift of each point", "± of the range", highest=0.2
        ),
    ),
    _draw_histogram_shift,
    shift_histogram,
)
BLUR = Operation(
    "blur",
    "photometric",
    (
        probability("blur", "Blur"),
        Parameter(
            "blur_sigma",
            "Blur, largest sigma",
            "px at 224 px",
            lowest=BLUR_SIGMA_MIN,
            highest=10,
            identity=BLUR_SIGMA_MIN,
            negligible_px=LEAST_BLUR_PX,
            scales_with_view=True,
        ),
    ),
    _draw_blur,
    blur,
)
SOLARIZE = Operation(
    "solarize",
    "photometric",
    (probability("solarize", "Solarize"),),
    lambda quantiles: {"solarize": quantiles.happens("solarize")},
    solarize,
)
POSTERISE = Operation(
    "posterise",
    "photometric",
    (
        probability("posterise", "Posterise"),
        Parameter(
            "posterise_bits",
            "Posterise, fewest bits kept",
            "of 8",
            lowest=1,
            highest=POSTERISE_BITS,
            identity=POSTERISE_BITS,
        ),
    ),
    _draw_posterise,
    posterise,
)
