"""The vessels of the phantom: trees that grow out of the optic disc; units as in `camera`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from scanlearn.phantom.brush import blur, splat
from scanlearn.phantom.camera import FieldGrid


@dataclass(frozen=True)
class Vessels:
    """Points along the vessels of one eye, in anatomical lengths.

    Args:
        weights: ``[p]`` darkness of a point times the path length it stands for.
        sigmas: Standard deviation across the vessel of each calibre.
        counts: Number of points of each calibre, in the order of ``points``.
    """

    points: Float64[np.ndarray, "p 2"]
    weights: Float64[np.ndarray, " p"]
    sigmas: tuple[float, ...]
    counts: tuple[int, ...]


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
    """Grows arteries and veins, wound by ``tortuosity`` radians, out of the disc of a right eye."""
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


def vessel_depth(
    vessels: Vessels, view: FieldGrid, zoom: float, side: float
) -> Float32[np.ndarray, "h w"]:
    """Returns how much blood lies in front of each pixel: about 1 on the line of a wide vein.

    Args:
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
