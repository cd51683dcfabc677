"""The training loop: epochs over labeled scans, the best one by validation patients taken."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.optim import Optimizer

from scanlearn.backbones.backbone import hold_statistics
from scanlearn.backbones.device import autocast, preferred_precision
from scanlearn.errors import ScanlearnError
from scanlearn.features.auroc import macro_auroc
from scantune.labels.truth import Truth
from scantune.learners.frozen import probabilities
from scantune.learners.mixing import Targets
from scantune.learners.objective import Objective
from scantune.learners.settings import Plan

# Told after each epoch: its number from 1, the epochs planned, and the AUROC, NaN without one.
OnEpoch = Callable[[int, int, float], object]


def unheard(epoch: int, epochs: int, value: float) -> None:
    """Tells nobody of an epoch."""
    del epoch, epochs, value


@dataclass(frozen=True)
class Lesson:
    """What is learned from, and what is validated on.

    Args:
        truth: Of the ``t`` scans that are fitted.
        batch: Given ``[b]`` places among them, the step and their targets: returns inputs on the
            model's device, and targets.
        validation: Truth of the ``v`` validation scans; None without any.
        classify: Returns ``[v k]`` logits of the validation scans by the model as it is.
        shares: ``[t]`` probability with which each scan is drawn; None goes through them in turn.
    """

    truth: Truth
    batch: Callable[[Int64[np.ndarray, " b"], int, Targets], tuple[Tensor, Targets]]
    validation: Truth | None
    classify: Callable[[], Float[np.ndarray, "v k"]]
    shares: Float[np.ndarray, " t"] | None = None


@dataclass(frozen=True)
class Lessons:
    """How a training went.

    Args:
        epoch: The epoch whose weights the model has, from 1.
        losses: Mean loss of each epoch taken.
        aurocs: Of the validation patients after each; NaN where undefined.
        validation: ``[v k]`` probabilities that the model gives the validation scans; None without.
    """

    epoch: int
    losses: tuple[float, ...]
    aurocs: tuple[float, ...]
    validation: Float[np.ndarray, "v k"] | None


def teach(
    model: nn.Module,
    optimiser: Optimizer,
    lesson: Lesson,
    objective: Objective,
    plan: Plan,
    *,
    rng: np.random.Generator,
    on_epoch: OnEpoch = unheard,
) -> Lessons:
    """Trains a model, which afterwards has the weights of its best epoch and is in evaluation mode.

    The best epoch has the highest AUROC on validation patients, of equals the lowest loss; where
    the AUROC is undefined, the lowest loss. Without validation it is the last.

    Args:
        model: Inputs in, ``[b k]`` logits out.
        optimiser: Its groups' rates are the peaks.
        lesson: The scans.
        objective: The loss.
        plan: Epochs, batch, warm-up and patience.
        rng: Draws the order of the scans.
        on_epoch: Told after each epoch.

    Raises:
        ScanlearnError: If the loss is not finite.
    """
    peaks = [group["lr"] for group in optimiser.param_groups]
    per_epoch = max(1, len(lesson.truth) // plan.batch)
    losses: list[float] = []
    values: list[float] = []
    best: tuple[tuple[float, float], int, dict[str, Tensor], np.ndarray] | None = None
    for epoch in range(plan.epochs):
        total = 0.0
        model.train()
        if plan.mode == "lpft":
            # The probe was fitted on features by these statistics; by a batch's it would be lost.
            hold_statistics(model)
        for place, rows in enumerate(_batches(lesson, plan.batch, per_epoch, rng)):
            step = epoch * per_epoch + place
            factor = rate_factor(step, per_epoch * plan.epochs, plan.warmup_epochs * per_epoch)
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            total += _step(model, optimiser, objective, lesson, rows, step)
        losses.append(total / per_epoch)
        model.eval()
        value, rank, found = _validated(lesson, objective)
        values.append(value)
        on_epoch(epoch + 1, plan.epochs, value)
        if found is None:
            continue
        if best is None or rank > best[0]:
            best = (rank, epoch, copy.deepcopy(model.state_dict()), found)
        elif epoch - best[1] >= plan.patience:
            break
    if best is None:
        return Lessons(plan.epochs, tuple(losses), tuple(values), None)
    model.load_state_dict(best[2])
    return Lessons(best[1] + 1, tuple(losses), tuple(values), best[3])


def rate_factor(step: int, total: int, warmup: float) -> float:
    """Returns the share of the peak rate: a straight line up, then half a cosine down; never 0.

    Args:
        step: From 0.
        total: Steps planned.
        warmup: Steps, not always whole, that the rate rises for.

    Source: Loshchilov and Hutter, SGDR (arXiv 1608.03983), equation 5 without restarts.

    Example:
        >>> [rate_factor(step, 6, 2) for step in (0, 1, 2, 4)]
        [0.5, 1.0, 1.0, 0.5]
    """
    if step + 1 <= warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def _step(
    model: nn.Module,
    optimiser: Optimizer,
    objective: Objective,
    lesson: Lesson,
    rows: Int64[np.ndarray, " b"],
    step: int,
) -> float:
    """Takes one step and returns its loss."""
    inputs, targets = lesson.batch(rows, step, objective.targets(lesson.truth.matrix[rows]))
    with autocast(inputs.device, preferred_precision(inputs.device)):
        logits = model(inputs)
    loss = objective.loss(logits.float(), targets.to(inputs.device))
    value = float(loss.detach())
    if not math.isfinite(value):
        raise ScanlearnError(
            f"the loss of step {step + 1} is {value}; lower tune.learning_rate, which is at "
            f"{max(group['lr'] for group in optimiser.param_groups):.2g} here"
        )
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return value


def _batches(
    lesson: Lesson, batch: int, per_epoch: int, rng: np.random.Generator
) -> Iterator[Int64[np.ndarray, " b"]]:
    """Yields the scans of an epoch's steps; those that fill no batch wait for another epoch."""
    num_scans = len(lesson.truth)
    order = (
        rng.permutation(num_scans)
        if lesson.shares is None
        else rng.choice(num_scans, per_epoch * batch, p=lesson.shares)
    )
    for place in range(per_epoch):
        yield order[place * batch : (place + 1) * batch].astype(np.int64)


def _validated(
    lesson: Lesson, objective: Objective
) -> tuple[float, tuple[float, float], Float[np.ndarray, "v k"] | None]:
    """Returns the AUROC, what epochs are ranked by, and the probabilities behind them."""
    if lesson.validation is None:
        return float("nan"), (0.0, 0.0), None
    logits = lesson.classify()
    truth, asked = lesson.validation.matrix, list(lesson.validation.asked)
    found = probabilities(np.asarray(logits, np.float64), is_exclusive=objective.is_exclusive)
    loss = float(objective.loss(torch.from_numpy(logits).float(), objective.targets(truth)))
    value = macro_auroc(found[:, asked], truth[:, asked]).auroc
    rank = (0.0 if math.isnan(value) else round(value, 12), -loss)
    return value, rank, found
