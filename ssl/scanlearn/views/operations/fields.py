"""Random fields of a view: noise, light and elastic displacement, counted from the view's key.

A value depends on (key of the view, kind of field, position) and on nothing else, so that the CPU,
a GPU and a replayed draw agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, UInt64
from torch import Tensor

from scanlearn.views.uniforms import mix

CONTROL_POINTS = 7
BIAS_ORDER = 3
# Up to this mean Poisson counts are exact; next, a count that one in 10^8 of them passes.
_FEW = 4.0
_LARGEST_OF_FEW = 19

# A kind is part of the counter: append, never insert.
_NOISE, _ELASTIC, _BIAS, _RICIAN, _POISSON, _SPECKLE, _ILLUMINATION = range(7)
# SplitMix64's constants as the signed numbers that torch has.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64
_MONOMIALS = [(i, j) for i in range(BIAS_ORDER + 1) for j in range(BIAS_ORDER + 1 - i)]


def noise_field(
    keys: UInt64[np.ndarray, " b"], shape: Sequence[int], device: torch.device
) -> Float[Tensor, "b c s s"]:
    """Returns standard normal noise, one value per channel and pixel.

    Args:
        shape: Channels, rows and columns.
    """
    radius, angle = _polar(keys, _NOISE, shape, device)
    return radius.mul_(angle.cos_())


def speckle_field(
    keys: UInt64[np.ndarray, " b"], shape: Sequence[int], device: torch.device
) -> Float[Tensor, "b c s s"]:
    """Returns standard normal noise that is unrelated to `noise_field`'s."""
    radius, angle = _polar(keys, _SPECKLE, shape, device)
    return radius.mul_(angle.cos_())


def complex_field(
    keys: UInt64[np.ndarray, " b"], shape: Sequence[int], device: torch.device
) -> tuple[Float[Tensor, "b c s s"], Float[Tensor, "b c s s"]]:
    """Returns the real and the imaginary part of complex normal noise, each standard normal."""
    radius, angle = _polar(keys, _RICIAN, shape, device)
    return angle.cos().mul_(radius), angle.sin_().mul_(radius)


def poisson_field(
    keys: UInt64[np.ndarray, " b"], mean: Float[Tensor, "b c s s"]
) -> Float[Tensor, "b c s s"]:
    """Returns one Poisson count per channel and pixel, by the quantile function of a uniform.

    A count never falls as its mean rises. Below a mean of 4 the distribution is summed up; from
    there on it is the normal quantile with the terms for skewness and curtosis, rounded down: it
    differs from the exact quantile by one count in less than .2 % of draws at a mean of 4, and in
    ever fewer above.

    Source: the asymptotic expansion of Giles, Approximation of the inverse Poisson cumulative
        distribution function, ACM Transactions on Mathematical Software 42, 2016.
    """
    uniform = _unit(_bits(keys, _POISSON, mean[0].numel(), mean.device), 40).view(mean.shape)
    if mean.is_cuda:
        # Asking a GPU which ones are few would wait for it.
        few = _few(uniform, mean.clamp(max=_FEW))
        return torch.where(mean < _FEW, few, _many(uniform, mean.clamp(min=_FEW)))
    # Choosing by booleans takes ten times as long on a CPU, and black is where scans have none.
    chosen = torch.logical_and(mean > 0, mean < _FEW).flatten().nonzero().flatten()
    counts = _many(uniform, mean.clamp(min=_FEW)).mul_(mean.sign())
    if len(chosen):
        counts.view(-1)[chosen] = _few(uniform.flatten()[chosen], mean.flatten()[chosen])
    return counts


