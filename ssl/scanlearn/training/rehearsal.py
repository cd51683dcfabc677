"""The first steps of a run, taken aside: to see what they cost, and whether a batch fits."""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

from scanlearn.runs import warn_user
from scanlearn.scans.archive import Archive
from scanlearn.scans.source import open_archive
from scanlearn.training.choices import training_device
from scanlearn.training.interrupts import Stopped, StopRequest
from scanlearn.training.job import Job, layout_of
from scanlearn.training.memory import (
    free_memory,
    is_out_of_memory,
    largest_that_fits,
    out_of_memory_sentence,
)
from scanlearn.training.pretrain import train
from scanlearn.training.settings import LoggingConfig, PretrainConfig
from scanlearn.training.watching import WatchConfig

# The first steps wait for caches and for the choice of kernels.
WARM_STEPS = 2
# The second step is the first with the optimiser's state in place.
_TRIAL_STEPS = 2
_NO_MEMORY_CODE = 77


@contextmanager
def rehearsed(config: PretrainConfig, archive: Archive, **changes: int) -> Iterator[Job]:
    """The run from its first step, in a folder that is removed afterwards.

    Args:
        config: The run.
        archive: Its scans.
        **changes: What is tried instead of the run's own settings.
    """
    with tempfile.TemporaryDirectory(prefix="scanlearn-") as folder:
        aside = {
            "output": str(Path(folder) / "run"),
            "checkpoint_minutes": math.inf,
            "checkpoint_steps": None,
            "logging": LoggingConfig(every_steps=config.logging.every_steps),
            "progress": False,
            "watch": WatchConfig(),
        }
        yield Job.of(config.model_copy(update=aside | changes), archive)


def _take_steps(job: Job, stop: StopRequest) -> None:
    """Takes steps until there are enough, and writes one checkpoint."""
    try:
        train(job, stop)
    except Stopped:
        if stop.is_asked:
            raise


class Clock:
    """Times the steps of a rehearsal and ends it.

    Args:
        ends: Whether so many steps in so many seconds are enough.
    """

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
    """What the first steps of a run cost.

    Args:
        steps_s: Seconds of each step but the warm ones.
        save_s: Seconds of a checkpoint.
        memory: See `Estimate`.
        device: ``cpu``, or the GPU's name.
        checkpoint: Bytes of a checkpoint.
    """

    steps_s: list[float]
    save_s: float
    memory: int | None
    device: str
    checkpoint: int


def measure(job: Job, clock: Clock, stop: StopRequest) -> Measured:
    """Takes a run's first steps and one checkpoint.

    Args:
        job: The run, in a folder of its own.
        clock: Ends the steps; the ``enough`` of ``stop``.
        stop: Where the run is asked to stop.

    Raises:
        Stopped: A signal asked it to.
    """
    device = training_device(job.config.device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    clock.start()
    _take_steps(job, stop)
    return Measured(
        save_s=clock.since_last_s,
        steps_s=clock.steps_s(),
        memory=_peak_memory(device),
        device="cpu" if device.type == "cpu" else torch.cuda.get_device_name(),
        checkpoint=job.run.checkpoint.stat().st_size,
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


def explain_memory(config: PretrainConfig, stop: StopRequest) -> str:
    """Says which batch fits, by trying: to be called once the memory of the run is free again.

    Args:
        config: The run that did not fit.
        stop: The run's, whose signals end the trials at once.
    """
    stop.end_steps()
    asked, ranks = config.batch_size, layout_of(config).ranks
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # A trial takes all processes, of which some may be waiting for this one's gradients.
        return (
            f"out of memory with batch_size={asked} over {ranks} processes: the same command with "
            "--dry-run, in one process, finds the largest batch that fits; the last checkpoint is "
            "kept."
        )
    warn_user(f"out of memory with batch_size={asked}: trying which batch fits ...")
    shares = ranks * config.accumulate
    found = largest_that_fits(asked // shares, lambda share: _fits(config, share))
    return out_of_memory_sentence(asked, found and found * shares, config.views.size)


def _fits(config: PretrainConfig, share: int) -> bool:
    """Tries a batch in a process of its own.

    In this one, what a failed step leaves of its allocator's reservations would make smaller
    batches fail too; and a system without memory ends the process that takes it.
    """
    free_memory()
    tried = config.model_copy(
        update={"batch_size": share, "accumulate": 1, "devices": 1, "nodes": 1}
    )
    code = f"from {__name__} import try_batch; try_batch()"
    done = subprocess.run(
        [sys.executable, "-c", code],
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
        with rehearsed(config, open_archive(config.archive, settings=config.pack)) as job:
            _take_steps(job, StopRequest(clock.is_enough))
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise SystemExit(_NO_MEMORY_CODE) from None
