"""The eyes of the phantom: what they look like, and what a camera records of them.

Units are those of `scanlearn.phantom.camera`; a right eye has its disc on the right. Colours are
linear reflectances in [0, 1], red, green, blue. No scan of a person went into them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from scanlearn.phantom.brush import blur, smooth_field, soft_disc
from scanlearn.phantom.camera import Camera, FieldGrid
from scanlearn.phantom.vessels import grow_vessels, vessel_depth

LIGHT_FUNDUS = np.array([0.86, 0.47, 0.25], dtype=np.float32)
DARK_FUNDUS = np.array([0.62, 0.27, 0.12], dtype=np.float32)
DISC_COLOUR = np.array([0.98, 0.80, 0.54], dtype=np.float32)
CUP_COLOUR = np.array([1.00, 0.92, 0.74], dtype=np.float32)
# Blood takes away green and blue, and hardly any red.
BLOOD_ABSORPTION = np.array([0.55, 1.25, 0.95], dtype=np.float32)
DISC_RADIUS = 0.15


@dataclass(frozen=True)
class Patient:
    """What both eyes of a patient share."""

    pigment: float
    hue: float
    tortuosity: float
    disc_size: float
    camera: int


def draw_patient(rng: np.random.Generator, cameras: int) -> Patient:
    """Returns a patient, pictured by one of ``cameras`` makes of camera."""
    return Patient(
        pigment=float(rng.uniform()),
        hue=float(rng.normal(0.0, 0.05)),
        tortuosity=float(rng.uniform(0.1, 0.6)),
        disc_size=float(rng.uniform(0.85, 1.2)),
        camera=int(rng.integers(cameras)),
    )


def draw_eye(
    rng: np.random.Generator, patient: Patient, view: FieldGrid, zoom: float, side: float
) -> tuple[Float32[np.ndarray, "3 h w"], tuple[float, float]]:
    """Returns the eye's own colours without any lens, and where the disc lies in the field."""
    height, width = view.x.shape
    colour = LIGHT_FUNDUS + np.float32(patient.pigment) * (DARK_FUNDUS - LIGHT_FUNDUS)
    colour = colour * np.array([1.0, 1.0 + patient.hue, 1.0 - patient.hue], dtype=np.float32)
    disc = (0.52 + rng.normal(0.0, 0.03), rng.normal(0.0, 0.03))
    disc_in_view = (side * disc[0] / zoom, disc[1] / zoom)
    fovea = (side * (disc[0] - 0.6) / zoom, (disc[1] + 0.04) / zoom)
    ground = 1.0 + np.float32(0.10) * smooth_field(rng, height, width, 9)
    distance2 = (view.x - fovea[0]) ** 2 + (view.y - fovea[1]) ** 2
    ground *= 1.0 - np.float32(0.32) * np.exp(distance2 * np.float32(-0.5 / 0.16**2))
    picture = colour[:, None, None] * ground
    size = DISC_RADIUS * patient.disc_size / zoom
    disc_cover = soft_disc(view, disc_in_view, (0.92 * size, size), 0.035)
    cup_share = rng.uniform(0.35, 0.6)
    cup_centre = (disc_in_view[0] - side * 0.1 * size, disc_in_view[1])
    cup_cover = soft_disc(view, cup_centre, (cup_share * size, cup_share * size), 0.05)
    picture += disc_cover * (DISC_COLOUR[:, None, None] - picture)
    picture += (0.8 * cup_cover) * (CUP_COLOUR[:, None, None] - picture)
    depth = vessel_depth(grow_vessels(rng, disc, patient.tortuosity), view, zoom, side)
    np.minimum(depth, 1.4, out=depth)
    picture *= np.exp(-BLOOD_ABSORPTION[:, None, None] * depth)
    return picture, disc_in_view


def photograph(
    picture: Float32[np.ndarray, "3 h w"],
    look: Camera,
    view: FieldGrid,
    light: np.random.Generator,
    sensor: np.random.Generator,
) -> Float32[np.ndarray, "3 h w"]:
    """Returns what the camera records of ``picture``, on the unit range."""
    shift = light.normal(0.0, 0.08, 2).astype(np.float32)
    exposure = np.float32(np.exp(light.normal(0.0, 0.06)))
    edge = (view.x - shift[0]) ** 2 + (view.y - shift[1]) ** 2
    lit = exposure * (1.0 - np.float32(look.vignetting) * edge)
    taken = picture * (lit * np.asarray(look.gain, dtype=np.float32)[:, None, None])
    taken = blur(taken, max(look.blur * view.radius_px, 0.3))
    taken = (taken - np.float32(0.4)) * np.float32(look.contrast) + np.float32(0.4)
    taken += np.float32(look.noise) * sensor.standard_normal(taken.shape, dtype=np.float32)
    return taken
