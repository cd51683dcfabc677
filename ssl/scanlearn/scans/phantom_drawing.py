"""Draws one fundus-like picture from numbers: no scan of a person went into it.

Lengths are in radii of the field of view, angles in radians, with the field's centre at the
origin, x to the right and y down. A right eye has its disc on the right. Colours are linear
reflectances in [0, 1], red, green, blue.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float32, Float64

LIGHT_FUNDUS = np.array([0.86, 0.47, 0.25], dtype=np.float32)
DARK_FUNDUS = np.array([0.62, 0.27, 0.12], dtype=np.float32)
DISC_COLOUR = np.array([0.98, 0.80, 0.54], dtype=np.float32)
CUP_COLOUR = np.array([1.00, 0.92, 0.74], dtype=np.float32)
# Blood takes away green and blue, and hardly any red.
BLOOD_ABSORPTION = np.array([0.55, 1.25, 0.95], dtype=np.float32)
DISC_RADIUS = 0.15


@dataclass(frozen=True)
class Camera:
    """How a make of camera pictures every eye.

    Args:
        gain: ``[3]`` factor on red, green and blue.
        contrast: Factor on the distance from mid-gray; 1 leaves the picture as it is.
        blur: Standard deviation of the lens' blur, in field radii.
        noise: Standard deviation of the sensor's noise, on the unit range.
        vignetting: Share of the light that is lost at the edge of the field.
        zoom: Anatomical length that one field radius shows.
        field_radius: Field radius as a multiple of half the canvas (geometric mean of its sides).
        cut: Height above and below the centre at which the field ends, in field radii.
    """

    gain: tuple[float, float, float]
    contrast: float
    blur: float
    noise: float
    vignetting: float
    zoom: float
    field_radius: float
    cut: float


@dataclass(frozen=True)
class Frame:
    """Where each canvas pixel lies in the field of view.

    Args:
        x: ``[h w]`` column of each pixel's centre, in field radii.
        y: ``[h w]`` row of each pixel's centre, in field radii.
        mask: ``[h w]`` True inside the field of view.
        radius_px: The field's radius in pixels.
    """

    x: Float32[np.ndarray, "h w"]
    y: Float32[np.ndarray, "h w"]
    mask: Bool[np.ndarray, "h w"]
    radius_px: float


@dataclass(frozen=True)
class Vessels:
    """Points along the vessels of one eye, in anatomical lengths.

    Args:
        points: ``[p 2]`` x and y.
        weights: ``[p]`` darkness of a point times the path length it stands for.
        sigmas: Standard deviation across the vessel of each calibre.
        counts: Number of points of each calibre, in the order of ``points``.
    """

    points: Float64[np.ndarray, "p 2"]
    weights: Float64[np.ndarray, " p"]
    sigmas: tuple[float, ...]
    counts: tuple[int, ...]


@lru_cache(maxsize=64)
def camera(number: int) -> Camera:
    """Returns the look of camera ``number``, the same in every phantom.

    Cameras are spread over their ranges by steps of the golden ratio's kin, so that any number
    of them differ from each other.
    """

    def spread(step: float, low: float, high: float) -> float:
        return low + (high - low) * ((0.5 + number * step) % 1.0)

    warmth = spread(0.6180, -0.10, 0.10)
    green = spread(0.7549, -0.05, 0.05)
    return Camera(
        gain=(1.0 + 0.5 * warmth, 1.0 + green, 1.0 - 1.6 * warmth),
        contrast=spread(0.5698, 0.90, 1.12),
        blur=spread(0.8192, 0.004, 0.016),
        noise=spread(0.4142, 0.008, 0.022),
        vignetting=spread(0.3247, 0.25, 0.50),
        zoom=spread(0.6711, 0.92, 1.10),
        field_radius=(0.98, 1.10, 0.95)[number % 3],
        cut=(1.0, 1.0, 0.84)[number % 3],
    )


@lru_cache(maxsize=32)
def frame(height: int, width: int, field_radius: float, cut: float) -> Frame:
    """Returns the field of view of a camera on a canvas of ``height`` x ``width`` pixels."""
    radius_px = 0.5 * float(np.sqrt(height * width)) * field_radius
    rows = ((np.arange(height) + 0.5 - height / 2) / radius_px).astype(np.float32)
    columns = ((np.arange(width) + 0.5 - width / 2) / radius_px).astype(np.float32)
    y, x = (np.ascontiguousarray(a) for a in np.meshgrid(rows, columns, indexing="ij"))
    mask = (x * x + y * y <= 1.0) & (np.abs(y) <= cut)
    for array in (x, y, mask):
        array.setflags(write=False)
    return Frame(x, y, mask, radius_px)


def _walk(
    starts: Float64[np.ndarray, "n 2"],
    headings: Float64[np.ndarray, "n t"],
    lengths: Float64[np.ndarray, " n"],
) -> Float64[np.ndarray, "n t 2"]:
    """Returns the points of paths that leave ``starts`` along ``headings``."""
    step = (lengths / headings.shape[1])[:, None]
    x = starts[:, :1] + np.cumsum(np.cos(headings) * step, axis=1)
    y = starts[:, 1:] + np.cumsum(np.sin(headings) * step, axis=1)
    return np.stack((x, y), axis=2)


def _wander(
    rng: np.random.Generator, paths: int, steps: int, tortuosity: float
) -> Float64[np.ndarray, "n t"]:
    """Returns smooth deviations of heading along each path, in radians."""
    t = np.linspace(0.0, 1.0, steps)[None, :]
    phase = rng.uniform(0.0, 2 * np.pi, (2, paths, 1))
    waves = rng.uniform(1.0, 2.2, (paths, 1))
    slow = np.sin(2 * np.pi * waves * t + phase[0])
    fast = np.sin(2 * np.pi * 2.7 * waves * t + phase[1])
    deviation: Float64[np.ndarray, "n t"] = tortuosity * (0.5 * slow + 0.5 * fast)
    return deviation


def _branch(
    rng: np.random.Generator,
    parents: Float64[np.ndarray, "n t 2"],
    headings: Float64[np.ndarray, "n t"],
    *,
    each: int,
    length: tuple[float, float],
    steps: int,
    tortuosity: float,
) -> tuple[Float64[np.ndarray, "m s 2"], Float64[np.ndarray, "m s"], Float64[np.ndarray, " m"]]:
    """Returns points, headings and lengths of ``each`` branches to every parent, sides in turn."""
    paths, parent_steps = headings.shape
    places = (np.arange(each) + rng.uniform(0.25, 0.95, (paths, each))) / each
    index = np.minimum((places * parent_steps).astype(np.int64), parent_steps - 1)
    rows = np.arange(paths)[:, None]
    side = np.where((np.arange(each) + rng.integers(0, 2, (paths, 1))) % 2 == 0, 1.0, -1.0)
    turn = side * rng.uniform(0.5, 1.0, (paths, each))
    first = (headings[rows, index] + turn).reshape(-1, 1)
    # A branch leaves at a wide angle and then bends back towards its parent's course.
    bend = -0.6 * turn.reshape(-1, 1) * np.linspace(0.0, 1.0, steps)[None, :]
    course = first + bend + _wander(rng, paths * each, steps, tortuosity)
    lengths = rng.uniform(*length, paths * each)
    return _walk(parents[rows, index].reshape(-1, 2), course, lengths), course, lengths


def grow_vessels(rng: np.random.Generator, disc: tuple[float, float], tortuosity: float) -> Vessels:
    """Grows arteries and veins out of the disc of a right eye.

    Args:
        rng: Source of all numbers drawn.
        disc: x and y of the disc's centre.
        tortuosity: Amplitude of the vessels' winding, in radians; about .1 to .7.
    """
    # Four arcades (towards the temple above and below, towards the nose above and below), each an
    # artery and a vein. The temporal ones bend around the macula.
    begin = np.array([-1.75, 1.75, -0.95, 0.95]).repeat(2) + rng.normal(0.0, 0.12, 8)
    turn = np.array([-1.35, 1.35, 0.45, -0.45]).repeat(2) + rng.normal(0.0, 0.15, 8)
    lengths = np.array([1.65, 1.65, 0.8, 0.8]).repeat(2) * rng.uniform(0.9, 1.1, 8)
    steps = (120, 48, 28)
    t = np.linspace(0.0, 1.0, steps[0])[None, :]
    course = begin[:, None] + turn[:, None] * t + _wander(rng, 8, steps[0], tortuosity)
    starts = np.array(disc) + rng.normal(0.0, 0.02, (8, 2))
    trunks = _walk(starts, course, lengths)
    limbs, limb_course, limb_lengths = _branch(
        rng, trunks, course, each=5, length=(0.3, 0.65), steps=steps[1], tortuosity=tortuosity
    )
    twigs, _, twig_lengths = _branch(
        rng, limbs, limb_course, each=2, length=(0.12, 0.3), steps=steps[2], tortuosity=tortuosity
    )
    veins = np.tile([0.75, 1.15], 4)
    darkness = (veins, veins.repeat(5) * 0.8, veins.repeat(10) * 0.6)
    weights = [
        (depth * length / count)[:, None] * np.linspace(1.0, 0.45, count)[None, :]
        for depth, length, count in zip(
            darkness, (lengths, limb_lengths, twig_lengths), steps, strict=True
        )
    ]
    paths = (trunks, limbs, twigs)
    return Vessels(
        points=np.concatenate([path.reshape(-1, 2) for path in paths]),
        weights=np.concatenate([weight.ravel() for weight in weights]),
        sigmas=(0.014, 0.010, 0.007),
        counts=tuple(path.shape[0] * path.shape[1] for path in paths),
    )


@lru_cache(maxsize=256)
def _blur_matrix(count: int, sigma_px: float) -> Float32[np.ndarray, "n n"]:
    """Returns the matrix that blurs ``count`` samples by a normalised Gaussian."""
    offset = np.arange(count)[:, None] - np.arange(count)[None, :]
    weight = np.exp(-0.5 * (offset / sigma_px) ** 2)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True), dtype=np.float32)


def blur(image: Float32[np.ndarray, "*c h w"], sigma_px: float) -> Float32[np.ndarray, "*c h w"]:
    """Returns ``image`` blurred over its last two axes."""
    height, width = image.shape[-2:]
    rounded = round(sigma_px, 3)
    blurred: Float32[np.ndarray, "*c h w"] = (
        _blur_matrix(height, rounded) @ image @ _blur_matrix(width, rounded).T
    )
    return blurred


def splat(
    points_px: Float64[np.ndarray, "p 2"],
    weights: Float64[np.ndarray, " p"],
    height: int,
    width: int,
) -> Float32[np.ndarray, "h w"]:
    """Returns the sum of ``weights`` at sub-pixel places, shared among the four pixels around."""
    # Two pixels of border on every side catch what lies off the canvas.
    x = np.clip(points_px[:, 0] + 1.5, 0.0, width + 2.0)
    y = np.clip(points_px[:, 1] + 1.5, 0.0, height + 2.0)
    left, top = x.astype(np.int64), y.astype(np.int64)
    right_share, bottom_share = x - left, y - top
    stride = width + 4
    corner = top * stride + left
    lower, upper = weights * bottom_share, weights * (1.0 - bottom_share)
    index = np.concatenate((corner, corner + 1, corner + stride, corner + stride + 1))
    share = np.concatenate(
        (
            upper * (1.0 - right_share),
            upper * right_share,
            lower * (1.0 - right_share),
            lower * right_share,
        )
    )
    total = np.bincount(index, share, minlength=stride * (height + 4))
    return np.asarray(
        total.reshape(height + 4, stride)[2 : height + 2, 2 : width + 2], dtype=np.float32
    )


def vessel_depth(
    vessels: Vessels, view: Frame, zoom: float, side: float
) -> Float32[np.ndarray, "h w"]:
    """Returns how much blood lies in front of each pixel: about 1 on the line of a wide vein.

    Args:
        vessels: Vessels of a right eye.
        view: Where the pixels lie.
        zoom: Anatomical length of one field radius.
        side: 1 for a right eye, -1 mirrors it into a left one.
    """
    height, width = view.x.shape
    scale = view.radius_px / zoom
    centre = np.array([width / 2, height / 2])
    points_px = vessels.points * np.array([side * scale, scale]) + centre
    depth = np.zeros((height, width), dtype=np.float32)
    start = 0
    for sigma, count in zip(vessels.sigmas, vessels.counts, strict=True):
        part = slice(start, start + count)
        start += count
        true_px = sigma * scale
        # Thinner than half a pixel, a vessel fades instead of breaking into dots.
        drawn_px = max(true_px, 0.6)
        peak = np.sqrt(2 * np.pi) * drawn_px * (true_px / drawn_px)
        line = splat(points_px[part], vessels.weights[part] * scale * peak, height, width)
        depth += blur(line, drawn_px)
    return depth


@lru_cache(maxsize=64)
def _spline_matrix(count: int, knots: int) -> Float32[np.ndarray, "n k"]:
    """Returns cubic B-spline weights of ``knots`` coarse values at ``count`` samples."""
    place = (np.arange(count) + 0.5) / count * (knots - 3) + 1.0
    distance = np.abs(place[:, None] - np.arange(knots)[None, :])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2.0 - distance, 0.0, None) ** 3 / 6
    return np.where(distance < 1.0, near, far).astype(np.float32)


def smooth_field(
    rng: np.random.Generator, height: int, width: int, knots: int
) -> Float32[np.ndarray, "h w"]:
    """Returns a smooth random field of mean 0 and a standard deviation of about .5."""
    coarse = rng.standard_normal((knots, knots)).astype(np.float32)
    field: Float32[np.ndarray, "h w"] = (
        _spline_matrix(height, knots) @ coarse @ _spline_matrix(width, knots).T
    )
    return field


def soft_disc(
    view: Frame, centre: tuple[float, float], radius: tuple[float, float], softness: float
) -> Float32[np.ndarray, "h w"]:
    """Returns an ellipse's coverage, 1 inside and 0 outside, with an edge of width ``softness``."""
    distance = np.hypot((view.x - centre[0]) / radius[0], (view.y - centre[1]) / radius[1])
    edge = softness / min(radius)
    return np.clip(0.5 + (1.0 - distance) / edge, 0.0, 1.0).astype(np.float32)


