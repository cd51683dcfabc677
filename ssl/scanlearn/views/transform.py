"""The views as a transform of one image, for anybody's Dataset.

The image becomes a batch of one and goes the way that pretraining's batches go, so that a loader
of another library shows the very views that this one trains on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import get_worker_info

from scanlearn.core import ScanlearnError, ViewPlan
from scanlearn.views.adjusting import Given
from scanlearn.views.extras import Extra
from scanlearn.views.generator import ViewGenerator
from scanlearn.views.picture import Picture, batch_of_one
from scanlearn.views.recipes import Recipe, find_recipe
from scanlearn.views.render import DEFAULT_SETTINGS, RenderSettings
from scanlearn.views.scale import Scale
from scanlearn.views.uniforms import DrawKey

_TWO_VIEWS = ViewPlan(2)
_SEEDS = 2**63 - 1


class ViewTransform:
    """Makes the augmented views of one image: a transform as torchvision's datasets take them.

    Takes a PIL image (gray, 16 bits, palette or colour; alpha is dropped and says nothing about
    the valid box), an array ``[h w]`` or ``[h w c]``, or a tensor ``[h w]`` or ``[c h w]``, with
    one or three channels of uint8, uint16 or floats in [0, 1]. Returns a list of float tensors
    ``[c s s]``, the global views first, then the local ones, on the unit range or, with mean and
    std, standardised.

    Each call draws a key from ``generator`` or, without one, from torch's default generator: a
    DataLoader seeds that differently in every worker and epoch, and torch.manual_seed repeats it.

    Args:
        recipe: A recipe or its name.
        scale: The setting of the dial: a number, a name, or sub-dials.
        size: Side of a global view in pixels.
        plan: How many global and local views to make.
        local_size: Side of a local view; None for 96/224 of ``size``.
        mean: Mean per channel on the unit range, or one for all; None leaves the unit range.
        std: Standard deviation per channel, or one for all; given with ``mean``.
        operations: Operations of the recipe to switch off or set by hand, as `Recipe.adjusted`.
        extras: Operations of your own, done last.
        settings: The width of blurs and the background.
        generator: Draws the keys. In the workers of a DataLoader, which hold equal copies of it,
            the worker's seed is mixed in.

    Raises:
        ScanlearnError: The recipe, the scale, the plan or a number cannot be used.

    Example:
        >>> transform = ViewTransform("simclr", "weak", size=64)
        >>> [view.shape for view in transform(np.zeros((80, 100), np.uint8))]
        [torch.Size([1, 64, 64]), torch.Size([1, 64, 64])]
    """

    def __init__(
        self,
        recipe: Recipe | str = "simclr",
        scale: Scale | float | str | Mapping[str, float | str] = 1.0,
        *,
        size: int = 224,
        plan: ViewPlan = _TWO_VIEWS,
        local_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        operations: Mapping[str, Given] | None = None,
        extras: Sequence[Extra] = (),
        settings: RenderSettings = DEFAULT_SETTINGS,
        generator: torch.Generator | None = None,
    ) -> None:
        if (mean is None) != (std is None):
            raise ScanlearnError("transform: mean and std belong together; give both or neither.")
        if mean is not None and std is not None and len(mean) != len(std):
            raise ScanlearnError(
                f"transform: {len(mean)} means and {len(std)} standard deviations; give as many "
                "of one as of the other."
            )
        found = find_recipe(recipe) if isinstance(recipe, str) else recipe
        self.extras = tuple(extras)
        self._views = ViewGenerator(
            found if operations is None else found.adjusted(operations),
            Scale.parse(scale),
            plan,
            size,
            # One value for all channels; the unit range stays as it is, to the bit.
            (0.0,) if mean is None else mean,
            (1.0,) if std is None else std,
            local_size=local_size,
            extras=self.extras,
            settings=settings,
        )
        self._generator = generator

    def __call__(
        self,
        image: Picture,
        *,
        valid_box: Sequence[int] | None = None,
        mask: Picture | None = None,
        value_range: tuple[float, float] | None = None,
    ) -> list[Float[Tensor, "c s s"]]:
        """Returns the views of one image, on its device.

        Args:
            image: A PIL image, array or tensor, as above.
            valid_box: Top, left, bottom, right of the scan on the image in pixels, bottom and
                right exclusive; what lies outside is padding. None for the whole image.
            mask: ``[h w]``, not 0 inside the field of view; None where all of it is.
            value_range: The values that mean 0 and 1; None for the range of the type, which for
                floats is 0 and 1.

        Raises:
            ScanlearnError: The image, the box, the mask or the range cannot be used.
        """
        batch = batch_of_one(image, valid_box, mask, value_range)
        channels, means = batch.pixels.shape[1], len(self._views.mean)
        if means not in (1, channels):
            raise ScanlearnError(
                f"transform: mean and std have {means} values, the image {channels} channels; "
                "give one value for each channel."
            )
        views = self._views(batch, self._next_key())
        return [view[0] for view in (*views.global_views, *views.local_views)]

    def one(self, view: int = 0) -> OneView:
        """Returns a transform that makes only one of the views, drawn on its own each time.

        For code that calls a transform once per view, such as lightly's `MultiViewTransform`:
        ``MultiViewTransform([transform.one(0), transform.one(1)])``.

        Args:
            view: Which of the views that `__call__` returns: its ranges and its size are used.

        Raises:
            ScanlearnError: There is no such view.
        """
        plan = self._views.plan
        count = plan.global_views + plan.local_views
        if not 0 <= view < count:
            raise ScanlearnError(
                f"transform: view {view} is not one of the {count} views; give 0 to {count - 1}."
            )
        is_local = view >= plan.global_views
        rows = tuple(replace(row, curves=(row.curve(view),)) for row in self._views.recipe.rows)
        return OneView(
            ViewTransform(
                replace(self._views.recipe, rows=rows),
                self._views.scale,
                size=self._views.local_size if is_local else self._views.size,
                plan=ViewPlan(1),
                mean=self._views.mean,
                std=self._views.std,
                extras=[
                    replace(extra, views="all") for extra in self.extras if extra.applies_to(view)
                ],
                settings=self._views.settings,
                generator=self._generator,
            )
        )

    def __repr__(self) -> str:
        views = self._views
        return (
            f"ViewTransform({views.recipe.name!r}, {views.scale!s}, size={views.size}, "
            f"views={views.plan.global_views}+{views.plan.local_views})"
        )

    def _next_key(self) -> DrawKey:
        device = "cpu" if self._generator is None else self._generator.device
        seed = int(torch.randint(_SEEDS, (), generator=self._generator, device=device))
        worker = get_worker_info()
        # Workers, and every epoch's new ones, start from one copy of a generator that was given.
        is_copy = self._generator is not None and worker is not None
        step = worker.seed % _SEEDS if is_copy and worker is not None else 0
        return DrawKey(seed, step, np.zeros(1, dtype=np.int64))


class OneView:
    """Makes one view of an image; `ViewTransform.one` returns it."""

    def __init__(self, transform: ViewTransform) -> None:
        self._transform = transform

    def __call__(self, image: Picture, **about: Any) -> Float[Tensor, "c s s"]:
        """Returns one view; takes what `ViewTransform` takes."""
        return self._transform(image, **about)[0]

    def __repr__(self) -> str:
        return f"OneView({self._transform!r})"
