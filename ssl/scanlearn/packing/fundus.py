"""Where a fundus photograph shows the eye: a lit disc on black, whole or cut off straight."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from scanlearn.readers.scan import Pixels
from scanlearn.readers.values import Box

NO_FIELD = "no lit disc found, kept whole"
# The disc is looked for at about this many pixels a side: its rim is no sharper in large pictures.
_SIDE = 160
_LEAST_SIDE = 16
# What is brighter than black by one of these shares of the way to the bright parts is lit: the
# lowest finds the rim of dark photographs, the others leave out the haze around bright ones. A
# picture whose bright parts are no further from black than the least contrast has no disc.
_LIT = (0.1, 0.25, 0.45)
_LEAST_CONTRAST = 12 / 255
_LEAST_FALL = 5 / 255
_RADII_LOOKED_ALONG = 180
_TRIES = 120
_NEAR = 1.5
# A disc is believed where so much of the rim lies on it, all around or nearly so, and where it
# separates lit from dark.
_LEAST_ON_RIM = 0.5
_LEAST_SECTORS = 8
_SECTORS = 24
_LEAST_LIT_INSIDE = 0.6
_MOST_LIT_OUTSIDE = 0.15
_RADII = (0.2, 0.9)


@dataclass(frozen=True)
class Field:
    """A disc of light, and the box, in pixels, of what of it the picture holds."""

    row: float
    column: float
    radius: float
    box: Box


def find_field(pixels: Pixels) -> Field | None:
    """Returns the lit disc of a picture, None where there is none.

    A circle is laid through the outermost lit pixels of rows and columns, so that most of them
    lie on it; marks beside the disc, dark parts in it and straight cuts do not move it. What
    counts is the brightest channel.
    """
    step = max(1, -(-max(pixels.shape[1:]) // _SIDE))
    height, width = (size // step * step for size in pixels.shape[1:])
    if min(height, width) < _LEAST_SIDE * step:
        return None
    bright = functools.reduce(np.maximum, pixels[:, :height, :width]).astype(np.float32)
    coarse = np.asarray(Image.fromarray(bright / np.iinfo(pixels.dtype).max).reduce(step))
    dark, light = np.percentile(coarse, (1, 90))
    if light - dark < _LEAST_CONTRAST:
        return None
    levels = [coarse > dark + level * (light - dark) for level in _LIT]
    best = max(_candidates(levels), key=lambda candidate: candidate.share, default=None)
    if best is None or not _is_believable(best):
        return None
    row, column, radius = circle = _sharpened(coarse, best.circle)
    top, left, bottom, right = _cut(levels[0], circle)
    if bottom <= top or right <= left:
        return None
    box = (
        max(0, round(max(top, row - radius) * step)),
        max(0, round(max(left, column - radius) * step)),
        min(pixels.shape[1], round(min(bottom + 1, row + radius) * step)),
        min(pixels.shape[2], round(min(right + 1, column + radius) * step)),
    )
    return Field(row * step, column * step, radius * step, box)


def field_mask(
    field: Field, part: tuple[float, float, float, float], size: tuple[int, int]
) -> Bool[np.ndarray, "h w"]:
    """Returns which pixels of a resized part of a picture have their centre in the field.

    Args:
        part: Top, left, bottom, right of the part, in pixels of the picture.
        size: Rows and columns that the part was resized to.
    """
    top, left, bottom, right = part
    rows = top + (np.arange(size[0]) + 0.5) * (bottom - top) / size[0]
    columns = left + (np.arange(size[1]) + 0.5) * (right - left) / size[1]
    inside = (rows[:, None] - field.row) ** 2 + (columns - field.column) ** 2 <= field.radius**2
    inside &= ((rows >= field.box[0]) & (rows < field.box[2]))[:, None]
    inside &= (columns >= field.box[1]) & (columns < field.box[3])
    return inside


@dataclass(frozen=True)
class _Candidate:
    """A circle, and the light and the rim it was laid through; ``share`` of the rim is on it."""

    lit: Bool[np.ndarray, "h w"]
    rim: Float[np.ndarray, "k 2"]
    circle: tuple[float, float, float]

    @property
    def share(self) -> float:
        return float(_on(self.rim, self.circle).mean())


def _candidates(levels: list[Bool[np.ndarray, "h w"]]) -> Iterator[_Candidate]:
    for lit in levels:
        rim = _rim(lit)
        circle = _circle(rim, max(lit.shape))
        if circle is not None:
            yield _Candidate(lit, rim, circle)


def _sharpened(
    bright: Float[np.ndarray, "h w"], circle: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Returns the circle through the steepest falls of light along the radii of one nearby.

    A level of brightness lies further out where the rim is bright and hazy than where it is dark;
    the steepest fall does not.
    """
    row, column, radius = circle
    angles = np.linspace(0, 2 * np.pi, _RADII_LOOKED_ALONG, endpoint=False)[:, None]
    away = radius * np.linspace(0.92, 1.06, 29)
    rows, columns = row + np.sin(angles) * away, column + np.cos(angles) * away
    height, width = bright.shape
    within = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    rows, columns = rows.clip(0, height - 0.5), columns.clip(0, width - 0.5)
    light = bright[rows.astype(int), columns.astype(int)]
    fall = np.where(within[:, :-4] & within[:, 4:], light[:, :-4] - light[:, 4:], 0)
    steepest = fall.argmax(axis=1)
    clear = np.flatnonzero(fall.max(axis=1) > _LEAST_FALL)
    at = (clear, steepest[clear] + 2)
    rim = np.stack([rows[at], columns[at]], axis=1)
    sharpened = _circle(rim, max(bright.shape))
    return circle if sharpened is None or _on(rim, sharpened).mean() < _LEAST_ON_RIM else sharpened


