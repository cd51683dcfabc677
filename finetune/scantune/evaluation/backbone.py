"""The backbone under test: from a folder or a run, an untrained network or the thumbnail."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import Backbone, build_backbone, has_batch_norm, weights_hash
from scanlearn.backbones.card import Card
from scanlearn.backbones.device import preferred_device
from scanlearn.backbones.settings import BackboneConfig, check_architecture
from scanlearn.backbones.start import load_start, standard_view
from scanlearn.backbones.weights import load_backbone
from scanlearn.features.batch_norm import WholeScans
from scanlearn.features.extract import extract, squeezed_note, thumbnail_features
from scanlearn.features.preprocessing import packing_of
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
        card: Where it comes from; None of what was not loaded.
        notes: What is to be read beside its scores.
        is_blank: Whether learners train it from weights that they draw anew, as ``scratch`` does.
    """

    described: dict[str, Any]
    network: Backbone | None
    folder: Path | None
    view: View
    card: Card | None = None
    notes: tuple[str, ...] = ()
    is_blank: bool = False

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
            sees them standardised by their own mean and std, and takes its BatchNorm statistics
            from them, of all folds alike: no label is used.
        size: Side of a view in pixels; None for the backbone's own.

    Raises:
        ScanlearnError: There is no such backbone, or it cannot be loaded.
    """
    if str(backbone) == THUMBNAIL:
        side = size or _THUMBNAIL_SIZE
        described = {"kind": THUMBNAIL, "size": side}
        return EvaluatedBackbone(described, None, None, View(side, archive.mean, archive.std))
    folder = folder_of(backbone)
    if folder is None and str(backbone).startswith(RANDOM):
        return _untrained(
            str(backbone), archive, View(size or _RANDOM_SIZE, archive.mean, archive.std)
        )
    network, card = load_backbone(folder or backbone, channels=archive.shape[0])
    view = View(size or card.size, card.mean, card.std)
    described = _described("loaded", network, view)
    network = network.eval().to(preferred_device())
    notes = squeezed_note(card, archive)
    return EvaluatedBackbone(described, network, folder, view, card, notes)


def open_weights(backbone: BackboneConfig, archive: Archive, size: int | None) -> EvaluatedBackbone:
    """Returns an architecture with the weights of a file, which has no card.

    Its views are those of timm's own weights of that architecture: side, mean and std.

    Args:
        size: As for `open_backbone`.

    Raises:
        ScanlearnError: The weights cannot be read, or are not those of this architecture.
    """
    side, mean, std = standard_view(backbone.untrained.name, archive.shape[0])
    view = View(size or side, mean, std)
    network = build_backbone(backbone.untrained, archive.shape[0], 0, size=view.size)
    load_start(network, backbone)
    described = _described("loaded", network, view)
    return EvaluatedBackbone(described, network.eval().to(preferred_device()), None, view)


def _untrained(backbone: str, archive: Archive, view: View) -> EvaluatedBackbone:
    name, seed = random_of(backbone)
    network = build_backbone(BackboneConfig(name=name), archive.shape[0], seed, size=view.size)
    described = _described("random", network, view)
    notes: tuple[str, ...] = ()
    network = network.eval().to(preferred_device())
    if has_batch_norm(network):
        scans = WholeScans(archive, *view)
        scans.set_statistics(network)
        described |= {"batch_norm_statistics": f"{scans.in_words} labeled scans, without labels"}
        notes = (
            f"{backbone} was never trained: its BatchNorm statistics are of {scans.in_words} "
            "labeled scans, of all folds, without their labels",
        )
    return EvaluatedBackbone(described, network, None, view, notes=notes)


def _described(kind: str, network: Backbone, view: View) -> dict[str, Any]:
    return {
        "kind": kind,
        "architecture": network.name,
        "weights": weights_hash(network),
        "size": view.size,
    }


def packing_of_backbone(backbone: str | Path) -> dict[str, Any]:
    """Returns how scans are packed for a backbone on disk: as the archive it was trained on.

    A backbone that is none is found here, before the labels are packed for it.

    Returns:
        Settings of `PackSettings`; for what was never trained, the channels alone: auto.

    Raises:
        ScanlearnError: It cannot be loaded, or there is none of that name.
    """
    auto = {"channels": "auto"}
    if str(backbone) == THUMBNAIL:
        return auto
    folder = folder_of(backbone)
    if folder is None and str(backbone).startswith(RANDOM):
        check_architecture(random_of(str(backbone))[0], str(backbone))
        return auto
    card = load_backbone(folder or backbone)[1]
    # Cards of earlier versions do not say how their archive was packed.
    return auto if folder is None else packing_of(card, str(folder)).model_dump(exclude_unset=True)
