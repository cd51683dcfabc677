"""Trial steps: what a run will take (`dry_run`), and which batch fits when the memory is full.

A trial takes the first steps of a run in a folder of its own, which is removed afterwards.
"""

from __future__ import annotations

import errno
import gc
import math
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

from scanlearn.archive.reader import Archive
from scanlearn.backbones.start import check_start
from scanlearn.console import warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.training.checkpoint import checkpoint_step
from scanlearn.training.distributed import Made
from scanlearn.training.folder import RunFolder
from scanlearn.training.resolved import layout_of, training_device
from scanlearn.training.run import Run, open_scans
from scanlearn.training.settings import LoggingConfig, PretrainConfig, WatchConfig
from scanlearn.training.stopping import Stopped, StopRequest, listening
from scanlearn.training.trainer import train

# The first steps wait for caches and for the choice of kernels.
WARM_STEPS = 2
# `dry_run` measures at least so many steps for so long; a slow run, fewer.
_MEASURED_STEPS = 8
_MEASURED_S = 10.0
_PATIENCE_S = 60.0
# Of a row of metrics.csv.
_ROW_BYTES = 80

SMALLEST_BATCH = 2
# Trials stop once the answer is known to an eighth; a batch is chosen no finer.
_FINENESS = 8
# The second step is the first with the optimiser's state in place.
_TRIAL_STEPS = 2
_NO_MEMORY_CODE = 77
# torch has no class of its own for these; the last is oneDNN's way of saying it.
_TEXTS = re.compile(
    r"(can't|cannot) allocate memory|not enough memory|out of memory|alloc_failed|bad_alloc"
    r"|could not (create|execute) a (primitive(?! desc)|memory)"
    r"|failed to map segment(?!.*not permitted)",
    re.IGNORECASE,
)


