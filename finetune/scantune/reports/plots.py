"""The plots of the report: AUROC of each arm, over labels, training curves and differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from scanlearn import svg
from scanlearn.palette import hue
from scanlearn.svg import Axis, Point
from scantune.splits import Budget
from scantune.study.results import ArmDifference, ArmRow, Results, RunRow, Score
from scantune.wording import learner_name

CHANCE = 0.5
# Embedding std x sqrt(d) below which a run warns of collapse.
COLLAPSED = 0.1
_REFERENCE = "var(--ref)"
_ARM_LETTERS = 15
# Of curves: width, and the ends of the horizontal axis; names of arms stand right of it.
WIDTH, LEFT, RIGHT = 360.0, 34.0, 256.0
_MOST_POINTS = 300


def palette(results: Results) -> dict[str, str]:
    """CSS variable of each arm's colour, in the order of the view sheets; references are gray."""
    trained = [arm.name for arm in results.arms if arm.kind == "pretrained"]
    colours = {name: hue(index) for index, name in enumerate(trained)}
    return {arm.name: colours.get(arm.name, _REFERENCE) for arm in results.arms}


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
        scores: By (arm, learner), all of one budget.
        learners: The first is drawn filled and printed as a number, the others hollow below it.
    """
    apart, top = 13.0, 6.0
    row = max(26.0, 8 + apart * len(learners))
    foot = top + row * len(arms)
    left = 14 + 7 * min(_ARM_LETTERS, max(len(arm.name) for arm in arms))
    axis = Axis(*limits, left, WIDTH - 52)
    body = [
        svg.line((axis.at(value), top), (axis.at(value), foot), css="grid")
        for value in axis.ticks(6)
    ]
    if limits[0] < CHANCE < limits[1]:
        chance = axis.at(CHANCE)
        body.append(svg.line((chance, top), (chance, foot), css="axis", dash="3 3"))
    for index, arm in enumerate(arms):
        middle, colour = top + row * (index + 0.5), colours[arm.name]
        body.append(_arm_name(arm.name, 0, middle + 4, colour))
        for rank, learner in enumerate(learners):
            score = scores.get((arm.name, learner))
            y = middle + (rank - (len(learners) - 1) / 2) * apart
            if score is not None:
                body += _interval(score, axis, y, colour, is_lead=rank == 0)
        lead = scores.get((arm.name, learners[0]))
        if lead is not None and lead.auroc is not None:
            body.append(svg.text(WIDTH, middle + 4, f"{lead.auroc:.3f}", anchor="end", css="num"))
    body += svg.ticks_below(axis, foot + 14, 6)
    return svg.figure(WIDTH, foot + 20, f"AUROC per arm, {task}", body)


def _arm_name(name: str, x: float, y: float, colour: str) -> Markup:
    return svg.text(x, y, svg.shortened(name, _ARM_LETTERS), css="label strong", colour=colour)


def _interval(score: Score, axis: Axis, y: float, colour: str, *, is_lead: bool) -> list[Markup]:
    if score.auroc is None:
        return [svg.text(axis.start + 4, y + 4, "undefined", css="muted small")]
    body = []
    if score.low is not None and score.high is not None:
        ends = ((axis.at(score.low), y), (axis.at(score.high), y))
        body.append(svg.line(*ends, css="line", width=2.4 if is_lead else 1.2, colour=colour))
    if len(score.per_seed) > 1:
        for x in (axis.at(value) for value in score.per_seed if value is not None):
            body.append(svg.line((x, y - 5), (x, y + 5), css="line", colour=colour))
    radius = 4.6 if is_lead else 3.6
    hint = f"{score.arm}, {learner_name(score.learner)}: {interval_text(score)}"
    x = axis.at(score.auroc)
    return [*body, svg.dot(x, y, radius, colour=colour, hollow=not is_lead, hint=hint)]


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
    """AUROC over the number of training scans, a line per arm named at its end."""
    height = 232.0
    rows = [s for s in scores if s.task == task and s.learner == learner and s.auroc is not None]
    scans_of = {s.budget: s.train_scans for s in rows}
    if not scans_of:
        undefined = svg.text(0, 24, "undefined", css="muted")
        return svg.figure(WIDTH, 40, "no label curve", [undefined])
    fewest, most = min(scans_of.values()), max(scans_of.values())
    across = Axis(fewest / 1.1, most * 1.1, LEFT, RIGHT, log=True)
    up = Axis(*limits, height - 40, 8)
    body = [*svg.grid(up, LEFT, RIGHT), *_budget_ticks(scans_of, across, height - 26)]
    names = [name for name in colours if any(s.arm == name for s in rows)]
    tips = {}
    for rank, name in enumerate(names):
        curve = sorted((s for s in rows if s.arm == name), key=lambda s: s.train_scans)
        # Side by side, so that whiskers do not hide one another.
        shift = (rank - (len(names) - 1) / 2) * 3.0
        points = [(across.at(s.train_scans) + shift, up.at(s.auroc or 0)) for s in curve]
        body += _label_curve(curve, points, up, colours[name])
        tips[name] = points[-1]
    body += end_labels(tips, colours, (14, height - 42))
    return svg.figure(WIDTH, height, f"AUROC over labels, {task}, {learner_name(learner)}", body)


def _budget_ticks(scans_of: Mapping[Budget, float], axis: Axis, y: float) -> list[Markup]:
    body, last = [], -100.0
    for budget, scans in sorted(scans_of.items(), key=lambda item: item[1]):
        x = axis.at(scans)
        if x - last < 26:
            continue
        last = x
        body.append(svg.line((x, y - 12), (x, y - 8), css="axis"))
        body.append(svg.text(x, y + 4, f"{scans:.0f}", css="muted small", anchor="middle"))
        if budget == "all":
            body.append(svg.text(x, y + 18, "all", css="muted small", anchor="middle"))
    return [*body, _below("labeled training scans", y + 18)]


def _below(title: str, y: float) -> Markup:
    return svg.text((LEFT + RIGHT) / 2, y, title, css="muted small", anchor="middle")


def _label_curve(
    scores: Sequence[Score], points: Sequence[Point], up: Axis, colour: str
) -> list[Markup]:
    body = [
        svg.polyline(points, colour=colour, width=2, dash="5 3" if colour == _REFERENCE else "")
    ]
    for score, (x, y) in zip(scores, points, strict=True):
        if score.low is not None and score.high is not None:
            ends = ((x, up.at(score.low)), (x, up.at(score.high)))
            body.append(svg.line(*ends, css="line whisker", colour=colour))
        hint = f"{score.arm}, {score.train_scans:.0f} scans: {interval_text(score)}"
        body.append(svg.dot(x, y, 3.4, colour=colour, hint=hint))
    return body


def end_labels(
    tips: Mapping[str, Point], colours: Mapping[str, str], limits: tuple[float, float]
) -> list[Markup]:
    """The name of each arm right of the end of its curve, led to where two would meet."""
    heights = svg.spread_labels([point[1] for point in tips.values()], 14, *limits)
    body = []
    for (name, point), y in zip(tips.items(), heights, strict=True):
        lead = ((point[0] + 5, point[1]), (RIGHT + 8, y))
        body.append(svg.line(*lead, css="line whisker", width=0.8, colour=colours[name]))
        body.append(_arm_name(name, RIGHT + 11, y + 4, colours[name]))
    return body


def traces(runs: Sequence[RunRow], quantity: str, colours: Mapping[str, str]) -> Markup | None:
    """``loss`` or ``embedding_std`` over optimiser steps, a line per network, named at its end.

    None where no run has a curve.
    """
    height, is_loss = 220.0, quantity == "loss"
    lines = []
    for run in runs:
        values = run.curve.loss if is_loss else run.curve.embedding_std
        pairs = [(s, v) for s, v in zip(run.curve.step, values, strict=True) if v is not None]
        if len(pairs) > 1:
            lines.append((run.arm, pairs))
    if not lines:
        return None
    drawn = [value for _, pairs in lines for _, value in pairs]
    across = Axis(0, max(step for _, pairs in lines for step, _ in pairs), LEFT, RIGHT)
    up = Axis(*svg.padded(drawn if is_loss else [*drawn, 0.0, 1.0]), height - 34, 8)
    body = [*svg.grid(up, LEFT, RIGHT), *svg.ticks_below(across, height - 18)]
    body.append(_below("optimiser steps", height - 3))
    if not is_loss:
        y = up.at(COLLAPSED)
        body.append(svg.line((LEFT, y), (RIGHT, y), css="axis", dash="3 3"))
        body.append(svg.text(LEFT + 4, y - 4, "collapse warning", css="muted small"))
    ends: dict[str, list[float]] = {}
    for arm, pairs in lines:
        stride = max(1.0, (len(pairs) - 1) / (_MOST_POINTS - 1))
        kept = [pairs[round(k * stride)] for k in range(min(len(pairs), _MOST_POINTS))]
        points = [(across.at(step), up.at(value)) for step, value in kept]
        body.append(svg.polyline(points, colour=colours[arm], width=1.5))
        ends.setdefault(arm, []).append(points[-1][1])
    tips = {arm: (RIGHT, sum(heights) / len(heights)) for arm, heights in ends.items()}
    body += end_labels(tips, colours, (14, height - 34))
    return svg.figure(WIDTH, height, f"{quantity.replace('_', ' ')} over optimiser steps", body)


# Differences between two arms: a cell for each row of a table.

FOREST_WIDTH, FOREST_HEIGHT = 210.0, 40.0


def forest_range(differences: Sequence[ArmDifference], margin: float) -> tuple[float, float]:
    """A common axis of differences that holds zero and the margin."""
    values = [v for d in differences for v in (d.difference, d.low, d.high) if v is not None]
    return svg.padded([*values, -2 * margin, 2 * margin])


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
    difference: ArmDifference,
    limits: tuple[float, float],
    margin: float,
    colours: Mapping[str, str],
) -> Markup:
    """One difference and its interval; the band is the margin within which arms are equivalent."""
    axis, middle = Axis(*limits, 6, FOREST_WIDTH - 6), FOREST_HEIGHT / 2
    band, zero = axis.at(-margin), axis.at(0)
    body = [
        svg.box(band, 0, axis.at(margin) - band, FOREST_HEIGHT, css="band"),
        svg.line((zero, 0), (zero, FOREST_HEIGHT), css="axis"),
    ]
    value, is_primary = difference.difference, difference.primary
    if value is not None:
        higher = difference.a if value >= 0 else difference.b
        is_shown = difference.verdict not in ("equivalent", "none")
        colour = colours[higher] if is_shown or is_primary else _REFERENCE
        if difference.low is not None and difference.high is not None:
            ends = ((axis.at(difference.low), middle), (axis.at(difference.high), middle))
            width = 3.2 if is_primary else 1.8
            body.append(svg.line(*ends, css="line", width=width, colour=colour))
        radius = 5.4 if is_primary else 4.0
        body.append(svg.dot(axis.at(value), middle, radius, colour=colour, hollow=not is_shown))
    return svg.figure(FOREST_WIDTH, FOREST_HEIGHT, difference_text(difference), body)


def difference_text(difference: ArmDifference) -> str:
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
