"""What a device adds to a picture: an uneven field, softness and noise.

Source: semantics of TorchIO's RandomBiasField, RandomBlur and RandomNoise, as Cheng et al.,
    MIDL 2025, table 2 uses them; results are clamped to the unit range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from scanlearn.views.operations.operation import (
    Operation,
    Parameter,
    Rendering,
    change_rows,
    column,
    probability,
    smooth,
)
from scanlearn.views.settings import LEAST_BLUR_PX

if TYPE_CHECKING:
    from torch import Tensor


def multiply_by_field(x: Float[Tensor, "b c s s"], rendering: Rendering) -> None:
    """Multiplies views by their bias field, in place."""
    import torch

    from scanlearn.views.operations.fields import bias_field

    draw, view = rendering.draw, rendering.view

    def uneven(part: Float[Tensor, "k c s s"], rows: np.ndarray) -> Float[Tensor, "k c s s"]:
        amplitude = torch.from_numpy(draw.bias_field[rows, view]).to(part)
        return (part * bias_field(draw.field_key[rows, view], amplitude, x.shape[-1])).clamp_(0, 1)

    change_rows(x, draw.bias_field[:, view] != 0, uneven)


def soften(x: Float[Tensor, "b c s s"], rendering: Rendering) -> None:
    """Blurs views as an unsharp device does, in place; sigma is in pixels of the view."""
    smooth(x, rendering, rendering.draw.soft_sigma[:, rendering.view])


def add_noise(x: Float[Tensor, "b c s s"], rendering: Rendering) -> None:
    """Adds noise to views, in place; none outside the field of view."""
    import torch

    from scanlearn.views.operations.fields import noise_field

    draw, view, coverage = rendering.draw, rendering.view, rendering.coverage

    def noisy(part: Float[Tensor, "k c s s"], rows: np.ndarray) -> Float[Tensor, "k c s s"]:
        channels, height, width = part.shape[1:]
        keys = draw.field_key[rows, view]
        noise = noise_field(keys, (channels, height, width), x.device)
        noise.mul_(column(draw.noise_std[rows, view], part))
        if coverage is not None:
            noise.mul_(coverage[torch.from_numpy(rows).to(x.device)])
        return noise.add_(part).clamp_(0, 1)

    change_rows(x, draw.noise_std[:, view] != 0, noisy)


BIAS_FIELD = Operation(
    "bias_field",
    "acquisition",
    (
        probability("bias_field", "Bias field"),
        Parameter("bias_field", "Bias field, coefficients", "± in the exponent", highest=2),
    ),
    lambda quantiles: {
        "bias_field": quantiles.happens("bias_field") * quantiles.span("bias_field")
    },
    multiply_by_field,
)
SOFT = Operation(
    "soft",
    "acquisition",
    (
        probability("soft", "Acquisition blur"),
        Parameter(
            "soft_sigma",
            "Acquisition blur, largest sigma",
            "px",
            highest=10,
            negligible_px=LEAST_BLUR_PX,
        ),
    ),
    lambda quantiles: {"soft_sigma": quantiles.upwards("soft", "soft_sigma")},
    soften,
)
NOISE = Operation(
    "noise",
    "acquisition",
    (
        probability("noise", "Noise"),
        Parameter("noise_std", "Noise, largest std", "of the range"),
    ),
    lambda quantiles: {"noise_std": quantiles.upwards("noise", "noise_std")},
    add_noise,
)