def _rim(lit: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "k 2"]:
    """Returns row and column of where light begins and ends along rows and columns.

    Light that reaches the edge of the picture is cut off there and has no rim.
    """
    rim_points = [np.zeros((0, 2))]
    for flip, lines in ((False, lit), (True, lit.T)):
        # Three in a row: a single bright pixel is no light.
        steady = lines[:, :-2] & lines[:, 1:-1] & lines[:, 2:]
        rows = np.flatnonzero(steady.any(axis=1))
        first = steady[rows].argmax(axis=1)
        last = lines.shape[1] - steady[rows, ::-1].argmax(axis=1)
        for ends, open_ in ((first, first > 1), (last, last < lines.shape[1] - 1)):
            points = np.stack([rows + 0.5, ends], axis=1)[open_]
            rim_points.append(points[:, ::-1] if flip else points)
    return np.concatenate(rim_points)


def _circle(rim: Float[np.ndarray, "k 2"], side: float) -> tuple[float, float, float] | None:
    """Returns centre and radius of the circle that most points lie on."""
    if len(rim) < _SECTORS:
        return None
    # Always the same draws: a picture has one disc, however often it is packed.
    drawn = np.random.default_rng(0).integers(0, len(rim), (_TRIES, 3))
    circles = _around(rim[drawn])
    circles = circles[(circles[:, 2] > _RADII[0] * side) & (circles[:, 2] < _RADII[1] * side)]
    if not len(circles):
        return None
    away = np.hypot(rim[:, 0, None] - circles[:, 0], rim[:, 1, None] - circles[:, 1])
    best = circles[(np.abs(away - circles[:, 2]) < _NEAR).sum(axis=0).argmax()]
    for _ in range(3):
        best = _through(rim[_on(rim, best)])
    return float(best[0]), float(best[1]), float(best[2])


def _on(rim: Float[np.ndarray, "k 2"], circle: Any) -> Bool[np.ndarray, " k"]:
    """Returns which points lie on a circle."""
    away = np.hypot(rim[:, 0] - circle[0], rim[:, 1] - circle[1])
    near: Bool[np.ndarray, " k"] = np.abs(away - circle[2]) < _NEAR
    return near


def _around(triangles: Float[np.ndarray, "t 3 2"]) -> Float[np.ndarray, "u 3"]:
    """Returns row, column and radius of the circles around triangles, flat ones left out."""
    origin = triangles[:, 0]
    (a, b), (c, d) = ((triangles[:, k] - origin).T for k in (1, 2))
    twice_area = a * d - b * c
    wide = np.abs(twice_area) > 1
    a, b, c, d, twice_area = (each[wide] for each in (a, b, c, d, twice_area))
    one, other = a**2 + b**2, c**2 + d**2
    row = (one * d - other * b) / (2 * twice_area)
    column = (other * a - one * c) / (2 * twice_area)
    moved = np.stack([row, column], axis=1) + origin[wide]
    return np.concatenate([moved, np.hypot(row, column)[:, None]], axis=1)


def _through(points: Float[np.ndarray, "k 2"]) -> Float[np.ndarray, "3"]:
    """Returns row, column and radius of the circle nearest to points.

    Source: Kasa, "A circle fitting procedure and its error analysis", 1976: the least squares of
    the circle's equation, which is linear in centre and power.
    """
    middle = points.mean(axis=0)
    moved = points - middle
    terms = np.concatenate([2 * moved, np.ones((len(points), 1))], axis=1)
    row, column, power = np.linalg.lstsq(terms, (moved**2).sum(axis=1), rcond=None)[0]
    radius = np.sqrt(max(0.0, power + row**2 + column**2))
    return np.array([row + middle[0], column + middle[1], radius])


def _is_believable(candidate: _Candidate) -> bool:
    lit, circle = candidate.lit, candidate.circle
    row, column, _ = circle
    on = candidate.rim[_on(candidate.rim, circle)]
    angles = np.arctan2(on[:, 0] - row, on[:, 1] - column)
    sectors = np.unique(((angles + np.pi) / (2 * np.pi) * _SECTORS).astype(int) % _SECTORS)
    if candidate.share < _LEAST_ON_RIM or len(sectors) < _LEAST_SECTORS:
        return False
    inside = _inside(lit.shape, circle)
    top, left, bottom, right = _cut(lit, circle)
    held = np.zeros_like(inside)
    held[top : bottom + 1, left : right + 1] = True
    outside = lit[~inside]
    return bool(
        lit[inside & held].mean() > _LEAST_LIT_INSIDE
        and (not outside.size or outside.mean() < _MOST_LIT_OUTSIDE)
    )


def _inside(size: tuple[int, ...], circle: tuple[float, float, float]) -> Bool[np.ndarray, "h w"]:
    rows, columns = np.ogrid[: size[0], : size[1]]
    away = (rows + 0.5 - circle[0]) ** 2 + (columns + 0.5 - circle[1]) ** 2
    inside: Bool[np.ndarray, "h w"] = away <= circle[2] ** 2
    return inside


def _cut(lit: Bool[np.ndarray, "h w"], circle: tuple[float, float, float]) -> Box:
    """Returns the first and last row and column in which the disc is lit at all."""
    inside = lit & _inside(lit.shape, circle)
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(rows[0]), int(columns[0]), int(rows[-1]), int(columns[-1])
