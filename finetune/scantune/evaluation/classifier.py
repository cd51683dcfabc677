"""The fitted classifier, kept in a folder and used again.

A linear probe's folder holds ``backbone/``, as timm loads it, and ``probe.safetensors``; that of a
tuned network is itself one that timm loads, with as many outputs as there are classes. Beside them
lies ``classifier.json``.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from jaxtyping import Float, Shaped
from pydantic import Field
from safetensors import SafetensorError

from scanlearn.backbones.backbone import Backbone
from scanlearn.backbones.card import LARGEST_SIZE, MOST_CHANNELS, Card, Deviation, Finite
from scanlearn.backbones.weights import check_reload, load_backbone, load_classifying, write_weights
from scanlearn.config.reading import read_json
from scanlearn.config.settings import Settings
from scanlearn.core import Framing
from scanlearn.errors import ScanlearnError
from scanlearn.files import disk_errors, link_or_copy
from scanlearn.locks import PartialFolder
from scantune.labels.labeled_set import LabeledSet
from scantune.labels.truth import Task
from scantune.learners.frozen import LinearFit
from scantune.learners.learner import Fit, probabilities
from scantune.statistics.metrics import SPECIFICITY, thresholds_of

CARD, PROBE, BACKBONE = "classifier.json", "probe.safetensors", "backbone"
# Of the classifier that is kept.
SEED = 0


class View(NamedTuple):
    """How a scan is shown to a network: side in pixels, and mean and std of each channel."""

    size: int
    mean: Sequence[float]
    std: Sequence[float]


class ClassifierCard(Settings):
    """What a classifier is, and what it takes to use it.

    Args:
        thresholds: At or above which a class is called: for ``specificity`` on scans of patients
            whom the models of inner folds had not seen; None where they were too few.
        framing: How scans that are not square are shown to it; cards of earlier versions, whose
            classifiers go on seeing them squeezed, do not say.
        views: How its training scans were augmented, in words; None where none were, or where an
            earlier version did not say.
        modality: The policy that changed these views, and what; None for the recipe alone.
        own_modality: That policy as it was given, where it is one of the user's own.
        patients: Patients that are known; None where none is.
        unknown_patients: Scans whose patient is unknown.
        counted: Scans and patients in words.
        chosen_c: Inverse regularisation strength of a probe; of findings one each.
        probe_hash: sha256 of the probe's file; None where the network has its classifier.
        network_hash: Of the weights of a network with its classifier; None under a probe.
    """

    format: int = 3
    learner: str
    target: str
    task: Task
    classes: tuple[str, ...]
    thresholds: tuple[float | None, ...]
    specificity: float
    chosen_c: tuple[float, ...] = ()
    scans: int
    patients: int | None
    unknown_patients: int = 0
    counted: str = ""
    size: int = Field(ge=1, le=LARGEST_SIZE)
    channels: int = Field(ge=1, le=MOST_CHANNELS)
    mean: tuple[Finite, ...]
    std: tuple[Deviation, ...]
    framing: Framing = "squeeze"
    views: str | None = None
    modality: str | None = None
    own_modality: dict[str, Any] | None = None
    packing: dict[str, Any]
    probe_hash: str | None = None
    network_hash: str | None = None


def keep_classifier(folder: Path, card: ClassifierCard, fit: LinearFit, backbone: Path) -> Path:
    """Writes a linear classifier of all labeled scans with its backbone.

    What a classifier is worth is told by models of the same kind that did not see the test
    patients; this one has seen all of them.

    Args:
        folder: A classifier that is there is replaced.
        backbone: The backbone's folder; its files are linked, or copied where that cannot be.

    Raises:
        ScanlearnError: The disk is full or may not be written to.
    """
    # safetensors writes the memory as it lies: a transposed array would be read back scrambled.
    weights = np.ascontiguousarray(fit.weights)
    probe = safetensors.numpy.save({"weights": weights, "intercepts": fit.intercepts})
    probe_hash = hashlib.sha256(probe).hexdigest()
    card = card.model_copy(update={"chosen_c": fit.chosen_c, "probe_hash": probe_hash})

    def write(partial: Path) -> None:
        (partial / BACKBONE).mkdir()
        for file in sorted(backbone.iterdir()):
            if file.is_file():
                link_or_copy(file, partial / BACKBONE / file.name)
        (partial / PROBE).write_bytes(probe)

    return _published(folder, card, write)


def keep_network(folder: Path, card: ClassifierCard, network: Backbone) -> Path:
    """Writes a network with its classifier as a folder that timm alone loads, which is tried.

    Raises:
        ScanlearnError: The disk is full or may not be written to, or timm does not load it.
    """
    export = Card.of(
        network,
        size=card.size,
        mean=card.mean,
        std=card.std,
        method=card.learner,
        modality=card.modality,
        own_modality=card.own_modality,
    )
    card = card.model_copy(update={"network_hash": export.weights_hash})

    def write(partial: Path) -> None:
        write_weights(network, partial, export)
        check_reload(partial, network, card.size)

    return _published(folder, card, write)


def describe(
    fit: Fit, labeled: LabeledSet, learner: str, view: View, packing: Mapping[str, Any]
) -> ClassifierCard:
    """Returns the card of a fit, whose scores of validation scans set the thresholds.

    Args:
        packing: Settings of the archive that the scans are from.
    """
    thresholds = thresholds_of(fit.validation, labeled.truth).tolist()
    count = labeled.count()
    return ClassifierCard(
        learner=learner,
        target=labeled.target,
        task=labeled.truth.task,
        classes=labeled.classes,
        thresholds=tuple(None if np.isnan(value) else value for value in thresholds),
        specificity=SPECIFICITY,
        scans=count.scans,
        patients=count.known_patients,
        unknown_patients=count.unknown,
        counted=count.in_words,
        size=view.size,
        channels=len(view.mean),
        mean=tuple(view.mean),
        std=tuple(view.std),
        framing="pad",
        packing=dict(packing),
    )


def _published(folder: Path, card: ClassifierCard, write: Callable[[Path], None]) -> Path:
    """Writes a classifier aside, and puts it in the place of one that is there."""
    partial = PartialFolder(folder)
    try:
        with disk_errors(folder.parent):
            write(partial.path)
            (partial.path / CARD).write_text(card.model_dump_json(indent=1) + "\n", "utf-8")
            if (folder / CARD).is_file():
                shutil.rmtree(folder)
        if not partial.publish():
            raise ScanlearnError(f"{folder}: exists and is not a classifier; choose another output")
    finally:
        partial.discard()
    return folder


class Classifier:
    """A kept classifier, loaded strictly or not at all.

    Raises:
        ScanlearnError: A file is missing, cut short, changed, or not what the card says.
    """

    def __init__(self, folder: Path) -> None:
        self.card = _read_card(folder / CARD)
        self.backbone: Backbone
        if self.card.network_hash is not None:
            self.backbone, export = load_classifying(folder)
            if export.weights_hash != self.card.network_hash:
                raise ScanlearnError(
                    f"{folder}: the network's weights are not those named in {CARD}; run "
                    "evaluate again to replace the classifier"
                )
            k = len(self.card.classes)
            self._weights, self._intercepts = np.eye(k), np.zeros(k)
        else:
            self._weights, self._intercepts = _read_probe(folder / PROBE, self.card)
            self.backbone = load_backbone(folder / BACKBONE, channels=self.card.channels)[0]
        if self.backbone.num_features != len(self._weights):
            raise ScanlearnError(
                f"{folder}: the backbone has {self.backbone.num_features} features but the probe "
                f"takes {len(self._weights)}; run evaluate again to replace the classifier"
            )

    def probabilities(self, features: Shaped[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Returns the probability of each class, ``[n k]``, from what the backbone gives."""
        logits = np.asarray(features, np.float64) @ self._weights + self._intercepts
        return probabilities(logits, is_exclusive=self.card.task != "multilabel")


def _read_card(path: Path) -> ClassifierCard:
    if not path.is_file():
        raise ScanlearnError(
            f"{path.parent}: not a classifier (it has no {CARD}); "
            "scantune evaluate with output=FOLDER keeps one"
        )
    what, remedy = "not a readable classifier card", "run evaluate again to replace the classifier"
    card = read_json(path, ClassifierCard, what=what, remedy=remedy)
    if not len(card.mean) == len(card.std) == card.channels:
        raise ScanlearnError(f"{path}: {what} (a mean and a std for each channel); {remedy}")
    return card


def _read_probe(
    path: Path, card: ClassifierCard
) -> tuple[Float[np.ndarray, "d k"], Float[np.ndarray, " k"]]:
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != card.probe_hash:
            raise ScanlearnError(
                f"{path}: its hash is not the one in {CARD}; run evaluate again to replace the "
                "classifier"
            )
        tensors = safetensors.numpy.load(content)
        return tensors["weights"], tensors["intercepts"]
    except (OSError, SafetensorError, KeyError) as error:
        raise ScanlearnError(
            f"{path}: missing or not a probe; run evaluate again to replace the classifier"
        ) from error
