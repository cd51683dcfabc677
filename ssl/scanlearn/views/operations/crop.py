"""Crop boxes drawn from the accepted region of torchvision's RandomResizedCrop.

torchvision draws an area and an aspect, tries again where the box does not fit, and after ten
failures takes a centre crop. Here area and aspect are drawn from what it accepts, directly:
one pair of uniforms is one box, and the box moves continuously with the ranges. At the identity,
where torchvision would nearly always fall back, the box is the whole scan.

With ``a`` the area's share, ``t = -ln a`` and ``g`` the logarithm of the crop's aspect minus that
of the scan, a box fits exactly where ``|g| <= t``; the recipe allows ``|g + d| <= L``.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64

from scanlearn.views.operations.operation import Operation, Parameter, Quantiles

# A range of no width has no density to invert; this one is far below a pixel.
_MIN_HALF_RANGE = 1e-6
# Towards the double root at area 1 each step halves the error; elsewhere four are enough.
_NEWTON_STEPS = 18


def accepted_area(
    u: Float64[np.ndarray, "b v"],
    area_min: Float64[np.ndarray, " v"],
    area_max: Float64[np.ndarray, " v"],
    half_range: Float64[np.ndarray, " v"],
    offset: Float64[np.ndarray, "b v"],
) -> Float64[np.ndarray, "b v"]:
    """Returns the area's share at quantile ``u`` of its marginal over the accepted region.

    At a given area the aspects that fit and are allowed form an interval; its length, as a
    function of the area, is the marginal's density, and that is linear in ``ln a`` by pieces.
    Its integral is closed and is inverted numerically inside the piece the quantile falls into.

    Args:
        half_range: ``L``, half range of the log aspect.
        offset: ``d``, log aspect of the scan minus the centre of the range.

    Returns:
        Shares of the area. Where no allowed box fits, the largest one that keeps the aspect.
    """
    half = np.maximum(np.broadcast_to(half_range, u.shape), _MIN_HALF_RANGE)
    delta = np.abs(offset)
    # Up to `full` (in a) the whole range fits; then one side is cut, then (near 1) both.
    full, cut = np.exp(-(half + delta)), np.exp(-np.abs(half - delta))
    largest = np.where(delta > half, cut, 1.0)
    low = np.broadcast_to(area_min, u.shape)
    high = np.minimum(np.broadcast_to(area_max, u.shape), largest)
    fits = high > low
    high = np.maximum(high, low)
    # The density in each piece is intercept - slope * ln a.
    edges = np.stack([low, np.clip(full, low, high), np.clip(cut, low, high), high])
    intercepts = np.stack([2 * half, half - delta, np.zeros_like(half)])
    slopes = np.array([0.0, 1.0, 2.0])[:, None, None]
    below, above = (
        _integral(edges[:-1], intercepts, slopes),
        _integral(edges[1:], intercepts, slopes),
    )
    pieces = np.maximum(above - below, 0.0)
    # A box that is too long for the range has no third piece.
    pieces[2] = np.where(delta > half, 0.0, pieces[2])
    total = np.cumsum(pieces, axis=0)
    target = u * total[-1]
    piece = (target >= total[0]).astype(np.int64) + (target >= total[1])
    a, alpha, start, before = (
        np.take_along_axis(values, piece[None], axis=0)[0]
        for values in (edges[:-1], intercepts, below, total - pieces)
    )
    stop = np.take_along_axis(edges[1:], piece[None], axis=0)[0]
    found = _inverse(start + (target - before), (a, stop), alpha, piece.astype(np.float64))
    area: Float64[np.ndarray, "b v"] = np.where(fits, found, np.minimum(low, largest))
    return area


def accepted_boxes(
    u: Float64[np.ndarray, "b v 4"],
    area_min: Float64[np.ndarray, " v"],
    area_max: Float64[np.ndarray, " v"],
    log_aspect: tuple[Float64[np.ndarray, "b v"], Float64[np.ndarray, " v"]],
    valid_box: Float64[np.ndarray, "b 4"],
) -> Float64[np.ndarray, "b v 4"]:
    """Returns crop boxes inside the valid boxes.

    Args:
        u: Uniforms for area, aspect, top and left.
        area_min: Smallest share of the valid box's area; ``area_max`` the largest.
        log_aspect: Centre and half range of the logarithm of width over height.
        valid_box: Top, left, bottom and right of each scan on its canvas, in pixels.

    Returns:
        Top, left, bottom and right in pixels of the canvas, not rounded.
    """
    centre, half_range = log_aspect
    top, left, bottom, right = (valid_box[:, i, None] for i in range(4))
    height, width = bottom - top, right - left
    offset = np.log(width / height) - centre
    area = accepted_area(u[..., 0], area_min, area_max, half_range, offset)
    fit = -np.log(area)
    lowest = np.maximum(-fit, -offset - half_range)
    highest = np.minimum(fit, -offset + half_range)
    # Rounding may leave the two ends of a single point crossed by one unit in the last place.
    gap = np.clip(lowest + u[..., 1] * (highest - lowest), -fit, fit)
    rows = height * np.minimum(np.exp((-fit - gap) / 2), 1.0)
    columns = width * np.minimum(np.exp((-fit + gap) / 2), 1.0)
    y0 = top + u[..., 2] * (height - rows)
    x0 = left + u[..., 3] * (width - columns)
    return np.stack([y0, x0, np.minimum(y0 + rows, bottom), np.minimum(x0 + columns, right)], -1)


def _inverse(
    goal: Float64[np.ndarray, "b v"],
    ends: tuple[Float64[np.ndarray, "b v"], Float64[np.ndarray, "b v"]],
    intercept: Float64[np.ndarray, "b v"],
    slope: Float64[np.ndarray, "b v"],
) -> Float64[np.ndarray, "b v"]:
    """Where the antiderivative reaches ``goal``.

    The antiderivative is concave, so Newton's method from the left end never overshoots.
    """
    a, stop = ends
    for _ in range(_NEWTON_STEPS):
        density = np.maximum(intercept - slope * np.log(a), 1e-12)
        a = np.clip(a + (goal - _integral(a, intercept, slope)) / density, a, stop)
    return a


def _integral(
    a: Float64[np.ndarray, "..."],
    intercept: Float64[np.ndarray, "..."],
    slope: Float64[np.ndarray, "..."],
) -> Float64[np.ndarray, "..."]:
    """Antiderivative of ``intercept - slope * ln a``."""
    value: Float64[np.ndarray, "..."] = intercept * a - slope * (a * np.log(a) - a)
    return value


def _draw(quantiles: Quantiles) -> dict[str, Float64[np.ndarray, "b v 4"]]:
    box = quantiles.valid_box
    aspect = np.log((box[:, 3] - box[:, 1]) / (box[:, 2] - box[:, 0]))[:, None]
    corner = [quantiles.uniform(name) for name in ("area", "aspect", "top", "left")]
    crop_box = accepted_boxes(
        np.stack(corner, axis=-1),
        quantiles.span("crop_min"),
        quantiles.span("crop_max"),
        (aspect * quantiles.span("own_aspect"), quantiles.span("log_aspect")),
        box,
    )
    return {"crop_box": crop_box}


CROP = Operation(
    "crop",
    "crop",
    (
        Parameter("crop_min", "Smallest crop", "of the area", lowest=0.001, identity=1),
        Parameter("crop_max", "Largest crop", "of the area", lowest=0.001, identity=1),
        Parameter("log_aspect", "Crop aspect", "± ln w/h", highest=math.log(4)),
        Parameter("own_aspect", "Centre of the aspect", "1 own, 0 square", identity=1),
    ),
    _draw,
)
