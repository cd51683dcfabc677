"""What a training by steps minimises: targets, their loss, and mixtures of views and targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int8
from torch import Tensor
from torch.nn import functional

from scantune.labels.truth import Truth
from scantune.learners.weighting import class_weights


@dataclass(frozen=True)
class Targets:
    """What a batch should be called.

    Args:
        wanted: ``[b k]`` probability of each class.
        known: ``[b k]`` 1 where it is known, 0 where the loss leaves it out.
    """

    wanted: Float[Tensor, "b k"]
    known: Float[Tensor, "b k"]

    def mixed(self, order: Tensor, share: float) -> Targets:
        """Returns ``share`` of each target and the rest of another's; unknown in one is unknown."""
        wanted = torch.lerp(self.wanted[order], self.wanted, share)
        return Targets(wanted, self.known * self.known[order])

    def to(self, device: torch.device) -> Targets:
        """Returns the targets on a device."""
        return Targets(self.wanted.to(device), self.known.to(device))


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
            log_p = functional.log_softmax(logits, dim=1)
            return -(having * targets.wanted * log_p).sum(dim=1).mean()
        yes = having * targets.wanted * functional.logsigmoid(logits)
        no = lacking * (1 - targets.wanted) * functional.logsigmoid(-logits)
        total = -((yes + no) * targets.known).sum()
        return total / targets.known.sum().clamp(min=1)

    def constant_loss(self, truth: Truth, shares: Float[np.ndarray, " t"] | None = None) -> float:
        """Returns the least loss of a prediction that is the same for all scans.

        Args:
            shares: ``[t]`` how often each scan is drawn, as in training; None draws all alike.
        """
        targets = self.targets(truth.matrix)
        share = np.full(len(truth), 1 / len(truth)) if shares is None else shares
        known = torch.from_numpy(share).float()[:, None] * targets.known
        yes = (known * self.having * targets.wanted).sum(dim=0)
        if self.is_exclusive:
            return float(-torch.xlogy(yes, yes / yes.sum()).sum())
        no = (known * self.lacking * (1 - targets.wanted)).sum(dim=0)
        total = (yes + no).clamp(min=1e-12)
        return float(
            -(torch.xlogy(yes, yes / total) + torch.xlogy(no, no / total)).sum() / known.sum()
        )


def mix_views(
    views: Float[Tensor, "b c s s"],
    targets: Targets,
    rng: np.random.Generator,
    *,
    mixup: float,
    cutmix: float,
) -> tuple[Float[Tensor, "b c s s"], Targets]:
    """Mixes every view of a batch with another one of it, and their targets alike.

    Where both are on, each batch takes one of the two by a fair coin. One share serves the batch.

    Args:
        views: ``[b c s s]``, not changed.
        mixup: Alpha of Beta(alpha, alpha), from which mixup's share is drawn; 0 is off.
        cutmix: The same of CutMix: the share of the area that is kept.

    Source: Zhang et al. 2018 (arXiv 1710.09412); Yun et al. 2019 (arXiv 1905.04899), whose share
    is set anew to the area that a box at the border covers.
    """
    if not mixup and not cutmix:
        return views, targets
    cuts = cutmix > 0 and (mixup == 0 or rng.random() < 0.5)
    alpha = cutmix if cuts else mixup
    share = float(rng.beta(alpha, alpha))
    order = torch.from_numpy(rng.permutation(len(views))).to(views.device)
    if not cuts:
        return torch.lerp(views[order], views, share), targets.mixed(order, share)
    side = views.shape[-1]
    top, left, bottom, right = _box(side, share, rng)
    mixed = views.clone()
    mixed[..., top:bottom, left:right] = views[order][..., top:bottom, left:right]
    kept = 1 - (bottom - top) * (right - left) / side**2
    return mixed, targets.mixed(order, kept)


def _box(side: int, share: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Returns a box about a uniform point, of 1 - share of the area before the border cuts it."""
    half = side * np.sqrt(1 - share) / 2
    rows, columns = rng.uniform(0, side, 2)
    low = [max(0, round(middle - half)) for middle in (rows, columns)]
    high = [min(side, round(middle + half)) for middle in (rows, columns)]
    return low[0], low[1], high[0], high[1]
