"""What every learner is given, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Shaped
from scipy.special import expit, softmax

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import Backbone
from scanlearn.core import ScanBatch
from scanlearn.features.extract import extract
from scantune.labels.labeled_set import LabeledSet
from scantune.labels.truth import Truth
from scantune.learners.settings import TuneConfig
from scantune.learners.table import LearnerKind

# Called after each epoch: its number from 1, the epochs planned, and the validation AUROC or NaN.
OnEpoch = Callable[[int, int, float], object]


def ignore_epoch(epoch: int, epochs: int, auroc: float) -> None:
    """Does nothing after an epoch."""
    del epoch, epochs, auroc


@dataclass(frozen=True)
class LabeledScans:
    """A labeled set with its scans, and the view of them that networks take.

    Args:
        view: Side in pixels, and mean and std of each channel.
        cache: Folder for features of the backbone as it is; None keeps none.
    """

    archives: tuple[Archive, ...]
    labeled: LabeledSet
    view: tuple[int, Sequence[float], Sequence[float]]
    cache: Path | None = None

    def outputs(
        self, network: Backbone, rows: Int[np.ndarray, " u"] | None = None
    ) -> Float32[np.ndarray, "u d"]:
        """Returns a network's features, or logits with a classifier, of whole scans.

        Args:
            network: In evaluation mode; scans are never augmented.
            rows: ``[u]`` rows of the labeled set; None for all, which is kept in the cache.
        """
        size, mean, std = self.view
        read = partial(
            extract,
            network,
            size=size,
            mean=mean,
            std=std,
            cache=self.cache if rows is None else None,
            visible=False,
        )
        return self.labeled.gathered(lambda source, part: read(self.archives[source], part), rows)

    def stored(self, rows: Int[np.ndarray, " b"]) -> ScanBatch:
        """Returns training scans as they are packed; rows are rows of the labeled set."""
        sources = self.labeled.sources
        assert sources is None or not sources[rows].any(), "an external test set trains nothing"
        return self.archives[0].gather(self.labeled.rows[rows])


@dataclass(frozen=True)
class LabeledFeatures:
    """Features of scans that train, ``[t d]``, with their labels and ``[t]`` patients."""

    features: Shaped[np.ndarray, "t d"]
    truth: Truth
    patients: Int[np.ndarray, " t"]

    def __getitem__(self, rows: np.ndarray) -> LabeledFeatures:
        return LabeledFeatures(self.features[rows], self.truth[rows], self.patients[rows])


@dataclass(frozen=True)
class LearnerInputs:
    """What a row of the table builds a learner from.

    Args:
        network: The backbone; None where features come from no network.
    """

    kind: LearnerKind
    features: Shaped[np.ndarray, "n d"]
    labeled: LabeledSet
    config: TuneConfig
    network: Backbone | None = None
    scans: LabeledScans | None = None
    on_epoch: OnEpoch = ignore_epoch

    def train(self, rows: Int[np.ndarray, " t"]) -> LabeledFeatures:
        """Returns the features of some rows of the labeled set, to train on."""
        return LabeledFeatures(self.features, self.labeled.truth, self.labeled.patients)[rows]


@dataclass(frozen=True)
class Fit:
    """What a fitted learner answers.

    Args:
        scores: ``[u k]`` probability of each class for the scans to score.
        validation: ``[t k]`` the same of the training scans, by models that never saw their
            patient, nor learned without the class; NaN for scans that no such model scored.
        refit: Returns ``scores`` of a fit on some of the training scans, ``[t]``, with what was
            chosen by all of them, such as the penalty; None where that costs a training.
        caveats: What went wrong with the fit, each in words that follow "in 3 of 15 fits".
    """

    scores: Float[np.ndarray, "u k"]
    validation: Float[np.ndarray, "t k"]
    refit: Callable[[Bool[np.ndarray, " t"]], Float[np.ndarray, "u k"]] | None = field(
        default=None, kw_only=True, compare=False
    )
    caveats: tuple[str, ...] = field(default=(), kw_only=True)


# Takes rows of the labeled set to train on, rows to score, and a seed.
Learner = Callable[[Int[np.ndarray, " t"], Int[np.ndarray, " u"], int], Fit]


def probabilities(
    logits: Float[np.ndarray, "n k"], *, is_exclusive: bool
) -> Float[np.ndarray, "n k"]:
    """Returns the softmax of classes that exclude each other, the sigmoid of findings."""
    return np.asarray(softmax(logits, axis=1) if is_exclusive else expit(logits))
