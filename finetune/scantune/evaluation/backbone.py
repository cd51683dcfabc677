"""The backbone under test: from a folder or a run, an untrained network or the thumbnail."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import Backbone, build_backbone, weights_hash
from scanlearn.backbones.device import preferred_device
from scanlearn.backbones.settings import BackboneConfig, check_architecture
from scanlearn.backbones.weights import load_backbone
from scanlearn.features.extract import extract, squeezed_note, thumbnail_features
from scanlearn.files import features_folder
from scantune.evaluation.classifier import View
from scantune.evaluation.settings import RANDOM, THUMBNAIL, folder_of, random_of

_RANDOM_SIZE = 64
_THUMBNAIL_SIZE = 16


@dataclass(frozen=True)
class EvaluatedBackbone:
    """A backbone, or the thumbnail, and how scans are shown to it.

    Args:
        network: In evaluation mode, on the device that computes; None for the thumbnail.
        folder: Where its weights are; None where they are not on disk.
        notes: What to know of it before believing its scores.
    """

    described: dict[str, Any]
    network: Backbone | None
    folder: Path | None
    view: View
    notes: tuple[str, ...] = ()

    def features(self, archive: Archive, rows: Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n d"]:
        """Returns the frozen features of some scans; a network's are kept in the cache."""
        size, mean, std = self.view
        if self.network is None:
            return thumbnail_features(archive, rows, side=size)
        cache = features_folder()
        return extract(self.network, archive, rows, size=size, mean=mean, std=std, cache=cache)


def open_backbone(backbone: str | Path, archive: Archive, size: int | None) -> EvaluatedBackbone:
    """Returns the backbone that a name of `evaluate` stands for.

    Args:
        archive: The scans: a network is made for their channels, and one that was never trained
            sees them standardised by their own mean and std.
        size: Side of a view in pixels; None for the backbone's own.

    Raises:
        ScanlearnError: There is no such backbone, or it cannot be loaded.
    """
    if str(backbone) == THUMBNAIL:
        side = size or _THUMBNAIL_SIZE
        described = {"kind": THUMBNAIL, "size": side}
        return EvaluatedBackbone(described, None, None, View(side, archive.mean, archive.std))
    folder = folder_of(backbone)
    notes: tuple[str, ...] = ()
    if folder is None and str(backbone).startswith(RANDOM):
        name, seed = random_of(str(backbone))
        kind, side, mean, std = "random", size or _RANDOM_SIZE, archive.mean, archive.std
        config = BackboneConfig(name=name)
        network = build_backbone(config, archive.shape[0], seed, size=side)
    else:
        network, card = load_backbone(folder or backbone, channels=archive.shape[0])
        kind, side, mean, std = "loaded", size or card.size, card.mean, card.std
        notes = squeezed_note(card, archive)
    described = {
        "kind": kind,
        "architecture": network.name,
        "weights": weights_hash(network),
        "size": side,
    }
    network = network.eval().to(preferred_device())
    return EvaluatedBackbone(described, network, folder, View(side, mean, std), notes)


def channels_of(backbone: str | Path) -> Literal[1, 3, "auto"]:
    """Returns the channels that a backbone on disk was trained on; auto where there is none.

    A backbone that is none is found here, before the labels are packed for it.

    Raises:
        ScanlearnError: It cannot be loaded, or there is none of that name.
    """
    if str(backbone) == THUMBNAIL:
        return "auto"
    folder = folder_of(backbone)
    if folder is None and str(backbone).startswith(RANDOM):
        check_architecture(random_of(str(backbone))[0], str(backbone))
        return "auto"
    channels = load_backbone(folder or backbone)[1].channels
    if folder is None:
        return "auto"
    return 1 if channels == 1 else 3 if channels == 3 else "auto"
