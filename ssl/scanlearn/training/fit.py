"""Lightning's Trainer, set up to keep quiet, write nowhere but where told, and resume by step."""

from __future__ import annotations

import logging
import re
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl

from scanlearn.training.data import StepLoader
from scanlearn.training.keeper import AtomicCheckpoints
from scanlearn.training.loop import Pretrainer
from scanlearn.training.ranks import Layout

# Exact beginnings of third-party warnings, each with the reason why it says nothing to a user.
_FILTERED = (
    # A loader counted by step has no workers: it reads a memory map in one thread.
    "The 'train_dataloader' does not have many workers",
    # The device is the user's choice.
    "GPU available but not used",
    # Lightning's own use of a torch name that torch has renamed.
    "`isinstance(treespec, LeafSpec)` is deprecated",
)
_LOGGERS = ("pytorch_lightning", "lightning_fabric", "lightning")


def build_trainer(
    *,
    layout: Layout,
    precision: Literal["fp32", "bf16"],
    steps: int,
    folder: Path,
    accumulate: int = 1,
    callbacks: Sequence[pl.Callback] = (),
) -> pl.Trainer:
    """Returns a Trainer without epochs, loggers, bars or checkpoints of its own.

    Args:
        layout: Where to train, in how many processes.
        precision: Number format of the step; weights and views stay in fp32.
        steps: Optimiser steps at which the run ends.
        folder: The run folder.
        accumulate: Parts of a batch, after the last of which the optimiser steps.
        callbacks: What follows the training beside the module.
    """
    with quiet():
        return pl.Trainer(
            **layout.trainer_arguments(),
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
            plugins=[AtomicCheckpoints()],
            callbacks=list(callbacks),
        )


def fit_quietly(
    trainer: pl.Trainer, module: Pretrainer, loader: StepLoader, checkpoint: Path | None
) -> None:
    """Trains to the last step, from a checkpoint where there is one.

    Raises:
        KeyboardInterrupt: The user stopped the run.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        with quiet():
            trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        # Lightning ends the whole process here, deaf to further interrupts: not a library's call.
        signal.signal(signal.SIGINT, before)
        raise KeyboardInterrupt from None


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Lightning's tips and device lines away; its warnings only by their text."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            for text in _FILTERED:
                warnings.filterwarnings("ignore", message=re.escape(text))
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
