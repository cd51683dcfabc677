"""Colour jitter and grayscale on batches, one factor per scan, in torchvision's arithmetic."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from scanlearn.views.draw import BRIGHTNESS, CONTRAST, HUE, SATURATION, Draw

_LUMA = (0.2989, 0.587, 0.114)
# Far below a step of 16 bits: a gray pixel divides by this and not by zero.
_SMALLEST_CHROMA = 1e-12
_BLENDS = {BRIGHTNESS: "brightness", CONTRAST: "contrast", SATURATION: "saturation"}


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
    if len(x) == 1:
        _jitter_one(x, draw, view, coverage)
        return
    for ops in _passes(draw.order[:, view], is_colour=is_colour):
        factor = np.ones(len(ops))
        for op, name in _BLENDS.items():
            if op != SATURATION or is_colour:
                factor = np.where((ops == op) & applies, getattr(draw, name)[:, view], factor)
        _blend(x, ops, factor, coverage)
        shifts = np.flatnonzero((ops == HUE) & applies & (draw.hue[:, view] != 0))
        if is_colour and len(shifts):
            _shift_some(x, shifts, draw.hue[shifts, view])


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
    changed = factor != 1
    if not changed.any():
        return
    target: Tensor | None = None
    share = np.where((ops == CONTRAST) & changed, 1 - factor, 0.0)
    if share.any():
        target = _mean_gray(x, coverage) * _column(share, x)
        if coverage is not None:
            target = target * coverage
    share = np.where((ops == SATURATION) & changed, 1 - factor, 0.0)
    if share.any():
        luma = gray(x) * _column(share, x)
        target = luma if target is None else luma.add_(target)
    x.mul_(_column(factor, x))
    if target is not None:
        x.add_(target)
    # Mixing with less than all of oneself stays between the two.
    if (factor > 1).any():
        x.clamp_(0, 1)


def _jitter_one(
    x: Float[Tensor, "1 c s s"], draw: Draw, view: int, coverage: Float[Tensor, "1 1 s s"] | None
) -> None:
    """`jitter` for a single scan, without the columns and masks that a batch needs.

    The same arithmetic in the same order: a scan comes out the same to the bit in any batch.
    """
    is_colour = x.shape[1] == 3
    for op in draw.order[0, view].tolist():
        if op == HUE:
            if is_colour and draw.hue[0, view] != 0:
                shift_hue(x, _column(draw.hue[:, view], x), out=x)
            continue
        factor = float(getattr(draw, _BLENDS[op])[0, view])
        if factor == 1 or (op == SATURATION and not is_colour):
            continue
        target: Tensor | None = None
        if op == CONTRAST:
            target = _mean_gray(x, coverage) * (1 - factor)
            if coverage is not None:
                target = target * coverage
        elif op == SATURATION:
            target = gray(x) * (1 - factor)
        x.mul_(factor)
        if target is not None:
            x.add_(target)
        if factor > 1:
            x.clamp_(0, 1)


def _mean_gray(
    x: Float[Tensor, "b c s s"], coverage: Float[Tensor, "b 1 s s"] | None
) -> Float[Tensor, "b 1 1 1"]:
    """Mean luma inside the field of view; the luma of the channels' means is the same."""
    if coverage is None:
        return gray(x.mean(dim=(2, 3), keepdim=True))
    inside = coverage.sum(dim=(2, 3), keepdim=True).clamp(min=1e-6)
    return gray(x.sum(dim=(2, 3), keepdim=True) / inside)


def _shift_some(
    x: Float[Tensor, "b 3 s s"], rows: Int[np.ndarray, " k"], shift: Float[np.ndarray, " k"]
) -> None:
    if len(rows) == len(x):
        shift_hue(x, _column(shift, x), out=x)
    else:
        where = torch.from_numpy(rows).to(x.device)
        x[where] = shift_hue(x[where], _column(shift, x))


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
    x: Float[Tensor, "b 3 s s"], shift: Float[Tensor, "b 1 1 1"], out: Tensor | None = None
) -> Float[Tensor, "b 3 s s"]:
    """Returns the views with their hue moved by a share of the colour circle.

    Args:
        x: Unit range.
        shift: From -.5 to .5.
        out: Where to write the result; may be ``x`` itself.

    Source: torchvision's adjust_hue (RGB to HSV and back).
    """
    red, green, blue = x.unbind(dim=1)
    value, chroma = torch.maximum(red, green), torch.minimum(red, green)
    torch.maximum(value, blue, out=value)
    torch.minimum(chroma, blue, out=chroma)
    torch.sub(value, chroma, out=chroma)
    per_chroma = chroma.clamp(min=_SMALLEST_CHROMA).reciprocal_()
    # Selecting by the largest channel takes three times as long as this closed form of the hue, in
    # sixths of the circle from red: with p = (green - blue) / chroma and t = (value - red) / chroma
    # it is |p| + t (3 - 2 |p|), with the sign of p.
    p = torch.sub(green, blue).mul_(per_chroma)
    t = torch.sub(value, red).mul_(per_chroma)
    size = p.abs()
    hue = torch.rsub(size, 3, alpha=2).mul_(t).add_(size).copysign_(p)
    hue.add_(6 * shift[:, 0])
    hue.sub_(torch.mul(hue, 1 / 6, out=t).floor_(), alpha=6)
    shifted = torch.empty_like(x) if out is None else out
    # How near the hue is to each channel's own third of the circle says how much of it there is.
    red, green, blue = shifted.unbind(dim=1)
    torch.sub(value, chroma, alpha=2, out=red)
    torch.add(value, chroma, out=green)
    blue.copy_(green)
    for channel, opposite, sign in ((red, 3, 1), (green, 2, -1), (blue, 4, -1)):
        away = torch.sub(hue, opposite, out=t).abs_().clamp_(1, 2)
        channel.addcmul_(away, chroma, value=sign)
    return shifted.clamp_(0, 1)


def _column(values: Shaped[np.ndarray, " b"], like: Tensor) -> Float[Tensor, "b 1 1 1"]:
    column = torch.from_numpy(np.asarray(values, dtype=np.float32))
    return column.to(like.device, non_blocking=True).view(-1, 1, 1, 1)
