"""The figures of an evaluation, a row of panels for each learner.

ROC, precision and recall, calibration, and the confusion of classes; findings, which do not exclude
each other, have their AUROCs with intervals instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped
from markupsafe import Markup

from scanlearn import svg
from scanlearn.palette import NUM_HUES, hue
from scanlearn.svg import Axis
from scantune.evaluation.results import ClassRow, EvaluationRow
from scantune.scores import Scores
from scantune.statistics.curves import GRID, band, confusion, precision_recall, reliability, roc
from scantune.statistics.intervals import patient_weights
from scantune.wording import budget_name, learner_name

_REPLICATES = 200
# More curves in one panel cannot be told apart, and bands of more than three hide each other.
_MOST_CURVES, _MOST_BANDS = NUM_HUES, 3
# Classes of a confusion that can be read: shares in its cells, scans beside its rows.
_MOST_NUMBERS, _MOST_COUNTS = 10, 8
_LETTERS = 18
# Pixels of a panel; the plot is a square.
_SIZE, _LEFT, _TOP, _PLOT = 264.0, 46.0, 26.0, 200.0
_GAP, _MARGIN = 24.0, 20.0


@dataclass(frozen=True)
class LearnerFigures:
    """The panels of one learner, side by side."""

    learner: str
    panels: tuple[Markup, ...]


def draw_figures(scores: Scores, rows: Sequence[EvaluationRow]) -> tuple[LearnerFigures, ...]:
    """Returns the panels of each learner at the largest label budget.

    Of more than six classes the six commonest have curves. Bands hold 95 % of patient resamples.
    """
    weights = patient_weights(scores, replicates=_REPLICATES)
    last = scores.budgets[-1]
    return tuple(
        LearnerFigures(row.learner, _panels(scores, row, weights))
        for row in rows
        if row.budget == last
    )


def figure_note(scores: Scores) -> str:
    """Returns how the figures are read, in a few sentences."""
    num_classes = len(scores.truth.asked)
    curves = "Curves are means over models (folds and label seeds)"
    if min(num_classes, _MOST_CURVES) <= _MOST_BANDS:
        curves += "; bands hold 95 % of resamples"
    elif num_classes > _MOST_CURVES:
        curves += f", of the {_MOST_CURVES} commonest of {num_classes} classes"
    return (
        f"{curves}. Dashed: ROC of guessing, precision of guessing (the share of the class), and "
        "perfect calibration."
    )


def figure_sheet(figures: Sequence[LearnerFigures], title: str, scores: Scores) -> str:
    """Returns all panels as one SVG file, a row for each learner."""
    width = 2 * _MARGIN + 4 * _SIZE + 3 * _GAP
    row_height = _SIZE + 2 * _GAP
    heading = f"{title}, {budget_name(scores.budgets[-1])}"
    body = [svg.text(_MARGIN, 28, heading, css="strong")]
    for place, row in enumerate(figures):
        top = 50 + place * row_height
        body.append(svg.text(_MARGIN, top + 8, learner_name(row.learner), css="strong"))
        for column, panel in enumerate(row.panels):
            body.append(svg.placed(panel, _MARGIN + column * (_SIZE + _GAP), top + 20))
    height = 50 + len(figures) * row_height + 30
    body.append(svg.text(_MARGIN, height - 14, figure_note(scores), css="muted small"))
    return svg.standalone(svg.figure(width, height, heading, body))


def _panels(
    scores: Scores, row: EvaluationRow, weights: Shaped[np.ndarray, "r m"]
) -> tuple[Markup, ...]:
    counts = (scores.truth.matrix == 1).sum(axis=0)
    # The commonest classes have curves, in their own order.
    codes = sorted(sorted(scores.truth.asked, key=lambda code: -counts[code])[:_MOST_CURVES])
    lines = {line.name: line for line in row.classes}
    classes = [(code, hue(place), lines[scores.classes[code]]) for place, code in enumerate(codes)]
    across, up = Axis(0, 1, _LEFT, _LEFT + _PLOT), Axis(0, 1, _TOP + _PLOT, _TOP)
    diagonal = svg.line((across.at(0), up.at(0)), (across.at(1), up.at(1)), css="axis", dash="3 3")
    bodies: dict[str, list[Markup]] = {
        "roc": [diagonal],
        "precision": [],
        "calibration": [diagonal],
    }
    for code, colour, line in classes:
        for name, curve in (("roc", roc), ("precision", precision_recall)):
            drawn = band(curve, scores, row.learner, row.budget, code, weights)
            if len(codes) <= _MOST_BANDS and not np.isnan(drawn.low).any():
                ends = [*zip(GRID, drawn.low, strict=True)]
                ends += [*zip(GRID, drawn.high, strict=True)][::-1]
                outline = [(across.at(x), up.at(y)) for x, y in ends]
                bodies[name].append(svg.area(outline, colour=colour, opacity=0.16))
            if not np.isnan(drawn.mean).any():
                points = [(across.at(x), up.at(y)) for x, y in zip(GRID, drawn.mean, strict=True)]
                hint = f"{line.name}: AUROC {line.auroc:.3f}, AUPRC {line.scores['auprc']:.3f}"
                bodies[name].append(svg.polyline(points, colour=colour, width=1.8, hint=hint))
        if not np.isnan(line.share):
            level = (across.at(0), up.at(line.share)), (across.at(1), up.at(line.share))
            bodies["precision"].append(svg.line(*level, css="line", colour=colour, dash="3 3"))
        means, shares = reliability(scores, row.learner, row.budget, code)
        points = [(across.at(x), up.at(y)) for x, y in zip(means, shares, strict=True)]
        bodies["calibration"].append(svg.polyline(points, colour=colour, width=1.4))
        for (x, y), mean, share in zip(points, means, shares, strict=True):
            hint = f"{line.name}: probability {mean:.2f}, share of positives {share:.2f}"
            bodies["calibration"].append(svg.dot(x, y, 3.2, colour=colour, hint=hint))
    if len(codes) > 1:
        bodies["roc"] += _legend([(line.name, colour) for _, colour, line in classes])
    titles = {
        "roc": ("ROC", "1 - specificity", "sensitivity"),
        "precision": ("Precision and recall", "recall", "precision"),
        "calibration": ("Calibration", "probability", "share of positives"),
    }
    panels = [_square(*titles[name], body) for name, body in bodies.items()]
    if scores.truth.is_exclusive:
        return (*panels, _confusion(scores, row))
    return (*panels, _forest(row.classes, {line.name: colour for _, colour, line in classes}))


def _square(title: str, below: str, beside: str, body: Sequence[Markup]) -> Markup:
    across, up = Axis(0, 1, _LEFT, _LEFT + _PLOT), Axis(0, 1, _TOP + _PLOT, _TOP)
    foot = _TOP + _PLOT
    frame = [
        svg.text(_LEFT, 14, title, css="strong"),
        *svg.grid(up, _LEFT, _LEFT + _PLOT),
        *(
            svg.line((across.at(x), _TOP), (across.at(x), foot), css="grid")
            for x in across.ticks(6)
        ),
        *svg.ticks_below(across, foot + 15, 6),
        svg.text(_LEFT + _PLOT / 2, foot + 31, below, css="muted small", anchor="middle"),
        svg.turned_text(12, _TOP + _PLOT / 2, beside),
    ]
    return svg.figure(_SIZE, _SIZE, title, [*frame, *body])


def _legend(classes: Sequence[tuple[str, str]]) -> list[Markup]:
    """The names of the curves, in the corner that ROC curves leave empty."""
    right, foot = _LEFT + _PLOT - 8, _TOP + _PLOT - 8
    return [
        svg.text(
            right,
            foot - 15 * (len(classes) - 1 - place),
            svg.shortened(name, 24),
            css="label strong small",
            anchor="end",
            colour=colour,
        )
        for place, (name, colour) in enumerate(classes)
    ]


def _confusion(scores: Scores, row: EvaluationRow) -> Markup:
    """Shares of each class by the class they are called, as shades of one hue."""
    counts = confusion(scores, row.learner, row.budget)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    k, title = len(scores.classes), "Confusion"
    names = [svg.shortened(name, _LETTERS) for name in scores.classes]
    left = 24 + min(110.0, 6.2 * max(5, *(len(name) for name in names)))
    longest = 6.2 * max(len(name) for name in names)
    is_turned = longest > (_SIZE - left) / k
    side = min(_SIZE - left - 4, _SIZE - _TOP - 28 - (longest if is_turned else 16))
    cell = side / k
    below = (
        "class nearest to expected" if scores.truth.task == "ordinal" else "class scored highest"
    )
    middle = _TOP + side / 2
    body = [
        svg.text(left, 14, title, css="strong"),
        svg.turned_text(10, middle, "class, with its scans" if k <= _MOST_COUNTS else "class"),
        svg.text(left + side / 2, _SIZE - 5, below, css="muted small", anchor="middle"),
    ]
    for i, j in np.ndindex(k, k):
        x, y, share = left + j * cell, _TOP + i * cell, float(shares[i, j])
        hint = f"{scores.classes[i]}, called {scores.classes[j]}: {counts[i, j]:,.0f} of "
        hint += f"{totals[i, 0]:,.0f} scans"
        body.append(svg.box(x, y, cell, cell, css="area", colour=hue(0), opacity=share, hint=hint))
        if k <= _MOST_NUMBERS:
            css = "small on" if share > 0.7 else "small"
            at = x + cell / 2, y + cell / 2 + 4
            body.append(svg.text(*at, f"{share:.2f}".lstrip("0"), css=css, anchor="middle"))
    for place, name in enumerate(names):
        y, x = _TOP + (place + 0.5) * cell, left + (place + 0.5) * cell
        has_count = k <= _MOST_COUNTS
        body.append(
            svg.text(left - 6, y + (-2 if has_count else 4), name, css="small", anchor="end")
        )
        if has_count:
            total = f"{totals[place, 0]:,.0f}"
            body.append(svg.text(left - 6, y + 12, total, css="muted small", anchor="end"))
        if is_turned:
            body.append(svg.turned_text(x + 4, _TOP + side + 6, name, css="small", anchor="end"))
        else:
            body.append(svg.text(x, _TOP + side + 15, name, css="small", anchor="middle"))
    return svg.figure(_SIZE, _SIZE, title, body)


def _forest(rows: Sequence[ClassRow], colours: dict[str, str]) -> Markup:
    """The AUROC of each finding with its interval over patients, and its scans."""
    left, foot = 150.0, _TOP + _PLOT
    step = min(26.0, _PLOT / len(rows))
    ends = [end for row in rows for end in (row.low, row.high) if not np.isnan(end)]
    axis = Axis(max(0.0, min([0.4, *ends]) - 0.03), 1.01, left, _SIZE - 4)
    title = "AUROC, 95 % interval"
    chance = axis.at(0.5)
    body = [
        svg.text(0, 14, title, css="strong"),
        *(svg.line((axis.at(v), _TOP), (axis.at(v), foot), css="grid") for v in axis.ticks(4)),
        svg.line((chance, _TOP), (chance, foot), css="axis", dash="3 3"),
        *svg.ticks_below(axis, foot + 15, 4),
        svg.text(left - 8, foot + 15, "scans with it", css="muted small", anchor="end"),
    ]
    for place, row in enumerate(rows):
        y, colour = _TOP + (place + 0.5) * step, colours.get(row.name, "var(--ref)")
        name = svg.shortened(row.name, _LETTERS)
        body.append(svg.text(0, y + 4, name, css="label small strong", colour=colour))
        body.append(svg.text(left - 8, y + 4, f"{row.scans:,}", css="muted small", anchor="end"))
        if np.isnan(row.auroc):
            body.append(svg.text(left + 4, y + 4, "undefined", css="muted small"))
            continue
        hint = f"{row.name}: {row.auroc:.3f}, {row.note}"
        if not np.isnan(row.low):
            hint = f"{row.name}: {row.auroc:.3f} ({row.low:.3f} to {row.high:.3f})"
            interval = ((axis.at(row.low), y), (axis.at(row.high), y))
            body.append(svg.line(*interval, css="line", width=2.0, colour=colour))
        body.append(svg.dot(axis.at(row.auroc), y, 4.0, colour=colour, hint=hint))
    return svg.figure(_SIZE, _SIZE, title, body)
