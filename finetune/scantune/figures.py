"""The figures of an evaluation on one sheet: ROC, precision and recall, calibration, confusion."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from scantune.curves import GRID, Band, Curve, band, confusion, precision_recall, reliability, roc
from scantune.scores import Scores
from scantune.statistics import patient_weights

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
_LEARNERS = {"linear": "linear probe", "knn": "kNN"}
_DPI = 150
_ROW_HEIGHT = 3.55
_FOOT = (
    "Curves are means over models (folds and label seeds); bands hold 95 % of patient resamples. "
    "Dotted: chance, of precision the share of the class, of calibration the truth."
)


def draw_figures(scores: Scores, title: str) -> bytes:
    """Returns a PNG: a row of panels for each learner, with the largest label budget.

    Of more than six classes the six commonest have curves. Bands hold 95 % of patient resamples.

    Args:
        scores: Scores of every scan.
        title: What was evaluated.
    """
    from matplotlib.figure import Figure

    rows = len(scores.learners)
    height = 0.8 + _ROW_HEIGHT * rows
    figure: Figure = Figure(figsize=(13.6, height), facecolor="white")
    grid = figure.subplots(rows, 4, squeeze=False)
    sides = {"left": 0.05, "right": 0.985, "top": 1 - 0.8 / height, "bottom": 0.6 / height}
    figure.subplots_adjust(**sides, wspace=0.34, hspace=0.32)
    weights = patient_weights(scores, replicates=_REPLICATES)
    budget = scores.budgets[-1]
    labels = "all labels" if budget == "all" else f"{budget} labels"
    figure.suptitle(f"{title}, {labels}", x=0.05, ha="left", color=_INK, weight="bold")
    figure.text(0.05, 0.1 / height, _FOOT, fontsize=7.5, color=_FAINT)
    for axes, learner in zip(grid, scores.learners, strict=True):
        _draw_learner(list(axes), scores, learner, budget, weights)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
    return file.getvalue()


def _draw_learner(
    axes: list[Axes], scores: Scores, learner: str, budget: str, weights: np.ndarray
) -> None:
    name = _LEARNERS.get(learner, learner)
    codes = _commonest(scores)
    curves: tuple[tuple[Curve, str, str, str], ...] = (
        (roc, f"{name}: ROC", "1 - specificity", "sensitivity"),
        (precision_recall, "precision and recall", "recall", "precision"),
    )
    for one, (curve, title, below, beside) in zip(axes, curves, strict=False):
        _prepare(one, title, below, beside)
        for place, code in enumerate(codes):
            found = band(curve, scores, learner, budget, code, weights)
            _draw_band(one, found, COLOURS[place], scores.classes[code], len(codes))
    axes[0].plot([0, 1], [0, 1], color=_FAINT, linewidth=0.8, linestyle=":")
    tested = (scores.fold_of >= 0).any(axis=0)
    for place, code in enumerate(codes):
        share = float(scores.truth.positives(code)[tested & scores.truth.known(code)].mean())
        axes[1].axhline(share, color=COLOURS[place], linewidth=0.8, linestyle=":")
    _prepare(axes[2], "calibration", "probability", "share of positives")
    axes[2].plot([0, 1], [0, 1], color=_FAINT, linewidth=0.8, linestyle=":")
    for place, code in enumerate(codes):
        found_at = reliability(scores, learner, budget, code)
        axes[2].plot(*found_at, color=COLOURS[place], marker="o", markersize=3.5, linewidth=1.2)
    if len(codes) > 1:
        axes[0].legend(loc="lower right", fontsize=7.5, frameon=False)
    if scores.truth.is_exclusive:
        _draw_confusion(axes[3], confusion(scores, learner, budget), scores.classes)
    else:
        axes[3].set_visible(False)


def _commonest(scores: Scores) -> list[int]:
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
    axes.plot(GRID, found.mean, color=colour, linewidth=1.4, label=name[:24], clip_on=False)
    if curves <= _MOST_BANDS:
        axes.fill_between(GRID, found.low, found.high, color=colour, alpha=0.16, linewidth=0)


def _draw_confusion(axes: Axes, counts: np.ndarray, classes: tuple[str, ...]) -> None:
    """Draws shares of each class, with counts where they can be read."""
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_title("confusion", fontsize=9.5, loc="left", color=_INK)
    k = len(classes)
    size = float(np.clip(30 / k, 4.5, 8.5))
    short = [name[:14] for name in classes]
    rows = [f"{name}\n{total:,.0f}" for name, total in zip(short, totals[:, 0], strict=True)]
    axes.set_xticks(range(k), short, fontsize=size, rotation=90 if k > 4 else 0)
    axes.set_yticks(range(k), rows if k <= 8 else short, fontsize=size)
    axes.set_xlabel("highest score", fontsize=8.5, color=_FAINT)
    axes.set_ylabel("class, and its scans", fontsize=8.5, color=_FAINT)
    axes.tick_params(colors=_FAINT, length=0)
    axes.spines[:].set_visible(False)
    if k <= 10:
        for row, column in np.ndindex(k, k):
            colour = "white" if shares[row, column] > 0.55 else _INK
            text = f"{shares[row, column]:.2f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
