"""What views of one scan share, as figures of a setting of the dial."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from scanlearn.views.ranges import Ranges
from scanlearn.views.recipes import Recipe, find_recipe
from scanlearn.views.scale import Scale
from scanlearn.views.uniforms import DrawKey, uniforms

_SIDE = 1000
_FIRST_LOCAL = 2


@dataclass(frozen=True)
class Overlap:
    """Of crops of two views of a square scan: mean IoU, share of pairs with nothing in common."""

    iou: float
    disjoint: float


@dataclass(frozen=True)
class ViewStatistics:
    """Overlap and size of the crops of one square scan's views.

    Args:
        global_local: Of a global and a local view; None without local views.
        local_local: Of two local views; None without them.
        area: Mean area of a global crop, as a share of the scan.
        local_area: The same of a local crop; None without them.
    """

    global_global: Overlap
    global_local: Overlap | None
    local_local: Overlap | None
    area: float
    local_area: float | None

    @property
    def iou(self) -> float:
        """Mean intersection over union of the two global views."""
        return self.global_global.iou

    @property
    def disjoint(self) -> float:
        """Share of pairs of global views that have nothing in common."""
        return self.global_global.disjoint

    def lines(self) -> tuple[str, ...]:
        """Returns the figures as a person reads them, one kind of pair in each line."""
        kinds = {"global/global": self.global_global}
        if self.global_local and self.local_local:
            kinds |= {"global/local": self.global_local, "local/local": self.local_local}
        if len(kinds) == 1:
            kinds = {"two views": self.global_global}
        return tuple(
            f"{name}: IoU {pair.iou:.2f}, disjoint {pair.disjoint:.1%}"
            for name, pair in kinds.items()
        )


def view_statistics(
    recipe: Recipe | str, scale: Scale, *, draws: int = 20_000, seed: int = 0
) -> ViewStatistics:
    """Returns what views share at a setting of the dial.

    Args:
        draws: Number of scans drawn; at the default the figures are accurate to about .002.
    """
    recipe = find_recipe(recipe)
    return crop_statistics(
        recipe.at(scale), draws=draws, seed=seed, has_local_views=recipe.has_local_views
    )


def crop_statistics(
    ranges: Ranges, *, draws: int = 20_000, seed: int = 0, has_local_views: bool = False
) -> ViewStatistics:
    """Returns what views share when they are drawn from ``ranges``, the third of local views."""
    square = np.tile(np.array([0, 0, _SIDE, _SIDE]), (draws, 1))
    num_views = _FIRST_LOCAL + (2 if has_local_views else 0)
    box = ranges.draw(uniforms(DrawKey(seed, 0, np.arange(draws)), num_views), square).crop_box
    area = _area(box).mean(axis=0) / _SIDE**2
    between_globals = _overlap(box[:, 0], box[:, 1])
    global_area = float(area[:_FIRST_LOCAL].mean())
    if not has_local_views:
        return ViewStatistics(between_globals, None, None, global_area, None)
    return ViewStatistics(
        global_global=between_globals,
        # Both global views, each with a local one of its own.
        global_local=_overlap(
            np.concatenate([box[:, 0], box[:, 1]]), np.concatenate([box[:, 2], box[:, 3]])
        ),
        local_local=_overlap(box[:, 2], box[:, 3]),
        area=global_area,
        local_area=float(area[_FIRST_LOCAL:].mean()),
    )


def _overlap(first: Float64[np.ndarray, "b 4"], second: Float64[np.ndarray, "b 4"]) -> Overlap:
    corners = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    shared = _area(np.concatenate(corners, axis=1))
    union = _area(first) + _area(second) - shared
    return Overlap(iou=float((shared / union).mean()), disjoint=float((shared == 0).mean()))


def _area(box: Float64[np.ndarray, "... 4"]) -> Float64[np.ndarray, "..."]:
    sides = np.maximum(box[..., 2:] - box[..., :2], 0.0)
    area: Float64[np.ndarray, "..."] = sides.prod(axis=-1)
    return area
