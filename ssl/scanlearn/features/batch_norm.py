"""BatchNorm statistics for a network that was never trained, taken from whole scans.

In evaluation mode such a network was scored with a mean of 0 and a variance of 1 that no scan had
ever been near: its features were worse than its weights are, and pretraining looked better.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int64
from torch.nn.modules.batchnorm import _BatchNorm

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import Backbone, weights_hash
from scanlearn.backbones.device import preferred_memory_format
from scanlearn.features.extract import check_channels, in_evaluation, whole_scans

MOST_SCANS = 512
# Part of every hash: raised when the same scans give other statistics.
_VERSION = 1
_BATCH = 256


@dataclass(frozen=True)
class WholeScans:
    """The scans from which a network takes its statistics, as evaluation shows them.

    Args:
        size: Side of a view in pixels.
        mean: Per channel, of scans on the unit range; ``std`` likewise.
    """

    archive: Archive
    size: int
    mean: Sequence[float]
    std: Sequence[float]

    @cached_property
    def rows(self) -> Int64[np.ndarray, " n"]:
        """Up to 512 rows of the archive, drawn, since neighbours there may be alike."""
        return np.random.default_rng(0).permutation(len(self.archive))[:MOST_SCANS]

    @property
    def in_words(self) -> str:
        """How many scans of how many."""
        return f"{len(self.rows):,} of {len(self.archive):,}"

    def hash(self, backbone: Backbone) -> str:
        """Returns what tells an untrained network with these statistics from any other one.

        The statistics themselves are not hashed: they differ in their last digits between machines.
        """
        facts = {
            "version": _VERSION,
            "weights": weights_hash(backbone),
            "archive": self.archive.content_hash,
            "rows": hashlib.sha256(self.rows.tobytes()).hexdigest(),
            "view": [self.size, list(self.mean), list(self.std)],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def set_statistics(self, backbone: Backbone) -> None:
        """Replaces a network's BatchNorm statistics, in place, by the average over these scans.

        One pass without gradients in which only BatchNorm is in training mode: a layer sees what
        earlier ones make of a batch with the statistics of that batch. The network runs on the
        device it is on; its modes are put back.
        """
        layers = [
            layer
            for layer in backbone.modules()
            if isinstance(layer, _BatchNorm) and layer.running_mean is not None
        ]
        if not layers:
            return
        check_channels(backbone, self.archive)
        device, layout = next(backbone.parameters()).device, preferred_memory_format(backbone)
        momenta = [layer.momentum for layer in layers]
        # Of equal size, as far as possible, since each counts alike.
        batch_size = math.ceil(len(self.rows) / math.ceil(len(self.rows) / _BATCH))
        view = (self.size, self.mean, self.std)
        batches = whole_scans(self.archive, self.rows, *view, batch_size, device)
        with in_evaluation(backbone):
            for layer in layers:
                layer.reset_running_stats()
                layer.momentum = None  # the average of all batches
                layer.train()
            for _, views in batches:
                backbone(views.contiguous(memory_format=layout))
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
