"""What the phantom is drawn with: blur, lines of points, smooth fields, discs and spots."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Float64

from scanlearn.phantom.camera import FieldGrid


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
    rows, sides = (1.0 - bottom_share, bottom_share), (1.0 - right_share, right_share)
    index = np.concatenate((corner, corner + 1, corner + stride, corner + stride + 1))
    share = np.concatenate([weights * row * side for row in rows for side in sides])
    total = np.bincount(index, share, minlength=stride * (height + 4))
    return np.asarray(
        total.reshape(height + 4, stride)[2 : height + 2, 2 : width + 2], dtype=np.float32
    )


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
    view: FieldGrid, centre: tuple[float, float], radius: tuple[float, float], softness: float
) -> Float32[np.ndarray, "h w"]:
    """Returns an ellipse's coverage, 1 inside and 0 outside, with an edge of width ``softness``."""
    distance = np.hypot((view.x - centre[0]) / radius[0], (view.y - centre[1]) / radius[1])
    edge = softness / min(radius)
    return np.clip(0.5 + (1.0 - distance) / edge, 0.0, 1.0).astype(np.float32)


def spots_cover(
    view: FieldGrid, places: Float64[np.ndarray, "n 2"], radii: Float64[np.ndarray, " n"]
) -> Float32[np.ndarray, "h w"]:
    """Returns the coverage of small round spots with soft edges, each drawn in its own window.

    Centres, x and y, and radii are in field radii.
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
