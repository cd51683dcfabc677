"""Several processes on one study: the first command starts the others, which share its work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import torch

from scanlearn.config import dump_config
from scanlearn.console import say, warn_user
from scanlearn.files import disk_errors, make_folder
from scanlearn.threads import SET_BY_HAND, computing_with, usable_cores
from scanlearn.training.resolved import training_device
from scantune.study.folder import StudyFolder
from scantune.study.plan import CompareConfig

_VISIBLE = "CUDA_VISIBLE_DEVICES"
# A step and its checkpoint take less.
_PATIENCE_S = 120.0
# What is run lies above this module. It is one look of a plan that has several.
_COMMAND = (
    *(sys.executable, "-P", "-c"),
    "from scantune.study.jobs import end_with_starter; end_with_starter();"
    "import sys; from scanlearn.cli import run; from scanlearn.config import load_config;"
    "from scantune.study.plan import CompareConfig;"
    "from scantune.study.run import run_study;"
    "config = load_config(CompareConfig, sys.argv[2], ['jobs=1'], kind='compare');"
    "run(lambda: run_study(config))",
)


@contextmanager
def jobs_started(config: CompareConfig, folder: StudyFolder) -> Iterator[None]:
    """Starts ``jobs`` - 1 more processes of the same command, which share the study and the cores.

    Each writes to ``logs`` in the study's folder. They end with the block: after it they are waited
    for, and stopped where it ends in an exception. A starter that dies takes them with it.
    """
    if config.jobs == 1:
        yield
        return
    threads = None if _is_set_by_hand() else max(1, len(usable_cores()) // config.jobs)
    devices = config.pretrain.devices
    gpus = gpus_of_jobs(
        config.jobs,
        () if config.pretrain.device == "cpu" else _visible_gpus(),
        None if devices == "auto" else devices,
    )
    with tempfile.TemporaryDirectory() as place, disk_errors(folder.logs):
        make_folder(folder.logs)
        plan = Path(place) / "plan.yaml"
        plan.write_text(dump_config(config), encoding="utf-8")
        is_stopping = Event()
        processes = [
            _start(plan, folder.logs / f"job-{number}.log", threads, gpus[number - 1])
            for number in range(2, config.jobs + 1)
        ]
        watchers = [
            Thread(target=_watch, args=(process, number, folder, is_stopping), daemon=True)
            for number, process in enumerate(processes, start=2)
        ]
        for watcher in watchers:
            watcher.start()
        say(f"{config.jobs} jobs share the study; all but this one write to {folder.logs}")
        try:
            with computing_with(threads), _seeing(gpus[0]):
                yield
            for watcher in watchers:
                watcher.join()
        finally:
            is_stopping.set()
            _stop(processes)


def gpus_of_jobs(jobs: int, gpus: Sequence[str], devices: int | None) -> tuple[str | None, ...]:
    """Returns ``CUDA_VISIBLE_DEVICES`` of each job, which take turns; None where there is no GPU.

    Args:
        gpus: Those that are visible.
        devices: GPUs that a run takes; None is an equal share, one at least.
    """
    if not gpus:
        return (None,) * jobs
    share = min(len(gpus), devices or max(1, len(gpus) // jobs))
    first = (job * share for job in range(jobs))
    return tuple(
        ",".join(gpus[(start + number) % len(gpus)] for number in range(share)) for start in first
    )


@dataclass(frozen=True)
class Sharing:
    """How the jobs of a plan share this machine's GPUs, or its memory where a CPU trains.

    Args:
        jobs: Of the plan.
        gpus: Those that are visible; empty where a CPU trains.
        devices: As of `gpus_of_jobs`.
        memory: Bytes of a GPU, or of the machine; None where the system does not tell.
    """

    jobs: int
    gpus: tuple[str, ...]
    devices: int | None
    memory: int | None

    @classmethod
    def of(cls, config: CompareConfig) -> Sharing:
        """Returns that of a plan here; the tasks of a cluster share nothing."""
        gpus = () if training_device(config.pretrain.device).type == "cpu" else _visible_gpus()
        memory = torch.cuda.get_device_properties(0).total_memory if gpus else _own_memory()
        devices = None if config.pretrain.devices == "auto" else config.pretrain.devices
        return cls(config.jobs if config.launcher is None else 1, gpus, devices, memory)

    @property
    def at_once(self) -> int:
        """Jobs with GPUs of their own, which take so many times less time; 1 on a CPU."""
        seen = set(gpus_of_jobs(self.jobs, self.gpus, self.devices))
        share = max((each or "").count(",") + 1 for each in seen)
        return max(1, min(len(seen), len(self.gpus) // share))

    def warning(self, memory: int | None) -> str | None:
        """Says where jobs that take so many bytes each do not fit, and how many do."""
        if memory is None or self.memory is None or self.jobs == 1 or self._fit(self.jobs, memory):
            return None
        fitting = next((jobs for jobs in range(self.jobs, 1, -1) if self._fit(jobs, memory)), 1)
        count, place = self._together(self.jobs), "a GPU" if self.gpus else "this machine"
        return (
            f"{count} jobs at once take {count} times {memory / 1e9:.2g} GB, and {place} has "
            f"{self.memory / 1e9:.2g} GB: give jobs={fitting}"
        )

    def _fit(self, jobs: int, memory: int) -> bool:
        return self.memory is not None and self._together(jobs) * memory <= self.memory

    def _together(self, jobs: int) -> int:
        seen = gpus_of_jobs(jobs, self.gpus, self.devices)
        return max(Counter(gpu for each in seen for gpu in (each or "").split(",")).values())


def _own_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):  # Windows has none
        return None


def _visible_gpus() -> tuple[str, ...]:
    # Counted without taking hold of one: what is visible can still be changed.
    count = torch.cuda.device_count()
    named = os.environ.get(_VISIBLE)
    names = [str(number) for number in range(count)] if named is None else named.split(",")
    return tuple(names[:count])


@contextmanager
def _seeing(gpus: str | None) -> Iterator[None]:
    """Lets this process see these GPUs alone inside the block; None changes nothing."""
    before = os.environ.get(_VISIBLE)
    if gpus is not None:
        os.environ[_VISIBLE] = gpus
    try:
        yield
    finally:
        if gpus is not None and before is None:
            del os.environ[_VISIBLE]
        elif gpus is not None and before is not None:
            os.environ[_VISIBLE] = before


def _is_set_by_hand() -> bool:
    """Whether a variable of the environment says how many threads compute."""
    return any(name in os.environ for name in SET_BY_HAND)


def warn_of_threads(jobs: int, threads: int | None) -> None:
    """Says where the threads with which a study was begun are too many for that many jobs."""
    cores = len(usable_cores())
    if jobs > 1 and threads is not None and threads > max(1, cores // jobs):
        warn_user(
            f"the study was begun with {threads} threads a run, which {jobs} jobs on {cores} cores "
            "slow down: arms are matched in them too; begin a study with the jobs it will have"
        )


def _start(plan: Path, log: Path, threads: int | None, gpus: str | None) -> subprocess.Popen[bytes]:
    set_here = {} if threads is None else dict.fromkeys(SET_BY_HAND, str(threads))
    if gpus is not None:
        set_here[_VISIBLE] = gpus
    with log.open("wb") as output:
        return subprocess.Popen(
            [*_COMMAND, "compare", str(plan)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **set_here},
            # Ctrl-C is the first one's, which ends the others.
            start_new_session=True,
        )


def _watch(
    process: subprocess.Popen[bytes], number: int, folder: StudyFolder, is_stopping: Event
) -> None:
    code = process.wait()
    if code and not is_stopping.is_set():
        warn_user(
            f"job {number} ended with exit code {code} ({folder.logs / f'job-{number}.log'} says "
            "why); its work is taken over"
        )


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    for process in processes:
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()


def end_with_starter() -> None:
    """Ends this process, as SIGTERM does, when the one that started it has ended."""
    Thread(target=_end_with_starter, daemon=True).start()


def _end_with_starter() -> None:
    # The starter says nothing: its end is closed when it ends, however it does.
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)
