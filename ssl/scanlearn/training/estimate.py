"""What a run will take, from its own first steps: `dry_run`."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scanlearn.archive.reader import Archive
from scanlearn.console import warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.packing.sources import open_archive
from scanlearn.training.checkpoint import checkpoint_step
from scanlearn.training.folder import RunFolder
from scanlearn.training.rehearsal import (
    WARM_STEPS,
    Clock,
    explain_memory,
    is_out_of_memory,
    measure,
    rehearsed,
)
from scanlearn.training.run import layout_of
from scanlearn.training.settings import PretrainConfig
from scanlearn.training.stopping import StopRequest, listening

_MEASURED_STEPS = 8
_MEASURED_S = 10.0
_PATIENCE_S = 60.0
_ROW_BYTES = 80


@dataclass(frozen=True)
class Estimate:
    """What a run will take, extrapolated from its first steps.

    Args:
        chosen: What the run chose for itself and why, one sentence each.
        steps: Optimiser steps still to take.
        epochs: Passes over the archive of the whole run.
        ranks: Processes that share a batch; one of them was measured, by itself.
        measured_steps: Steps the figures come from.
        step_s: Seconds of a step, the mean.
        seconds: Time in training: steps and checkpoints, without the start and the export.
        low_s: That time, were all steps as fast as the fastest tenth of those measured.
        high_s: That time, were all as slow as the slowest tenth.
        views_per_s: Views seen in a second.
        device: Where it was measured.
        memory: Most bytes in use at once: a GPU's for tensors, or a CPU process's as a whole;
            None where the system does not tell.
        archive: Bytes of packed scans, which the system keeps in memory beside a CPU process as
            long as it can spare them.
        checkpoint: Bytes of a checkpoint with the optimiser's state.
        backbone: Bytes of the exported backbone.
        metrics: Bytes of metrics.csv at the end.
    """

    chosen: tuple[str, ...]
    steps: int
    epochs: float
    ranks: int
    measured_steps: int
    step_s: float
    seconds: float
    low_s: float
    high_s: float
    views_per_s: float
    device: str
    memory: int | None
    archive: int
    checkpoint: int
    backbone: int
    metrics: int

    @property
    def disk(self) -> int:
        """Most bytes of disk in use at once: the next checkpoint is written beside the last."""
        return self.checkpoint + max(self.checkpoint, self.backbone) + self.metrics

    def __str__(self) -> str:
        measured = f"{self.step_s:.3g} s a step, mean of {self.measured_steps}"
        if self.ranks > 1:
            measured += f" on one of {self.ranks} processes, gradients not exchanged"
        if self.memory is None:
            memory = "not told by this system"
        elif self.device == "cpu":
            memory = (
                f"{_bytes(self.memory)}, and up to {_bytes(self.archive)} for the archive if the "
                "system can spare it"
            )
        else:
            memory = f"{_bytes(self.memory)} of {self.device}"
        return "\n".join(
            (
                *self.chosen,
                f"steps   {self.steps:,} to take, {self.epochs:,.4g} epochs in all",
                f"time    {_time(self.seconds)}, between {_time(self.low_s)} and "
                f"{_time(self.high_s)}; {measured}",
                f"views   {self.views_per_s:,.0f} a second",
                f"memory  {memory}",
                f"disk    {_bytes(self.disk)}: a checkpoint of {_bytes(self.checkpoint)}, twice "
                f"while it is written; a backbone of {_bytes(self.backbone)}; metrics",
            )
        )


def dry_run(config: PretrainConfig) -> Estimate:
    """Estimates time, memory and disk of a run from a few real steps, without touching its folder.

    A folder of scans or a table is packed into the cache first, as the run itself would do.

    Args:
        config: The run.

    Returns:
        The estimate; for a run that was stopped, of the rest.

    Raises:
        ScanlearnError: The archive cannot be used, the batch is larger than it, or the loss is
            not finite; or the memory is full, with the largest batch that fits.
        Stopped: SIGTERM or SIGUSR1 asked to stop.
    """
    archive = open_archive(config.archive, settings=config.pack)
    clock = Clock(_is_measured)
    with listening(clock.is_enough) as stop:
        try:
            estimate = _estimate(config, archive, clock, stop)
            _check_disk(Path(config.output), estimate.disk)
            return estimate
        except (MemoryError, RuntimeError, OSError) as error:
            if not is_out_of_memory(error):
                raise
        raise ScanlearnError(explain_memory(config, stop))


def _estimate(
    config: PretrainConfig, archive: Archive, clock: Clock, stop: StopRequest
) -> Estimate:
    ranks = layout_of(config).ranks
    # A run that was stopped has its remaining steps to take.
    done = checkpoint_step(RunFolder(Path(config.output)).checkpoint)
    with rehearsed(config, archive) as whole:
        chosen = (whole.start_line(done), *(f"Warning: {text}" for text in whole.warnings))
        choices, plan = whole.choices, whole.method.plan
        backbone = sum(tensor.nbytes for tensor in whole.method.exported.state_dict().values())
    # Its networks would count in the memory of what is measured next.
    del whole
    share = {"batch_size": config.batch_size // ranks, "devices": 1, "nodes": 1}
    with rehearsed(config, archive, **share) as part:
        measured = measure(part, clock, stop)
    left = choices.total_steps - done
    step_s, low_s, high_s = mean_and_deciles(measured.steps_s)
    seconds, least_s, most_s = (
        left * each + num_saves(config, left, left * each) * measured.save_s
        for each in (step_s, low_s, high_s)
    )
    return Estimate(
        chosen=chosen,
        steps=left,
        epochs=choices.total_steps / choices.steps_per_epoch,
        ranks=ranks,
        measured_steps=len(measured.steps_s),
        step_s=step_s,
        seconds=seconds,
        low_s=least_s,
        high_s=most_s,
        views_per_s=config.batch_size * (plan.global_views + plan.local_views) / step_s,
        device=measured.device,
        memory=measured.memory,
        archive=sum(file.stat().st_size for file in archive.path.rglob("*")),
        checkpoint=measured.checkpoint,
        backbone=backbone,
        metrics=_ROW_BYTES * (left // config.logging.row_every(choices.total_steps) + 1),
    )


def _is_measured(steps: int, seconds: float) -> bool:
    measured = steps - WARM_STEPS
    is_steady = measured >= _MEASURED_STEPS and seconds >= _MEASURED_S
    return is_steady or (measured > 0 and seconds >= _PATIENCE_S)


def mean_and_deciles(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean, and what a tenth of the values lie below and above."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    deciles = statistics.quantiles(values, n=10, method="inclusive")
    return statistics.fmean(values), deciles[0], deciles[-1]


def num_saves(config: PretrainConfig, steps: int, seconds: float) -> float:
    """Checkpoints a run writes in so many steps and seconds."""
    by_step = steps / config.checkpoint_steps if config.checkpoint_steps else 0.0
    minutes = seconds / 60
    by_time = minutes / config.checkpoint_minutes if config.checkpoint_minutes > 0 else steps
    return min(max(by_step, by_time) + 1, steps)


def _check_disk(output: Path, needed: int) -> None:
    folder = output.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        warn_user(f"{folder} has {_bytes(free)} free, and the run needs {_bytes(needed)}.")


def _bytes(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def _time(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 2:
        return f"{seconds:.3g} s"
    if minutes < 120:
        return f"{minutes:.3g} min"
    if minutes < 48 * 60:
        return f"{minutes / 60:.1f} h"
    return f"{minutes / 60 / 24:.1f} days"
