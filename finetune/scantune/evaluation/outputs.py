"""What `evaluate` writes: metrics, predictions, the table of classes, figures and a page."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.archive.reader import Archive
from scanlearn.config.reading import read_json
from scanlearn.console import say
from scanlearn.errors import ScanlearnError
from scanlearn.files import csv_cell, disk_errors, make_folder, write_atomically
from scantune.evaluation.figures import draw_figures, figure_sheet
from scantune.evaluation.page import evaluation_page
from scantune.evaluation.results import Evaluation
from scantune.evaluation.worst import worst_errors, worst_sheet
from scantune.scores import Scores
from scantune.statistics.metrics import AUROC, METRICS, Ends, Metric
from scantune.wording import design_name

_METRICS, _PREDICTIONS, _CLASSES = "metrics.json", "predictions.csv", "classes.csv"
_PAGE, _FIGURES, _WORST = "evaluation.html", "figures.svg", "worst_errors.png"
_SCORES = "scores.npz"
_FORMAT = 4
MACRO = "macro average"


def check_output(folder: Path, inputs: dict[str, Any]) -> None:
    """Raises a ScanlearnError if the folder holds the evaluation of something else."""
    try:
        earlier = json.loads((folder / _METRICS).read_text("utf-8"))["inputs"]
        labels = earlier.get("labels", {})
        if labels.get("task") == "multiclass" and len(labels["classes"]) == 2:
            labels["task"] = "binary"  # as earlier releases called it
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        earlier = None
    if earlier != inputs:
        raise ScanlearnError(
            f"{folder}: holds the evaluation of other inputs; choose another output"
        )


def write(
    evaluation: Evaluation, archives: Sequence[Archive], folder: Path, *, worst: int = 0
) -> None:
    """Writes the page, figures, ``metrics.json``, the tables and, for `difference`, the scores.

    Args:
        worst: Scans of the worst errors to show in ``worst_errors.png`` and on the page, of
            findings for each: those of the learner with the highest AUROC at the largest label
            budget. 0 lets no scan out of the archive.

    Raises:
        ScanlearnError: If the disk is full or may not be written to.
    """
    with disk_errors(folder):
        make_folder(folder)
    labeled, scores = evaluation.labeled, evaluation.scores
    title = f"{labeled.target}: {labeled.count().in_words}"
    figures = draw_figures(scores, evaluation.table)
    files: dict[str, str | bytes] = {
        _PREDICTIONS: _predictions(evaluation, archives),
        _CLASSES: _classes(evaluation),
        _FIGURES: figure_sheet(figures, title, scores),
    }
    sheet = None
    if worst:
        rows = [row for row in evaluation.table if row.budget == scores.budgets[-1]]
        best = max(rows, key=lambda row: -1.0 if np.isnan(row.auroc) else row.auroc)
        errors = worst_errors(scores, best.learner, best.budget, worst)
        sheet = worst_sheet(errors, labeled, archives, best.learner, best.budget)
        if sheet is not None:
            files[_WORST] = sheet
    files[_PAGE] = evaluation_page(evaluation, figures, sheet)
    # The metrics come last: where they are, the other files are complete.
    files[_METRICS] = json.dumps(_defined(_metrics(evaluation)), indent=1) + "\n"
    if sheet is None:
        # An earlier call may have asked for it.
        (folder / _WORST).unlink(missing_ok=True)
    replace(scores, made_from=_scan_set(evaluation, archives)).save(folder / _SCORES)
    for name, content in files.items():
        write_atomically(folder / name, content)
    names = (_SCORES, *(name for name in files if name != _PAGE))
    say(f"written: {folder / _PAGE}, {', '.join(names)}")


def _scan_set(evaluation: Evaluation, archives: Sequence[Archive]) -> str:
    """Returns a hash of the labeled scans in their order: the same for any way to pack them."""
    ids = evaluation.labeled.gathered(lambda source, rows: archives[source].scan_ids[rows])
    return hashlib.sha256(repr(ids.tolist()).encode()).hexdigest()


@dataclass(frozen=True)
class Kept:
    """An evaluation as its folder holds it: its scores, and its metrics as they were written."""

    folder: Path
    scores: Scores
    metrics: Mapping[str, Any]


def read_kept(folder: Path) -> Kept:
    """Reads what `write` wrote.

    Raises:
        ScanlearnError: It is no output of `evaluate`, or one of an earlier release without scores.
    """
    if not (folder / _METRICS).is_file():
        raise ScanlearnError(
            f"{folder}: holds no {_METRICS}; give the output folder of scantune evaluate"
        )
    if not (folder / _SCORES).is_file():
        raise ScanlearnError(
            f"{folder}: was written by a release that kept no {_SCORES}; evaluate it once more, "
            "with the same output"
        )
    metrics = read_json(
        folder / _METRICS,
        dict[str, Any],
        what="is not what evaluate writes",
        remedy="evaluate it once more",
    )
    return Kept(folder, Scores.load(folder / _SCORES), metrics)


def _metrics(evaluation: Evaluation) -> dict[str, Any]:
    labeled = evaluation.labeled
    count, tested = labeled.count(), labeled.count(evaluation.is_tested)
    return {
        "format": _FORMAT,
        "inputs": evaluation.inputs,
        "named": dict(evaluation.named),
        "design": labeled.design,
        "scans": count.scans,
        "patients": count.known_patients,
        "unknown_patients": count.unknown,
        "tested_scans": tested.scans,
        "tested_patients": tested.known_patients,
        "tested_unknown_patients": tested.unknown,
        "counted": count.in_words,
        "tested_counted": tested.in_words,
        "tested_on": design_name(labeled.design, count, evaluation.scores.num_folds),
        "counts": labeled.counts,
        "blank": labeled.num_blank,
        "uncertain": labeled.num_uncertain,
        "unknown": labeled.unknown,
        "synthetic": labeled.num_synthetic,
        "table": [
            # The scans that train were said to be as many patients.
            row.as_json() | ({"train_patients": None} if count.known_patients is None else {})
            for row in evaluation.table
        ],
        "references": {name: dict(each) for name, each in evaluation.references.items()},
        "notes": list(evaluation.notes),
        "versions": {name: version(name) for name in ("scanlearn", "torch", "numpy", "scipy")},
    }


def _defined(value: Any) -> Any:
    """Returns the value with null for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _defined(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def _classes(evaluation: Evaluation) -> str:
    """Returns a CSV of what each class scores under every learner and label budget."""
    text = io.StringIO()
    columns = ("learner", "budget", "class", "positives", "negatives", "unknown", "share")
    metrics = [name for metric in METRICS for name in _metric_columns(metric)]
    table = csv.DictWriter(text, [*columns, *metrics, "undefined"], lineterminator="\n")
    table.writeheader()
    for row in evaluation.table:
        cell = {"learner": row.learner, "budget": row.budget}
        for line in row.classes:
            numbers = {"share": line.share, **line.scores}
            ends = {**line.intervals, "delong": line.delong}
            counts = {
                "positives": line.scans,
                "negatives": line.negatives,
                "unknown": line.unknown,
                "undefined": line.undefined,
            }
            table.writerow(cell | {"class": csv_cell(line.name)} | counts | _rounded(numbers, ends))
        if len(row.classes) > 1:
            numbers = row.macro | {AUROC.name: row.auroc}
            ends = {AUROC.name: Ends(row.low, row.high)}
            mean = {"class": MACRO, "undefined": row.undefined}
            table.writerow(cell | mean | _rounded(numbers, ends))
    return text.getvalue()


def _metric_columns(metric: Metric) -> Iterator[str]:
    """Yields a metric's column and those of its intervals."""
    yield metric.name
    kinds = [metric.name] if metric is AUROC or metric.share_of else []
    for kind in [*kinds, "delong"] if metric is AUROC else kinds:
        yield from (f"{kind}_low", f"{kind}_high")


def _rounded(numbers: Mapping[str, float], ends: Mapping[str, Ends]) -> dict[str, str]:
    """Returns numbers and intervals to six digits, blank where undefined, by column."""
    named = dict(numbers)
    for name, pair in ends.items():
        named |= {f"{name}_low": pair.low, f"{name}_high": pair.high}
    return {name: "" if np.isnan(number) else f"{number:.6g}" for name, number in named.items()}


def _predictions(evaluation: Evaluation, archives: Sequence[Archive]) -> str:
    """Returns a CSV of every tested scan's score under every learner, budget and label seed.

    Scores are written in full: rounded ones would tie, and an AUROC would not come out the same.
    """
    scores, labeled = evaluation.scores, evaluation.labeled
    scans = labeled.gathered(lambda source, rows: archives[source].scan_ids[rows])
    patients = labeled.gathered(lambda source, rows: _hashed_patients(archives[source], rows))
    columns, truth = _truth(scores)
    heads = [
        [scan, who, *map(csv_cell, labels)]
        for scan, who, labels in zip(scans, patients, truth, strict=True)
    ]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    design = ("learner", "budget", "label_seed", "fold")
    classes = [f"score_{name}" for name in scores.classes]
    table.writerow(map(csv_cell, ["scan", "patient", *columns, *design, *classes]))
    tested = np.argwhere(scores.fold_of >= 0).tolist()
    for learner in scores.learners:
        for budget in scores.budgets:
            values = scores.of(learner, budget).tolist()
            table.writerows(
                [*heads[row], learner, budget, seed, scores.fold_of[seed, row], *values[seed][row]]
                for seed, row in tested
            )
    return text.getvalue()


def _hashed_patients(archive: Archive, rows: np.ndarray) -> np.ndarray:
    # Salted with the archive: the same person is not recognised across sets.
    salted = (f"{archive.content_hash}:{name}".encode() for name in archive.patients[rows])
    return np.array([hashlib.sha256(text).hexdigest()[:12] for text in salted], dtype=np.str_)


def _truth(scores: Scores) -> tuple[list[str], list[list[str]]]:
    """Returns names of the columns of what is true, and their values for each scan.

    A scan of one class has its name; of findings each has a column: 1, 0, or blank where unknown.
    """
    if scores.truth.is_exclusive:
        return ["label"], [[scores.classes[code]] for code in scores.truth.classes.tolist()]
    words = {1: "1", 0: "0", -1: ""}
    columns = [f"label_{name}" for name in scores.classes]
    return columns, [[words[value] for value in row] for row in scores.truth.matrix.tolist()]
