"""Drawings of a whole study: AUROC over the scale and the archive, two levers, ROC curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from scanlearn import svg
from scanlearn.palette import hue
from scanlearn.svg import Axis, Point
from scantune.reports.plots import (
    LEFT,
    RIGHT,
    WIDTH,
    auroc_range,
    difference_text,
    end_labels,
    forest_range,
    interval_text,
)
from scantune.splits import Budget
from scantune.study.dose import DoseArms, curves_of_places
from scantune.study.results import (
    ArmDifference,
    ArmRow,
    DoseCurve,
    JointDoseCurve,
    RocCurve,
    Score,
)
from scantune.wording import budget_name

_INK, _REFERENCE = "var(--ink)", "var(--ref)"
_LETTERS_BESIDE = 22
_MOST_PAIRS = 14


def dose_plot(
    task: str,
    groups: Sequence[DoseArms],
    scores: Mapping[str, Score],
    curves: Sequence[DoseCurve],
    references: Sequence[ArmRow],
    limits: tuple[float, float],
    colours: Mapping[str, str],
    joint: Sequence[DoseCurve] = (),
) -> Markup:
    """AUROC over the scale: arms with intervals and seeds, the fitted curve, references as lines.

    Args:
        scores: By arm, all of one task, learner and budget.
        curves: Of the same place, by group.
        colours: Of arms; several groups have a colour each instead.
        joint: The curves of all learners and budgets at the level of this place, by group; dashed.
    """
    height, foot = 262.0, 210.0
    ends = [scale for group in groups for scale in group.scales]
    pad = 0.05 * (max(ends) - min(ends))
    across = Axis(min(ends) - pad, max(ends) + pad, LEFT, RIGHT)
    up = Axis(*limits, foot, 8)
    body = svg.grid(up, LEFT, RIGHT)
    last = -100.0
    for scale in sorted(set(ends)):
        if across.at(scale) - last >= 24:
            last = across.at(scale)
            body.append(svg.text(last, foot + 15, f"{scale:g}", css="muted small", anchor="middle"))
    title = "augmentation scale s: 0 none, 1 as published"
    body.append(svg.text((LEFT + RIGHT) / 2, foot + 32, title, css="muted small", anchor="middle"))
    tips: dict[str, Point] = {}
    for arm in references:
        score = scores.get(arm.name)
        if score is not None and score.auroc is not None:
            y, name = up.at(score.auroc), arm.name
            # One far from the arms would press their curve flat.
            if limits[0] <= score.auroc <= limits[1]:
                body.append(svg.line((LEFT, y), (RIGHT, y), css="axis", dash="2 4"))
            else:
                name += f" {'↓' if score.auroc < limits[0] else '↑'} {score.auroc:.2f}".replace(
                    " 0.", " ."
                )
            tips[name] = (RIGHT, y)
    for rank, group in enumerate(groups):
        group_hue = hue(rank) if len(groups) > 1 else ""
        fit = next((curve for curve in curves if curve.group == group.group), None)
        shift = (rank - (len(groups) - 1) / 2) * 4.0
        if fit is not None:
            y = foot - 4 - 9 * rank
            body += _fit(fit, across, up, group_hue or _INK, y, has_name=not group_hue)
        for curve in (each for each in joint if each.group == group.group):
            line = [(across.at(s), up.at(v)) for s, v in zip(curve.at, curve.auroc, strict=True)]
            hint = "the curve that all learners and budgets share"
            body.append(
                svg.polyline(line, colour=group_hue or _INK, width=1.4, dash="6 4", hint=hint)
            )
        points = []
        for arm, scale in zip(group.arms, group.scales, strict=True):
            score = scores.get(arm.name)
            if score is None or score.auroc is None:
                continue
            x, colour = across.at(scale) + shift, group_hue or colours[arm.name]
            points.append((x, up.at(score.auroc)))
            body += _upright(score, x, up, colour)
        if fit is None:
            body.insert(
                len(body) - 1, svg.polyline(points, colour=group_hue or _INK, width=1, dash="1 3")
            )
        if group_hue and points:
            tips[group.group] = points[-1]
    tip_colours = dict.fromkeys(tips, _REFERENCE)
    tip_colours |= {group.group: hue(rank) for rank, group in enumerate(groups)}
    body += end_labels(tips, tip_colours, (14, foot - 4))
    # A name with its value is wider than one alone; as a file of its group_hue it was cut off.
    width = WIDTH + 7.0 * max([0, *(len(tip) - 11 for tip in tips)])
    return svg.figure(width, height - 14, f"AUROC over the augmentation scale, {task}", body)


def joint_plot(
    task: str, curve: JointDoseCurve, scores: Mapping[tuple[str, Budget], Mapping[str, Score]]
) -> Markup:
    """AUROC over the scale at every learner and label budget, each with the curve that all share.

    Args:
        scores: By learner and budget, then by arm.
    """
    height, foot = 262.0, 210.0
    pad = 0.05 * (curve.scales[-1] - curve.scales[0])
    across = Axis(curve.scales[0] - pad, curve.scales[-1] + pad, LEFT, RIGHT)
    places = curves_of_places(curve)
    drawn = [
        score.model_copy(update={"per_seed": (), "low": None, "high": None})
        for place, _ in places
        for name in curve.arms
        if (score := scores.get(place, {}).get(name)) is not None
    ]
    up = Axis(*auroc_range(drawn), foot, 8)
    body = svg.grid(up, LEFT, RIGHT)
    for scale in curve.scales:
        label = f"{scale:g}"
        body.append(
            svg.text(across.at(scale), foot + 15, label, css="muted small", anchor="middle")
        )
    title = "augmentation scale s: 0 none, 1 as published"
    body.append(svg.text((LEFT + RIGHT) / 2, foot + 32, title, css="muted small", anchor="middle"))
    has_learners = len({learner for learner, _ in curve.places}) > 1
    tips: dict[str, Point] = {}
    colours = {}
    for rank, ((learner, budget), aurocs) in enumerate(places):
        name = f"{budget}, {learner}" if has_learners else budget_name(budget)
        colours[name] = hue(rank)
        line = [(across.at(s), up.at(value)) for s, value in zip(curve.at, aurocs, strict=True)]
        if curve.kind != "points":
            body.append(svg.polyline(line, colour=hue(rank), width=1.6))
        for arm, scale in zip(curve.arms, curve.scales, strict=True):
            score = scores.get((learner, budget), {}).get(arm)
            if score is not None and score.auroc is not None:
                hint = f"{arm}, {name}: {interval_text(score)}"
                at = (across.at(scale), up.at(score.auroc))
                body.append(svg.dot(*at, 3.6, colour=hue(rank), hint=hint))
        tips[name] = line[-1]
    body += end_labels(tips, colours, (14, foot - 4))
    width = WIDTH + 7.0 * max([0, *(len(tip) - 11 for tip in tips)])
    named = f"AUROC over the augmentation scale at each learner and label budget, {task}"
    return svg.figure(width, height - 14, named, body)


def _fit(
    curve: DoseCurve, across: Axis, up: Axis, colour: str, y: float, *, has_name: bool
) -> list[Markup]:
    """The curve with its band, and at ``y`` the interval of the best scale."""
    body = []
    if curve.kind != "points":
        line = [(across.at(s), up.at(v)) for s, v in zip(curve.at, curve.auroc, strict=True)]
        ends = [*zip(curve.at, curve.low, strict=True)]
        ends += [*zip(curve.at, curve.high, strict=True)][::-1]
        outline = [(across.at(s), up.at(v)) for s, v in ends]
        body.append(svg.area(outline, colour=colour, opacity=0.1))
        body.append(svg.polyline(line, colour=colour, width=1.8, hint="fitted curve"))
    if not curve.is_flat:
        ends_of_best = ((across.at(curve.best_low), y), (across.at(curve.best_high), y))
        body.append(svg.line(*ends_of_best, css="line", width=2.6, colour=colour))
        hint = f"best scale {curve.best:.2g} ({curve.best_low:.2g} to {curve.best_high:.2g})"
        body.append(svg.dot(across.at(curve.best), y, 3.6, colour=colour, hint=hint))
        if not has_name:
            return body
        if across.at(curve.best_high) < RIGHT - 62:
            at = across.at(curve.best_high) + 7
            body.append(svg.text(at, y + 3.5, "best scale", css="muted small"))
        elif across.at(curve.best_low) > LEFT + 62:
            at = across.at(curve.best_low) - 7
            body.append(svg.text(at, y + 3.5, "best scale", css="muted small", anchor="end"))
    return body


def _upright(score: Score, x: float, up: Axis, colour: str) -> list[Markup]:
    """A dot with its interval, and a tick for each pretraining seed."""
    body = []
    if score.low is not None and score.high is not None:
        ends = ((x, up.at(score.low)), (x, up.at(score.high)))
        body.append(svg.line(*ends, css="line", width=2.0, colour=colour))
    if len(score.per_seed) > 1:
        for y in (up.at(value) for value in score.per_seed if value is not None):
            body.append(svg.line((x - 5, y), (x + 5, y), css="line", colour=colour))
    hint = f"{score.arm}: {interval_text(score)}"
    return [*body, svg.dot(x, up.at(score.auroc or 0), 4.2, colour=colour, hint=hint)]


def archive_curve(task: str, lines: Mapping[str, Sequence[tuple[float, Score]]]) -> Markup:
    """AUROC over the share of the archive that was pretrained on, a line per recipe."""
    height, foot = 232.0, 192.0
    shares = sorted({share for points in lines.values() for share, _ in points})
    across = Axis(shares[0] / 1.15, shares[-1] * 1.15, LEFT, RIGHT, log=True)
    up = Axis(*auroc_range([s for points in lines.values() for _, s in points]), foot, 8)
    body = svg.grid(up, LEFT, RIGHT)
    for share in shares:
        label = f"{100 * share:g} %"
        body.append(
            svg.text(across.at(share), foot + 15, label, css="muted small", anchor="middle")
        )
    title = "share of the archive's patients"
    body.append(svg.text((LEFT + RIGHT) / 2, foot + 32, title, css="muted small", anchor="middle"))
    tips: dict[str, Point] = {}
    colours = {name: hue(rank) for rank, name in enumerate(lines)}
    for rank, (name, points) in enumerate(lines.items()):
        shift = (rank - (len(lines) - 1) / 2) * 3.0
        at = [(across.at(share) + shift, up.at(score.auroc or 0)) for share, score in points]
        body.append(svg.polyline(at, colour=colours[name], width=2))
        for (x, _), (_, score) in zip(at, points, strict=True):
            body += _upright(score, x, up, colours[name])
        tips[name] = at[-1]
    body += end_labels(tips, colours, (14, foot - 4))
    return svg.figure(WIDTH, height, f"AUROC over the size of the archive, {task}", body)


def lever_map(task: str, cells: Mapping[tuple[float, float], Score]) -> Markup:
    """AUROC where crop and photometric were crossed, darker where it is higher.

    Args:
        cells: By (crop, photometric).
    """
    crops, photometrics = (sorted({key[place] for key in cells}) for place in (0, 1))
    left, top, side = 46.0, 8.0, min(62.0, 300 / len(photometrics), 300 / len(crops))
    values = [score.auroc for score in cells.values() if score.auroc is not None]
    low, span = min(values), max(max(values) - min(values), 1e-9)
    foot = top + side * len(crops)
    body = []
    for (crop, photometric), score in sorted(cells.items()):
        x = left + photometrics.index(photometric) * side
        y = top + (len(crops) - 1 - crops.index(crop)) * side
        share = 0.08 + 0.82 * ((score.auroc or low) - low) / span
        hint = f"{score.arm}, crop {crop:g}, photometric {photometric:g}: {interval_text(score)}"
        body.append(svg.box(x, y, side, side, css="area", colour=hue(0), opacity=share, hint=hint))
        text = "–" if score.auroc is None else f"{score.auroc:.3f}".lstrip("0")
        css = "small on" if share > 0.6 else "small"
        body.append(svg.text(x + side / 2, y + side / 2 + 4, text, css=css, anchor="middle"))
    for place, crop in enumerate(reversed(crops)):
        y = top + (place + 0.5) * side + 4
        body.append(svg.text(left - 8, y, f"{crop:g}", css="muted small", anchor="end"))
    for place, photometric in enumerate(photometrics):
        x = left + (place + 0.5) * side
        body.append(svg.text(x, foot + 15, f"{photometric:g}", css="muted small", anchor="middle"))
    across = left + side * len(photometrics) / 2
    body.append(svg.text(across, foot + 32, "photometric", css="muted small", anchor="middle"))
    body.append(svg.turned_text(12, (top + foot) / 2, "crop"))
    width = max(200.0, left + side * len(photometrics) + 4)
    return svg.figure(width, foot + 38, f"AUROC by crop and photometric scale, {task}", body)


def forest(
    differences: Sequence[ArmDifference], margin: float, colours: Mapping[str, str]
) -> Markup:
    """Paired differences, the primary one first, each with its interval under its name."""
    rows = list(differences)[:_MOST_PAIRS]
    # Long names stand above their numbers, which they once ran into.
    beside = all(len(each.a) + len(each.b) <= _LETTERS_BESIDE for each in rows)
    top, row = 20.0, 38.0 if beside else 54.0
    axis = Axis(*forest_range(rows, margin), 8, WIDTH - 8)
    foot, band = top + row * len(rows), axis.at(-margin)
    body = [svg.text(8, 11, "right of 0: the first arm is higher", css="muted small")]
    for place, each in enumerate(rows):
        y = top + row * place
        upper, lower = y + row - 20, y + row - 4
        body += [
            svg.box(band, upper, axis.at(margin) - band, lower - upper, css="band"),
            *(svg.line((axis.at(v), upper), (axis.at(v), lower), css="grid") for v in axis.ticks()),
            svg.line((axis.at(0), upper), (axis.at(0), lower), css="axis"),
        ]
        is_shown = each.verdict not in ("equivalent", "none")
        higher = each.a if (each.difference or 0) >= 0 else each.b
        colour = colours[higher] if is_shown else _REFERENCE
        name = f"{svg.shortened(each.a, 24)} − {svg.shortened(each.b, 24)}"
        css = "small strong" if each.primary else "small"
        body.append(svg.text(8, y + 13, name, css=css))
        numbers = difference_text(each)
        line = y + (13 if beside else 28)
        body.append(svg.text(WIDTH - 8, line, numbers, css=f"{css} num", anchor="end"))
        if each.difference is None:
            continue
        middle = y + row - 12
        if each.low is not None and each.high is not None:
            ends = ((axis.at(each.low), middle), (axis.at(each.high), middle))
            body.append(
                svg.line(*ends, css="line", width=3.0 if each.primary else 1.8, colour=colour)
            )
        radius = 5.0 if each.primary else 4.0
        body.append(
            svg.dot(axis.at(each.difference), middle, radius, colour=colour, hollow=not is_shown)
        )
    body += svg.ticks_below(axis, foot + 14, 5)
    return svg.figure(WIDTH, foot + 20, "Paired differences of the AUROC", body)


def roc_panel(name: str, curves: Sequence[RocCurve], colours: Mapping[str, str]) -> Markup:
    """The ROC curves of one class, a line per arm."""
    size, left, top, side = 300.0, 44.0, 8.0, 236.0
    across, up = Axis(0, 1, left, left + side), Axis(0, 1, top + side, top)
    body = [
        *svg.grid(up, left, left + side),
        *(
            svg.line((across.at(x), top), (across.at(x), top + side), css="grid")
            for x in across.ticks(6)
        ),
        svg.line((across.at(0), up.at(0)), (across.at(1), up.at(1)), css="axis", dash="3 3"),
        *svg.ticks_below(across, top + side + 15, 6),
        svg.text(
            left + side / 2, top + side + 32, "1 − specificity", css="muted small", anchor="middle"
        ),
        svg.turned_text(12, top + side / 2, "sensitivity"),
    ]
    for curve in curves:
        if curve.low:
            edges = [*enumerate(curve.low)], [*enumerate(curve.high)][::-1]
            last = len(curve.low) - 1
            outline = [(across.at(k / last), up.at(v)) for edge in edges for k, v in edge]
            body.append(svg.area(outline, colour=colours[curve.arm], opacity=0.12))
    for rank, curve in enumerate(reversed(curves)):
        last = len(curve.sensitivity) - 1
        points = [(across.at(k / last), up.at(v)) for k, v in enumerate(curve.sensitivity)]
        dash = "4 3" if colours[curve.arm] == _REFERENCE else ""
        body.append(
            svg.polyline(points, colour=colours[curve.arm], width=1.8, dash=dash, hint=curve.arm)
        )
        place = top + side - 10 - 15 * rank
        legend = svg.shortened(curve.arm, 20)
        css = "label strong small"
        body.append(
            svg.text(
                left + side - 8, place, legend, css=css, anchor="end", colour=colours[curve.arm]
            )
        )
    return svg.figure(size, top + side + 38, f"ROC curves, {name}", body)
