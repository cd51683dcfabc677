"""What a run shows and leaves behind: progress, files, provenance, seeds, wandb.

This module is the only door to rich's progress bar and to wandb.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from scanlearn.plain import ScanlearnError

_PACKAGES = (
    *("scanlearn", "torch", "torchvision", "timm", "lightly", "pytorch-lightning"),
    *("numpy", "pillow", "pyarrow"),
)


def say(text: str) -> None:
    """Prints one line for a person on stdout: the only way library code does."""
    print(text, flush=True)


def warn_user(text: str) -> None:
    """Prints one line on stderr about something that goes on but deserves a look."""
    print(f"Warning: {text}", file=sys.stderr, flush=True)


class Progressor(Protocol):
    """What a piece of long work reports to."""

    def advance(self, n: int = 1, **info: str) -> None:
        """Counts ``n`` more of the total; ``info`` are named figures to show beside the bar."""


class _Silent:
    def advance(self, n: int = 1, **info: str) -> None:
        del n, info


class _Bar:
    def __init__(self, progress: Progress, label: str, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task(label, total=total, info="")

    def advance(self, n: int = 1, **info: str) -> None:
        shown = "  ".join(f"{name.replace('_', ' ')} {value}" for name, value in info.items())
        fields: dict[str, Any] = {"info": shown} if info else {}
        self._progress.update(self._task, advance=n, **fields)


class _RateColumn(ProgressColumn):
    """Items per second over the last half minute."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f}/s")


@contextmanager
def track(total: int, label: str, *, visible: bool = True) -> Iterator[Progressor]:
    """Shows a bar with rate and time left while stderr is a terminal; silent otherwise.

    Args:
        total: How many items there are.
        label: What is being done, as it stands before the bar.
        visible: False keeps the bar away from a terminal too.
    """
    console = Console(stderr=True)
    if not visible or not console.is_terminal:
        yield _Silent()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[info]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress, label, total)


def write_atomically(path: Path, data: bytes | str) -> None:
    """Writes a file so that a reader, a crash or a full disk never sees half of it.

    The data are written aside, flushed to the disk and renamed over ``path``.

    Raises:
        ScanlearnError: The disk or the quota is full; what stood at ``path`` is untouched.
    """
    content = data.encode() if isinstance(data, str) else data
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with full_disk_explained(path):
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                write_all(descriptor, content)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            aside.replace(path)
            _sync_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def write_all(descriptor: int, content: bytes) -> None:
    """Writes all of ``content`` to an open file; the system may take it in several bites."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync_folder(folder: Path) -> None:
    # A rename is durable once its folder is; Windows cannot open a folder and needs no help.
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def full_disk_explained(path: Path) -> Iterator[None]:
    """Turns "no space left" inside the block into one sentence that says where.

    Raises:
        ScanlearnError: The disk or the user's quota is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ScanlearnError(
            f"no space left in {path.parent} while writing {path.name}: "
            "the last complete files are kept; free some space and start the same command again."
        ) from error


def seed_step(seed: int, step: int) -> None:
    """Seeds Python's, NumPy's and torch's global generators for one training step.

    DropPath and dropout draw from the global generator, whose state no checkpoint holds. Seeded
    from (seed, step), a resumed run draws what an uninterrupted one would have drawn.

    Args:
        seed: The run's seed.
        step: Optimiser steps already taken; -1 for what comes before the first.
    """
    import torch  # It takes seconds, and packing needs none of it.

    digest = hashlib.sha256(f"scanlearn {seed} {step}".encode()).digest()
    random.seed(digest)
    np.random.seed(np.frombuffer(digest[:16], dtype=np.uint32))  # noqa: NPY002
    torch.manual_seed(int.from_bytes(digest[16:24], "little") >> 1)


def provenance() -> dict[str, object]:
    """What the results depend on besides the configuration: versions, commit, kind of machine.

    Host name, user and paths are left out, so that a run folder can be handed on.
    """
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in _PACKAGES},
        "commit": _commit(),
        "platform": {
            "system": platform.system(),
            "machine": platform.machine(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "gpu": gpu,
        },
    }


def _commit() -> str | None:
    """The commit of the source tree scanlearn runs from; None for an installed package."""
    source = Path(__file__).parent
    if not any((parent / ".git").exists() for parent in source.parents):
        return None
    command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


class WandbRun:
    """A wandb run that records figures and the configuration, and nothing about the machine.

    Figures are held back until a checkpoint covers them, so that a killed and resumed run
    reports no step twice.

    Args:
        folder: The run folder; wandb's own files go to ``wandb/`` inside it.
        mode: ``offline`` writes to the disk only; ``online`` sends to wandb's server.
        project: wandb project name.
        run_id: The same for every start of one run.
        config: What to show as the run's configuration; free of paths.

    Raises:
        ScanlearnError: wandb cannot start, for instance for want of a login.
    """

    def __init__(
        self,
        folder: Path,
        *,
        mode: Literal["offline", "online"],
        project: str,
        run_id: str,
        config: Mapping[str, object],
    ) -> None:
        # Read while wandb is imported; without it crashes are reported to wandb's own server.
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        import wandb

        settings = wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            disable_git_fork_point=True,
            disable_job_creation=True,
            host="",
            program="",
            quiet=True,
            silent=True,
            save_code=False,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        try:
            self._run: Any = wandb.init(
                dir=folder,
                mode=mode,
                project=project,
                id=run_id,
                name=run_id,
                resume="allow" if mode == "online" else None,
                config=dict(config),
                settings=settings,
            )
        except wandb.Error as error:
            raise ScanlearnError(
                f"wandb could not start ({error}): log in with `wandb login`, "
                "or set logging.wandb to offline or off."
            ) from error
        self._folder = folder / "wandb"
        self._held: list[tuple[int, dict[str, float]]] = []

    def hold(self, step: int, figures: Mapping[str, float]) -> None:
        """Keeps one step's figures for the next :meth:`release`."""
        self._held.append((step, dict(figures)))

    def release(self) -> None:
        """Hands the held figures to wandb; to be called once a checkpoint covers them."""
        for step, figures in self._held:
            self._run.log(figures, step=step)
        self._held.clear()

    def finish(self) -> None:
        """Closes the run; figures still held are dropped."""
        self._run.finish()
        # wandb's debug logs are never sent, but name the user's folders to whom the run is given.
        for log in self._folder.rglob("debug*.log"):
            log.unlink()
