"""The first steps of a run, taken aside: to see what they cost, and whether a batch fits."""

from __future__ import annotations

import errno
import gc
import math
import re
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

from scanlearn.archive.reader import Archive
from scanlearn.console import warn_user
from scanlearn.packing.sources import open_archive
from scanlearn.training.run import Job, layout_of, training_device
from scanlearn.training.settings import LoggingConfig, PretrainConfig, WatchConfig
from scanlearn.training.stopping import Stopped, StopRequest
from scanlearn.training.trainer import train

# Out of memory, in words: which batch would fit.


SMALLEST_BATCH = 2


# Trials stop once the answer is known to an eighth; a batch is chosen no finer.
_FINENESS = 8


# torch has no class of its own for these; the last is oneDNN's way of saying it.
_TEXTS = re.compile(
    r"(can't|cannot) allocate memory|not enough memory|out of memory|alloc_failed|bad_alloc"
    r"|could not (create|execute) a (primitive(?! desc)|memory)",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU or the machine has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and _TEXTS.search(str(error)) is not None


def free_memory() -> None:
    """Gives back what nobody refers to any more: a trainer and its module refer to each other."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def largest_that_fits(asked: int, fits: Callable[[int], bool]) -> int | None:
    """The largest batch known to fit, to within an eighth; None where not even the smallest does.

    Halves until a batch fits, then tries between the last two.

    Args:
        asked: What did not fit; tried once more, since something else may have held the memory.
        fits: Tries a batch.

    Example:
        >>> largest_that_fits(1000, lambda batch: batch <= 300)
        281
    """
    if fits(asked):
        return asked
    too_many, found = asked, max(asked // 2, SMALLEST_BATCH)
    while not fits(found):
        if found == SMALLEST_BATCH:
            return None
        too_many, found = found, max(found // 2, SMALLEST_BATCH)
    while too_many - found > max(1, found // _FINENESS):
        between = (found + too_many) // 2
        if fits(between):
            found = between
        else:
            too_many = between
    return found


def out_of_memory_sentence(asked: int, found: int | None, size: int) -> str:
    """What happened and what would fit.

    Args:
        asked: The run's batch size.
        found: The largest that fits; None where none does.
        size: Side of a view in pixels.
    """
    where = f"out of memory with batch_size={asked} and views of {size} px"
    if found is None:
        return (
            f"{where}, and not even batch_size={SMALLEST_BATCH} fits: make views.size or the "
            "backbone smaller; the last checkpoint is kept."
        )
    if found == asked:
        return (
            f"{where}, although that batch fits in a trial of its first steps: something else "
            "holds memory at times; the same command goes on from the last checkpoint."
        )
    return (
        f"{where}: the largest batch that fits here is batch_size={found}, found by trial; "
        "the last checkpoint is kept, but another batch size is another run and needs another "
        "output."
    )


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
