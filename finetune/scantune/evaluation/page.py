"""The one page of an evaluation that a person reads: ``evaluation.html``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from scanlearn.pages import page_template, png_address
from scantune.evaluation.results import Evaluation
from scantune.report.wording import budget_name, learner_name
from scantune.statistics.metrics import METRICS, SPECIFICITY

_HASH_LETTERS = 12


def evaluation_page(evaluation: Evaluation, figures: bytes, worst: bytes | None = None) -> str:
    """Returns the page: one file that loads nothing and names no patient and no path.

    Args:
        evaluation: What was found.
        figures: PNG of `figures.draw_figures`.
        worst: PNG of `worst.worst_sheet`, where scans may be shown.
    """
    low = _axis_low(evaluation)
    filters = {
        "learner": learner_name,
        "budget": budget_name,
        "percent": lambda share: "" if math.isnan(share) else f"{100 * share:.1f} %",
        "defined_number": lambda value: not math.isnan(value),
        "place": lambda value: f"{100 * (min(1.0, max(low, value)) - low) / (1 - low):.2f}",
    }
    scores, labeled = evaluation.scores, evaluation.labeled
    return page_template("scantune.evaluation", "evaluation.html.j2", filters).render(
        title=labeled.target,
        backbone=_backbone(evaluation.inputs),
        labeled=labeled,
        num_tested=int((scores.fold_of >= 0).any(axis=0).sum()),
        scores=scores,
        table=evaluation.table,
        notes=evaluation.notes,
        is_single=len(scores.truth.asked) == 1,
        axis_low=low,
        figures=png_address(figures),
        worst=None if worst is None else png_address(worst),
        frequencies=_frequencies(evaluation),
        asides=_asides(evaluation),
        told=list(_told(evaluation.inputs)),
        metrics=METRICS,
        specificity=SPECIFICITY,
    )


def _backbone(inputs: Mapping[str, Any]) -> str:
    """Returns what was evaluated in words."""
    found = inputs.get("backbone", {})
    size = f" at {found['size']} px" if "size" in found else ""
    name = found.get("architecture", found.get("kind", "features"))
    return f"{name}{' with random weights' if found.get('kind') == 'random' else ''}{size}"


def _axis_low(evaluation: Evaluation) -> float:
    """Returns where the axis of AUROCs begins: a tenth at or below .4 and every interval."""
    ends = [value for row in evaluation.table for value in (row.low, *(c.low for c in row.classes))]
    lowest = min([0.4, *(value for value in ends if not math.isnan(value))])
    return max(0.0, math.floor(10 * lowest) / 10)


def _frequencies(evaluation: Evaluation) -> dict[str, list[tuple[str, int, float]]]:
    """Returns name, scans and share of each class, of both sides where some scans only train."""
    truth = evaluation.labeled.truth
    is_tested = (evaluation.scores.fold_of >= 0).any(axis=0)
    sides = {"Training scans": truth.is_real & ~is_tested, "Tested scans": is_tested}
    if not sides["Training scans"].any():
        sides = {"Labeled scans": truth.is_real}
    found = {}
    for title, side in sides.items():
        counts = (truth.matrix[side] == 1).sum(axis=0).tolist()
        named = zip(evaluation.labeled.classes, counts, strict=True)
        found[title] = [(name, n, n / max(1, int(side.sum()))) for name, n in named]
    return found


def _asides(evaluation: Evaluation) -> list[str]:
    labeled = evaluation.labeled
    unknown = {name: count for name, count in labeled.unknown.items() if count}
    asides = {
        "scans without a label were left out": labeled.num_blank,
        "scans with an uncertain label (-1) were left out": labeled.num_uncertain,
        "synthetic scans only trained": labeled.num_synthetic,
    }
    told = [f"{number:,} {what}" for what, number in asides.items() if number]
    if unknown:
        masked = ", ".join(f"{name} in {count:,}" for name, count in unknown.items())
        told.append(f"unknown, and masked there: {masked}")
    return told


def _told(inputs: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields what was evaluated as names and values in words; long hashes are cut."""
    for key, value in inputs.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _told(value, f"{name}: ")
        elif isinstance(value, list | tuple):
            yield name, ", ".join(str(one) for one in value)
        elif value is not None:
            text = str(value)
            is_hash = len(text) == 64 and set(text) <= set("0123456789abcdef")
            yield name, text[:_HASH_LETTERS] if is_hash else text
