"""What is kept of a run while it trains: rows of metrics, checkpoints, the bar on the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from scanlearn.console import Progressor, warn_user
from scanlearn.files import without_home
from scanlearn.training.batches import StepLoader
from scanlearn.training.folder import MetricsCsv, RunFolder
from scanlearn.training.module import Pretrainer
from scanlearn.training.monitor import CollapseMonitor, Health, is_late
from scanlearn.training.run import read_provenance
from scanlearn.training.settings import PretrainConfig
from scanlearn.training.stopping import StopRequest, stopped
from scanlearn.training.wandb_log import WandbRun
from scanlearn.training.watch import ValidationCallback


@dataclass(frozen=True)
class LoggingSchedule:
    """How often something is kept.

    Args:
        checkpoint_steps: Steps between two checkpoints, as well as the minutes; None for none.
    """

    total_steps: int
    log_steps: int
    checkpoint_minutes: float
    checkpoint_steps: int | None = None

    def logs(self, step: int) -> bool:
        """Whether the step, counted from 1, gets a row."""
        return step % self.log_steps == 0 or step == self.total_steps

    def saves(self, step: int, minutes: float) -> bool:
        """Whether a checkpoint follows the step, ``minutes`` after the one before."""
        by_step = self.checkpoint_steps is not None and step % self.checkpoint_steps == 0
        return by_step or step == self.total_steps or minutes >= self.checkpoint_minutes


@dataclass
class Recorder:
    """Follows a training run, step by step.

    Args:
        metrics: Rows of metrics; None in a process that writes no files.
        wandb: Gets the rows too, once a checkpoint covers them; None where it is off.
        watch: Judges the backbone now and then; None where nothing is judged.
        is_identity: Whether views are not augmented at all.
    """

    folder: RunFolder
    metrics: MetricsCsv | None
    schedule: LoggingSchedule
    loader: StepLoader
    progress: Progressor
    wandb: WandbRun | None
    stop: StopRequest
    watch: ValidationCallback | None
    is_identity: bool = False

    def __post_init__(self) -> None:
        self._collapse = CollapseMonitor(is_identity=self.is_identity)
        self._views = 0
        self._stepped_s = self._saved_s = self._row_s = time.perf_counter()
        self._row_wait_s = self.loader.waited_s

    def stepped(self, module: Pretrainer, num_views: int) -> None:
        """Keeps what is due after a step.

        Raises:
            ScanlearnError: The disk is full; the last checkpoint is whole.
            Stopped: The run was asked to stop; its checkpoint holds this step. Interrupted where
                it was by Ctrl-C.
        """
        now = time.perf_counter()
        state = module.state
        module.state = replace(state, seconds=state.seconds + now - self._stepped_s)
        self._stepped_s = now
        self._views += num_views
        step = module.global_step
        if self.schedule.logs(step):
            module.average_losses()
        if self.metrics is not None and self.schedule.logs(step):
            self._write_row(module, step, now)
        else:
            self.progress.advance()
        if self.watch is not None:
            self._judge(self.watch, module, step)
        signal_name = self.stop.agreed(module.device)
        is_due = self.schedule.saves(step, (now - self._saved_s) / 60)
        # Clocks differ, and all processes must save after the same step.
        if signal_name or module.trainer.strategy.reduce_boolean_decision(is_due, all=False):
            module.trainer.save_checkpoint(self.folder.checkpoint)
            self._saved_s = now
            if self.wandb is not None:
                self.wandb.release()
        if signal_name:
            raise stopped(
                signal_name,
                f"after step {step:,} of {self.schedule.total_steps:,}, which is in the "
                "checkpoint: run the same command again to continue",
            )

    def _write_row(self, module: Pretrainer, step: int, now: float) -> None:
        assert module.losses is not None
        assert self.metrics is not None
        elapsed = max(now - self._row_s, 1e-9)
        waited = self.loader.waited_s
        health = Health.of(module.losses)
        row = {
            "step": step,
            "epoch": step / module.steps_per_epoch,
            "loss": float(module.losses.total.detach()),
            "lr": module.schedule.at(step - 1),
            "embedding_std": health.spread,
            "views_per_s": self._views / elapsed,
            "data_wait_share": min(1.0, (waited - self._row_wait_s) / elapsed),
            "embedding_rank": health.rank,
            "loss_vs_chance": health.loss_vs_chance,
        }
        self.metrics.append(row)
        if self.wandb is not None:
            self.wandb.hold(step, {key: value for key, value in row.items() if key != "step"})
        self.progress.advance(
            loss=f"{row['loss']:.3f}",
            views=f"{row['views_per_s']:,.0f}/s",
            data_wait=f"{row['data_wait_share']:.1%}",
        )
        self._views, self._row_s, self._row_wait_s = 0, now, waited
        is_warm = step > module.schedule.warmup_steps
        must_know = is_late(step, self.schedule.total_steps)
        for warning in self._collapse.row(health, is_warm=is_warm, is_late=must_know):
            warn_user(warning)

    def _judge(self, watch: ValidationCallback, module: Pretrainer, step: int) -> None:
        began = time.perf_counter()
        figures = watch.row(module.method.exported, step)
        if figures and self.wandb is not None:
            self.wandb.hold(step, {f"watch/{name}": value for name, value in figures.items()})
        # Time spent on judging is no time in training.
        passed = time.perf_counter() - began
        self._stepped_s += passed
        self._row_s += passed


@contextmanager
def open_wandb(folder: RunFolder, config: PretrainConfig) -> Iterator[WandbRun | None]:
    """Opens the wandb run of a run folder where the configuration asks for one."""
    mode = config.logging.wandb
    if mode == "off":
        yield None
        return
    settings = config.model_dump(
        mode="json", exclude={"archive", "output", "pack", "logging", "watch"}
    )
    weights = config.backbone.weights
    settings["backbone"]["weights"] = None if weights is None else without_home(weights)
    opened = WandbRun(
        folder.path,
        mode=mode,
        project=config.logging.project,
        group=config.logging.group,
        name=config.logging.name,
        run_id=read_provenance(folder).run_id,
        config=settings,
    )
    try:
        yield opened
    finally:
        opened.finish()
