"""Draws of the images to come, made for several at once.

To draw the numbers of one image takes longer than to render its views at 64 pixels; those of a
hundred take little more, since it is the calls that cost. What the generator will give next is
foretold by a copy of it. An image takes what was drawn for the seed that the generator gave it;
where none was, because something else drew from the generator or the image is of another kind, it
is drawn for now. So every image has the views that it would have by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from scanlearn.core import ScanBatch
from scanlearn.views.generator import ViewGenerator
from scanlearn.views.uniforms import uniforms_of_seeds

if TYPE_CHECKING:
    from scanlearn.views.fused import Orders  # numba takes a second to import

SEEDS = 2**63 - 1
# Of images; with elastic fields, which are as large as views, of fewer.
_MOST, _MOST_BENT = 128, 2


@dataclass
class Ahead:
    """What is done to the views of several images, each named by its seed.

    Args:
        like: A scan of the kind that they are for.
        step: The step of their keys.
        rows: Of each seed.
        orders: One for the global views, one for the local ones.
        used: Rows up to the last that was taken.
    """

    like: ScanBatch
    step: int
    rows: Mapping[int, int]
    orders: Sequence[Orders]
    used: int = 0

    def is_for(self, batch: ScanBatch, step: int) -> bool:
        """Returns whether all but the pixels is as in `like`, and the step is the same."""
        like = self.like
        return (
            self.step == step
            and batch.valid_box is like.valid_box
            and batch.value_range is like.value_range
            and batch.pixels.shape == like.pixels.shape
            and (batch.mask is None) == (like.mask is None)
        )

    def take(self, row: int) -> list[Orders]:
        """Returns what is done to the image of a row."""
        self.used = row + 1
        return [orders.of_scan(row) for orders in self.orders]


def orders_of(
    views: ViewGenerator,
    batch: ScanBatch,
    seed: int,
    step: int,
    ahead: Ahead | None,
    foretell: Callable[[int], list[int]],
) -> tuple[list[Orders], Ahead]:
    """Returns what is done to an image and what was drawn ahead, to be given with the next one.

    Args:
        batch: The image; its valid box and value range are the same objects in all images alike.
        foretell: Returns so many seeds that the generator will give after this one.
    """
    is_used_up = False
    if ahead is not None and ahead.is_for(batch, step):
        row = ahead.rows.get(seed)
        if row is not None:
            return ahead.take(row), ahead
        is_used_up = ahead.used == len(ahead.rows)
    # Twice as many as before, where all of those were taken.
    bends = any(ranges.elastic_p for ranges in views.ranges.views)
    most = _MOST_BENT if bends else _MOST
    count = min(2 * len(ahead.rows), most) if ahead is not None and is_used_up else 1
    seeds = [seed, *foretell(count - 1)]
    orders = views.orders(batch, uniforms_of_seeds(np.array(seeds), step, views.num_views))
    ahead = Ahead(batch, step, {each: row for row, each in enumerate(seeds)}, orders)
    return ahead.take(0), ahead


def next_seeds(generator: torch.Generator | None, count: int) -> list[int]:
    """Returns the seeds that a generator will give next, which it does not notice."""
    if count == 0:
        return []
    source = torch.default_generator if generator is None else generator
    copy = torch.Generator(source.device)
    copy.set_state(source.get_state())
    drawn: list[int] = torch.randint(SEEDS, (count,), generator=copy, device=source.device).tolist()
    return drawn
