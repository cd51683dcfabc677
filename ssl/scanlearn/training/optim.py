"""The optimiser and its learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightly.utils.lars import LARS
from torch.optim import Optimizer

from scanlearn.methods import Method, MethodConfig

WARMUP_SHARE = 0.1


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then half a cosine down to nothing.

    Args:
        peak: Learning rate after the warm-up.
        warmup_steps: Steps of the warm-up.
        total_steps: Steps of the run.
        reason: Why the warm-up is as long as it is, in words.

    Source:
        SimCLR (arXiv 2002.05709), section 2.2; Loshchilov and Hutter, SGDR (arXiv 1608.03983),
        equation 5 without restarts.
    """

    peak: float
    warmup_steps: int
    total_steps: int
    reason: str = ""

    def at(self, step: int) -> float:
        """The learning rate of a step, ``0 <= step < total_steps``; never 0.

        Example:
            >>> [Schedule(1.0, 2, 6).at(step) for step in (0, 1, 2, 4)]
            [0.5, 1.0, 1.0, 0.5]
        """
        # 1) In the warm-up: a straight line that reaches the peak at its last step.
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        # 2) After it: half a cosine that would reach 0 at the step after the last.
        done = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return self.peak * 0.5 * (1.0 + math.cos(math.pi * done))


def schedule_for(
    config: MethodConfig, *, batch_size: int, total_steps: int, steps_per_epoch: int
) -> Schedule:
    """The learning-rate schedule of a run, its warm-up capped at a tenth of the steps.

    The published warm-ups are counted in epochs of 1.3 million images; ten epochs of a small
    archive may be the whole run.

    Args:
        config: The method's recipe.
        batch_size: Scans in a global batch.
        total_steps: Optimiser steps of the run.
        steps_per_epoch: Optimiser steps in one pass over the archive.

    Source: the published warm-up of the method; its cap is ours, for small archives.
    """
    asked = round(config.warmup_epochs * steps_per_epoch)
    most = int(WARMUP_SHARE * total_steps)
    if asked <= most:
        reason = f"{config.warmup_epochs:g} epochs"
    else:
        reason = f"a tenth of the run, since {config.warmup_epochs:g} epochs would be {asked:,}"
    return Schedule(
        peak=config.peak_learning_rate(batch_size),
        warmup_steps=min(asked, most),
        total_steps=total_steps,
        reason=reason,
    )


def build_optimiser(method: Method, config: MethodConfig, *, learning_rate: float) -> Optimizer:
    """The method's optimiser over its parameter groups.

    lightly's LARS leaves parameters without weight decay unscaled, as the paper does with biases
    and normalisation layers.
    """
    # A recipe with another optimiser adds its name to the method's configuration and a case here.
    assert config.optimiser == "lars", config.optimiser
    optimiser: Optimizer = LARS(
        method.parameter_groups(config.weight_decay), lr=learning_rate, momentum=config.momentum
    )
    return optimiser
