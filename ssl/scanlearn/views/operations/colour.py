"""Colour on batches: stains, and jitter and grayscale in torchvision's arithmetic."""

from __future__ import annotations

import math
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from scanlearn.views.operations.operation import (
    Operation,
    Parameter,
    Quantiles,
    Rendering,
    change_content,
    change_rows,
    column,
    probability,
)

if TYPE_CHECKING:
    from torch import Tensor

# With a larger brightness or contrast more views lose all they show than gain variety.
JITTER_PEAK = 0.9
_LUMA = (0.2989, 0.587, 0.114)
_FORWARDS, _BACKWARDS = np.array([0, 1, 2]), np.array([2, 1, 0])
# Optical densities in red, green and blue of haematoxylin, eosin and DAB.
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
# Darker has no density that 8 bits could tell, and 0 has none at all.
_LEAST_LIGHT = 1e-6
# The four of the jitter as `Draw.order` numbers them.
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)
_ORDERS = np.array(list(permutations(range(4))), dtype=np.int64)


def restain(x: Float[Tensor, "b c s s"], rendering: Rendering) -> None:
    """Makes haematoxylin, eosin and DAB denser or fainter, in place.

    A colour's optical density, -log10 of its share of white, is a sum of those of three stains;
    each becomes ``factor * density + offset``.

    Source: Ruifrok and Johnston, Analytical and Quantitative Cytology and Histology 23, 2001, for
        the stains; Tellez et al., IEEE Transactions on Medical Imaging 37, 2018, for the change.
    """
    if x.shape[1] != 3:
        return
    draw, view = rendering.draw, rendering.view
    factor, offset = draw.stain_factor[:, view], draw.stain_offset[:, view]

    def stained(part: Float[Tensor, "k c s s"], rows: np.ndarray) -> Float[Tensor, "k c s s"]:
        mixing = np.linalg.inv(_STAINS) @ (factor[rows, :, None] * _STAINS)
        log = part.clamp(min=_LEAST_LIGHT).log10_()
        mixed = column(offset[rows] @ -_STAINS, part).view(-1, 3, 1, 1).repeat(1, 1, *log.shape[2:])
        for source in range(3):
            share = column(mixing[:, source], part).view(-1, 3, 1, 1)
            mixed.add_(log[:, source : source + 1] * share)
        return mixed.mul_(math.log(10)).exp_().clamp_(0, 1)

    applies = (factor != 1).any(-1) | (offset != 0).any(-1)
    change_content(x, rendering, applies, stained, in_cache=True)


def jitter(x: Float[Tensor, "b c s s"], rendering: Rendering) -> None:
    """Changes brightness, contrast, saturation and hue in the drawn order, in place.

    Each operation clamps to [0, 1]. A scan that drew no jitter keeps its values exactly. Without
    colour, saturation and hue do nothing. The mean that contrast turns about is taken inside the
    field of view, and nothing is added outside.

    Source: torchvision.transforms.v2.functional adjust_brightness, adjust_contrast,
        adjust_saturation and adjust_hue.
    """
    draw, view = rendering.draw, rendering.view
    applies = draw.jitter[:, view]
    if not applies.any():
        return
    is_colour = x.shape[1] == 3
    blends = {_BRIGHTNESS: draw.brightness, _CONTRAST: draw.contrast}
    if is_colour:
        blends[_SATURATION] = draw.saturation
    for ops in _passes(draw.order[:, view], is_colour=is_colour):
        factor = np.ones(len(ops))
        for op, factors in blends.items():
            factor = np.where((ops == op) & applies, factors[:, view], factor)
        _blend(x, ops, factor, rendering.coverage)
        shifts = np.flatnonzero((ops == _HUE) & applies & (draw.hue[:, view] != 0))
        if is_colour and len(shifts):
            shift_hue(x, draw.hue[shifts, view], shifts)


def remove_colour(x: Float[Tensor, "b c s s"], rendering: Rendering) -> None:
    """Makes colour views gray, in place."""
    if x.shape[1] == 3:
        applies = rendering.draw.gray[:, rendering.view]
        change_rows(x, applies, lambda part, _: gray(part).expand(-1, 3, -1, -1))


