"""The figures of an evaluation on one sheet: ROC, precision and recall, calibration, confusion.

Findings, which do not exclude each other, have a forest of their AUROCs in place of the confusion.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scantune.evaluation.results import ClassRow, EvaluationRow
from scantune.report.wording import budget_name, learner_name
from scantune.scores import Scores
from scantune.statistics.curves import (
    GRID,
    Band,
    Curve,
    band,
    confusion,
    precision_recall,
    reliability,
    roc,
)
from scantune.statistics.intervals import patient_weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# As in the report: told apart by colour-blind readers.
COLOURS = ("#1f63ae", "#b35900", "#0a7f72", "#b8304a", "#7b2d8b", "#4d5a70")
_INK, _FAINT, _RULE = "#1b2430", "#5c6673", "#dfe3e8"
_REPLICATES = 200
# More curves in one panel cannot be told apart, and bands of more than three hide each other.
_MOST_CURVES = len(COLOURS)
_MOST_BANDS = 3
_LETTERS = 16
_DPI = 150
_ROW_HEIGHT, _HEAD, _FOOT = 3.55, 0.72, 0.75
# Room for the names of findings, as a share of the figure's width.
_NAMES = 0.055


def draw_figures(scores: Scores, rows: Sequence[EvaluationRow], title: str) -> bytes:
    """Returns a PNG: a row of panels for each learner, with the largest label budget.

    Of more than six classes the six commonest have curves. Bands hold 95 % of patient resamples.

    Args:
        scores: Scores of every scan.
        rows: What `evaluation_results.score_table` makes of them.
        title: What was evaluated.
    """
    from matplotlib.figure import Figure

    budget = scores.budgets[-1]
    shown = [row for row in rows if row.budget == budget]
    height = _HEAD + _FOOT + _ROW_HEIGHT * len(shown) - 0.75
    figure: Figure = Figure(figsize=(13.6, height), facecolor="white")
    grid = figure.subplots(len(shown), 4, squeeze=False)
    sides = {"left": 0.05, "right": 0.985, "top": 1 - _HEAD / height, "bottom": _FOOT / height}
    figure.subplots_adjust(**sides, wspace=0.34, hspace=0.32)
    weights = patient_weights(scores, replicates=_REPLICATES)
    head = f"{title}, {budget_name(budget)}"
    figure.text(0.05, 1 - 0.3 / height, head, color=_INK, weight="bold", fontsize=12)
    figure.text(0.05, 0.12 / height, _foot(scores), fontsize=7.5, color=_FAINT)
    for axes, row in zip(grid, shown, strict=True):
        _draw_curves(list(axes[:3]), scores, row, weights)
        if scores.truth.is_exclusive:
            below = "nearest to expected" if scores.truth.task == "ordinal" else "highest score"
            counts = confusion(scores, row.learner, budget)
            _draw_confusion(axes[3], counts, scores.classes, below)
        else:
            named = {scores.classes[code]: place for place, code in enumerate(_drawn(scores))}
            _draw_forest(axes[3], row.classes, named)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
    return file.getvalue()


def _foot(scores: Scores) -> str:
    asked = len(scores.truth.asked)
    parts = ["Curves are means over models (folds and label seeds)"]
    if min(asked, _MOST_CURVES) <= _MOST_BANDS:
        parts.append("; bands hold 95 % of patient resamples")
    elif asked > _MOST_CURVES:
        parts.append(f", of the {_MOST_CURVES} commonest of {asked} classes")
    parts.append(". Dotted: chance, of precision the share of the class, of calibration the truth.")
    return "".join(parts)


def _draw_curves(
    axes: Sequence[Axes], scores: Scores, row: EvaluationRow, weights: np.ndarray
) -> None:
    codes = _drawn(scores)
    where = scores, row.learner, row.budget
    curves: tuple[tuple[Curve, str, str, str], ...] = (
        (roc, f"{learner_name(row.learner)}: ROC", "1 - specificity", "sensitivity"),
        (precision_recall, "precision and recall", "recall", "precision"),
    )
    for one, (curve, title, below, beside) in zip(axes, curves, strict=False):
        _prepare(one, title, below, beside)
        for place, code in enumerate(codes):
            found = band(curve, *where, code, weights)
            _draw_band(one, found, COLOURS[place], scores.classes[code], len(codes))
    shares = {one.name: one.share for one in row.classes}
    for place, code in enumerate(codes):
        share = shares[scores.classes[code]]
        axes[1].axhline(share, color=COLOURS[place], linewidth=0.8, linestyle=":")
    _prepare(axes[2], "calibration", "probability", "share of positives")
    for one in (axes[0], axes[2]):
        one.plot([0, 1], [0, 1], color=_FAINT, linewidth=0.8, linestyle=":")
    for place, code in enumerate(codes):
        means, found_at = reliability(*where, code)
        axes[2].plot(
            means, found_at, color=COLOURS[place], marker="o", markersize=3.5, linewidth=1.2
        )
    if len(codes) > 1:
        axes[0].legend(loc="lower right", fontsize=7.5, frameon=False, handlelength=1.4)


def _drawn(scores: Scores) -> list[int]:
    """Returns the classes that have curves: the commonest, in their own order."""
    counts = (scores.truth.matrix == 1).sum(axis=0)
    return sorted(sorted(scores.truth.asked, key=lambda code: -counts[code])[:_MOST_CURVES])


def _prepare(axes: Axes, title: str, below: str, beside: str) -> None:
    axes.set_title(title, fontsize=9.5, loc="left", color=_INK)
    axes.set_xlabel(below, fontsize=8.5, color=_FAINT)
    axes.set_ylabel(beside, fontsize=8.5, color=_FAINT)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.01)
    axes.set_aspect("equal")
    axes.tick_params(labelsize=7.5, colors=_FAINT, length=2)
    axes.grid(color=_RULE, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)


def _draw_band(axes: Axes, found: Band, colour: str, name: str, curves: int) -> None:
    axes.plot(GRID, found.mean, color=colour, linewidth=1.4, label=_short(name), clip_on=False)
    if curves <= _MOST_BANDS:
        axes.fill_between(GRID, found.low, found.high, color=colour, alpha=0.16, linewidth=0)


def _short(name: str, letters: int = 24) -> str:
    """Returns a name without its middle where it is long: numbered classes differ at the end."""
    tail = letters // 3
    return name if len(name) <= letters else f"{name[: letters - tail - 1]}…{name[-tail:]}"


def _draw_confusion(axes: Axes, counts: np.ndarray, classes: tuple[str, ...], below: str) -> None:
    """Draws shares of each class, with counts where they can be read."""
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_title("confusion", fontsize=9.5, loc="left", color=_INK)
    k = len(classes)
    size = float(np.clip(40 / k, 4.5, 8.5))
    short = [_short(name, _LETTERS) for name in classes]
    rows = [f"{name}\n{total:,.0f}" for name, total in zip(short, totals[:, 0], strict=True)]
    axes.set_xticks(range(k), short, fontsize=size, rotation=90 if k > 4 else 0)
    axes.set_yticks(range(k), rows if k <= 8 else short, fontsize=size)
    axes.set_xlabel(below, fontsize=8.5, color=_FAINT)
    axes.set_ylabel("class, and its scans" if k <= 8 else "class", fontsize=8.5, color=_FAINT)
    axes.tick_params(colors=_FAINT, length=0)
    axes.spines[:].set_visible(False)
    if k <= 10:
        for row, column in np.ndindex(k, k):
            colour = "white" if shares[row, column] > 0.55 else _INK
            text = f"{shares[row, column]:.2f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)


def _draw_forest(axes: Axes, rows: Sequence[ClassRow], colour_of: dict[str, int]) -> None:
    """Draws the AUROC of each class with its interval over patients, and its positives."""
    size = float(np.clip(150 / max(1, len(rows)), 4.5, 7.5))
    left, bottom, width, height = axes.get_position().bounds
    axes.set_position((left + _NAMES, bottom, width - _NAMES, height))
    # As high as the square panels beside it.
    axes.set_box_aspect(width / (width - _NAMES))
    axes.set_title("AUROC, 95 % interval", fontsize=9.5, loc="left", color=_INK)
    axes.axvline(0.5, color=_FAINT, linewidth=0.8, linestyle=":")
    ends = [value for row in rows for value in (row.low, row.high) if not np.isnan(value)]
    axes.set_xlim(min([0.4, *ends]) - 0.03, 1.01)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    for place, row in enumerate(rows):
        colour = COLOURS[colour_of[row.name]] if row.name in colour_of else _FAINT
        if np.isnan(row.auroc):
            axes.text(0.51, place, "undefined", fontsize=size, color=_FAINT, va="center")
            continue
        axes.plot([row.low, row.high], [place, place], color=colour, linewidth=1.4)
        axes.plot([row.auroc], [place], color=colour, marker="o", markersize=3.5)
    names = [f"{_short(row.name, _LETTERS + 4)}  {row.scans:,}" for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=size)
    axes.set_xlabel("numbers: scans of a finding", fontsize=8.5, color=_FAINT)
    axes.tick_params(axis="x", labelsize=7.5)
    axes.tick_params(colors=_FAINT, length=0)
    axes.grid(axis="x", color=_RULE, linewidth=0.6)
    axes.spines[:].set_visible(False)
