"""The view generator: what training calls on every batch, on the device that trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float64, Int
from torch import Tensor

from scanlearn.core import ScanBatch, ViewPlan, Views
from scanlearn.errors import ScanlearnError
from scanlearn.views.draw import Draw
from scanlearn.views.extras import Extra, apply_extras
from scanlearn.views.ranges import Ranges
from scanlearn.views.recipes import Recipe, find_recipe
from scanlearn.views.render import render_views, standardise
from scanlearn.views.scale import Scale
from scanlearn.views.settings import DEFAULT_SETTINGS, LOCAL_SHARE, RenderSettings, Standard
from scanlearn.views.uniforms import DrawKey, uniforms
from scanlearn.views.warp import ways_of

if TYPE_CHECKING:
    from scanlearn.views.fused import Orders  # numba takes a second to import

# Scans drawn to count enlarged views.
_COUNTED = 4096


class ViewGenerator:
    """Makes the augmented views of a batch.

    Args:
        size: Side of a global view in pixels.
        mean: Of the archive per channel, unit range; subtracted last, then divided by ``std``.
        local_size: Side of a local view; None is 96 / 224 of a global one.
        extras: Operations of your own, done after the recipe's.
        scan_ids: Names of the archive's scans, for errors of extras; None for their rows.

    Raises:
        ScanlearnError: The recipe is unknown, a size is below 2, a standard deviation is not
            above 0, or the plan asks a two-view recipe for local views.

    Example:
        >>> generator = ViewGenerator("simclr", Scale.WEAK, ViewPlan(2), 64, [0.5], [0.25])
        >>> generator.num_views
        2
    """

    def __init__(
        self,
        recipe: Recipe | str,
        scale: Scale,
        plan: ViewPlan,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        local_size: int | None = None,
        extras: Sequence[Extra] = (),
        scan_ids: Sequence[str] | None = None,
        settings: RenderSettings = DEFAULT_SETTINGS,
    ) -> None:
        self.recipe = find_recipe(recipe)
        if plan.local_views and not self.recipe.has_local_views:
            raise ScanlearnError(
                f"views: {plan.local_views} local views of recipe '{self.recipe.name}', which has "
                "global views only; take another recipe or set local views to 0."
            )
        self.local_size = round(LOCAL_SHARE * size) if local_size is None else local_size
        for side in (size, self.local_size) if plan.local_views else (size,):
            if side < 2:
                raise ScanlearnError(f"views: size {side} is too small; give 2 pixels or more.")
        if any(value <= 0 for value in std):
            raise ScanlearnError(
                f"views: standard deviations {list(std)} are not all above 0; give ones that are."
            )
        self.scale = scale
        self.plan = plan
        self.size = size
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)
        self._standard = Standard.of(self.mean, self.std)
        self.extras = tuple(extras)
        self._scan_ids = scan_ids
        # One side for all views: `ViewTransform.one` makes a local view of a global side's blur.
        asked = self.recipe.rendered(settings)
        self.settings = replace(asked, global_size=settings.global_size or size)
        self.ranges = _planned(self.recipe.at(scale), plan)

    @property
    def num_views(self) -> int:
        """Views of each scan."""
        return self.plan.global_views + self.plan.local_views

    def __call__(self, batch: ScanBatch, key: DrawKey) -> Views:
        """Returns the standardised views of a batch, on its device."""
        return self.render(batch, self.draw(batch, key))

    def render(self, batch: ScanBatch, draw: Draw) -> Views:
        """Returns the standardised views of a draw, new or saved."""
        first_local = self.plan.global_views
        return Views(
            global_views=self._rendered(batch, draw, range(first_local), self.size),
            local_views=self._rendered(
                batch, draw, range(first_local, self.num_views), self.local_size
            ),
            ids=batch.ids,
        )

    def _rendered(
        self, batch: ScanBatch, draw: Draw, views: range, size: int
    ) -> tuple[Float[Tensor, "b c s s"], ...]:
        if not views:
            return ()
        if not self.extras:
            return render_views(batch, draw, views, size, self.settings, self._standard)

        def scan_name(row: int) -> str:
            place = int(batch.ids[row])
            return f"'{self._scan_ids[place]}'" if self._scan_ids is not None else str(place)

        def extended(planes: Float[Tensor, "b c s s"], view: int) -> Float[Tensor, "b c s s"]:
            apply_extras(planes, draw, view, self.extras, "before", scan_name)
            standardise(planes, self._standard)
            return apply_extras(planes, draw, view, self.extras, "after", scan_name)

        rendered = render_views(batch, draw, views, size, self.settings)
        return tuple(extended(*pair) for pair in zip(rendered, views, strict=True))

    def draw(self, batch: ScanBatch, key: DrawKey) -> Draw:
        """Returns the draw that `__call__` renders."""
        assert len(batch) == len(key.positions), "one position for each scan"
        return self.ranges.draw(uniforms(key, self.num_views), batch.valid_box.cpu().numpy())

    def orders(self, batch: ScanBatch, drawn: Float64[np.ndarray, "n v p"]) -> tuple[Orders, ...]:
        """Returns what a CPU does to scans like the only one of a batch, without the extras.

        Args:
            drawn: The uniforms of each scan.

        Returns:
            For the global views and, where there are any, for the local ones.
        """
        from scanlearn.views.fused import Orders

        draw = self.ranges.draw(drawn, batch.valid_box.numpy())
        ways = ways_of(batch, draw, self.settings)
        first_local = self.plan.global_views
        return tuple(
            Orders.of(batch, draw, ways, list(views), size, self.settings, self._standard)
            for views, size in (
                (range(first_local), self.size),
                (range(first_local, self.num_views), self.local_size),
            )
            if views
        )

    def upsampled_share(self, valid_box: Int[np.ndarray, "n 4"]) -> float:
        """Returns the share of views whose crop has fewer pixels than the view on either side.

        Such a view is enlarged: the crop dial would then set its resolution too. Scans are drawn
        from the valid boxes, of the archive or of any sample of it, in turn.
        """
        positions = np.arange(_COUNTED)
        boxes = np.asarray(valid_box)[positions % len(valid_box)]
        key = DrawKey(0, 0, positions)
        box = self.ranges.draw(uniforms(key, self.num_views), boxes).crop_box
        side = np.minimum(box[..., 2] - box[..., 0], box[..., 3] - box[..., 1])
        size = np.full(self.num_views, self.size)
        size[self.plan.global_views :] = self.local_size
        # A hair below the size is rounding, not enlargement.
        return float((side < size - 1e-6).mean())


def _planned(ranges: Ranges, plan: ViewPlan) -> Ranges:
    """Ranges view by view, where a recipe has local ones: they follow after all global views."""
    if not plan.local_views:
        return ranges
    *whole, local = ranges.views
    large = [whole[min(view, len(whole) - 1)] for view in range(plan.global_views)]
    return Ranges((*large, local))