def _passes(order: Int[np.ndarray, "b 4"], *, is_colour: bool) -> list[Int[np.ndarray, " b"]]:
    """The operation of each scan, pass by pass; without colour two passes are enough."""
    if is_colour:
        return list(order.T)
    kept = order[(order == _BRIGHTNESS) | (order == _CONTRAST)].reshape(len(order), 2)
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
    share = np.where((ops == _CONTRAST) & changed, 1 - factor, 0.0)
    if share.any():
        target = _mean_gray(x, coverage) * column(share, x)
        if coverage is not None:
            target = target * coverage
    share = np.where((ops == _SATURATION) & changed, 1 - factor, 0.0)
    if share.any():
        luma = gray(x) * column(share, x)
        target = luma if target is None else luma.add_(target)
    x.mul_(column(factor, x))
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
    x: Float[Tensor, "b 3 s s"], shift: Float[np.ndarray, " k"], rows: Int[np.ndarray, " k"]
) -> None:
    """Moves the hue of some views by a share of the colour circle, in place.

    In HSV each channel rises, rests at the largest of the three, falls and rests at the smallest,
    each for its sixths of the circle. So half a circle turns a channel into the sum of the largest
    and the smallest minus itself, a third of a circle makes it the next channel, and a shift by up
    to half a sixth moves it only where the next channel is about to take its place.

    Args:
        shift: From -.5 to .5.
        rows: Which views.

    Source: the values of torchvision's adjust_hue, which goes to HSV and back.
    """
    import torch

    sixths = 6 * np.asarray(shift, dtype=np.float64)
    whole = np.rint(sixths)
    is_odd = whole % 2 != 0
    # Backwards is forwards with red and blue exchanged.
    sources = np.where((sixths < whole)[:, None], _BACKWARDS, _FORWARDS)
    targets = (sources + ((whole - 3 * is_odd) // 2).astype(np.int64)[:, None]) % 3
    part = np.abs(sixths - whole)
    for turned in (False, True):
        alike = np.flatnonzero(is_odd == turned)
        if len(alike):
            where, source, target = (
                torch.from_numpy(index[alike]).to(x.device, non_blocking=True)
                for index in (rows[:, None], sources, targets)
            )
            is_one = len(x) == 1
            planes = x.index_select(1, source[0]) if is_one else x[where, source]
            _shift_planes(planes, column(part[alike], x)[:, 0], turned=turned)
            if is_one:
                x.index_copy_(1, target[0], planes)
            else:
                x[where, target] = planes


def _shift_planes(
    planes: Float[Tensor, "b 3 s s"], part: Float[Tensor, "b 1 1"], *, turned: bool
) -> None:
    """Shifts hue by part of a sixth towards the next plane, and by half a circle if ``turned``."""
    import torch

    one, two, three = planes.unbind(dim=1)
    largest, smallest = torch.maximum(one, two), torch.minimum(one, two)
    torch.maximum(largest, three, out=largest)
    torch.minimum(smallest, three, out=smallest)
    low = torch.sub(largest, smallest).mul_(part)
    high = torch.sub(largest, low)
    low.add_(smallest)
    moved = [
        torch.clamp(after, low, high).sub_(after).add_(before)
        for before, after in ((one, two), (two, three), (three, one))
    ]
    for place, plane in zip((one, two, three), moved, strict=True):
        torch.clamp(plane, smallest, largest, out=place)
    if turned:
        planes.copy_(torch.add(largest, smallest)[:, None] - planes)


def _draw_jitter(quantiles: Quantiles) -> dict[str, np.ndarray]:
    order = _ORDERS[(quantiles.uniform("order") * len(_ORDERS)).astype(np.int64)]
    return {"jitter": quantiles.happens("jitter"), "order": order}


def _part(name: str, *, needs_colour: bool = False) -> Operation:
    """One of the three that blend, its factors about 1.

    Source: ranges of the factors, torchvision's ColorJitter.
    """

    def draw(quantiles: Quantiles) -> dict[str, np.ndarray]:
        span = quantiles.span(name)
        low = np.maximum(0.0, 1 - span)
        return {name: low + quantiles.uniform(name) * (1 + span - low)}

    parameter = Parameter(name, f"Jitter of {name}", "± of the factor", highest=2, peak=JITTER_PEAK)
    return Operation(
        name, "photometric", (parameter,), draw, part_of="jitter", needs_colour=needs_colour
    )


def _draw_stain(quantiles: Quantiles) -> dict[str, np.ndarray]:
    factor, offset = (
        np.stack(
            [quantiles.either_way("stain", "stain", f"stain_{kind}_{n}") for n in (1, 2, 3)],
            axis=-1,
        )
        for kind in ("factor", "offset")
    )
    return {"stain_factor": 1 + factor, "stain_offset": offset}


STAIN = Operation(
    "stain",
    "photometric",
    (
        probability("stain", "Stains changed"),
        Parameter("stain", "Change of each stain", "± of the factor, ± of optical density"),
    ),
    _draw_stain,
    restain,
    lambda draw: (draw.stain_factor != 1).any(-1) | (draw.stain_offset != 0).any(-1),
    needs_colour=True,
)
JITTER = Operation(
    "jitter", "photometric", (probability("jitter", "Colour jitter"),), _draw_jitter, jitter
)
BRIGHTNESS = _part("brightness")
CONTRAST = _part("contrast")
SATURATION = _part("saturation", needs_colour=True)
HUE = Operation(
    "hue",
    "photometric",
    (Parameter("hue", "Jitter of hue", "± of the circle", highest=0.5),),
    lambda quantiles: {"hue": (2 * quantiles.uniform("hue") - 1) * quantiles.span("hue")},
    part_of="jitter",
    needs_colour=True,
)
GRAY = Operation(
    "gray",
    "photometric",
    (probability("gray", "Colour removed"),),
    lambda quantiles: {"gray": quantiles.happens("gray")},
    remove_colour,
    needs_colour=True,
)
