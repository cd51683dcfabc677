"""Lightning's Trainer, set up to keep quiet, write nowhere but where told, and resume by step."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl
import torch

from scanlearn.backbones.backbone import weights_hash
from scanlearn.console import quiet, track, warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.training.batches import StepLoader
from scanlearn.training.checkpoint import AtomicCheckpoints, checkpoint_step, has_digest
from scanlearn.training.conditions import record_start
from scanlearn.training.distributed import ALONE, ProcessLayout, Ranks
from scanlearn.training.folder import COLUMNS, MetricsCsv
from scanlearn.training.module import Pretrainer
from scanlearn.training.optim import build_optimiser
from scanlearn.training.recorder import LoggingSchedule, Recorder, open_wandb
from scanlearn.training.resolved import training_device
from scanlearn.training.run import Run
from scanlearn.training.stopping import BetweenSteps, StopRequest
from scanlearn.training.watch import open_validation
from scanlearn.views.scale import Scale


def train(run: Run, stop: StopRequest | None = None, ranks: Ranks = ALONE) -> Pretrainer:
    """Takes the steps of a run that are still to take, and keeps what a resumed run needs.

    Raises:
        ScanlearnError: The loss is not finite, or the disk is full.
        Stopped: The run was asked to stop, and its checkpoint holds the last step.
    """
    stop = stop or StopRequest()
    config, resolved, folder = run.config, run.resolved, run.folder
    initial_hash = weights_hash(run.method)
    first = checkpoint_step(folder.checkpoint)
    if first and ranks.is_first and not has_digest(folder.checkpoint):
        warn_user(
            f"{folder.checkpoint} is of an earlier release and has no digest; the check sums of "
            "its parts were compared instead"
        )
    total = resolved.total_steps
    if first < total and ranks.is_first:
        _record_start(run, first, ranks)
    loader = run.loader(first, ranks)
    metrics = MetricsCsv(folder.metrics, COLUMNS, after=first) if ranks.is_first else None
    schedule = LoggingSchedule(
        total_steps=total,
        log_steps=config.logging.row_every(total),
        checkpoint_minutes=config.checkpoint_minutes,
        checkpoint_steps=config.checkpoint_steps,
    )
    watch = ranks.first(lambda: open_validation(run, first) if ranks.is_first else None)
    with (
        track(total - first, "pretraining", visible=config.progress) as progress,
        open_wandb(folder, config) if ranks.is_first else nullcontext() as wandb,
    ):
        recorder = Recorder(
            folder,
            metrics,
            schedule,
            loader=loader,
            progress=progress,
            wandb=wandb,
            stop=stop,
            watch=watch,
            is_identity=run.generator.scale == Scale.IDENTITY,
        )
        module = Pretrainer(
            run.method,
            run.generator,
            schedule=resolved.schedule,
            optimiser=partial(build_optimiser, config=resolved.method),
            seed=config.seed,
            steps_per_epoch=resolved.steps_per_epoch,
            memory_format=resolved.memory_format,
            scan_ids=run.archive.scan_ids.tolist(),
            after_step=recorder.stepped,
            initial_hash=initial_hash,
        )
        trainer = build_trainer(
            layout=run.layout if ranks.count > 1 else ProcessLayout(training_device(config.device)),
            precision=resolved.precision,
            steps=total,
            folder=folder.path,
            accumulate=config.accumulate,
            callbacks=[BetweenSteps(stop)],
        )
        fit_quietly(trainer, module, loader, folder.checkpoint if first else None)
    return module


def _record_start(run: Run, first: int, ranks: Ranks) -> None:
    changed = record_start(run, first, ranks.count)
    if changed:
        warn_user(
            f"{run.folder.path} goes on from step {first:,} under other conditions than before, "
            f"which its record says: {'; '.join(changed)}"
        )


def build_trainer(
    *,
    layout: ProcessLayout,
    precision: Literal["fp32", "bf16"],
    steps: int,
    folder: Path,
    accumulate: int = 1,
    callbacks: Sequence[pl.Callback] = (),
) -> pl.Trainer:
    """Returns a Trainer without epochs, loggers, bars or checkpoints of its own.

    Args:
        precision: Number format of the step; weights and views stay in fp32.
        accumulate: Parts of a batch, after the last of which the optimiser steps.
    """
    with quiet():
        arguments = layout.trainer_arguments()
        return pl.Trainer(
            **{**arguments, "plugins": [AtomicCheckpoints(), *arguments["plugins"]]},
            precision="bf16-mixed" if precision == "bf16" else "32-true",
            max_steps=steps,
            accumulate_grad_batches=accumulate,
            max_epochs=-1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=folder,
            callbacks=list(callbacks),
        )


def fit_quietly(
    trainer: pl.Trainer, module: Pretrainer, loader: StepLoader, checkpoint: Path | None
) -> None:
    """Trains to the last step, from a checkpoint where there is one.

    Raises:
        ScanlearnError: The checkpoint is not one of this run.
        KeyboardInterrupt: The user stopped the run.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        with quiet():
            trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        is_ours = isinstance(error, (ScanlearnError, torch.OutOfMemoryError))
        if checkpoint is None or module.has_begun or is_ours:
            raise
        reason = str(error).partition("\n")[0]
        raise ScanlearnError(
            f"{checkpoint} does not fit this run ({type(error).__name__}: {reason}): delete it to "
            "restart this run from its first step"
        ) from error
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        # Lightning ends the whole process here, deaf to further interrupts: not a library's call.
        signal.signal(signal.SIGINT, before)
        raise stop.__context__ from None
