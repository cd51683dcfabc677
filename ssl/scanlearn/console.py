"""What a person sees of long work: lines, warnings, a progress bar and signs of life.

This module is the only door to rich's progress bar.
"""

from __future__ import annotations

import builtins
import logging
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from typing import Any, Protocol

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

# By which schedulers ask to stop; Windows knows no SIGUSR1.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
# EX_TEMPFAIL of sysexits.h: "try again later". 143, which a process ended by SIGTERM shows, would
# not tell a run that kept its last step from one that did not.
STOPPED_EXIT_CODE = 75
# A command that has said nothing for so long says what it does: at its start, and later on.
FIRST_WORD_S = 0.6
NEXT_WORD_S = 60.0
# Work that ends before is not worth a word.
_SHORT_S = 0.3
# A line in a notebook is written over no faster.
_NEXT_LINE_S = 0.25
# Shares of a piece of work from which the time left is told.
_LEAST_SHARE = 0.01


# Exact beginnings of third-party warnings, each with the reason why it says nothing to a user.
FILTERED = (
    # A loader counted by step has no workers: it reads a memory map in one thread.
    "The 'train_dataloader' does not have many workers",
    # The device is the user's choice.
    "GPU available but not used",
    # Who does not start a run by srun need not, on a host where SLURM is installed.
    "The `srun` command is available on your system but is not used",
    # Libraries' own use of names that torch has renamed.
    "`isinstance(treespec, LeafSpec)` is deprecated",
    "`torch.nn.utils.weight_norm` is deprecated",
)
_LIGHTNING = ("pytorch_lightning", "lightning_fabric", "lightning")


@contextmanager
def logging_at(level: int, *names: str) -> Iterator[None]:
    """Keeps what loggers say below a level away."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(level)
        yield
    finally:
        for logger, former in zip(loggers, before, strict=True):
            logger.setLevel(former)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Lightning's tips and device lines away; libraries' warnings only by their text."""
    with logging_at(logging.WARNING, *_LIGHTNING), warnings.catch_warnings():
        for text in FILTERED:
            warnings.filterwarnings("ignore", message=re.escape(text))
        yield


def counted(number: float, noun: str) -> str:
    """Returns ``1 scan``, ``1,200 scans`` or ``0.5 epochs``."""
    count = f"{int(number):,}" if number == int(number) else f"{number:g}"
    return f"{count} {noun if number == 1 else noun + 's'}"


def say(text: str) -> None:
    """Prints one line for a person on stdout: the only way library code does."""
    print(text, flush=True)
    _AT_WORK.has_spoken()


def warn_user(text: str) -> None:
    """Prints one line on stderr about something that goes on but deserves a look.

    A command says it once: the arms of a comparison, say, share their scans.
    """
    if _AT_WORK.label is not None:
        if text in _AT_WORK.warned:
            return
        _AT_WORK.warned.add(text)
    print(f"Warning: {text}", file=sys.stderr, flush=True)
    _AT_WORK.has_spoken()


@dataclass(eq=False)
class _Work:
    """A piece of work that goes on.

    Args:
        total: What `done` counts up to; None where nothing is counted.
        is_shown: Whether a bar shows it already.
    """

    label: str
    total: int | None = None
    is_shown: bool = False
    done: int = 0
    began_s: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        if self.total is None:
            return f"{self.label} ..."
        text = f"{self.label}: {self.done:,} of {self.total:,}"
        share = self.done / max(1, self.total)
        if not _LEAST_SHARE <= share < 1:
            return f"{text} ..."
        left_s = (time.monotonic() - self.began_s) * (1 - share) / share
        return f"{text}, about {_in_words(left_s)} left"


def _in_words(seconds: float) -> str:
    if seconds < 60:
        return "a minute" if seconds > 30 else "half a minute"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{round(minutes / 60)} h"


class _AtWork:
    """What this process does, and when a word about it is due.

    Args:
        label: What is said where no piece of work names itself; None while nobody asks.
        line: Which line of a notebook was written last; empty before the first.
    """

    def __init__(self) -> None:
        self.label: str | None = None
        self.line = ""
        self.pieces: list[_Work] = []
        self.warned: set[str] = set()
        self.due_s = 0.0

    def has_spoken(self) -> None:
        self.due_s = time.monotonic() + NEXT_WORD_S

    def speak(self, ended: threading.Event) -> None:
        """Prints the innermost piece of work whenever a word is due, until the command ends."""
        began_s = time.monotonic()
        while not ended.wait(max(0.05, self.due_s - time.monotonic())):
            now = time.monotonic()
            work = (self.pieces[-1:] or [_Work(f"{self.label}")])[0]
            is_long = now - work.began_s >= _SHORT_S or now - began_s >= NEXT_WORD_S
            if now < self.due_s or not is_long:
                continue
            if not work.is_shown:
                print(work, file=sys.stderr, flush=True)
            self.has_spoken()


# One for the process, as its stderr is.
_AT_WORK = _AtWork()


