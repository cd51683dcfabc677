"""The processes of a run on this machine: started together, and ended together when one fails."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from pytorch_lightning.plugins.environments import (  # type: ignore[attr-defined]
    LightningEnvironment,
)
from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, spawn

from scanlearn.core import ScanlearnError
from scanlearn.runs import say
from scanlearn.training.interrupts import SIGNALS, Stopped
from scanlearn.training.settings import PretrainConfig

# A process whose partner has failed waits for it in a collective; there is nothing to wait for.
_GRACE_S = 1.0


def run_together(
    function: Callable[[PretrainConfig], object], config: PretrainConfig, count: int
) -> None:
    """Calls a function in several new processes that Lightning takes for one run.

    torch's own spawning, not Lightning's: Lightning's would either run the whole command again in
    each process, where a comparison or a notebook has much more in it than one run, or copy
    networks through shared memory, of which containers have little.

    Args:
        function: What each process does; importable by name.
        config: What it is called with.
        count: How many processes.

    Raises:
        ScanlearnError: One of them raised it first; the others are ended.
        Stopped: All were asked to stop and did.
    """
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder)
        environment = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(LightningEnvironment().main_port),
            "NODE_RANK": "0",
            "WORLD_SIZE": str(count),
        }
        context = spawn(  # type: ignore[no-untyped-call]
            _run_one, args=(function, config, environment, notes), nprocs=count, join=False
        )
        asked: list[int] = []
        try:
            with _passed_on(context.pids(), asked), _silenced("torch.multiprocessing.spawn"):
                while not context.join(grace_period=_GRACE_S):
                    pass
        except (ProcessExitedException, ProcessRaisedException):
            if (notes / "error").is_file():
                raise ScanlearnError((notes / "error").read_text()) from None
            if asked:  # before that process was ready to listen
                reason = f"stopped by {signal.Signals(asked[0]).name} before the first step."
                say(reason)
                raise Stopped(reason) from None
            raise
        finally:
            for process in context.processes:
                if process.is_alive():
                    process.kill()
        if (notes / "stopped").is_file():
            raise Stopped((notes / "stopped").read_text())


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
    os.environ.update(environment, LOCAL_RANK=str(rank))
    try:
        function(config)
    except Stopped as stopped:
        _note(notes / "stopped", stopped.reason)
    except ScanlearnError as error:
        _note(notes / "error", str(error))
        raise SystemExit(2) from None


def _note(path: Path, text: str) -> None:
    """Writes down what happened, unless another process did so before."""
    with suppress(FileExistsError), path.open("x") as file:
        file.write(text)


@contextmanager
def _passed_on(pids: list[int], asked: list[int]) -> Iterator[None]:
    """Hands requests to stop to the processes; they keep their last step and end."""

    def hand_on(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        asked.append(number)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {number: signal.signal(number, hand_on) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def _silenced(name: str) -> Iterator[None]:
    """Keeps a logger's warnings away; errors are raised as well."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
