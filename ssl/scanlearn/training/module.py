"""One LightningModule around every method: views, loss, optimiser, the guard against NaN."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from scanlearn.core import Losses, Progress, Views
from scanlearn.errors import NotFiniteError
from scanlearn.methods import Method
from scanlearn.provenance import seed_step
from scanlearn.training.batches import StepBatch
from scanlearn.training.monitor import chained
from scanlearn.training.optim import Schedule
from scanlearn.views.generator import ViewGenerator
from scanlearn.views.uniforms import uniforms

_STATE = "scanlearn"
_NAMED_SCANS = 5


@dataclass(frozen=True)
class RenderedBatch:
    """A batch whose views are on the training device."""

    views: Views
    batch: StepBatch


@dataclass(frozen=True)
class RunState:
    """What a run has gone through so far; kept in its checkpoint.

    Args:
        initial_hash: Weights of the whole method before the first step.
        order_hash: Chain over the rows of every batch: proves the order of the data.
        uniforms_hash: Chain over the uniforms of every batch: proves the random numbers.
        seconds: Time spent in training, over all starts.
    """

    initial_hash: str
    order_hash: str = ""
    uniforms_hash: str = ""
    seconds: float = 0.0


class Pretrainer(pl.LightningModule):
    """Trains one method.

    Args:
        scan_ids: ``[n]`` names of the archive's scans, for errors.
        after_step: Called after each step with the number of views it has seen; what it saves
            holds the step whole.
    """

    def __init__(
        self,
        method: Method,
        generator: ViewGenerator,
        *,
        schedule: Schedule,
        optimiser: Callable[[Method], Optimizer],
        seed: int,
        steps_per_epoch: int,
        memory_format: torch.memory_format,
        scan_ids: Sequence[str],
        after_step: Callable[[Pretrainer, int], None],
        initial_hash: str,
    ) -> None:
        super().__init__()
        self.method = method.to(memory_format=memory_format)
        self.state = RunState(initial_hash)
        self.losses: Losses | None = None
        self.has_begun = False
        self._resumed_at: int | None = None
        self._is_last_part = True
        self._batch: RenderedBatch | None = None
        self._loss: Float[Tensor, ""]
        self._generator = generator
        self.schedule = schedule
        self.steps_per_epoch = steps_per_epoch
        self._optimiser = optimiser
        self._seed = seed
        self._memory_format = memory_format
        self._scan_ids = scan_ids
        self._after_step = after_step

    def at(self) -> Progress:
        """Where the run stands."""
        return Progress(self.global_step, self.schedule.total_steps, self.steps_per_epoch)

    def configure_optimizers(self) -> Optimizer:
        """Returns the optimiser; the learning rate is set before each step."""
        return self._optimiser(self.method)

    def transfer_batch_to_device(
        self,
        batch: StepBatch,
        device: torch.device,
        dataloader_idx: int,  # noqa: ARG002
    ) -> StepBatch:
        """Moves the stored values to the training device; the key stays where it is."""
        return replace(batch, scans=batch.scans.to(device, non_blocking=True))

    def on_after_batch_transfer(
        self,
        batch: StepBatch,
        dataloader_idx: int,  # noqa: ARG002
    ) -> RenderedBatch:
        """Renders the views on the device that trains."""
        views = self._generator(batch.scans, batch.key)
        whole, local = (
            tuple(view.contiguous(memory_format=self._memory_format) for view in kind)
            for kind in (views.global_views, views.local_views)
        )
        return RenderedBatch(replace(views, global_views=whole, local_views=local), batch)

    def on_train_batch_start(self, batch: RenderedBatch, batch_idx: int) -> None:  # noqa: ARG002
        """Sets what this step depends on: random state, learning rate and weight decay."""
        step = self.global_step
        # A loader and a trainer that disagree would train on the wrong scans without a sign.
        assert batch.batch.key.step == step, (batch.batch.key.step, step)
        # Each process and part drops branches of its own; one alone draws as it always did.
        count = step * self.trainer.accumulate_grad_batches + batch.batch.part
        seed_step(self._seed, count * self.trainer.world_size + self.global_rank)
        self._is_last_part = batch.batch.is_last_part
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.schedule.at(step)
            # MoCo's biases and normalisation layers were left at the first weight decay.
            if group["name"] == "decayed" or self.schedule.decays_everything:
                group["weight_decay"] = self.schedule.decay_at(step)

    def training_step(self, batch: RenderedBatch, batch_idx: int) -> Float[Tensor, ""]:  # noqa: ARG002
        """Returns the loss."""
        self._batch = batch
        losses = self.method.loss(batch.views, self.at())
        now = replace(losses, total=losses.total.detach())
        self._loss = now.total
        self.losses = _averaged(self.losses, now, batch.batch.part)
        return losses.total

    def _check_finite(self) -> None:
        """Stops before the optimiser step unless the loss and every gradient are finite.

        Both are looked at together: each look makes a GPU's queue run dry once. Several processes
        have exchanged their gradients by now, and all of them stop.
        """
        gradients = {n: p.grad for n, p in self.method.named_parameters() if p.grad is not None}
        length = torch.nn.utils.get_total_norm(gradients.values())
        loss, total = torch.stack((self._loss.float(), length.float())).tolist()
        if not math.isfinite(loss):
            raise NotFiniteError(self._not_finite(f"the loss is {loss}"))
        if math.isfinite(total):
            return
        # A sum of squares overflows where each of the gradients may still be finite.
        broken = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
        if broken:
            problem = (
                f"{len(broken)} of {len(gradients)} gradients ({broken[0]}, ...) are not finite"
            )
            raise NotFiniteError(self._not_finite(f"the loss is {loss:.4g}, but {problem}"))

    def _not_finite(self, problem: str) -> str:
        batch = self._batch
        assert batch is not None
        views = (*batch.views.global_views, *batch.views.local_views)
        whole = torch.stack([view.flatten(1).isfinite().all(1) for view in views]).all(0)
        rows = batch.batch.rows
        bad = rows[(~whole).cpu().numpy()]
        named = [str(self._scan_ids[row]) for row in (bad if len(bad) else rows)[:_NAMED_SCANS]]
        scans = ", ".join(named) + (", ..." if (len(bad) or len(rows)) > len(named) else "")
        if len(bad):
            cause = (
                f"views of {len(bad)} of its scans are not finite ({scans}): look at those scans"
            )
        else:
            cause = (
                f"its {len(rows)} scans are sound ({scans}): "
                "lower method.learning_rate, or set precision to fp32"
            )
        return f"{problem} at step {self.global_step}, and {cause}; the last checkpoint is kept."

    def on_after_backward(self) -> None:
        """Lets the method change its gradients, once they are whole.

        Raises:
            NotFiniteError: The loss or a gradient is not finite; the weights are still those of
                the step before.
        """
        # Before the last part the gradients are each process's own: one alone must not stop.
        if self._is_last_part or self.trainer.world_size == 1:
            self._check_finite()
        # Its views would lie in memory beside the next batch's.
        self._batch = None
        if self._is_last_part:
            self.method.after_backward(self.at())

    def on_train_batch_end(
        self,
        outputs: Any,  # noqa: ARG002
        batch: RenderedBatch,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Lets the method follow the optimiser, adds the batch to the trail, reports the step."""
        if not self._is_last_part:
            return
        # Lightning has counted the step already.
        self.method.after_step(replace(self.at(), step=self.global_step - 1))
        shared = batch.batch
        num_views = self.method.plan.global_views + self.method.plan.local_views
        self.state = replace(
            self.state,
            order_hash=chained(self.state.order_hash, shared.global_rows),
            uniforms_hash=chained(self.state.uniforms_hash, uniforms(shared.global_key, num_views)),
        )
        self._after_step(self, num_views * len(shared.global_rows))

    def average_losses(self) -> None:
        """Averages the step's loss and its terms over the processes, all of which must ask.

        The embeddings remain those of this process.
        """
        assert self.losses is not None
        total, terms, judged = self.losses.total, self.losses.terms, self.losses.judged
        # A copy, since the average is written in its place.
        mean = self.trainer.strategy.reduce
        self.losses = replace(
            self.losses,
            total=mean(total.clone()),
            terms={name: mean(term.clone()) for name, term in terms.items()},
            judged=None if judged is None else mean(judged.clone()),
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the trail in the checkpoint."""
        checkpoint[_STATE] = asdict(self.state)

    def on_train_start(self) -> None:
        """Everything is in place, that of a checkpoint too.

        Raises:
            ValueError: Its count of steps is not that of the loops in it.
        """
        if self._resumed_at not in (None, self.global_step):
            raise ValueError(f"it claims step {self._resumed_at}, its loops {self.global_step}")
        self.has_begun = True

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the trail up where the checkpoint left it."""
        self.state = RunState(**checkpoint[_STATE])
        self._resumed_at = checkpoint["global_step"]


def _averaged(before: Losses | None, now: Losses, part: int) -> Losses:
    """The mean loss and terms of the parts of a batch up to this one, counted from 0."""
    if before is None or part == 0:
        return now
    share = 1 / (part + 1)
    return replace(
        now,
        total=torch.lerp(before.total, now.total, share),
        terms={name: torch.lerp(before.terms[name], now.terms[name], share) for name in now.terms},
    )
