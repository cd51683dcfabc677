"""What `evaluate` returns, says and writes."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.core import ScanlearnError
from scanlearn.runs import say, write_atomically
from scanlearn.scans.archive import Archive
from scanlearn.scans.atomic import disk_errors
from scantune.class_table import ClassRow, class_table
from scantune.clinical import SPECIFICITY
from scantune.figures import draw_figures
from scantune.labels import LabeledSet
from scantune.scores import Scores
from scantune.statistics import arm_interval, estimate, patient_weights

_METRICS, _PREDICTIONS, _FIGURES = "metrics.json", "predictions.csv", "figures.png"


@dataclass(frozen=True)
class EvaluationRow:
    """One line of the table.

    Args:
        learner: "knn" or "linear".
        budget: Label budget, a count of scans or "all".
        auroc: Mean over label seeds and folds; NaN where undefined.
        low: Lower end of the 95 % interval over patients.
        high: Upper end.
        per_fold: AUROC of each fold, label seed by label seed; NaN where undefined.
        train_scans: Mean number of scans fitted on.
        train_patients: Mean number of their patients.
        undefined: Classes without a positive or a negative in a fold, summed over folds.
        classes: What each class scores against the rest.
    """

    learner: str
    budget: str
    auroc: float
    low: float
    high: float
    per_fold: tuple[tuple[float, ...], ...]
    train_scans: float
    train_patients: float
    undefined: int
    classes: tuple[ClassRow, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """What a backbone is worth on a labeled set.

    Args:
        inputs: What was evaluated: backbone, labeled scans and settings, by hash and name.
        table: A row per learner and label budget.
        labeled: The labeled set.
        scores: Out-of-fold scores of every scan.
        notes: Sentences that a person should read beside the numbers.
    """

    inputs: dict[str, Any]
    table: tuple[EvaluationRow, ...]
    labeled: LabeledSet
    scores: Scores
    notes: tuple[str, ...]


def score_table(scores: Scores) -> tuple[EvaluationRow, ...]:
    """Returns a row per learner and label budget, with intervals over patients."""
    weights = patient_weights(scores)
    rows = []
    for learner in scores.learners:
        for place, budget in enumerate(scores.budgets):
            found = estimate(scores, learner, budget, weights)
            interval = arm_interval([found])
            rows.append(
                EvaluationRow(
                    learner=learner,
                    budget=budget,
                    auroc=found.auroc,
                    low=interval.low,
                    high=interval.high,
                    per_fold=tuple(tuple(float(v) for v in row) for row in found.per_fold),
                    train_scans=float(scores.train_scans[place].mean()),
                    train_patients=float(scores.train_patients[place].mean()),
                    undefined=found.undefined,
                    classes=class_table(scores, learner, budget, weights),
                )
            )
    return tuple(rows)


def say_table(evaluation: Evaluation) -> None:
    """Prints the table and the notes."""
    say(f"{'learner':<9}{'labels':>7}{'scans':>8}{'patients':>10}{'AUROC':>8}  95 % interval")
    for row in evaluation.table:
        text = f"{row.learner:<9}{row.budget:>7}{row.train_scans:>8.0f}{row.train_patients:>10.0f}"
        aside = f"  ({row.undefined} undefined left out)" if row.undefined else ""
        say(f"{text}{row.auroc:>8.3f}  {row.low:.3f} to {row.high:.3f}{aside}")
    _say_classes(evaluation)
    for note in evaluation.notes:
        say(f"note: {note}")


def _say_classes(evaluation: Evaluation) -> None:
    """Prints what each class scores with the largest label budget."""
    last = evaluation.scores.budgets[-1]
    head = f"{'learner':<9}{'class':<14}{'scans':>6}{'AUROC':>7}{'AUPRC':>7}{'share':>7}"
    say(f"{head}{'sens':>7}{'spec':>7}{'Brier':>7}{'ECE':>7}  with {last} labels")
    for row in evaluation.table:
        if row.budget != last:
            continue
        for one in row.classes:
            found = one.scores
            text = f"{row.learner:<9}{one.name[:13]:<14}{one.scans:>6}"
            cells = (
                *(found.auroc, found.auprc, one.share, found.sensitivity, found.specificity),
                *(found.brier, found.calibration_error),
            )
            say(text + "".join("      -" if np.isnan(cell) else f"{cell:>7.3f}" for cell in cells))
        if len(row.classes) > 1:
            sure = sum(one.excludes_chance for one in row.classes)
            say(f"{row.learner}: {sure} of {len(row.classes)} classes exclude .5")
    say(f"sens, spec: at the threshold for {SPECIFICITY:.0%} specificity on training patients")


def check_output(folder: Path, inputs: dict[str, Any]) -> None:
    """Checks that the folder holds no evaluation of something else.

    Raises:
        ScanlearnError: If it does.
    """
    try:
        found = json.loads((folder / _METRICS).read_text("utf-8"))["inputs"]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError, OSError):
        found = None
    if found != inputs:
        raise ScanlearnError(
            f"{folder} already holds the evaluation of something else; choose another output"
        )


def write(evaluation: Evaluation, archive: Archive, folder: Path) -> None:
    """Writes ``metrics.json``, ``predictions.csv`` and ``figures.png``.

    Raises:
        ScanlearnError: If the disk is full or may not be written to.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    labeled = evaluation.labeled
    metrics = {
        "format": 2,
        "inputs": evaluation.inputs,
        "scans": len(labeled),
        "patients": labeled.num_patients,
        "counts": labeled.counts,
        "blank": labeled.num_blank,
        "uncertain": labeled.num_uncertain,
        "table": [asdict(row) for row in evaluation.table],
        "notes": list(evaluation.notes),
        "versions": {name: version(name) for name in ("scanlearn", "torch", "numpy", "scipy")},
    }
    # The metrics come last: where they are, all else is whole.
    write_atomically(folder / _PREDICTIONS, _predictions(evaluation, archive))
    title = f"{labeled.target}: {len(labeled):,} scans of {labeled.num_patients:,} patients"
    write_atomically(folder / _FIGURES, draw_figures(evaluation.scores, title))
    write_atomically(folder / _METRICS, json.dumps(_defined(metrics), indent=1) + "\n")
    say(f"written: {folder / _METRICS}, {_PREDICTIONS} and {_FIGURES}")


