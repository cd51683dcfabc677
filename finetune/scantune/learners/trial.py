"""One training by steps: from what, on which scans, by which numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import nn
from torch.optim import Optimizer

from scanlearn.backbones.backbone import Backbone
from scantune.labels.truth import Truth
from scantune.learners.learner import LabeledScans, OnEpoch
from scantune.learners.loop import Batch, History, Split, train
from scantune.learners.objective import Objective
from scantune.learners.settings import TuneConfig, TunePlan
from scantune.learners.weighting import balanced_shares

# Streams of the seeded generators.
ORDER, MIXING = 1, 2


@dataclass(frozen=True)
class Trial:
    """One training; rows are rows of the labeled set.

    Args:
        fitted: ``[t]`` rows to fit on.
        held_out: ``[v]`` rows to validate on; None without any.
        seed: Of new weights, the order of the scans and their views.
    """

    backbone: Backbone
    scans: LabeledScans
    config: TuneConfig
    plan: TunePlan
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

    def constant_loss(self) -> float:
        """Returns what the best constant prediction would lose on the scans as they are drawn."""
        return self.objective.constant_loss(self.truth, self.shares)

    def train(
        self,
        model: nn.Module,
        optimiser: Optimizer,
        batch: Batch,
        classify: Callable[[], Float[np.ndarray, "v k"]],
        on_epoch: OnEpoch,
    ) -> History:
        """Trains a model as `loop.train` does; the arguments are those of a `Split`."""
        return train(
            model,
            optimiser,
            Split(self.truth, batch, self.validation, classify, self.shares),
            self.objective,
            self.plan,
            rng=self.rng(ORDER),
            on_epoch=on_epoch,
        )

    def rng(self, stream: int) -> np.random.Generator:
        """Returns a generator of one stream of the seed."""
        return np.random.default_rng([self.seed, stream])