def splat_spots(
    view: Frame, places: Float64[np.ndarray, "n 2"], radii: Float64[np.ndarray, " n"]
) -> Float32[np.ndarray, "h w"]:
    """Returns the coverage of small round spots with soft edges, each drawn in its own window.

    Args:
        view: Where the pixels lie.
        places: x and y of each spot's centre, in field radii.
        radii: Radius of each spot, in field radii.
    """
    height, width = view.x.shape
    cover = np.zeros((height, width), dtype=np.float32)
    for (x, y), radius in zip(places * view.radius_px, radii * view.radius_px, strict=True):
        column, row = x + width / 2, y + height / 2
        reach = int(np.ceil(radius + 1.5))
        top, left = max(int(row) - reach, 0), max(int(column) - reach, 0)
        window = (slice(top, int(row) + reach + 1), slice(left, int(column) + reach + 1))
        part = cover[window]
        if part.size == 0:
            continue
        rows = np.arange(top, top + part.shape[0])[:, None] + 0.5 - row
        columns = np.arange(left, left + part.shape[1])[None, :] + 0.5 - column
        # One pixel of edge, so that a spot smaller than a pixel is drawn fainter.
        spot = np.clip(radius + 0.5 - np.hypot(rows, columns), 0.0, 1.0)
        np.maximum(part, spot.astype(np.float32), out=part)
    return cover
