"""What training minimises: cross-entropy of one class, or of each finding that is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int8
from torch import Tensor
from torch.nn import functional

from scantune.labels.truth import Truth
from scantune.learners.mixing import Targets, class_weights


@dataclass(frozen=True)
class Objective:
    """A loss over labels.

    Args:
        is_exclusive: Whether a scan is of one class, so that a softmax is asked; each class is a
            question of its own, a sigmoid, where not.
        smoothing: Share of a label spread over all classes, or over yes and no.
        having: ``[k]`` what a scan of each class weighs.
        lacking: ``[k]`` what one without it weighs; read where classes are questions.
    """

    is_exclusive: bool
    smoothing: float
    having: Float[Tensor, " k"]
    lacking: Float[Tensor, " k"]

    @classmethod
    def of(cls, truth: Truth, *, smoothing: float = 0.0, beta: float | None = None) -> Objective:
        """Returns the loss for training scans.

        Args:
            truth: Of these scans.
            smoothing: Of the labels.
            beta: Weighs classes by their effective number; None weighs all scans alike.
        """
        having = lacking = np.ones(truth.num_classes)
        if beta is not None:
            having, lacking = class_weights(truth, beta)
        return cls(
            truth.is_exclusive,
            smoothing,
            torch.from_numpy(having).float(),
            torch.from_numpy(lacking).float(),
        )

    def targets(self, truth: Int8[np.ndarray, "b k"]) -> Targets:
        """Returns what a batch should be called, smoothed."""
        labels = torch.from_numpy(truth).float()
        known = (labels >= 0).float()
        middle = 1 / truth.shape[1] if self.is_exclusive else 0.5
        return Targets(
            torch.lerp(labels.clamp(min=0), labels.new_tensor(middle), self.smoothing), known
        )

    def loss(self, logits: Float[Tensor, "b k"], targets: Targets) -> Float[Tensor, ""]:
        """Returns the mean over scans, or over the known labels where classes are questions."""
        having, lacking = self.having.to(logits.device), self.lacking.to(logits.device)
        if self.is_exclusive:
            found = functional.log_softmax(logits, dim=1)
            return -(having * targets.wanted * found).sum(dim=1).mean()
        yes = having * targets.wanted * functional.logsigmoid(logits)
        no = lacking * (1 - targets.wanted) * functional.logsigmoid(-logits)
        total = -((yes + no) * targets.known).sum()
        return total / targets.known.sum().clamp(min=1)
