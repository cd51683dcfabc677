"""The one page of an evaluation that a person reads: ``evaluation.html``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from markupsafe import Markup

from scanlearn import svg
from scanlearn.pages import page_template, png_address
from scanlearn.palette import hue
from scanlearn.svg import Axis
from scantune.evaluation.figures import LearnerFigures, figure_note
from scantune.evaluation.results import Evaluation
from scantune.statistics.metrics import METRICS, SPECIFICITY
from scantune.wording import (
    budget_name,
    design_name,
    interval_covers,
    is_separate,
    learner_name,
    signed,
)

_HASH_LETTERS = 12


def evaluation_page(
    evaluation: Evaluation, figures: Sequence[LearnerFigures], worst: bytes | None = None
) -> str:
    """Returns the page: one file that loads nothing and names no patient and no path."""
    ends = [value for row in evaluation.table for value in (row.low, *(c.low for c in row.classes))]
    # The axis begins at a tenth at or below .4 and every interval.
    lowest = min([0.4, *(value for value in ends if not math.isnan(value))])
    axis = Axis(max(0.0, math.floor(10 * lowest) / 10), 1.0, 0, 120)
    filters: dict[str, Callable[..., Any]] = {
        "learner": learner_name,
        "budget": budget_name,
        "percent": lambda share: "" if math.isnan(share) else f"{100 * share:.1f} %",
        "signed": signed,
        "is_number": lambda value: not math.isnan(value),
        "forest": partial(_forest, axis=axis),
    }
    scores, labeled, is_tested = evaluation.scores, evaluation.labeled, evaluation.is_tested
    design, count, tested = labeled.design, labeled.count(), labeled.count(is_tested)
    return page_template("scantune.evaluation", "evaluation.html.j2", filters).render(
        title=labeled.target,
        backbone=_backbone(evaluation),
        labeled=labeled,
        count=count,
        tested=tested if labeled.split is not None or tested != count else None,
        tested_on=design_name(design, count, scores.num_folds),
        is_separate=is_separate(design, count, is_compared=labeled.is_compared),
        covers=interval_covers(design, tested),
        is_kept=bool(scores.validation),
        references=[
            f"{name} is {_reference(each)}" for name, each in evaluation.references.items()
        ],
        scores=scores,
        table=evaluation.table,
        notes=evaluation.notes,
        is_single=len(scores.truth.asked) == 1,
        axis=svg.figure(120, 12, "axis of the AUROC", svg.ticks_below(axis, 10, 3)),
        figures=figures,
        figure_note=figure_note(scores),
        worst=None if worst is None else png_address(worst),
        frequencies=_frequencies(evaluation),
        left_out=_left_out(evaluation),
        inputs=_inputs(evaluation),
        metrics=METRICS,
        at_threshold=[metric.title for metric in METRICS if metric.at_threshold],
        specificity=SPECIFICITY,
    )


def _forest(value: float, low: float, high: float, *, axis: Axis) -> Markup:
    """Returns an AUROC and its interval; the dashed line is chance."""
    body = [svg.line((axis.at(0.5), 0), (axis.at(0.5), 18), css="axis", dash="3 3")]
    label = "undefined"
    if not math.isnan(value):
        label = f"{value:.3f}, no interval"
        if not math.isnan(low):
            label = f"{value:.3f} ({low:.3f} to {high:.3f})"
            interval = ((axis.at(low), 9), (axis.at(high), 9))
            body.append(svg.line(*interval, css="line", width=2.4, colour=hue(0)))
        body.append(svg.dot(axis.at(value), 9, 4, colour=hue(0), hint=label))
    return svg.figure(120, 18, label, body)


def _backbone(evaluation: Evaluation) -> str:
    """Returns what was evaluated in words."""
    text = _reference(evaluation.inputs.get("backbone", {}))
    name = evaluation.named.get("backbone", "")
    return f"{name}, {text}" if name and not text.startswith(name) else text


def _reference(backbone: Mapping[str, Any]) -> str:
    size = f" at {backbone['size']} px" if "size" in backbone else ""
    name = backbone.get("architecture", backbone.get("kind", "features"))
    statistics = backbone.get("batch_norm_statistics")
    told = f", BatchNorm statistics of {statistics}" if statistics else ""
    return f"{name}{' with random weights' if backbone.get('kind') == 'random' else ''}{size}{told}"


def _frequencies(evaluation: Evaluation) -> dict[str, list[tuple[str, int, float]]]:
    """Returns name, scans and share of each class, of both sides where some scans only train."""
    truth = evaluation.labeled.truth
    is_tested = evaluation.is_tested
    sides = {"Training scans": truth.is_real & ~is_tested, "Tested scans": is_tested}
    if not sides["Training scans"].any():
        sides = {"Labeled scans": truth.is_real}
    frequencies = {}
    for title, side in sides.items():
        counts = (truth.matrix[side] == 1).sum(axis=0).tolist()
        named = zip(evaluation.labeled.classes, counts, strict=True)
        frequencies[title] = [(name, n, n / max(1, int(side.sum()))) for name, n in named]
    return frequencies


def _left_out(evaluation: Evaluation) -> list[str]:
    labeled = evaluation.labeled
    unknown = {name: count for name, count in labeled.unknown.items() if count}
    counts = {
        "scans without a label were left out": labeled.num_blank,
        "scans with an uncertain label (-1) were left out": labeled.num_uncertain,
        "synthetic scans were used for training only": labeled.num_synthetic,
    }
    sentences = [f"{number:,} {words}" for words, number in counts.items() if number]
    if unknown:
        masked = ", ".join(f"{name} {count:,}" for name, count in unknown.items())
        sentences.append(f"scans with an unknown label, masked for that finding: {masked}")
    return sentences


def _inputs(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Returns what was evaluated by its names, each with its hash, and then by the settings."""
    hashes = {"data set": "labels: archive", "external test set": "labels: test"}
    hashes["backbone"] = "backbone: weights"
    settings = dict(_in_words(evaluation.inputs))
    rows = []
    for what, name in evaluation.named.items():
        digest = settings.pop(hashes.get(what, ""), "")
        rows.append((what, f"{name} ({digest})" if digest else name))
    return rows + list(settings.items())


def _in_words(inputs: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields what was evaluated as names and values in words; long hashes are cut."""
    for key, value in inputs.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _in_words(value, f"{name}: ")
        elif isinstance(value, list | tuple):
            yield name, ", ".join(str(item) for item in value)
        elif value is not None:
            text = str(value)
            is_hash = len(text) == 64 and set(text) <= set("0123456789abcdef")
            yield name, text[:_HASH_LETTERS] if is_hash else text
