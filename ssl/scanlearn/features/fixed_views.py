"""One fixed set of views for every backbone: the same scans, crops and colours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import Backbone
from scanlearn.console import track
from scanlearn.errors import ScanlearnError
from scanlearn.features.extract import (
    Place,
    check_channels,
    check_finite,
    features_of,
    whole_scans,
)
from scanlearn.views.generator import ViewGenerator
from scanlearn.views.uniforms import DrawKey

LEAST_SCANS = 1000
# Keeps the probing order and the probing draws apart from those of a training with the same seed.
_ORDER_STREAM = 0x70616E656C
_FIRST_STEP = 1 << 62
_QUARTERS = 4
_SIDE = 3
# Patches by row, then column, each with its right and its lower neighbour.
_NEIGHBOURS = tuple(
    [(at, at + 1) for at in range(_SIDE**2) if (at + 1) % _SIDE]
    + [(at, at + _SIDE) for at in range(_SIDE**2 - _SIDE)]
)


@dataclass(frozen=True)
class Probing:
    """One fixed set of views: the same scans, crops and colours whatever backbone sees them.

    Args:
        generator: Makes two global views of a scan at a time.
        scans: Scans to look at; None takes 1,000 or twice the number of features if that is more;
            never more than there are.
        batch_size: Scans at a time; it does not change the result.
        visible: False shows no bar, for work inside other work that has one.
    """

    generator: ViewGenerator
    scans: int | None = None
    views: int = 10
    seed: int = 0
    batch_size: int = 64
    visible: bool = True

    def rows(self, archive: Archive, num_features: int) -> Int64[np.ndarray, " n"]:
        """Returns the scans to look at, in an order of which fewer scans are the beginning."""
        stream = np.random.Philox(key=[self.seed, 0], counter=[0, 0, 0, _ORDER_STREAM])
        order = np.argsort(stream.random_raw(len(archive)), kind="stable").astype(np.int64)
        return order[: self.scans or max(LEAST_SCANS, 2 * num_features)]

    def features(self, backbone: Backbone, archive: Archive) -> Float32[np.ndarray, "n v d"]:
        """Returns a backbone's features of the probing views, in fp32 and evaluation mode.

        The backbone runs on the device it is on and is left as it was.

        Raises:
            ScanlearnError: It takes another number of channels, there are too few scans or views,
                or a feature is not finite.
        """
        rows = self.rows(archive, backbone.num_features)
        check_channels(backbone, archive)
        for name, number in (("scans", len(rows)), ("views", self.views)):
            if number < 2:
                raise ScanlearnError(f"panel: {number} {name} are too few; give 2 or more")
        batches = self._batches(archive, rows, next(backbone.parameters()).device)
        shape = (len(rows), self.views)
        with track(len(rows) * self.views, "probing views", visible=self.visible) as progress:
            features = features_of(backbone, batches, shape, "fp32", progress)
        check_finite(features, archive, rows)
        return features

    def turned(self, backbone: Backbone, archive: Archive) -> Float32[np.ndarray, "n 4 d"]:
        """Returns a backbone's features of the same scans, whole, turned by 0 to 3 quarters.

        Raises:
            ScanlearnError: As `features`.
        """
        turns = [partial(torch.rot90, k=quarter, dims=(2, 3)) for quarter in range(_QUARTERS)]
        return self._changed(backbone, archive, turns, "turned scans")

    def swapped(self, backbone: Backbone, archive: Archive) -> Float32[np.ndarray, "n 12 d"]:
        """Returns a backbone's features of the same scans, whole, two of nine patches swapped.

        The patches are three by three, and one of their twelve pairs of neighbours changes places.

        Raises:
            ScanlearnError: As `features`.

        Source: Noroozi and Favaro, "Unsupervised Learning of Visual Representations by Solving
        Jigsaw Puzzles", ECCV 2016, whose nine patches are all in another order: that is told from
        far fewer of them.
        """
        swaps = [partial(swap_patches, first=a, second=b) for a, b in _NEIGHBOURS]
        return self._changed(backbone, archive, swaps, "swapped patches")

    def _changed(
        self,
        backbone: Backbone,
        archive: Archive,
        changes: Sequence[Callable[[Tensor], Tensor]],
        title: str,
    ) -> Float32[np.ndarray, "n q d"]:
        rows = self.rows(archive, backbone.num_features)
        check_channels(backbone, archive)
        made = self.generator
        device = next(backbone.parameters()).device
        rest = (made.size, made.mean, made.std, self.batch_size, device)

        def batches() -> Iterator[tuple[Place, Float[Tensor, "b c s s"]]]:
            for number, (_, whole) in enumerate(whole_scans(archive, rows, *rest)):
                start = number * self.batch_size
                for place, change in enumerate(changes):
                    yield (slice(start, start + len(whole)), place), change(whole)

        shape = (len(rows), len(changes))
        with track(len(rows) * len(changes), title, visible=self.visible) as progress:
            features = features_of(backbone, batches(), shape, "fp32", progress)
        check_finite(features, archive, rows)
        return features

    def _batches(
        self, archive: Archive, rows: Int64[np.ndarray, " n"], device: torch.device
    ) -> Iterator[tuple[Place, Float[Tensor, "b c s s"]]]:
        """Yields the views of each batch; the recipe's first and second view take turns."""
        for start in range(0, len(rows), self.batch_size):
            place = slice(start, start + self.batch_size)
            batch = archive.gather(rows[place]).to(device)
            positions = np.arange(start, start + len(batch), dtype=np.int64)
            for number in range(self.views):
                pair, second = divmod(number, 2)
                if not second:
                    key = DrawKey(self.seed, _FIRST_STEP + pair, positions)
                    rendered = self.generator(batch, key).global_views
                yield (place, number), rendered[second]


def swap_patches(
    whole: Float[Tensor, "b c s s"], first: int, second: int
) -> Float[Tensor, "b c s s"]:
    """Returns the scans with two of their three by three patches in each other's place.

    Args:
        first: Of 0 to 8, by row, then column; what is left of s by 3 stays at the end.
    """
    side = whole.shape[-1] // _SIDE
    boxes = [
        (..., slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side))
        for row, column in (divmod(place, _SIDE) for place in (first, second))
    ]
    swapped = whole.clone()
    swapped[boxes[0]], swapped[boxes[1]] = whole[boxes[1]], whole[boxes[0]]
    return swapped
