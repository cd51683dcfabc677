"""What a person sees of long work: lines, warnings and a progress bar.

This module is the only door to rich's progress bar.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
    """Shows a bar with rate and time left while stderr is a terminal and it is to be visible."""
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
