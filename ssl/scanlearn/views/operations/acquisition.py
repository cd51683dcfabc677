"""What a device adds to a picture: an uneven field, softness and noise; in place."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scanlearn.views.draw import Draw
from scanlearn.views.operations.fields import bias_field, noise_field
from scanlearn.views.resample import blur_taps, resample

# A narrower blur leaves every neighbour a weight below 1e-15: it changes no float32.
LEAST_SOFT_SIGMA = 0.12


def acquire(
    x: Float[Tensor, "b c s s"],
    draw: Draw,
    view: int,
    coverage: Float[Tensor, "b 1 s s"] | None,
) -> None:
    """Multiplies by the bias field, softens and adds noise, in place; nothing outside the mask.

    Args:
        x: Unit range, times the coverage.
        draw: The draw of these scans.
        view: Which of its views.
        coverage: Share of each pixel inside the field of view; None where all of it is.

    Source: semantics of TorchIO's RandomBiasField, RandomBlur and RandomNoise, as Cheng et al.,
        MIDL 2025, table 2 uses them; the result is clamped to the unit range.
    """
    size, device = x.shape[-1], x.device
    chosen = np.flatnonzero(draw.bias_field[:, view])
    if len(chosen):
        rows = torch.from_numpy(chosen).to(device)
        amplitude = torch.from_numpy(draw.bias_field[chosen, view]).to(x)
        x[rows] = (x[rows] * bias_field(draw.field_key[chosen, view], amplitude, size)).clamp_(0, 1)
    chosen = np.flatnonzero(draw.soft_sigma[:, view] > LEAST_SOFT_SIGMA)
    if len(chosen):
        rows = torch.from_numpy(chosen).to(device)
        taps = blur_taps(draw.soft_sigma[chosen, view], size=size)
        x[rows] = resample(x[rows], taps, taps)
    chosen = np.flatnonzero(draw.noise_std[:, view])
    if len(chosen):
        rows = torch.from_numpy(chosen).to(device)
        noise = noise_field(draw.field_key[chosen, view], (x.shape[1], size, size), device)
        noise.mul_(torch.from_numpy(draw.noise_std[chosen, view]).to(x).view(-1, 1, 1, 1))
        if coverage is not None:
            noise.mul_(coverage[rows])
        x[rows] = noise.add_(x[rows]).clamp_(0, 1)
