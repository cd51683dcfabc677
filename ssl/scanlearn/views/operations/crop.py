"""Crop boxes drawn from the accepted region of torchvision's RandomResizedCrop.

torchvision draws an area and an aspect, tries again where the box does not fit, and after ten
failures takes a centre crop. Here area and aspect are drawn from what it accepts, directly:
one pair of uniforms is one box, and the box moves continuously with the ranges. At the identity,
where torchvision would nearly always fall back, the box is the whole scan.

A view never squeezes a scan by more than the recipe's aspect range: of a scan that is not square
more is seen than fits a box inside it by a box that reaches beyond its longer sides, and what
lies there is background. All of it was squeezed into the square at the identity and in
evaluation, but not in stronger views, so that the dial set the squeeze too.

With ``a`` the share of the scan's area that is seen, ``t = -ln a``, ``d`` the logarithm of the
scan's aspect and ``g`` that of the crop's, a box inside the scan fits where ``|g - d| <= t``, and
one that may reach beyond it lies inside the square around the scan where
``min(0, d) - t <= g <= max(0, d) + t``; the recipe allows ``|g| <= L``.
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
# By which the density falls in each piece.
_SLOPES = np.array([0.0, 1.0, 2.0])[:, None, None]


def accepted_area(
    u: Float64[np.ndarray, "b v"],
    area_min: Float64[np.ndarray, " v"],
    area_max: Float64[np.ndarray, " v"],
    half_range: Float64[np.ndarray, " v"],
    log_aspect: Float64[np.ndarray, "b 1"],
) -> Float64[np.ndarray, "b v"]:
    """Returns the area's share at quantile ``u`` of its marginal over the accepted region.

    At a given area the aspects that fit and are allowed form an interval; its length, as a
    function of the area, is the marginal's density, and that is linear in ``ln a`` by pieces.
    Its integral is closed and is inverted numerically inside the piece the quantile falls into.

    Args:
        half_range: ``L``, half range of the log aspect.
        log_aspect: ``d``, logarithm of the scan's width over its height.
    """
    half, low, high, delta, u = np.broadcast_arrays(
        np.maximum(half_range, _MIN_HALF_RANGE),
        area_min,
        np.maximum(np.minimum(area_max, 1.0), area_min),
        np.abs(log_aspect),
        u,
    )
    # Up to `full` (in a) the whole range fits; then one side is cut, then (near 1) both.
    full, cut = np.exp(-half), np.exp(-np.maximum(half - delta, 0.0))
    # The density in each piece is intercept - slope * ln a.
    edges = np.array([low, _between(full, low, high), _between(cut, low, high), high])
    intercepts = np.array([2 * half, half, delta])
    logs = np.log(edges)
    below = _integral(edges[:-1], logs[:-1], intercepts, _SLOPES)
    above = _integral(edges[1:], logs[1:], intercepts, _SLOPES)
    pieces = np.maximum(above - below, 0.0)
    total = pieces.cumsum(axis=0)
    target = u * total[-1]
    piece = (target >= total[0]).astype(np.int64) + (target >= total[1])
    # Of all pieces one after the other.
    place = piece * u.size + np.arange(u.size).reshape(u.shape)
    start = edges.take(place), edges.take(place + u.size)
    goal = below.take(place) + (target - (total - pieces).take(place))
    return _inverse(goal, start, intercepts.take(place), piece.astype(np.float64))


def accepted_boxes(
    u: Float64[np.ndarray, "b v 4"],
    area_min: Float64[np.ndarray, " v"],
    area_max: Float64[np.ndarray, " v"],
    half_range: Float64[np.ndarray, " v"],
    valid_box: Float64[np.ndarray, "b 4"],
) -> Float64[np.ndarray, "b v 4"]:
    """Returns crop boxes, each inside the valid box or, along one axis, centred on it and longer.

    Args:
        u: Uniforms for area, aspect, top and left.
        area_min: Smallest share of the valid box's area; ``area_max`` the largest.
        half_range: Half range of the logarithm of width over height.
        valid_box: Top, left, bottom and right of each scan on its canvas, in pixels.

    Returns:
        Top, left, bottom and right in pixels of the canvas, not rounded.
    """
    top, left, bottom, right = valid_box.T[..., None]
    height, width = bottom - top, right - left
    d = np.log(width / height)
    fit = -np.log(accepted_area(u[..., 0], area_min, area_max, half_range, d))
    # The crop's log aspect from that of the scan.
    wide, tall = np.maximum(d, 0.0), np.maximum(-d, 0.0)
    lowest = np.maximum(-wide - fit, -d - half_range)
    highest = np.minimum(tall + fit, -d + half_range)
    # Rounding may leave the two ends of a single point crossed by one unit in the last place.
    gap = _between(lowest + u[..., 1] * (highest - lowest), -wide - fit, tall + fit)
    # Above 0 along the axis that the box fills and reaches beyond, of which nothing more is seen.
    along_y, along_x = -fit - gap, -fit + gap
    beyond = np.maximum(along_y, 0.0) + np.maximum(along_x, 0.0)
    y0, y1 = _placed(u[..., 2], top, bottom, height * np.exp((along_y + beyond) / 2))
    x0, x1 = _placed(u[..., 3], left, right, width * np.exp((along_x + beyond) / 2))
    return np.stack([y0, x0, y1, x1], -1)


def _placed(
    u: Float64[np.ndarray, "b v"],
    start: Float64[np.ndarray, "b 1"],
    stop: Float64[np.ndarray, "b 1"],
    length: Float64[np.ndarray, "b v"],
) -> tuple[Float64[np.ndarray, "b v"], Float64[np.ndarray, "b v"]]:
    """Both ends of a box along an axis: anywhere inside, or centred where it is the longer."""
    room = stop - start - length
    low = start + np.where(room > 0, u, 0.5) * room
    return low, np.where(room < 0, low + length, np.minimum(low + length, stop))


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
        log = np.log(a)
        density = np.maximum(intercept - slope * log, 1e-12)
        moved = _between(a + (goal - _integral(a, log, intercept, slope)) / density, a, stop)
        # Where no step moves anything, none that follows does.
        if (moved == a).all():
            break
        a = moved
    return a


def _integral(
    a: Float64[np.ndarray, "..."],
    log: Float64[np.ndarray, "..."],
    intercept: Float64[np.ndarray, "..."],
    slope: Float64[np.ndarray, "..."],
) -> Float64[np.ndarray, "..."]:
    """Antiderivative of ``intercept - slope * ln a``."""
    value: Float64[np.ndarray, "..."] = intercept * a - slope * (a * log - a)
    return value


def _between(
    values: Float64[np.ndarray, "..."],
    low: Float64[np.ndarray, "..."],
    high: Float64[np.ndarray, "..."],
) -> Float64[np.ndarray, "..."]:
    """`np.clip`, whose own checks take most of its time on the few views of an image."""
    clipped: Float64[np.ndarray, "..."] = np.minimum(np.maximum(values, low), high)
    return clipped


def _draw(quantiles: Quantiles) -> dict[str, Float64[np.ndarray, "b v 4"]]:
    corner = [quantiles.uniform(name) for name in ("area", "aspect", "top", "left")]
    crop_box = accepted_boxes(
        np.stack(corner, axis=-1),
        quantiles.span("crop_min"),
        quantiles.span("crop_max"),
        quantiles.span("log_aspect"),
        quantiles.valid_box,
    )
    return {"crop_box": crop_box}


CROP = Operation(
    "crop",
    "crop",
    (
        Parameter("crop_min", "Smallest crop", "of the area", lowest=0.001, identity=1),
        Parameter("crop_max", "Largest crop", "of the area", lowest=0.001, identity=1),
        Parameter("log_aspect", "Crop aspect", "± ln w/h", highest=math.log(4)),
    ),
    _draw,
)