@contextmanager
def signs_of_life(label: str) -> Iterator[None]:
    """Says what a command does within a second of its start, and then at least every minute.

    What was silently wrong: a command looked dead for the 10 to 30 s in which torch was imported,
    and for hours in a log file, where no bar is shown.

    Args:
        label: What is said after a minute in which no work named itself by `doing` or `track`.
    """
    ended = threading.Event()
    _AT_WORK.label, _AT_WORK.due_s = label, time.monotonic() + FIRST_WORD_S
    thread = threading.Thread(target=_AT_WORK.speak, args=(ended,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        # Before the interpreter ends, which a thread that prints must not see.
        thread.join()
        _AT_WORK.label = None
        _AT_WORK.warned.clear()


@contextmanager
def doing(label: str, *, at_once: bool = False) -> Iterator[None]:
    """Names a piece of work, which `signs_of_life` says if nothing else is said for a while.

    Args:
        at_once: Whether it is said on stderr before it begins: for work that is sure to take
            seconds in which no other thread may run, as while a large library is loaded.
    """
    work = _Work(label)
    _AT_WORK.pieces.append(work)
    if at_once and _AT_WORK.label is not None:
        print(work, file=sys.stderr, flush=True)
        _AT_WORK.has_spoken()
    try:
        yield
    finally:
        _AT_WORK.pieces.remove(work)


class Progressor(Protocol):
    """What a piece of long work reports to."""

    def advance(self, n: int = 1, **info: str) -> None:
        """Counts ``n`` more of the total; ``info`` are named figures to show beside the bar."""


class _Counted:
    def __init__(self, work: _Work) -> None:
        self._work = work

    def advance(self, n: int = 1, **info: str) -> None:
        del info
        self._work.done += n


class _Bar:
    def __init__(self, progress: Progress, label: str, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task(label, total=total, info="")

    def advance(self, n: int = 1, **info: str) -> None:
        text = "  ".join(f"{name.replace('_', ' ')} {value}" for name, value in info.items())
        fields: dict[str, Any] = {"info": text} if info else {}
        self._progress.update(self._task, advance=n, **fields)


class _Line:
    """A line below the cell of a notebook, written over: of all work of a cell the same one.

    rich's bar shows nothing there without widgets.
    """

    def __init__(self, work: _Work, shell: Any) -> None:
        self._work, self._shell = work, shell
        self._id, self._due_s = f"scanlearn-{shell.execution_count}", work.began_s + _SHORT_S
        self._is_shown = False

    def advance(self, n: int = 1, **info: str) -> None:
        work = self._work
        work.done += n
        now = time.monotonic()
        if now < self._due_s:
            return
        self._due_s = now + _NEXT_LINE_S
        figures = "".join(f", {name.replace('_', ' ')} {value}" for name, value in info.items())
        bar = f'<progress value="{work.done}" max="{work.total}"></progress>'
        self._write(f"{work}, {work.done / (now - work.began_s):,.1f}/s{figures}", bar)

    def clear(self) -> None:
        if self._is_shown:
            self._write("")

    def _write(self, text: str, bar: str = "") -> None:
        self._shell.display_pub.publish(
            data={"text/plain": text, "text/html": f"{bar} {escape(text)}"},
            transient={"display_id": self._id},
            update=_AT_WORK.line == self._id,
        )
        _AT_WORK.line, self._is_shown = self._id, True


def _notebook() -> Any:
    """Returns the shell of the notebook that this runs in; None elsewhere."""
    shell = getattr(builtins, "get_ipython", lambda: None)()
    return shell if type(shell).__name__ == "ZMQInteractiveShell" else None


class _RateColumn(ProgressColumn):
    """Items per second over the last half minute."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f}/s")


@contextmanager
def loading(*libraries: str) -> Iterator[None]:
    """Names the import of large libraries, which is said before it begins unless it is done.

    A scheduler that asks to stop meanwhile ends the command with `STOPPED_EXIT_CODE`, as it ends a
    run: on a busy file system torch takes minutes.

    Raises:
        SystemExit: It did.
    """
    is_done = libraries[0] in sys.modules
    with _ending_when_asked(), doing(f"loading {' and '.join(libraries[:2])}", at_once=not is_done):
        yield


@contextmanager
def _ending_when_asked() -> Iterator[None]:
    def end(number: int, _: object) -> None:
        name = signal.Signals(number).name
        say(f"stopped by {name} before work began: run the same command again")
        raise SystemExit(STOPPED_EXIT_CODE)

    # Python hands signals to its main thread alone.
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, end) for number in SIGNALS} if is_main else {}
    try:
        yield
    finally:
        put_back(before)


def put_back(handlers: Mapping[int, Any]) -> None:
    """Puts signal handlers back, by their signal number."""
    for number, handler in handlers.items():
        # None: set by a library written in C, which Python cannot put back.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def track(total: int, label: str, *, visible: bool = True) -> Iterator[Progressor]:
    """Shows a bar with rate and time left, on a terminal or in a notebook, if it is to be visible.

    Elsewhere `signs_of_life` says from time to time how far the work is.
    """
    console = Console(stderr=True)
    has_bar = visible and console.is_terminal
    shell = _notebook() if visible else None
    work = _Work(label, total, is_shown=has_bar)
    if visible:
        _AT_WORK.pieces.append(work)
    try:
        if shell is not None:
            line = _Line(work, shell)
            try:
                yield line
            finally:
                line.clear()
            return
        if not has_bar:
            yield _Counted(work)
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
    finally:
        if visible:
            _AT_WORK.pieces.remove(work)
