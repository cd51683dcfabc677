"""The plots of the report: what was found, drawn without ink that says nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from scantune.comparison.results import ArmRow, Difference, Results, RunRow, Score
from scantune.report import svg as svg
from scantune.report.svg import Axis
from scantune.report.wording import learner_name
from scantune.splits import Budget

# Forest plots: differences between arms, a cell for each row of a table.


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


# The hues of the view sheets, calm to hot along the dial and told apart by colour-blind readers;
# dark enough for text on white, light enough for text on black.
LIGHT = {
    "--arm-0": "#1f63ae",
    "--arm-1": "#0a7f72",
    "--arm-2": "#b35900",
    "--arm-3": "#b8304a",
    "--arm-4": "#7b2d8b",
    "--arm-5": "#4d5a70",
    "--ref": "#5c6673",
}


DARK = {
    "--arm-0": "#6fb0f5",
    "--arm-1": "#43cbb9",
    "--arm-2": "#f2a444",
    "--arm-3": "#f2788c",
    "--arm-4": "#d294e0",
    "--arm-5": "#a9b6cc",
    "--ref": "#a3adba",
}


CHANCE = 0.5


COLLAPSED = 0.1


def palette(results: Results) -> dict[str, str]:
    """Colour of each arm, in the order of the view sheets; references are gray."""
    trained = [arm.name for arm in results.arms if arm.kind == "pretrained"]
    colours = {name: f"var(--arm-{index % 6})" for index, name in enumerate(trained)}
    return {arm.name: colours.get(arm.name, "var(--ref)") for arm in results.arms}


def auroc_range(scores: Sequence[Score]) -> tuple[float, float]:
    """A common AUROC axis for several panels; within [0, 1]."""
    values = [v for s in scores for v in (s.auroc, s.low, s.high, *s.per_seed) if v is not None]
    low, high = svg.padded(values or [CHANCE, 1.0])
    return max(0.0, low), min(1.0, high)


def auroc_panel(
    task: str,
    scores: Mapping[tuple[str, str], Score],
    arms: Sequence[ArmRow],
    learners: Sequence[str],
    limits: tuple[float, float],
    colours: Mapping[str, str],
) -> Markup:
    """AUROC of every arm on one task, a dot and its 95 % interval for each learner.

    Args:
        task: Named in the drawing's label.
        scores: By (arm, learner), all of one budget.
        arms: Rows, top to bottom.
        learners: The first is drawn filled and printed as a number, the second hollow.
        limits: Ends of the AUROC axis.
        colours: Of each arm.
    """
    width, row, top = 360.0, 34.0 if len(learners) > 1 else 26.0, 6.0
    foot = top + row * len(arms)
    left = 14 + 7 * min(15, max(len(arm.name) for arm in arms))
    axis = Axis(*limits, left, width - 52)
    body = [_vertical(axis, value, top, foot) for value in axis.ticks(6)]
    if limits[0] < CHANCE < limits[1]:
        at = axis.at(CHANCE)
        body.append(svg.line((at, top), (at, foot), css="axis", dash="3 3"))
    for index, arm in enumerate(arms):
        middle = top + row * (index + 0.5)
        colour = colours[arm.name]
        body.append(svg.text(0, middle + 4, _short(arm.name), css="label strong", colour=colour))
        for rank, learner in enumerate(learners[:2]):
            score = scores.get((arm.name, learner))
            y = middle + (rank - 0.5) * 13 if len(learners) > 1 else middle
            if score is not None:
                body += _interval(score, axis, y, colour, lead=rank == 0)
        lead = scores.get((arm.name, learners[0]))
        if lead is not None and lead.auroc is not None:
            body.append(svg.text(width, middle + 4, f"{lead.auroc:.3f}", anchor="end", css="num"))
    body += [
        svg.text(axis.at(v), foot + 14, f"{v:g}", css="muted small", anchor="middle")
        for v in axis.ticks(6)
    ]
    return svg.figure(width, foot + 20, f"AUROC per arm, {task}", body)


def _short(name: str) -> str:
    return name if len(name) <= 15 else name[:14] + "…"


def _vertical(axis: Axis, value: float, top: float, foot: float) -> Markup:
    return svg.line((axis.at(value), top), (axis.at(value), foot), css="grid")


def _interval(score: Score, axis: Axis, y: float, colour: str, *, lead: bool) -> list[Markup]:
    if score.auroc is None:
        return [svg.text(axis.start + 4, y + 4, "undefined", css="muted small")]
    hint = f"{score.arm}, {learner_name(score.learner)}: {interval_text(score)}"
    body = []
    if score.low is not None and score.high is not None:
        ends = ((axis.at(score.low), y), (axis.at(score.high), y))
        body.append(svg.line(*ends, css="line", width=2.4 if lead else 1.2, colour=colour))
    if len(score.per_seed) > 1:
        for value in score.per_seed:
            if value is not None:
                at = axis.at(value)
                body.append(svg.line((at, y - 5), (at, y + 5), css="line", width=1, colour=colour))
    radius = 4.6 if lead else 3.6
    body.append(svg.dot(axis.at(score.auroc), y, radius, colour=colour, hollow=not lead, hint=hint))
    return body


def interval_text(score: Score) -> str:
    """``0.842 (0.811 to 0.870)``."""
    if score.auroc is None:
        return "undefined"
    if score.low is None or score.high is None:
        return f"{score.auroc:.3f}"
    return f"{score.auroc:.3f} ({score.low:.3f} to {score.high:.3f})"


def label_curves(
    task: str,
    learner: str,
    scores: Sequence[Score],
    limits: tuple[float, float],
    colours: Mapping[str, str],
) -> Markup:
    """AUROC over the scans the learner saw, a line per arm named at its end.

    Args:
        task: Only its rows of ``scores`` are drawn.
        learner: Likewise.
        scores: The whole table.
        limits: Ends of the AUROC axis.
        colours: Of each arm, in the order to draw.
    """
    width, height, left, right = 360.0, 232.0, 34.0, 274.0
    rows = [s for s in scores if s.task == task and s.learner == learner and s.auroc is not None]
    places = {s.budget: s.train_scans for s in rows}
    if not places:
        return svg.figure(width, 40, "no label curve", [svg.text(0, 24, "undefined", css="muted")])
    least, most = min(places.values()), max(places.values())
    across = Axis(least / 1.1, most * 1.1, left, right, log=True)
    up = Axis(*limits, height - 40, 8)
    body = [svg.line((left, up.at(v)), (right, up.at(v)), css="grid") for v in up.ticks(6)]
    body += [
        svg.text(left - 6, up.at(v) + 4, f"{v:g}", css="muted small", anchor="end")
        for v in up.ticks(6)
    ]
    body += _budget_ticks(places, across, height - 26)
    names = [name for name in colours if any(s.arm == name for s in rows)]
    ends = []
    for rank, name in enumerate(names):
        own = sorted((s for s in rows if s.arm == name), key=lambda s: s.train_scans)
        shift = (rank - (len(names) - 1) / 2) * 3.0
        points = [(across.at(s.train_scans) + shift, up.at(s.auroc or 0)) for s in own]
        body += _curve(own, points, up, colours[name])
        ends.append((name, points[-1]))
    body += _end_labels(ends, colours, right, (14, height - 42))
    return svg.figure(width, height, f"AUROC over labels, {task}, {learner_name(learner)}", body)


def _budget_ticks(places: Mapping[Budget, float], axis: Axis, y: float) -> list[Markup]:
    body, last = [], -100.0
    for budget, scans in sorted(places.items(), key=lambda item: item[1]):
        at = axis.at(scans)
        if at - last < 26:
            continue
        last = at
        body.append(svg.line((at, y - 12), (at, y - 8), css="axis"))
        body.append(svg.text(at, y + 4, f"{scans:.0f}", css="muted small", anchor="middle"))
        if budget == "all":
            body.append(svg.text(at, y + 18, "all", css="muted small", anchor="middle"))
    middle = (axis.start + axis.end) / 2
    return [
        *body,
        svg.text(middle, y + 18, "labeled training scans", css="muted small", anchor="middle"),
    ]


def _curve(
    own: Sequence[Score], points: list[tuple[float, float]], up: Axis, colour: str
) -> list[Markup]:
    dash = "5 3" if colour == "var(--ref)" else ""
    body = [svg.polyline(points, colour=colour, width=2, dash=dash)]
    for score, (x, y) in zip(own, points, strict=True):
        if score.low is not None and score.high is not None:
            ends = ((x, up.at(score.low)), (x, up.at(score.high)))
            body.append(svg.line(*ends, css="line whisker", colour=colour))
        hint = f"{score.arm}, {score.train_scans:.0f} scans: {interval_text(score)}"
        body.append(svg.dot(x, y, 3.4, colour=colour, hint=hint))
    return body


def _end_labels(
    ends: Sequence[tuple[str, tuple[float, float]]],
    colours: Mapping[str, str],
    right: float,
    limits: tuple[float, float],
) -> list[Markup]:
    placed = svg.spread_labels([point[1] for _, point in ends], 14, *limits)
    body = []
    for (name, point), y in zip(ends, placed, strict=True):
        start, stop = (point[0] + 5, point[1]), (right + 8, y)
        body.append(svg.line(start, stop, css="line whisker", width=0.8, colour=colours[name]))
        body.append(
            svg.text(right + 11, y + 4, _short(name), css="label strong", colour=colours[name])
        )
    return body


def traces(runs: Sequence[RunRow], quantity: str, colours: Mapping[str, str]) -> Markup | None:
    """Loss or embedding std over optimiser steps, a line per network, an arm named at its end.

    Args:
        runs: Networks; those without a curve are left out.
        quantity: ``loss`` or ``embedding_std``.
        colours: Of each arm.

    Returns:
        The drawing, or None where no run has a curve.
    """
    width, height, left, right = 360.0, 220.0, 34.0, 274.0
    lines = []
    for run in runs:
        found = run.curve.loss if quantity == "loss" else run.curve.embedding_std
        pairs = [(s, v) for s, v in zip(run.curve.step, found, strict=True) if v is not None]
        if len(pairs) > 1:
            lines.append((run.arm, pairs))
    if not lines:
        return None
    values = [v for _, pairs in lines for _, v in pairs]
    ends = svg.padded(values if quantity == "loss" else [*values, 0.0, 1.0])
    across = Axis(0, max(s for _, pairs in lines for s, _ in pairs), left, right)
    up = Axis(*ends, height - 34, 8)
    body = [svg.line((left, up.at(v)), (right, up.at(v)), css="grid") for v in up.ticks(6)]
    body += [
        svg.text(left - 6, up.at(v) + 4, f"{v:g}", css="muted small", anchor="end")
        for v in up.ticks(6)
    ]
    body += [
        svg.text(across.at(v), height - 18, f"{v:g}", css="muted small", anchor="middle")
        for v in across.ticks()
    ]
    body.append(
        svg.text(
            (left + right) / 2, height - 3, "optimiser steps", css="muted small", anchor="middle"
        )
    )
    if quantity != "loss":
        body.append(
            svg.line((left, up.at(COLLAPSED)), (right, up.at(COLLAPSED)), css="axis", dash="3 3")
        )
        body.append(svg.text(left + 4, up.at(COLLAPSED) - 4, "collapse warning", css="muted small"))
    last: dict[str, list[tuple[float, float]]] = {}
    for arm, pairs in lines:
        points = [(across.at(s), up.at(v)) for s, v in _thinned(pairs)]
        body.append(svg.polyline(points, colour=colours[arm], width=1.5))
        last.setdefault(arm, []).append(points[-1])
    tips = [(arm, (right, sum(y for _, y in at) / len(at))) for arm, at in last.items()]
    body += _end_labels(tips, colours, right, (14, height - 34))
    return svg.figure(width, height, f"{quantity.replace('_', ' ')} over optimiser steps", body)


def _thinned(pairs: list[tuple[int, float]], most: int = 300) -> list[tuple[int, float]]:
    if len(pairs) <= most:
        return pairs
    step = (len(pairs) - 1) / (most - 1)
    return [pairs[round(index * step)] for index in range(most)]
