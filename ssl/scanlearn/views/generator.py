"""The view generator: what training calls on every batch, on the device that trains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from scanlearn.core import ScanBatch, ScanlearnError, ViewPlan, Views
from scanlearn.views.draw import Draw
from scanlearn.views.recipes import Recipe, find_recipe
from scanlearn.views.render import render_views
from scanlearn.views.scale import Scale
from scanlearn.views.uniforms import DrawKey, uniforms


class ViewGenerator:
    """Makes the augmented views of a batch.

    Args:
        recipe: A recipe or its name.
        scale: The setting of the dial.
        plan: How many views of each scan the method asks for.
        size: Side of a global view in pixels.
        mean: Mean of the archive per channel, unit range; subtracted last.
        std: Standard deviation of the archive per channel, unit range; divided by last.

    Raises:
        ScanlearnError: The recipe is unknown, the size is below 2, or the plan asks for local
            views, which no recipe here draws.

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
    ) -> None:
        self.recipe = find_recipe(recipe) if isinstance(recipe, str) else recipe
        if plan.local_views:
            raise ScanlearnError(
                f"views: {plan.local_views} local views asked for, but recipe "
                f"'{self.recipe.name}' has global views only; set local views to 0."
            )
        if size < 2:
            raise ScanlearnError(f"views: size {size} is no view; give 2 pixels or more.")
        if any(value <= 0 for value in std):
            raise ScanlearnError(f"views: standard deviation {list(std)} must be above 0.")
        self.scale = scale
        self.plan = plan
        self.size = size
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)
        self.ranges = self.recipe.at(scale)

    @property
    def num_views(self) -> int:
        """Views of each scan."""
        return self.plan.global_views

    def __call__(self, batch: ScanBatch, key: DrawKey) -> Views:
        """Returns the standardised views of a batch, on its device.

        Args:
            batch: ``b`` packed scans.
            key: Seed, step and the scans' ``b`` positions in the global batch.
        """
        views = render_views(batch, self.draw(batch, key), range(self.num_views), self.size)
        return Views(
            global_views=tuple(standardise(view, self.mean, self.std) for view in views),
            local_views=(),
            ids=batch.ids,
        )

    def draw(self, batch: ScanBatch, key: DrawKey) -> Draw:
        """Returns the draw that `__call__` renders."""
        assert len(batch) == len(key.positions), "one position for each scan"
        return self.ranges.draw(uniforms(key, self.num_views), batch.valid_box.cpu().numpy())

    def upsampled_share(
        self, valid_box: Int[np.ndarray, "n 4"], *, seed: int = 0, draws: int = 4096
    ) -> float:
        """Returns the share of views whose crop has fewer pixels than the view on either side.

        Such a view is enlarged: the crop dial would then set its resolution too.

        Args:
            valid_box: Valid boxes of the archive, or of any sample of it.
            seed: Seed of the draws.
            draws: Number of scans drawn, taken from the boxes in turn.
        """
        boxes = np.asarray(valid_box)[np.arange(draws) % len(valid_box)]
        key = DrawKey(seed, 0, np.arange(draws))
        box = self.ranges.draw(uniforms(key, self.num_views), boxes).crop_box
        side = np.minimum(box[..., 2] - box[..., 0], box[..., 3] - box[..., 1])
        # A hair below the size is rounding, not enlargement.
        return float((side < self.size - 1e-6).mean())


def standardise(
    views: Float[Tensor, "b c s s"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "b c s s"]:
    """Returns ``(views - mean) / std`` per channel, as the last thing done to a view."""
    shape = (1, -1, 1, 1)
    centre = torch.tensor(mean, dtype=views.dtype, device=views.device).view(shape)
    spread = torch.tensor(std, dtype=views.dtype, device=views.device).view(shape)
    return (views - centre).div_(spread)
