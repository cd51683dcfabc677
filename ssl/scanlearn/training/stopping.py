"""A run that is asked to stop finishes its step, keeps it, and ends with a code to start again on.

Schedulers ask by SIGTERM, and SLURM by SIGUSR1 where it is told to (``--signal=USR1@120``). People
ask by Ctrl-C, which ends in a KeyboardInterrupt as everywhere; a second one ends the run at once.
Whoever listened to a scheduler's signal before the run hears of it when the run has stopped: in a
task of a cluster that is what queues the task again.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from torch import distributed

from scanlearn.console import SIGNALS, STOPPED_EXIT_CODE, put_back, say
from scanlearn.errors import Interrupted

LISTENED = (*SIGNALS, signal.SIGINT)


class Stopped(SystemExit):
    """A run was asked to stop and did; the same command goes on from its last checkpoint.

    A SystemExit: a script of one's own that calls `pretrain` then ends with
    `STOPPED_EXIT_CODE` too, and what catches errors does not take it for one.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(STOPPED_EXIT_CODE)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


def stopped(name: str, reason: str) -> Stopped | Interrupted:
    """Returns what ends a run that a signal of that name asked to stop."""
    is_interrupt = name == signal.SIGINT.name
    text = f"stopped by {'Ctrl-C' if is_interrupt else name} {reason}"
    return Interrupted(text) if is_interrupt else Stopped(text)


class StopRequest:
    """What was asked of a run.

    While steps are taken a request waits for the end of the step. Before the first and after the
    last, when everything worth keeping is kept, it is followed at once.

    Args:
        enough: A further reason to stop after a step, asked once after each: that of a trial.
    """

    def __init__(self, enough: Callable[[], bool] = lambda: False) -> None:
        self._enough = enough
        self._asked: int = 0
        self._is_stepping = False

    @property
    def number(self) -> int:
        """The signal that has come; 0 where none has."""
        return self._asked

    @property
    def is_asked(self) -> bool:
        """Whether a signal has come."""
        return self._asked > 0

    def agreed(self, device: torch.device) -> str | None:
        """Why to stop now; each process must ask once after each step.

        A scheduler may signal any of the processes, and all must write the checkpoint after the
        same step: the largest signal number that any of them has got counts.
        """
        is_enough = self._enough()
        number = self._asked
        if distributed.is_available() and distributed.is_initialized():
            shared = torch.full((1,), number, device=device)
            distributed.all_reduce(shared, distributed.ReduceOp.MAX)
            number = int(shared)
        if number:
            return signal.Signals(number).name
        return "enough" if is_enough else None

    def install(self) -> None:
        """Listens from now on, in the place of whatever listened before."""
        if threading.current_thread() is threading.main_thread():
            for number in LISTENED:
                # A shell has a command in its background ignore Ctrl-C, which is not meant for it.
                if number in SIGNALS or signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, self._follow)

    def begin_steps(self) -> None:
        """From now on a request waits for the end of the step."""
        self._is_stepping = True
        self.install()

    def end_steps(self) -> None:
        """From now on a request is followed at once, as is one that nobody has seen yet.

        Raises:
            Stopped: There is one; Interrupted where it is Ctrl-C.
        """
        self._is_stepping = False
        if self._asked:
            self._stop_at_once()

    def _follow(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        is_second = number == self._asked == signal.SIGINT
        self._asked = number
        if is_second or not self._is_stepping:
            self._stop_at_once("in a step" if self._is_stepping else "between steps")

    def _stop_at_once(self, when: str = "between steps") -> None:
        raise stopped(
            signal.Signals(self._asked).name,
            f"{when}: run the same command again to continue from the last checkpoint",
        )


class BetweenSteps(pl.Callback):
    """Makes a request to stop wait for the end of the step, and keeps Lightning's hands off it.

    Lightning puts a handler of its own in front of ours just before training begins. Its handler
    calls a collective from wherever the signal strikes, where several processes may hang, and
    ends the run without a checkpoint; its handler under SLURM requeues the job by itself.
    """

    def __init__(self, request: StopRequest) -> None:
        self._request = request

    def on_train_start(self, *_: Any) -> None:
        """Steps begin."""
        self._request.begin_steps()

    def on_train_end(self, *_: Any) -> None:
        """The last step is taken and kept."""
        self._request.end_steps()


@contextmanager
def listening(enough: Callable[[], bool] = lambda: False) -> Iterator[StopRequest]:
    """Listens inside the block for a request to stop; afterwards all is as it was.

    A scheduler's signal that stopped the block is then handed to the handler of before.
    Python hands signals to its main thread alone: in any other nothing is listened to.

    Raises:
        Stopped: The block was stopped; the sentence that says so is printed.
        Interrupted: By Ctrl-C; the sentence is the error's.
    """
    request = StopRequest(enough)
    before = {number: signal.getsignal(number) for number in LISTENED}
    request.install()
    try:
        yield request
    except Stopped as stop:
        say(str(stop))
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            restore_handlers(before, request.number)


def restore_handlers(handlers: Mapping[int, Any], number: int = 0) -> None:
    """Puts signal handlers back, by their signal number, and hands one of them a signal that came.

    Args:
        number: Signal that came meanwhile; 0 for none.
    """
    put_back(handlers)
    # A person's Ctrl-C has become an exception.
    if number in SIGNALS and callable(handler := handlers[number]):
        handler(number, None)
