"""The processes that share the batches of one run: how many, how they start, who goes first."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import (  # type: ignore[attr-defined]
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from torch import distributed, nn
from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, spawn

from scanlearn.backbones.backbone import has_batch_norm
from scanlearn.console import logging_at, quiet, say
from scanlearn.errors import Interrupted, ScanlearnError
from scanlearn.packing.parallel import safe_path
from scanlearn.training.settings import PretrainConfig
from scanlearn.training.stopping import LISTENED, Stopped, restore_handlers, stopped

Made = TypeVar("Made")

# A process whose partner has failed waits for it in a collective; there is nothing to wait for.
_GRACE_S = 1.0
# Packing a large archive takes hours, and the others wait for it; a process that dies meanwhile
# ends the others through whatever started them.
_TIMEOUT = timedelta(days=7)


@dataclass(frozen=True)
class ProcessLayout:
    """One process for each device of each node."""

    device: torch.device
    devices: int = 1
    nodes: int = 1

    @property
    def ranks(self) -> int:
        """Processes that share a batch."""
        return self.devices * self.nodes

    @classmethod
    def of(cls, config: PretrainConfig, device: torch.device) -> ProcessLayout:
        """Resolves how many processes a configuration asks for.

        Raises:
            ScanlearnError: There are fewer GPUs than asked for, or the batch cannot be divided.
        """
        visible = torch.cuda.device_count() if device.type == "cuda" else 1
        devices = visible if config.devices == "auto" else config.devices
        if device.type == "cuda" and devices > visible:
            raise ScanlearnError(
                f"devices is {devices}, but {visible} GPUs are visible: set devices to at most "
                f"{visible}, or to auto"
            )
        layout = cls(device, devices, config.nodes)
        shares = layout.ranks * config.accumulate
        if config.batch_size % shares:
            below = config.batch_size // shares * shares
            raise ScanlearnError(
                f"batch_size is {config.batch_size}, which does not divide evenly by {shares} "
                f"(devices x nodes x accumulate): set it to {f'{below} or ' if below else ''}"
                f"{below + shares}."
            )
        return layout

    def trainer_arguments(self) -> dict[str, Any]:
        """What Lightning's Trainer is told."""
        is_gpu = self.device.type == "cuda"
        several = self.ranks > 1
        return {
            "accelerator": "gpu" if is_gpu else "cpu",
            "devices": self.devices,
            "num_nodes": self.nodes,
            "strategy": "ddp" if several else "auto",
            # Only CUDA has it; without BatchNorm in the network it changes nothing.
            "sync_batchnorm": is_gpu and several,
            "plugins": self._plugins(),
        }

    def _plugins(self) -> list[ClusterEnvironment]:
        """What Lightning must be told of the processes: nothing, unless it would mistake them.

        What was silently wrong: in a SLURM job that holds several tasks Lightning took a run that
        srun had not started for one of them, and ended with a traceback about ``--ntasks``.
        """
        with quiet():
            is_job = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
        return [LightningEnvironment()] if is_job and _num_tasks() == 1 else []

    def in_words(self, method: nn.Module) -> str:
        """How a batch is shared, for the line that begins a run; nothing for one process."""
        if self.ranks == 1:
            return ""
        on = f"{self.devices} {'GPUs' if self.device.type == 'cuda' else 'CPU processes'}"
        if self.nodes > 1:
            on += f" on each of {self.nodes} nodes"
        synced = self.device.type == "cuda" and has_batch_norm(method)
        return f"shared by {on}{', BatchNorm over all of them' if synced else ''} "

    def warnings(self, method: nn.Module) -> tuple[str, ...]:
        """What deserves a look about sharing a batch."""
        if self.ranks == 1 or self.device.type == "cuda" or not has_batch_norm(method):
            return ()
        return (
            "on a CPU, BatchNorm uses only the scans of its own process, so the result differs "
            f"from that of one process: with {self.ranks} processes prefer a network and a head "
            "without BatchNorm",
        )

    def must_start(self) -> bool:
        """Whether the processes of this run have yet to be started: by this one.

        SLURM's srun and torchrun start all of them together; Lightning knows the signs.

        Raises:
            ScanlearnError: What was started does not fit what was asked for.
        """
        started = _num_started()
        is_external = (
            self.ranks > 1
            and self._lightning().strategy.cluster_environment.creates_processes_externally
        )
        if started != self.ranks and (started > 1 or is_external):
            raise ScanlearnError(
                f"{started} processes were started together, but devices x nodes is "
                f"{self.devices} x {self.nodes}: set devices and nodes to match"
            )
        if self.nodes > 1 and not is_external:
            raise ScanlearnError(
                f"nodes is {self.nodes}, but this process was started alone: start one per "
                "device, with srun in a SLURM job or torchrun on each node"
            )
        return self.ranks > 1 and not is_external

    def _lightning(self) -> Any:
        with quiet():
            return pl.Trainer(
                **self.trainer_arguments(),
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )

    @contextmanager
    def joined(self) -> Iterator[Ranks]:
        """Meets the other processes of the run; inside the block only the first one speaks."""
        if self.ranks == 1:
            yield Ranks()
            return
        strategy = self._lightning().strategy
        with quiet():
            strategy.setup_environment()
        rank = strategy.global_rank
        group = distributed.new_group(backend="gloo", timeout=_TIMEOUT)
        assert isinstance(group, distributed.ProcessGroup)
        with ExitStack() as stack:
            if rank:
                nowhere = stack.enter_context(Path(os.devnull).open("w"))
                stack.enter_context(redirect_stdout(nowhere))
                stack.enter_context(redirect_stderr(nowhere))
            try:
                yield Ranks(rank, self.ranks, group)
            except (Stopped, KeyboardInterrupt):
                # The first one's code counts; what is started by srun ends with the first code
                # that is not 0, and the first process may have more to close.
                if rank:
                    raise SystemExit(0) from None
                raise


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, as seen from one of them.

    Args:
        rank: Which one this is, from 0.
        group: All of them, with a long timeout; None where there is only one.
    """

    rank: int = 0
    count: int = 1
    group: distributed.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and speaks to the user."""
        return self.rank == 0

    def first(self, make: Callable[[], Made]) -> Made:
        """Makes something on the first process, then on all others; returns when all have it.

        Raises:
            SystemExit: The first process failed, where this is another one; with code 0, since a
                launcher that saw another code would end the first before it has said why.
        """
        if self.count == 1:
            return make()
        if self.is_first:
            try:
                made = make()
            except Exception:
                self._told(False)
                raise
            self._told(True)
        else:
            if not self._told(True):
                raise SystemExit(0)
            made = make()
        distributed.barrier(self.group)
        return made

    def _told(self, is_made: bool) -> bool:
        """Whether the first process has made it; a collective."""
        answer = torch.tensor([is_made])
        distributed.broadcast(answer, 0, group=self.group)
        return bool(answer)


