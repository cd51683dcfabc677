"""What a device adds to a picture: uneven light, softness, coarse pixels, noise and compression.

They come after all else, in the order in which a device does them: light and coil, optics,
sampling, noise, file. So noise is as strong as its number says, and no jitter or blur changes it.
All of them work on the unit range, before standardisation, and leave what lies outside the field of
view as it is.

Source: that of each in its docstring; bias field, softness and noise have the semantics of
    TorchIO's RandomBiasField, RandomBlur and RandomNoise, as Cheng et al., MIDL 2025, table 2 uses
    them; results are clamped to the unit range.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from scanlearn.views.operations.jpeg import compress
from scanlearn.views.operations.operation import (
    Operation,
    Parameter,
    Quantiles,
    Rendering,
    change_content,
    change_rows,
    column,
    probability,
    smooth,
)
from scanlearn.views.settings import LEAST_BLUR_PX

if TYPE_CHECKING:
    from torch import Tensor

Apply = Callable[["Float[Tensor, 'b c s s']", Rendering], None]

JPEG_LOSSLESS = 100.0
# More of them are no noise in single precision.
_MOST_PHOTONS = 1e12
_LEAST_AMPLITUDE = 1e-6
# Share of a pixel's cubic that has to lie in the field of view.
_LEAST_SEEN = 0.5


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
    """Adds noise to views, in place; none outside the field of view.

    Where Hounsfield units are known, its standard deviation is at least the drawn number of them:
    a share of a narrow window would be less than any scanner's noise.
    """
    import torch

    from scanlearn.views.operations.fields import noise_field

    draw, view, coverage = rendering.draw, rendering.view, rendering.coverage
    std = draw.noise_std[:, view]
    if rendering.unit_hu is not None:
        std = np.maximum(std, draw.noise_hu[:, view] / rendering.unit_hu)

    def noisy(part: Float[Tensor, "k c s s"], rows: np.ndarray) -> Float[Tensor, "k c s s"]:
        channels, height, width = part.shape[1:]
        keys = draw.field_key[rows, view]
        noise = noise_field(keys, (channels, height, width), x.device)
        noise.mul_(column(std[rows], part))
        if coverage is not None:
            noise.mul_(coverage[torch.from_numpy(rows).to(x.device)])
        return noise.add_(part).clamp_(0, 1)

    change_rows(x, std != 0, noisy, in_cache=True)


def light_unevenly(x: Float[Tensor, "b c s s"], rendering: Rendering) -> None:
    """Multiplies views by a fall of light about a centre drawn in the view, in place."""
    import torch

    from scanlearn.views.operations.fields import illumination_field

    draw, view = rendering.draw, rendering.view
    change = draw.illumination[:, view]

    def lit(part: Float[Tensor, "k c s s"], rows: np.ndarray) -> Float[Tensor, "k c s s"]:
        amount = torch.from_numpy(change[rows]).to(part)
        field = illumination_field(draw.field_key[rows, view], amount, part.shape[-1])
        return field.mul(part).clamp_(0, 1)

    change_content(x, rendering, change != 0, lit, in_cache=True)


def coarsen(x: Float[Tensor, "b c s s"], rendering: Rendering) -> None:
    """Makes views coarser by the drawn factor and as large again, in place.

    Source: nnU-Net's simulation of low resolution: down by the nearest neighbour, up by a cubic;
        here Keys' cubic of -.5, IEEE Transactions on Acoustics, Speech and Signal Processing 29,
        1981.
    """
    import torch

    from scanlearn.views.resample import coarse_taps, resample

    size, coverage = x.shape[-1], rendering.coverage
    side = np.maximum(np.rint(rendering.draw.low_resolution[:, rendering.view] * size), 1)

    def coarse(part: Float[Tensor, "k c s s"], rows: np.ndarray) -> Float[Tensor, "k c s s"]:
        taps = coarse_taps(side[rows].astype(np.int64), size=size)
        coarser = resample(part, taps, taps)
        if coverage is None:
            return coarser.clamp_(0, 1)
        inside = coverage[torch.from_numpy(rows).to(x.device)]
        # Where most of what the cubic weighs lies outside, there is nothing to be made coarser.
        seen = resample(inside, taps, taps)
        coarser = coarser.div_(seen.clamp(min=_LEAST_SEEN)).clamp_(0, 1).mul_(inside)
        return torch.where(seen < _LEAST_SEEN, part, coarser)

    change_rows(x, side != size, coarse, in_cache=True)


def add_rician(x: Float[Tensor, "b c s s"], rendering: Rendering) -> None:
    """Turns views into magnitudes of themselves with complex noise, in place.

    ``sqrt((x + n1)^2 + n2^2)``, for a magnitude whose zero is stored as 0.

    Source: Gudbjartsson and Patz, Magnetic Resonance in Medicine 34, 1995.
    """
    from scanlearn.views.operations.fields import complex_field

    draw, view = rendering.draw, rendering.view
    std = draw.rician_std[:, view]

    def magnitude(part: Float[Tensor, "k c s s"], rows: np.ndarray) -> Float[Tensor, "k c s s"]:
        real, imaginary = complex_field(draw.field_key[rows, view], part.shape[1:], part.device)
        amount = column(std[rows], part)
        square = real.mul_(amount).add_(part).square_().add_(imaginary.mul_(amount).square_())
        # Nothing here is so large or small that hypot, which takes twice as long, would be better.
        return square.sqrt_().clamp_(0, 1)

    change_content(x, rendering, std != 0, magnitude, in_cache=True)


def count_photons(x: Float[Tensor, "b c s s"], rendering: Rendering) -> None:
    """Replaces views by the counts of photons that they are the means of, in place.

    ``Pois(k x) / k``; the standard deviation ``sqrt(x / k)`` is the drawn one where a view is 1.
    """
    from scanlearn.views.operations.fields import poisson_field

    draw, view = rendering.draw, rendering.view
    std = draw.poisson_std[:, view]

    def counted(part: Float[Tensor, "k c s s"], rows: np.ndarray) -> Float[Tensor, "k c s s"]:
        photons = column(np.minimum(std[rows] ** -2.0, _MOST_PHOTONS), part)
        counts = poisson_field(draw.field_key[rows, view], part * photons)
        return counts.div_(photons).clamp_(0, 1)

    change_content(x, rendering, std != 0, counted, in_cache=True)


def add_speckle(x: Float[Tensor, "b c s s"], rendering: Rendering) -> None:
    """Multiplies the amplitudes that log-compressed views show by ``1 + n``, in place.

    A shown value ``d`` is the amplitude ``10^((d - 1) R / 20)``, ``R`` the dynamic range in dB: the
    product of amplitudes is a sum of shown values. 0 is no echo, and stays 0.
    """
    from scanlearn.views.operations.fields import speckle_field

    draw, view = rendering.draw, rendering.view
    std = draw.speckle_std[:, view]

    def speckled(part: Float[Tensor, "k c s s"], rows: np.ndarray) -> Float[Tensor, "k c s s"]:
        factor = speckle_field(draw.field_key[rows, view], part.shape[1:], part.device)
        factor.mul_(column(std[rows], part)).add_(1).abs_().clamp_(min=_LEAST_AMPLITUDE)
        shown = factor.log10_().mul_(20 / rendering.settings.dynamic_range_db).add_(part)
        return shown.clamp_(0, 1).mul_(part > 0)

    change_content(x, rendering, std != 0, speckled, in_cache=True)


def compress_as_jpeg(x: Float[Tensor, "b c s s"], rendering: Rendering) -> None:
    """Sends views through a JPEG file of the drawn quality, in place; black surrounds them."""
    quality = rendering.draw.jpeg_quality[:, rendering.view]
    change_rows(
        x,
        quality != JPEG_LOSSLESS,
        lambda part, rows: compress(part, quality[rows]),
        in_cache=True,
    )


def _draw_low_resolution(quantiles: Quantiles) -> dict[str, np.ndarray]:
    lost = quantiles.uniform("low_resolution_factor") * (1 - quantiles.span("low_resolution"))
    return {"low_resolution": np.where(quantiles.happens("low_resolution"), 1 - lost, 1.0)}


def _draw_jpeg(quantiles: Quantiles) -> dict[str, np.ndarray]:
    lost = quantiles.uniform("jpeg_quality") * (JPEG_LOSSLESS - quantiles.span("jpeg_quality"))
    return {
        "jpeg_quality": np.where(quantiles.happens("jpeg"), JPEG_LOSSLESS - lost, JPEG_LOSSLESS)
    }


def _noise(name: str, label: str, unit: str, apply: Apply) -> Operation:
    """An operation whose one number, a standard deviation, is drawn from 0 to the parameter."""
    std = f"{name}_std"
    return Operation(
        name,
        "acquisition",
        (probability(name, label), Parameter(std, f"{label}, largest std", unit)),
        lambda quantiles: {std: quantiles.upwards(name, std)},
        apply,
        lambda draw: getattr(draw, std) != 0,
    )


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
    lambda draw: draw.bias_field != 0,
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
        Parameter(
            "noise_hu",
            "Noise, largest std in CT at least",
            "HU",
            highest=1000,
            in_place_of="noise_std",
        ),
    ),
    lambda quantiles: {
        "noise_std": quantiles.upwards("noise", "noise_std"),
        "noise_hu": quantiles.upwards("noise", "noise_hu", "noise_std"),
    },
    add_noise,
    lambda draw: (draw.noise_std != 0) | (draw.noise_hu != 0),
)
ILLUMINATION = Operation(
    "illumination",
    "acquisition",
    (
        probability("illumination", "Uneven illumination"),
        Parameter(
            "illumination", "Illumination, largest change from centre to edge", "± of the light"
        ),
    ),
    lambda quantiles: {
        "illumination": quantiles.either_way("illumination", "illumination", "illumination_change")
    },
    light_unevenly,
    lambda draw: draw.illumination != 0,
)
LOW_RESOLUTION = Operation(
    "low_resolution",
    "acquisition",
    (
        probability("low_resolution", "Low resolution"),
        Parameter(
            "low_resolution",
            "Low resolution, smallest side",
            "of the side",
            lowest=0.1,
            identity=1.0,
        ),
    ),
    _draw_low_resolution,
    coarsen,
    lambda draw: draw.low_resolution != 1,
)
RICIAN = _noise("rician", "Rician noise", "of the range", add_rician)
POISSON = _noise("poisson", "Poisson noise", "of the range, where a view is 1", count_photons)
SPECKLE = _noise("speckle", "Speckle", "of the amplitude", add_speckle)
JPEG = Operation(
    "jpeg",
    "acquisition",
    (
        probability("jpeg", "JPEG compression"),
        Parameter(
            "jpeg_quality",
            "JPEG, lowest quality",
            "of 100",
            lowest=1,
            highest=JPEG_LOSSLESS,
            identity=JPEG_LOSSLESS,
        ),
    ),
    _draw_jpeg,
    compress_as_jpeg,
    lambda draw: draw.jpeg_quality != JPEG_LOSSLESS,
)
