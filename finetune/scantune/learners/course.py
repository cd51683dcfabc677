"""One training before it begins: from what, on which scans, by which numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import Backbone
from scanlearn.core import ScanBatch
from scanlearn.features.extract import extract
from scantune.labels.labeled_set import LabeledSet
from scantune.labels.truth import Truth
from scantune.learners.mixing import balanced_shares
from scantune.learners.objective import Objective
from scantune.learners.settings import Plan, TuneConfig

# Streams of the seeded generators.
ORDER, MIXING = 1, 2


@dataclass(frozen=True)
class LabeledScans:
    """A labeled set with its scans, and how they are looked at.

    Args:
        archives: That of the scans that train, and that of an external test set where there is one.
        labeled: Which they are; its ``sources`` say which archive each lies in.
        view: Side in pixels, and mean and std of each channel.
        cache: Folder for features of the backbone as it is; None keeps none.
    """

    archives: tuple[Archive, ...]
    labeled: LabeledSet
    view: tuple[int, Sequence[float], Sequence[float]]
    cache: Path | None = None

    def seen_by(
        self, network: Backbone, rows: Int[np.ndarray, " u"] | None = None
    ) -> Float32[np.ndarray, "u d"]:
        """Returns what a network makes of whole scans, never augmented.

        Args:
            network: With or without a classifier.
            rows: ``[u]`` rows of the labeled set; None for all, which is kept in the cache.
        """
        size, mean, std = self.view
        look = partial(
            extract,
            network,
            size=size,
            mean=mean,
            std=std,
            cache=self.cache if rows is None else None,
            visible=False,
        )
        return self.labeled.gathered(lambda source, here: look(self.archives[source], here), rows)

    def stored(self, rows: Int[np.ndarray, " b"]) -> ScanBatch:
        """Returns training scans as they are packed; rows are rows of the labeled set."""
        sources = self.labeled.sources
        assert sources is None or not sources[rows].any(), "an external test set trains nothing"
        return self.archives[0].gather(self.labeled.rows[rows])


@dataclass(frozen=True)
class Course:
    """One training; rows are rows of the labeled set.

    Args:
        backbone: What it begins from; left as it is.
        scans: The labeled set.
        config: How it is trained.
        plan: The same with every number settled.
        fitted: ``[t]`` rows to fit on.
        held_out: ``[v]`` rows to validate on; None without any.
        seed: Of new weights, the order of the scans and their views.
    """

    backbone: Backbone
    scans: LabeledScans
    config: TuneConfig
    plan: Plan
    fitted: Int[np.ndarray, " t"]
    held_out: Int[np.ndarray, " v"] | None
    seed: int

    @property
    def truth(self) -> Truth:
        """Of the scans that are fitted."""
        return self.scans.labeled.truth[self.fitted]

    @property
    def validation(self) -> Truth | None:
        """Of the validation scans."""
        return None if self.held_out is None else self.scans.labeled.truth[self.held_out]

    @property
    def shares(self) -> Float[np.ndarray, " t"] | None:
        """``[t]`` probability with which each scan is drawn; None goes through them in turn."""
        return balanced_shares(self.truth) if self.config.balance == "sampling" else None

    @property
    def objective(self) -> Objective:
        """The loss."""
        beta = self.config.beta if self.config.balance == "effective" else None
        return Objective.of(self.truth, smoothing=self.plan.label_smoothing, beta=beta)

    def rng(self, stream: int) -> np.random.Generator:
        """Returns a generator of one stream of the seed."""
        return np.random.default_rng([self.seed, stream])
