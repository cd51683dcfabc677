"""What two views of one scan share, as a figure of a setting of the dial."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from scanlearn.views.draw import Ranges
from scanlearn.views.recipes import Recipe, find_recipe
from scanlearn.views.scale import Scale
from scanlearn.views.uniforms import DrawKey, uniforms

_SIDE = 1000


@dataclass(frozen=True)
class ViewStatistics:
    """Overlap of the crops of two views of one square scan.

    Args:
        iou: Mean intersection over union.
        disjoint: Share of pairs that have nothing in common.
        area: Mean area of a crop, as a share of the scan.
    """

    iou: float
    disjoint: float
    area: float


def view_statistics(
    recipe: Recipe | str, scale: Scale, *, draws: int = 20_000, seed: int = 0
) -> ViewStatistics:
    """Returns what the first two views share at a setting of the dial.

    Args:
        recipe: A recipe or its name.
        scale: The setting.
        draws: Number of pairs drawn; at the default the figures are good to about .002.
        seed: Seed of the pairs.
    """
    found = find_recipe(recipe) if isinstance(recipe, str) else recipe
    return crop_statistics(found.at(scale), draws=draws, seed=seed)


def crop_statistics(ranges: Ranges, *, draws: int = 20_000, seed: int = 0) -> ViewStatistics:
    """Returns what the first two views share when they are drawn from ``ranges``."""
    square = np.tile(np.array([0, 0, _SIDE, _SIDE]), (draws, 1))
    drawn = ranges.draw(uniforms(DrawKey(seed, 0, np.arange(draws)), 2), square)
    first, second = drawn.crop_box[:, 0], drawn.crop_box[:, 1]
    shared = _area(
        np.concatenate(
            [np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])], 1
        )
    )
    union = _area(first) + _area(second) - shared
    return ViewStatistics(
        iou=float((shared / union).mean()),
        disjoint=float((shared == 0).mean()),
        area=float(_area(drawn.crop_box).mean() / _SIDE**2),
    )


def _area(box: Float64[np.ndarray, "... 4"]) -> Float64[np.ndarray, "..."]:
    sides = np.maximum(box[..., 2:] - box[..., :2], 0.0)
    area: Float64[np.ndarray, "..."] = sides.prod(axis=-1)
    return area
