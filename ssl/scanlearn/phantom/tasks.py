"""The tasks planted in the phantom: what each label changes in the picture, and by how much.

The labels of an eye are drawn apart from its picture and from each other, each with probability
one half, so that no trait of the patient or the camera tells anything about them. They say
nothing about real scans: they exist to show that the instrument measures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from scanlearn.phantom.brush import spots_cover
from scanlearn.phantom.camera import FieldGrid
from scanlearn.phantom.eye import DISC_RADIUS

TASKS = ("lesion", "pallor", "texture", "null")

# As far above the light of an average fundus as the dark ones lie below it.
BRIGHT_SPOT = np.array([0.98, 0.78, 0.46], dtype=np.float32)
DARK_SPOT = np.array([0.36, 0.05, 0.03], dtype=np.float32)


@dataclass(frozen=True)
class Strengths:
    """How strongly each label shows; 0 hides it.

    The defaults were set on the phantom of seed 0 and confirmed on that of seed 1, by
    ``benchmarks/phantom.py``; its figures stand in benchmarks/RESULTS.md.

    Args:
        spots: Fewest and most spots of an eye with lesions.
        spot_radius: Smallest and largest radius of a spot, in field radii.
        pallor: Logarithm of how much flatter the contrast of pale eyes is than that of the
            others; they are brighter by a quarter of it.
        texture: Amplitude of the striation, as a share of the light.
        stripes: Fewest and most stripes across the field.
        tilt_deg: Standard deviation of the stripes' direction. Those of some eyes lie nearer to the
            other label's: no network can tell them.
    """

    lesion: float = 0.9
    spots: tuple[int, int] = (8, 12)
    spot_radius: tuple[float, float] = (0.03, 0.046)
    pallor: float = 0.3
    texture: float = 0.14
    stripes: tuple[float, float] = (6.0, 8.0)
    tilt_deg: float = 30.0


def draw_labels(rng: np.random.Generator) -> dict[str, int]:
    """Returns one fair coin per task."""
    return dict(zip(TASKS, rng.integers(0, 2, len(TASKS)).tolist(), strict=True))


def add_lesions(
    picture: Float32[np.ndarray, "3 h w"],
    view: FieldGrid,
    rng: np.random.Generator,
    strengths: Strengths,
    *,
    disc: tuple[float, float],
) -> Float32[np.ndarray, "3 h w"]:
    """Returns ``picture`` with a cluster of tiny spots, bright and dark in turn.

    The cluster lies anywhere but on the disc and at the edge of the field. Bright and dark spots
    cancel in any local mean, so that a thumbnail cannot tell that they are there.
    """
    while True:
        radius, angle = 0.6 * np.sqrt(rng.uniform()), rng.uniform(0.0, 2 * np.pi)
        centre = np.array([radius * np.cos(angle), radius * np.sin(angle)])
        if np.hypot(*(centre - np.array(disc))) > 2.2 * DISC_RADIUS:
            break
    count = int(rng.integers(strengths.spots[0], strengths.spots[1] + 1))
    places = centre + rng.normal(0.0, 0.09, (count, 2))
    radii = rng.uniform(*strengths.spot_radius, count)
    is_bright = np.arange(count) % 2 == rng.integers(0, 2)
    for chosen, colour in ((is_bright, BRIGHT_SPOT), (~is_bright, DARK_SPOT)):
        cover = strengths.lesion * spots_cover(view, places[chosen], radii[chosen])
        picture = picture + cover * (colour[:, None, None] - picture)
    return picture


def striation(
    view: FieldGrid, rng: np.random.Generator, strengths: Strengths, *, upright: bool
) -> Float32[np.ndarray, "h w"]:
    """Returns the factor on the light of stripes that lie about flat or stand about upright.

    A horizontal flip mirrors their tilt, which is as often to one side as to the other. Of clear,
    level stripes every trained network read the label without an error, so that texture measured
    nothing; at most (2 Phi(90 / (sqrt(2) tilt_deg)) - 1)^2 can be read of tilted ones.
    """
    across, along = (view.x, view.y) if upright else (view.y, view.x)
    stripes = rng.uniform(*strengths.stripes)
    phase, wave, sway = rng.uniform(0.0, 2 * np.pi), rng.uniform(1.0, 2.0), rng.uniform(0.2, 0.5)
    start = rng.uniform(0.0, 2 * np.pi)
    tilt = np.deg2rad(rng.normal(0.0, strengths.tilt_deg))
    cosine, sine = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    across, along = cosine * across + sine * along, cosine * along - sine * across
    winding = sway * np.sin(wave * np.pi * along + start)
    stripe = np.sin(np.float32(np.pi * stripes) * across + np.float32(phase) + winding)
    return (1.0 + strengths.texture * stripe).astype(np.float32)


def wash_out(
    picture: Float32[np.ndarray, "3 h w"], view: FieldGrid, strengths: Strengths, *, pale: bool
) -> Float32[np.ndarray, "3 h w"]:
    """Returns ``picture`` brighter and flatter all over where ``pale``, else darker and crisper."""
    step = 0.5 * strengths.pallor * (1 if pale else -1)
    light, contrast = np.float32(np.exp(0.25 * step)), np.float32(np.exp(-step))
    ground = picture.mean(axis=(1, 2), where=view.mask)[:, None, None]
    washed: Float32[np.ndarray, "3 h w"] = light * (ground + contrast * (picture - ground))
    return washed
