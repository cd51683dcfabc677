"""One fixed set of views for every backbone: the same scans, crops and colours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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
        rows = self.rows(archive, backbone.num_features)
        check_channels(backbone, archive)
        made = self.generator
        device = next(backbone.parameters()).device
        rest = (made.size, made.mean, made.std, self.batch_size, device)

        def batches() -> Iterator[tuple[Place, Float[Tensor, "b c s s"]]]:
            for number, (_, whole) in enumerate(whole_scans(archive, rows, *rest)):
                start = number * self.batch_size
                for quarter in range(_QUARTERS):
                    place = (slice(start, start + len(whole)), quarter)
                    yield place, torch.rot90(whole, quarter, (2, 3))

        shape = (len(rows), _QUARTERS)
        with track(len(rows) * _QUARTERS, "turned scans", visible=self.visible) as progress:
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
