"""The optimiser, its learning rate and its weight decay."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from lightly.utils.lars import LARS
from lightly.utils.scheduler import cosine_schedule
from torch.optim import Optimizer

from scanlearn.console import counted
from scanlearn.errors import ScanlearnError
from scanlearn.methods import Method, MethodConfig, RunFacts
from scanlearn.methods.sizing import warmup_steps


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then half a cosine down; and the weight decay beside it.

    Args:
        reason: Why the warm-up is as long as it is, in words.
        end: Learning rate that the cosine would reach at the step after the last.
        end_weight_decay: At the last step, by half a cosine; None keeps the first.
        decays_everything: Whether that is the weight decay of biases and normalisation layers too.

    Source: SimCLR (arXiv 2002.05709), section 2.2; Loshchilov and Hutter, SGDR (arXiv 1608.03983),
    equation 5 without restarts; for the weight decay DINO (arXiv 2104.14294), section 3.2.
    """

    peak: float
    warmup_steps: int
    total_steps: int
    reason: str = ""
    end: float = 0.0
    weight_decay: float = 0.0
    end_weight_decay: float | None = None
    decays_everything: bool = False

    def at(self, step: int) -> float:
        """The learning rate of a step, ``0 <= step < total_steps``; never 0.

        Example:
            >>> [Schedule(1.0, 2, 6).at(step) for step in (0, 1, 2, 4)]
            [0.5, 1.0, 1.0, 0.5]
        """
        # 1) In the warm-up: a straight line that reaches the peak at its last step.
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        # 2) After it: half a cosine that would reach the end at the step after the last.
        done = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return self.end + (self.peak - self.end) * 0.5 * (1.0 + math.cos(math.pi * done))

    def decay_at(self, step: int) -> float:
        """The weight decay of a step, ``0 <= step < total_steps``."""
        if self.end_weight_decay is None:
            return self.weight_decay
        return float(
            cosine_schedule(step, self.total_steps, self.weight_decay, self.end_weight_decay)
        )


def schedule_for(config: MethodConfig, facts: RunFacts) -> Schedule:
    """The learning rate and weight decay of a run, its warm-up at most a tenth of the steps.

    The published warm-ups are counted in epochs of 1.3 million images; ten epochs of a small
    archive may be the whole run.

    Raises:
        ScanlearnError: LARS without weight decay.

    Source: the published warm-up of the method; its cap is ours, for small archives.
    """
    assert config.warmup_epochs is not None, "resolved"
    assert config.learning_rate is not None, "resolved"
    assert config.weight_decay is not None, "resolved"
    for name in ("weight_decay", "end_weight_decay"):
        if config.optimiser == "lars" and getattr(config, name) == 0:
            # lightly adapts only parameters that decay.
            raise ScanlearnError(
                f"method.{name} is 0, which would switch the adaptation of LARS off: "
                "set it above 0, such as 1e-6, or method.optimiser to sgd"
            )
    published = round(config.warmup_epochs * facts.steps_per_epoch)
    steps = warmup_steps(config.warmup_epochs, facts.start)
    reason = counted(config.warmup_epochs, "epoch")
    if steps != published:
        reason = f"a tenth of the run, since {reason} would be {published:,}"
    return Schedule(
        peak=config.learning_rate,
        warmup_steps=steps,
        total_steps=facts.total_steps,
        reason=reason,
        end=min(config.end_learning_rate, config.learning_rate),
        weight_decay=config.weight_decay,
        end_weight_decay=config.end_weight_decay,
        decays_everything=config.decays_everything,
    )


def build_optimiser(method: Method, config: MethodConfig) -> Optimizer:
    """The method's optimiser over its parameter groups.

    lightly's LARS leaves parameters without weight decay unscaled, as the papers do with biases
    and normalisation layers.
    """
    assert config.learning_rate is not None, "resolved"
    assert config.weight_decay is not None, "resolved"
    rate, name = config.learning_rate, config.optimiser
    groups = method.parameter_groups(
        config.weight_decay, decays_everything=config.decays_everything
    )
    optimiser: Optimizer
    if name == "lars":
        optimiser = LARS(groups, lr=rate, momentum=config.momentum)
    elif name == "sgd":
        optimiser = torch.optim.SGD(groups, lr=rate, momentum=config.momentum)
    else:
        assert name == "adamw", name
        optimiser = torch.optim.AdamW(groups, lr=rate)
    return optimiser
