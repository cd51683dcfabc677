"""Colour jitter and grayscale on batches, one factor per scan, in torchvision's arithmetic."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from scanlearn.views.draw import BRIGHTNESS, CONTRAST, HUE, SATURATION, Draw

_LUMA = (0.2989, 0.587, 0.114)
# Far below a step of 16 bits: a gray pixel divides by this and not by zero.
_SMALLEST_CHROMA = 1e-12


def jitter(
    x: Float[Tensor, "b c s s"], draw: Draw, view: int, coverage: Float[Tensor, "b 1 s s"] | None
) -> None:
    """Changes brightness, contrast, saturation and hue in the drawn order, in place.

    Each operation clamps to [0, 1]. A scan that drew no jitter keeps its values exactly. Without
    colour, saturation and hue do nothing.

    Args:
        x: Unit range.
        draw: Factors and order.
        view: Which view of the draw.
        coverage: Share of each pixel inside the field of view; None where all of it is. The
            mean that contrast turns about is taken inside it, and nothing is added outside.

    Source: torchvision.transforms.v2.functional adjust_brightness, adjust_contrast,
        adjust_saturation and adjust_hue.
    """
    applies = draw.jitter[:, view]
    if not applies.any():
        return
    is_colour = x.shape[1] == 3
    factors = np.ones((len(draw), 4))
    for op in (BRIGHTNESS, CONTRAST, SATURATION) if is_colour else (BRIGHTNESS, CONTRAST):
        name = {BRIGHTNESS: "brightness", CONTRAST: "contrast", SATURATION: "saturation"}[op]
        factors[:, op] = np.where(applies, getattr(draw, name)[:, view], 1.0)
    for ops in _passes(draw.order[:, view], is_colour=is_colour):
        factor = np.take_along_axis(factors, ops[:, None], axis=1)[:, 0]
        _blend(x, ops, factor, coverage)
        shifts = np.flatnonzero((ops == HUE) & applies & (draw.hue[:, view] != 0))
        if is_colour and len(shifts):
            rows = torch.from_numpy(shifts).to(x.device)
            x[rows] = shift_hue(x[rows], _column(draw.hue[shifts, view], x))


def _passes(order: Int[np.ndarray, "b 4"], *, is_colour: bool) -> list[Int[np.ndarray, " b"]]:
    """The operation of each scan, pass by pass; without colour two passes are enough."""
    if is_colour:
        return list(order.T)
    kept = order[(order == BRIGHTNESS) | (order == CONTRAST)].reshape(len(order), 2)
    return list(kept.T)


def _blend(
    x: Float[Tensor, "b c s s"],
    ops: Int[np.ndarray, " b"],
    factor: Float[np.ndarray, " b"],
    coverage: Float[Tensor, "b 1 s s"] | None,
) -> None:
    """Mixes each scan with black, with its mean gray or with its gray self, in place."""
    to_mean = _column(np.where(ops == CONTRAST, 1 - factor, 0.0), x)
    luma = gray(x)
    if coverage is None:
        other = to_mean * luma.mean(dim=(1, 2, 3), keepdim=True)
    else:
        inside = coverage.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)
        other = to_mean * (luma.sum(dim=(1, 2, 3), keepdim=True) / inside) * coverage
    if (ops == SATURATION).any():
        other = other + _column(np.where(ops == SATURATION, 1 - factor, 0.0), x) * luma
    x.mul_(_column(factor, x)).add_(other).clamp_(0, 1)


def gray(x: Float[Tensor, "b c s s"]) -> Float[Tensor, "b 1 s s"]:
    """Returns the luma of a colour view, a view of one channel as it is.

    Source: torchvision's rgb_to_grayscale.
    """
    if x.shape[1] != 3:
        return x
    red, green, blue = x.unbind(dim=1)
    luma = (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])
    return luma.unsqueeze(1)


def shift_hue(
    x: Float[Tensor, "b 3 s s"], shift: Float[Tensor, "b 1 1 1"]
) -> Float[Tensor, "b 3 s s"]:
    """Returns the views with their hue moved by a share of the colour circle.

    Source: torchvision's adjust_hue (RGB to HSV and back).
    """
    red, green, blue = x.unbind(dim=1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    # In sixths of the circle, times the chroma; without chroma the hue has no say below.
    hue = torch.where(
        value == red,
        green - blue,
        torch.where(value == green, blue - red + 2 * chroma, red - green + 4 * chroma),
    )
    hue = hue.div_(chroma.clamp(min=_SMALLEST_CHROMA)).add_(6 * shift[:, 0]).remainder_(6)
    away = (
        (hue - 3).abs_().neg_().add_(2),
        (hue - 2).abs_().sub_(1),
        (hue - 4).abs_().sub_(1),
    )
    return torch.stack([value - share.clamp_(0, 1).mul_(chroma) for share in away], dim=1)


def _column(values: Float[np.ndarray, " b"], like: Tensor) -> Float[Tensor, "b 1 1 1"]:
    column = torch.from_numpy(np.asarray(values, dtype=np.float32))
    return column.to(like.device, non_blocking=True).view(-1, 1, 1, 1)
