"""The layout of a preview sheet: where its pictures and its words stand; lengths in inches."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUM_GLOBAL, NUM_LOCAL = 2, 2
INK, FAINT = "#1f2933", "#6b7785"
# From calm to hot along the dial; told apart in gray print and by colour-blind eyes.
_COLOURS = ("#3b6fb6", "#2a9d8f", "#e9a23b", "#d1495b", "#7b2d8b", "#5c677d")
_TITLE, _SMALL = 10.0, 6.5
_LINE = 0.13
# About how wide a letter of either size is.
_TITLE_LETTER, _LETTER = 0.09, 0.05


def colour_of(column: int) -> str:
    """Returns the colour of a column's heading and crops."""
    return _COLOURS[column % len(_COLOURS)]


def _wrapped(paragraphs: Sequence[str], width: float) -> list[str]:
    room = int(width / _LETTER)
    return [line for text in paragraphs for line in textwrap.wrap(text, room)]


class SheetGrid:
    """Places the pictures of a sheet: the scan, then in each column its views.

    The two global views stand side by side; local ones, smaller, one above the other beside them.
    With local views the scan stands there twice, once for the crops of each kind.

    Args:
        rows: Number of scans.
        headings: Title of each setting of the dial and the small print below it.
        local_share: Side of a local view over that of a global one; 0 without local views.
        foot: Paragraphs at the bottom.
    """

    CELL, GAP, BETWEEN, LEFT = 1.0, 0.04, 0.22, 0.32

    def __init__(
        self,
        rows: int,
        headings: Sequence[tuple[str, Sequence[str]]],
        *,
        local_share: float,
        foot: Sequence[str],
    ) -> None:
        from matplotlib.figure import Figure

        # Two local views one above the other are no higher than a global one.
        self._small = min(local_share, (self.CELL - self.GAP) / NUM_LOCAL)
        local = self.GAP + self._small if local_share else 0.0
        self._group = NUM_GLOBAL * self.CELL + (NUM_GLOBAL - 1) * self.GAP + local
        self._scans = 2 * self.CELL + self.GAP if local_share else self.CELL
        self._width = self.LEFT + self._scans + len(headings) * (self.BETWEEN + self._group) + 0.12
        small = [(title, _wrapped(lines, self._group)) for title, lines in headings]
        foot = _wrapped(foot, self._width - 2 * self.LEFT)
        self._top = 0.34 + max(len(lines) for _, lines in small) * _LINE
        self._height = self._top + rows * (self.CELL + self.GAP) + 0.16 + len(foot) * _LINE
        self.figure: Figure = Figure(figsize=(self._width, self._height), facecolor="white")
        below = "and its global and local crops" if local_share else "and where it is cropped"
        self._words(self.LEFT, "the scan", [below], INK)
        for column, (title, lines) in enumerate(small):
            self._words(self._left(column), title, lines, colour_of(column))
        for number, line in enumerate(reversed(foot)):
            self._line(self.LEFT, 0.1 + number * _LINE, line)

    def original(self, row: int, number: int) -> Axes:
        """Returns the place of a scan: 0 for the crops of global views, 1 for those of local."""
        return self._axes(self.LEFT + number * (self.CELL + self.GAP), row, self.CELL, 0.0)

    def view(self, row: int, column: int, view: int) -> Axes:
        """Returns the place of a view: 0 and 1 are global, 2 and further local."""
        left = self._left(column)
        if view < NUM_GLOBAL:
            return self._axes(left + view * (self.CELL + self.GAP), row, self.CELL, 0.0)
        left += NUM_GLOBAL * (self.CELL + self.GAP)
        return self._axes(left, row, self._small, (view - NUM_GLOBAL) * (self._small + self.GAP))

    def _left(self, column: int) -> float:
        return self.LEFT + self._scans + self.BETWEEN + column * (self._group + self.BETWEEN)

    def _axes(self, left: float, row: int, side: float, below: float) -> Axes:
        top = self._height - self._top - row * (self.CELL + self.GAP) - below
        axes = self.figure.add_axes(
            (
                left / self._width,
                (top - side) / self._height,
                side / self._width,
                side / self._height,
            )
        )
        axes.set_xticks([])
        axes.set_yticks([])
        # A hair of a frame: a view burnt out to white must not vanish into the page.
        for spine in axes.spines.values():
            spine.set(color="#d5dbe1", linewidth=0.4)
        return axes

    def _words(self, left: float, title: str, lines: Sequence[str], colour: str) -> None:
        self.figure.text(
            left / self._width,
            1 - 0.22 / self._height,
            title,
            fontsize=min(_TITLE, _TITLE * self._group / (len(title) * _TITLE_LETTER)),
            color=colour,
            weight="bold",
        )
        for number, line in enumerate(lines):
            self._line(left, self._height - 0.38 - number * _LINE, line)

    def _line(self, left: float, bottom: float, text: str) -> None:
        self.figure.text(
            left / self._width, bottom / self._height, text, fontsize=_SMALL, color=FAINT
        )