def _few(uniform: Float[Tensor, "..."], mean: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Poisson counts of means up to 4, exact."""
    term = mean.neg().exp_()
    total, counts = term.clone(), torch.zeros_like(mean)
    # Comparisons as numbers: adding booleans takes ten times as long on a CPU.
    is_reached = torch.empty_like(mean)
    for count in range(1, _LARGEST_OF_FEW + 1):
        counts.add_(torch.ge(uniform, total, out=is_reached))
        total.add_(term.mul_(mean).mul_(1 / count))
    return counts


def _many(uniform: Float[Tensor, "..."], mean: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Poisson counts of means from 4 on, by the expansion."""
    root = mean.sqrt()
    # Half a step up: the middle of what the 24 bits stand for.
    z = torch.erfinv(uniform.mul(2).add_(2.0**-24 - 1)).mul_(math.sqrt(2))
    square = z * z
    quantile = (square * (-1 / 72)).sub_(1 / 36).mul_(z).div_(root)
    curtosis = (square * (1 / 270)).add_(7 / 810).mul_(square).sub_(8 / 405)
    quantile.add_(curtosis.div_(mean)).add_(square.mul_(1 / 6)).add_(1 / 3)
    # Far down the lower tail the expansion passes below 0.
    return quantile.add_(root.mul_(z)).add_(mean).floor_().clamp_(min=0)


def elastic_field(
    keys: UInt64[np.ndarray, " b"], size: int, device: torch.device
) -> Float[Tensor, "b 2 s s"]:
    """Returns a smooth displacement (x, y) within -1 to 1 for each pixel of a square view.

    Control points on a coarse grid, the outermost outside the view, joined by cubic B-splines,
    which never leave the range of their control points.

    Source: 7 control points a side, TorchIO's RandomElasticDeformation (a B-spline transform).
    """
    count = 2 * CONTROL_POINTS**2
    points = _unit(_bits(keys, _ELASTIC, count, device), 40).mul_(2).sub_(1)
    points = points.view(len(keys), 2, CONTROL_POINTS, CONTROL_POINTS)
    basis = _spline_basis(size).to(device)
    # Point by point: matrix products round otherwise in another batch.
    rows = points.new_zeros(len(keys), 2, size, CONTROL_POINTS)
    for point in range(CONTROL_POINTS):
        rows.addcmul_(points[:, :, point, None], basis[:, point, None])
    field = points.new_zeros(len(keys), 2, size, size)
    for point in range(CONTROL_POINTS):
        field.addcmul_(rows[..., point, None], basis[:, point])
    return field


def bias_field(
    keys: UInt64[np.ndarray, " b"],
    amplitude: Float[Tensor, " b"],
    size: int,
) -> Float[Tensor, "b 1 s s"]:
    """Returns a positive field to multiply by: exp of a polynomial of order 3 on [-1, 1]^2.

    Args:
        amplitude: Coefficients lie between minus and plus this.

    Source: TorchIO's RandomBiasField, whose terms are those of total order up to 3, the constant
        among them.
    """
    device = amplitude.device
    coefficients = _unit(_bits(keys, _BIAS, len(_MONOMIALS), device), 40).mul_(2).sub_(1)
    axis = torch.linspace(-1, 1, size, device=device)
    terms = torch.stack([axis[None, :] ** i * axis[:, None] ** j for i, j in _MONOMIALS])
    exponent = torch.zeros(len(keys), size, size, device=device)
    for coefficient, term in zip((coefficients * amplitude[:, None]).unbind(1), terms, strict=True):
        exponent.add_(coefficient.view(-1, 1, 1) * term)
    return exponent.exp_().unsqueeze(1)


def illumination_field(
    keys: UInt64[np.ndarray, " b"], change: Float[Tensor, " b"], size: int
) -> Float[Tensor, "b 1 s s"]:
    """Returns a field to multiply by: ``1 - change r^2`` about a centre somewhere in the view.

    Args:
        change: ``r`` is 0 at the centre and 1 in the corner of the view farthest from it, where
            light is less by this share; below 0 more.
    """
    centre = _unit(_bits(keys, _ILLUMINATION, 2, change.device), 40).mul_(2).sub_(1)
    axis = torch.linspace(-1, 1, size, device=change.device)
    square = (axis[None, None] - centre[:, :, None]).square_()
    across, down = (square / (centre.abs() + 1).square_().sum(1)[:, None, None]).unbind(1)
    away = across[:, None, None, :] + down[:, None, :, None]
    return away.mul_(-change.view(-1, 1, 1, 1)).add_(1)


def _spline_basis(size: int) -> Float[Tensor, "s k"]:
    """Weights of the control points along one axis at the centre of each pixel."""
    cells = CONTROL_POINTS - 3
    place = (torch.arange(size, dtype=torch.float64) + 0.5) / size * cells
    # Control point k stands at k - 1, in cells; a cubic B-spline reaches two cells either way.
    away = (place[:, None] - (torch.arange(CONTROL_POINTS, dtype=torch.float64) - 1)).abs()
    near = 2 / 3 - away**2 + away**3 / 2
    far = (2 - away).clamp(min=0) ** 3 / 6
    return torch.where(away < 1, near, far).float()


def _polar(
    keys: UInt64[np.ndarray, " b"], kind: int, shape: Sequence[int], device: torch.device
) -> tuple[Float[Tensor, "b c s s"], Float[Tensor, "b c s s"]]:
    """Radius and angle of a point of the plane whose coordinates are standard normal.

    Source: Box and Muller, Annals of Mathematical Statistics 29, 1958.
    """
    bits = _bits(keys, kind, math.prod(shape), device).view(len(keys), *shape)
    # Half a step up, so that the logarithm is finite; 24 bits are what a float32 holds.
    radius = _unit(bits, 40).add_(2.0**-25).log_().mul_(-2).sqrt_()
    return radius, _unit(bits, 8, 2 * math.pi)


def _unit(bits: Int[Tensor, "..."], shift: int, end: float = 1.0) -> Float[Tensor, "..."]:
    """24 of the bits, from ``shift`` upwards, as numbers from 0 up to ``end``."""
    return (bits >> shift).bitwise_and_(0xFFFFFF).to(torch.float32).mul_(end * 2.0**-24)


def _bits(
    keys: UInt64[np.ndarray, " b"], kind: int, count: int, device: torch.device
) -> Int[Tensor, "b k"]:
    """64 hashed bits per key and position, by `mix`."""
    state = mix(keys ^ mix(np.full(1, kind, dtype=np.uint64)))[:, None]
    if device.type == "cpu":
        position = mix(np.arange(count, dtype=np.uint64))
        # A third of the time that torch takes, which has no unsigned shift.
        return torch.from_numpy(mix(state ^ position).view(np.int64))
    own = torch.from_numpy(state.view(np.int64)).to(device, non_blocking=True)
    return _mix(own ^ _mix(torch.arange(count, dtype=torch.int64, device=device)))


def _mix(state: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """`mix` in torch's signed numbers, whose products wrap around to the same bits."""
    state = state + _GOLDEN
    state = (state ^ _shifted(state, 30)) * _MIX_1
    state = (state ^ _shifted(state, 27)) * _MIX_2
    return state ^ _shifted(state, 31)


def _shifted(state: Int[Tensor, "..."], places: int) -> Int[Tensor, "..."]:
    # A shift drags the sign along.
    return (state >> places) & ((1 << (64 - places)) - 1)