@contextmanager
def trial_run(config: PretrainConfig, archive: Archive, **changes: int) -> Iterator[Run]:
    """The run with some changes from its first step, in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="scanlearn-") as folder:
        aside = {
            "output": str(Path(folder) / "run"),
            "checkpoint_minutes": math.inf,
            "checkpoint_steps": None,
            "logging": LoggingConfig(every_steps=config.logging.every_steps),
            "progress": False,
            "watch": WatchConfig(),
        }
        yield Run.of(config.model_copy(update=aside | changes), archive)


def _take_steps(run: Run, stop: StopRequest) -> None:
    """Takes steps until there are enough, and writes one checkpoint."""
    try:
        train(run, stop)
    except Stopped:
        if stop.is_asked:
            raise


class Clock:
    """Times the steps of a trial and ends it once so many steps in so many seconds are enough."""

    def __init__(self, ends: Callable[[int, float], bool]) -> None:
        self._ends = ends
        self._times: list[float] = []
        self.start()

    def start(self) -> None:
        """Begins the first step."""
        self._times = [time.perf_counter()]

    def is_enough(self) -> bool:
        """Whether the step that ends now was the last to measure."""
        self._times.append(time.perf_counter())
        return self._ends(len(self._times) - 1, self._times[-1] - self._times[0])

    @property
    def since_last_s(self) -> float:
        """Seconds since the end of the last step."""
        return time.perf_counter() - self._times[-1]

    def steps_s(self) -> list[float]:
        """Seconds of each step but the warm ones; of the last alone where there are no others."""
        steps = [after - before for before, after in pairwise(self._times)]
        return steps[WARM_STEPS:] or steps[-1:]


@dataclass(frozen=True)
class Measured:
    """What the first steps of a run cost."""

    steps_s: list[float]
    save_s: float
    memory: int | None
    device: str
    checkpoint: int


def measure(run: Run, clock: Clock, stop: StopRequest) -> Measured:
    """Takes a run's first steps and one checkpoint; the clock is the ``enough`` of ``stop``.

    Raises:
        Stopped: A signal asked it to.
    """
    device = training_device(run.config.device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    clock.start()
    _take_steps(run, stop)
    return Measured(
        save_s=clock.since_last_s,
        steps_s=clock.steps_s(),
        memory=_peak_memory(device),
        device="cpu" if device.type == "cpu" else torch.cuda.get_device_name(),
        checkpoint=run.folder.checkpoint.stat().st_size,
    )


def _peak_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows has none
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# What a run will take.


@dataclass(frozen=True)
class Estimate:
    """What a run will take, extrapolated from its first steps.

    Args:
        chosen: What the run chose for itself and why, one sentence each.
        ranks: Processes that share a batch; one of them was measured, by itself.
        seconds: Time in training: steps and checkpoints, without the start and the export.
        low_s: That time, were all steps as fast as the fastest tenth of those measured.
        high_s: That time, were all as slow as the slowest tenth.
        memory: Most bytes in use at once: a GPU's for tensors, or a CPU process's as a whole;
            None where the system does not tell.
        archive: Bytes of packed scans, which the system keeps in memory beside a CPU process as
            long as it can spare them.
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
            memory = "not reported by this system"
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

    Returns:
        The estimate; for a run that was stopped, of the rest.

    Raises:
        ScanlearnError: The archive cannot be used, the batch is larger than it, or the loss is
            not finite; or the memory is full, with the largest batch that fits.
        Stopped: SIGTERM or SIGUSR1 asked to stop.
    """
    check_start(config.backbone, is_new=not Path(config.output).exists())
    archive = open_scans(config)
    clock = Clock(_is_measured)
    with listening(clock.is_enough) as stop:
        return explaining_memory(config, stop, lambda: _estimate(config, archive, clock, stop))


def _estimate(
    config: PretrainConfig, archive: Archive, clock: Clock, stop: StopRequest
) -> Estimate:
    ranks = layout_of(config).ranks
    # A run that was stopped has its remaining steps to take.
    done = checkpoint_step(RunFolder(Path(config.output).expanduser()).checkpoint)
    with trial_run(config, archive) as whole:
        chosen = (whole.start_line(done), *(f"Warning: {text}" for text in whole.warnings))
        resolved, plan = whole.resolved, whole.method.plan
        backbone = sum(tensor.nbytes for tensor in whole.method.exported.state_dict().values())
        config = config.model_copy(update={"batch_size": whole.config.batch_size})
    # Its networks would count in the memory of what is measured next.
    del whole
    share = {"batch_size": config.batch_size // ranks, "devices": 1, "nodes": 1}
    with trial_run(config, archive, **share) as part:
        measured = measure(part, clock, stop)
    left = resolved.total_steps - done
    step_s, low_s, high_s = mean_and_deciles(measured.steps_s)
    seconds, least_s, most_s = (
        left * each + num_saves(config, left, left * each) * measured.save_s
        for each in (step_s, low_s, high_s)
    )
    estimate = Estimate(
        chosen=chosen,
        steps=left,
        epochs=resolved.total_steps / resolved.steps_per_epoch,
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
        metrics=_ROW_BYTES * (left // config.logging.row_every(resolved.total_steps) + 1),
    )
    _check_disk(Path(config.output).expanduser(), estimate.disk)
    return estimate


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
        warn_user(f"{folder} has {_bytes(free)} free, but the run needs {_bytes(needed)}")


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


# Out of memory: which batch would fit.


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU or the machine has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    # A library that no longer fits is an OSError without a number, or told by the error before it.
    told = (error, error.__cause__ or error.__context__)
    return isinstance(error, RuntimeError | OSError) and any(
        _TEXTS.search(str(each)) is not None for each in told if each is not None
    )


def explaining_memory(config: PretrainConfig, stop: StopRequest, work: Callable[[], Made]) -> Made:
    """Returns what the work of a run makes.

    Raises:
        ScanlearnError: The memory is full; it names the largest batch that fits.
        Stopped: A signal ended the search for that batch.
    """
    try:
        return work()
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
    # Not in the handler, whose traceback keeps the run's tensors alive.
    raise ScanlearnError(_explain_memory(config, stop))


def _explain_memory(config: PretrainConfig, stop: StopRequest) -> str:
    stop.end_steps()
    batch_size, ranks = config.batch_size, layout_of(config).ranks
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # A trial takes all processes, of which some may be waiting for this one's gradients.
        return (
            f"out of memory with batch_size={batch_size} over {ranks} processes: run the command "
            "again with --dry-run, in one process, to find the largest batch that fits; the last "
            "checkpoint is kept"
        )
    warn_user(f"out of memory with batch_size={batch_size}: searching for a batch that fits ...")
    shares = ranks * config.accumulate
    fitting = largest_that_fits(batch_size // shares, lambda share: _fits(config, share))
    return out_of_memory_sentence(batch_size, fitting and fitting * shares, config.views.size)


def largest_that_fits(batch_size: int, fits: Callable[[int], bool]) -> int | None:
    """The largest batch known to fit, to within an eighth; None where not even the smallest does.

    Halves until a batch fits, then tries between the last two.

    Args:
        batch_size: What did not fit; tried once more, since other processes may have used memory.

    Example:
        >>> largest_that_fits(1000, lambda batch: batch <= 300)
        281
    """
    if fits(batch_size):
        return batch_size
    too_many, fitting = batch_size, max(batch_size // 2, SMALLEST_BATCH)
    while not fits(fitting):
        if fitting == SMALLEST_BATCH:
            return None
        too_many, fitting = fitting, max(fitting // 2, SMALLEST_BATCH)
    while too_many - fitting > max(1, fitting // _FINENESS):
        between = (fitting + too_many) // 2
        if fits(between):
            fitting = between
        else:
            too_many = between
    return fitting


def out_of_memory_sentence(batch_size: int, fitting: int | None, size: int) -> str:
    """What happened and what would fit; None where no batch does."""
    where = f"out of memory with batch_size={batch_size} and views of {size} px"
    if fitting is None:
        return (
            f"{where}, and batch_size={SMALLEST_BATCH} does not fit either: use a smaller "
            "views.size or backbone; the last checkpoint is kept"
        )
    if fitting == batch_size:
        return (
            f"{where}, although that batch fits in a trial of its first steps: other processes "
            "may use memory at times; run the same command again to continue"
        )
    return (
        f"{where}: the largest batch that fits here is batch_size={fitting}, found by trial; "
        "the last checkpoint is kept, but a run with another batch size needs another output"
    )


def _fits(config: PretrainConfig, share: int) -> bool:
    """Tries a batch in a process of its own.

    In this one, what a failed step leaves of its allocator's reservations would make smaller
    batches fail too; and a system without memory ends the process that takes it.
    """
    # What nobody refers to any more: a trainer and its module refer to each other.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    tried = config.model_copy(
        update={"batch_size": share, "accumulate": 1, "devices": 1, "nodes": 1}
    )
    code = f"from {__name__} import try_batch; try_batch()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        input=tried.model_dump_json(),
        capture_output=True,
        text=True,
        check=False,
    )
    # A library that is out of memory may end its process by itself, with a code of its own.
    is_known = done.returncode <= 0 or done.returncode == _NO_MEMORY_CODE
    if not is_known and not is_out_of_memory(RuntimeError(done.stderr)):
        raise RuntimeError(f"the trial of a smaller batch failed:\n{done.stderr}")
    return done.returncode == 0


def try_batch() -> None:
    """Takes the first steps of the run on stdin, and exits with a code that says how it went."""
    config = PretrainConfig.model_validate_json(sys.stdin.read())
    clock = Clock(lambda steps, _: steps >= _TRIAL_STEPS)
    try:
        with trial_run(config, open_scans(config)) as run:
            _take_steps(run, StopRequest(clock.is_enough))
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise SystemExit(_NO_MEMORY_CODE) from None