# The process of a run that shares its batches with no other.
ALONE = Ranks()


def _num_started() -> int:
    """Processes that were started together with this one, by the signs that they were given."""
    return int(os.environ.get("WORLD_SIZE") or _num_tasks())


def _num_tasks() -> int:
    """Processes that SLURM's srun started together with this one; an allocation starts none."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS") or 1)


def run_together(
    function: Callable[[PretrainConfig], object], config: PretrainConfig, count: int
) -> None:
    """Calls an importable function in several new processes that Lightning takes for one run.

    torch's own spawning, not Lightning's: Lightning's would either run the whole command again in
    each process, where a comparison or a notebook has much more in it than one run, or copy
    networks through shared memory, of which containers have little.

    Raises:
        ScanlearnError: One of them raised it first; the others are ended.
        Stopped: All were asked to stop and did; Interrupted where it was by Ctrl-C.
    """
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder)
        environment = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(LightningEnvironment().main_port),
            "NODE_RANK": "0",
            "WORLD_SIZE": str(count),
        }
        with safe_path():
            context = spawn(  # type: ignore[no-untyped-call]
                _run_one, args=(function, config, environment, notes), nprocs=count, join=False
            )
        signals: list[int] = []
        try:
            with (
                _passed_on(context.pids(), signals),
                logging_at(logging.ERROR, "torch.multiprocessing.spawn"),
            ):
                while not context.join(grace_period=_GRACE_S):
                    pass
        except (ProcessExitedException, ProcessRaisedException):
            if (notes / "error").is_file():
                raise ScanlearnError((notes / "error").read_text()) from None
            if signals:  # before that process was ready to listen
                stop = stopped(signal.Signals(signals[0]).name, "before the first step.")
                if isinstance(stop, Stopped):
                    say(str(stop))
                raise stop from None
            raise
        finally:
            for process in context.processes:
                if process.is_alive():
                    process.kill()
        for name, kind in (("stopped", Stopped), ("interrupted", Interrupted)):
            if (notes / name).is_file():
                raise kind((notes / name).read_text())


def _run_one(
    rank: int,
    function: Callable[[PretrainConfig], object],
    config: PretrainConfig,
    environment: dict[str, str],
    notes: Path,
) -> None:
    # torch asks for SIGINT when the parent dies, on which Lightning tidies up together with the
    # other processes; some of them then wait for each other without end.
    _prctl_pr_set_pdeathsig(signal.SIGKILL)
    # A terminal sends Ctrl-C to all processes of its group; it is the parent's to hand on, once.
    os.setpgrp()
    os.environ.update(environment, LOCAL_RANK=str(rank))
    try:
        function(config)
    except Stopped as stop:
        _note(notes / "stopped", stop.reason)
    except KeyboardInterrupt as interrupt:
        _note(notes / "interrupted", str(interrupt))
    except ScanlearnError as error:
        _note(notes / "error", str(error))
        raise SystemExit(2) from None


def _note(path: Path, text: str) -> None:
    """Writes down what happened, unless another process did so before."""
    with suppress(FileExistsError), path.open("x") as file:
        file.write(text)


@contextmanager
def _passed_on(pids: list[int], signals: list[int]) -> Iterator[None]:
    """Hands requests to stop to the processes, and afterwards to whoever listened before."""

    def hand_on(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        signals.append(number)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {number: signal.signal(number, hand_on) for number in LISTENED}
    try:
        yield
    finally:
        restore_handlers(before, signals[-1] if signals else 0)
