"""Forest plots: differences between arms, a cell for each row of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from scantune.report import svg
from scantune.report.svg import Axis
from scantune.study.results import Difference


def forest_range(differences: Sequence[Difference], margin: float) -> tuple[float, float]:
    """A common axis of differences that holds zero and the margin."""
    values = [v for d in differences for v in (d.difference, d.low, d.high) if v is not None]
    return svg.padded([*values, -2 * margin, 2 * margin])


FOREST_WIDTH = 210.0
FOREST_HEIGHT = 40.0


def forest_axis(limits: tuple[float, float]) -> Markup:
    """The ticks above a column of forest cells."""
    axis = Axis(*limits, 6, FOREST_WIDTH - 6)
    body = [
        svg.text(axis.at(v), 11, _signed(v, "g"), css="muted small", anchor="middle")
        for v in axis.ticks(5)
        if 14 < axis.at(v) < FOREST_WIDTH - 14
    ]
    return svg.figure(FOREST_WIDTH, 14, "axis of differences in AUROC", body)


def forest_cell(
    difference: Difference, limits: tuple[float, float], margin: float, colours: Mapping[str, str]
) -> Markup:
    """One difference and its interval; the band is the margin within which arms are equivalent."""
    axis, height = Axis(*limits, 6, FOREST_WIDTH - 6), FOREST_HEIGHT
    band = (axis.at(-margin), axis.at(margin))
    zero = axis.at(0)
    body = [
        svg.box(band[0], 0, band[1] - band[0], height, css="band"),
        svg.line((zero, 0), (zero, height), css="axis"),
    ]
    value, middle = difference.difference, height / 2
    if value is not None:
        winner = difference.a if value >= 0 else difference.b
        shown = difference.verdict in ("better", "worse")
        colour = colours[winner] if shown or difference.primary else "var(--ref)"
        if difference.low is not None and difference.high is not None:
            ends = ((axis.at(difference.low), middle), (axis.at(difference.high), middle))
            thick = 3.2 if difference.primary else 1.8
            body.append(svg.line(*ends, css="line", width=thick, colour=colour))
        radius = 5.4 if difference.primary else 4.0
        body.append(svg.dot(axis.at(value), middle, radius, colour=colour, hollow=not shown))
    return svg.figure(FOREST_WIDTH, height, difference_text(difference), body)


def difference_text(difference: Difference) -> str:
    """``+0.027 (+0.011 to +0.043)``."""
    if difference.difference is None:
        return "undefined"
    text = _signed(difference.difference, ".3f")
    if difference.low is None or difference.high is None:
        return text
    return f"{text} ({_signed(difference.low, '.3f')} to {_signed(difference.high, '.3f')})"


def _signed(value: float, form: str) -> str:
    """The number with its sign, a true minus; zero has none."""
    text = format(abs(value), form)
    if not float(text):
        return text
    return ("+" if value > 0 else "−") + text