def _defined(value: Any) -> Any:
    """Returns the value with null for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _defined(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def _predictions(evaluation: Evaluation, archive: Archive) -> str:
    """Returns a CSV of every scan's score under every learner, label budget and label seed."""
    scores, labeled = evaluation.scores, evaluation.labeled
    # Salted with the archive: the same person is not recognised across sets.
    hashed = {
        name: hashlib.sha256(f"{archive.content_hash}:{name}".encode()).hexdigest()[:12]
        for name in set(archive.patients[labeled.rows])
    }
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    names = [f"score_{name}" for name in scores.classes]
    table.writerow(["scan", "patient", "label", "learner", "budget", "label_seed", "fold", *names])
    labels = _labels_in_words(scores)
    for learner in scores.learners:
        for budget in scores.budgets:
            values = scores.of(learner, budget)
            for seed, row in np.argwhere(scores.fold_of >= 0):
                at = labeled.rows[row]
                table.writerow(
                    [
                        archive.scan_ids[at],
                        hashed[archive.patients[at]],
                        labels[row],
                        learner,
                        budget,
                        seed,
                        scores.fold_of[seed, row],
                        *(f"{value:.6g}" for value in values[seed, row]),
                    ]
                )
    return text.getvalue()


def _labels_in_words(scores: Scores) -> list[str]:
    """Returns the class of each scan; of findings those it has, and those unknown after a ``?``."""
    names = np.array(scores.classes)
    if scores.truth.is_exclusive:
        return [str(name) for name in names[scores.truth.classes]]
    return [
        "|".join([*names[row == 1], *(f"?{name}" for name in names[row < 0])])
        for row in scores.truth.matrix
    ]
