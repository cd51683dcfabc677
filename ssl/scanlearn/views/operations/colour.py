"""Colour jitter and grayscale on batches, one factor per scan, in torchvision's arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from scanlearn.views.draw import BRIGHTNESS, CONTRAST, HUE, SATURATION, Draw

_LUMA = (0.2989, 0.587, 0.114)
_FORWARDS, _BACKWARDS = np.array([0, 1, 2]), np.array([2, 1, 0])
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
    for ops in _passes(draw.order[:, view], is_colour=is_colour):
        factor = np.ones(len(ops))
        for op, name in _BLENDS.items():
            if op != SATURATION or is_colour:
                factor = np.where((ops == op) & applies, getattr(draw, name)[:, view], factor)
        _blend(x, ops, factor, coverage)
        shifts = np.flatnonzero((ops == HUE) & applies & (draw.hue[:, view] != 0))
        if is_colour and len(shifts):
            shift_hue(x, draw.hue[shifts, view], shifts)


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


def _mean_gray(
    x: Float[Tensor, "b c s s"], coverage: Float[Tensor, "b 1 s s"] | None
) -> Float[Tensor, "b 1 1 1"]:
    """Mean luma inside the field of view; the luma of the channels' means is the same."""
    if coverage is None:
        return gray(x.mean(dim=(2, 3), keepdim=True))
    inside = coverage.sum(dim=(2, 3), keepdim=True).clamp(min=1e-6)
    return gray(x.sum(dim=(2, 3), keepdim=True) / inside)


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
    x: Float[Tensor, "b 3 s s"],
    shift: Float[np.ndarray, " k"],
    rows: Int[np.ndarray, " k"] | None = None,
) -> None:
    """Moves the hue of some views by a share of the colour circle, in place.

    In HSV each channel rises, rests at the largest of the three, falls and rests at the smallest,
    each for its sixths of the circle. So half a circle turns a channel into the sum of the largest
    and the smallest minus itself, a third of a circle makes it the next channel, and a shift by up
    to half a sixth moves it only where the next channel is about to take its place.

    Args:
        x: Unit range.
        shift: From -.5 to .5.
        rows: Which views; None for all.

    Source: the values of torchvision's adjust_hue, which goes to HSV and back.
    """
    sixths = 6 * np.asarray(shift, dtype=np.float64)
    whole = np.rint(sixths)
    is_odd = whole % 2 != 0
    # Backwards is forwards with red and blue exchanged.
    given = np.where((sixths < whole)[:, None], _BACKWARDS, _FORWARDS)
    taken = (given + ((whole - 3 * is_odd) // 2).astype(np.int64)[:, None]) % 3
    part = np.abs(sixths - whole)
    if len(x) == 1:
        channels = x.unbind(dim=1)
        planes, places = ([channels[i] for i in which[0]] for which in (given, taken))
        _shift_planes(planes, places, _column(part, x)[:, 0], turned=bool(is_odd[0]))
        return
    chosen = np.arange(len(x)) if rows is None else rows
    for turned in (False, True):
        alike = np.flatnonzero(is_odd == turned)
        if not len(alike):
            continue
        where, source, target = (
            torch.from_numpy(index[alike]).to(x.device, non_blocking=True)
            for index in (chosen[:, None], given, taken)
        )
        moved = x[where, source]
        each = moved.unbind(dim=1)
        _shift_planes(each, each, _column(part[alike], x)[:, 0], turned=turned)
        x[where, target] = moved


def _shift_planes(
    planes: Sequence[Float[Tensor, "b s s"]],
    places: Sequence[Float[Tensor, "b s s"]],
    part: Float[Tensor, "b 1 1"],
    *,
    turned: bool,
) -> None:
    """Shifts hue by part of a sixth towards the next plane, and by half a circle if ``turned``."""
    one, two, three = planes
    largest, smallest = torch.maximum(one, two), torch.minimum(one, two)
    torch.maximum(largest, three, out=largest)
    torch.minimum(smallest, three, out=smallest)
    low = torch.sub(largest, smallest).mul_(part)
    high = torch.sub(largest, low)
    low.add_(smallest)
    moved = [
        torch.clamp(after, low, high).sub_(after).add_(own)
        for own, after in ((one, two), (two, three), (three, one))
    ]
    for place, plane in zip(places, moved, strict=True):
        torch.clamp(plane, smallest, largest, out=plane if turned else place)
    if turned:
        both = torch.add(largest, smallest, out=largest)
        for place, plane in zip(places, moved, strict=True):
            torch.sub(both, plane, out=place)


def _column(values: Shaped[np.ndarray, " b"], like: Tensor) -> Float[Tensor, "b 1 1 1"]:
    column = torch.from_numpy(np.asarray(values, dtype=np.float32))
    return column.to(like.device, non_blocking=True).view(-1, 1, 1, 1)
