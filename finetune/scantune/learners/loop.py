"""The training loop: epochs over labeled scans, the best one by validation patients taken."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.optim import Optimizer

from scanlearn.backbones.backbone import hold_statistics
from scanlearn.backbones.device import Precision, autocast, training_precision
from scanlearn.errors import ScanlearnError
from scanlearn.features.auroc import macro_auroc
from scantune.labels.truth import Truth
from scantune.learners.learner import OnEpoch, ignore_epoch, probabilities
from scantune.learners.objective import Objective, Targets
from scantune.learners.settings import TunePlan

# Takes places among the fitted scans, the step and their targets; returns inputs and targets.
Batch = Callable[[Int64[np.ndarray, " b"], int, Targets], tuple[Tensor, Targets]]


@dataclass(frozen=True)
class Split:
    """What is trained on, and what it is validated on.

    Args:
        validation: Truth of the ``v`` validation scans; None without any.
        classify: Returns ``[v k]`` logits of the validation scans by the model as it is.
        shares: ``[t]`` probability with which each scan is drawn; None goes through them in turn.
    """

    truth: Truth
    batch: Batch
    validation: Truth | None
    classify: Callable[[], Float[np.ndarray, "v k"]]
    shares: Float[np.ndarray, " t"] | None = None


@dataclass(frozen=True)
class History:
    """How a training went.

    Args:
        epoch: The epoch whose weights the model has, from 1.
        aurocs: Of the validation patients after each; NaN where undefined.
        validation: ``[v k]`` probabilities that the model gives the validation scans; None without.
    """

    epoch: int
    losses: tuple[float, ...]
    aurocs: tuple[float, ...]
    validation: Float[np.ndarray, "v k"] | None


def train(
    model: nn.Module,
    optimiser: Optimizer,
    split: Split,
    objective: Objective,
    plan: TunePlan,
    *,
    rng: np.random.Generator,
    on_epoch: OnEpoch = ignore_epoch,
) -> History:
    """Trains a model, which afterwards has the weights of its best epoch and is in evaluation mode.

    The best epoch has the highest AUROC on validation patients, of equals the lowest loss; where
    the AUROC is undefined, the lowest loss. Without validation it is the last.

    Args:
        model: Inputs in, ``[b k]`` logits out.

    Raises:
        ScanlearnError: If the loss is not finite.
    """
    peaks = [group["lr"] for group in optimiser.param_groups]
    per_epoch = max(1, len(split.truth) // plan.batch)
    losses: list[float] = []
    aurocs: list[float] = []
    best: _Epoch | None = None
    precision: Precision | None = None
    for epoch in range(plan.epochs):
        total = 0.0
        model.train()
        if plan.mode == "lpft":
            # The probe was fitted on features by these statistics; by a batch's it would be lost.
            hold_statistics(model)
        for place, rows in enumerate(_batches(split, plan.batch, per_epoch, rng)):
            step = epoch * per_epoch + place
            factor = rate_factor(step, per_epoch * plan.epochs, plan.warmup_epochs * per_epoch)
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            targets = objective.targets(split.truth.matrix[rows])
            inputs, targets = split.batch(rows, step, targets)
            if precision is None:
                precision = training_precision(model, inputs.shape[1:], inputs.device)
            with autocast(inputs.device, precision):
                logits = model(inputs)
            loss = objective.loss(logits.float(), targets.to(inputs.device))
            total += _step(optimiser, loss, step)
        losses.append(total / per_epoch)
        model.eval()
        now = None if split.validation is None else _validate(split, split.validation, objective)
        aurocs.append(float("nan") if now is None else now.auroc)
        on_epoch(epoch + 1, plan.epochs, aurocs[-1])
        if now is None:
            continue
        if best is None or now.rank > best.rank:
            best = replace(now, number=epoch + 1, weights=copy.deepcopy(model.state_dict()))
        elif epoch + 1 - best.number >= plan.patience:
            break
    if best is None:
        return History(plan.epochs, tuple(losses), tuple(aurocs), None)
    model.load_state_dict(best.weights)
    return History(best.number, tuple(losses), tuple(aurocs), best.probabilities)


@dataclass(frozen=True)
class _Epoch:
    """What the validation scans say of an epoch, by whose rank the best one is taken."""

    auroc: float
    rank: tuple[float, float]
    probabilities: Float[np.ndarray, "v k"]
    number: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)


def _validate(split: Split, validation: Truth, objective: Objective) -> _Epoch:
    logits = split.classify()
    truth, asked = validation.matrix, list(validation.asked)
    taught = np.where(split.truth.contrast, truth, np.int8(-1))
    scores = probabilities(np.asarray(logits, np.float64), is_exclusive=objective.is_exclusive)
    loss = float(objective.loss(torch.from_numpy(logits).float(), objective.targets(truth)))
    auroc = macro_auroc(scores[:, asked], taught[:, asked]).auroc
    return _Epoch(auroc, (0.0 if math.isnan(auroc) else round(auroc, 12), -loss), scores)


def rate_factor(step: int, total: int, warmup: float) -> float:
    """Returns the share of the peak rate: a straight line up, then half a cosine down; never 0.

    Args:
        warmup: Steps, not always whole, that the rate rises for.

    Source: Loshchilov and Hutter, SGDR (arXiv 1608.03983), equation 5 without restarts.

    Example:
        >>> [rate_factor(step, 6, 2) for step in (0, 1, 2, 4)]
        [0.5, 1.0, 1.0, 0.5]
    """
    if step + 1 <= warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def _step(optimiser: Optimizer, loss: Float[Tensor, ""], step: int) -> float:
    """Takes one step and returns its loss."""
    value = float(loss.detach())
    if not math.isfinite(value):
        raise ScanlearnError(
            f"the loss of step {step + 1} is {value}; lower tune.learning_rate (here "
            f"{max(group['lr'] for group in optimiser.param_groups):.2g})"
        )
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return value


def _batches(
    split: Split, batch: int, per_epoch: int, rng: np.random.Generator
) -> Iterator[Int64[np.ndarray, " b"]]:
    """Yields the scans of an epoch's steps; those that fill no batch wait for another epoch."""
    num_scans = len(split.truth)
    order = (
        rng.permutation(num_scans)
        if split.shares is None
        else rng.choice(num_scans, per_epoch * batch, p=split.shares)
    )
    for place in range(per_epoch):
        yield order[place * batch : (place + 1) * batch].astype(np.int64)
