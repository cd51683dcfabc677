"""What `evaluate` returns and says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from scanlearn.metrics import mean_of_defined
from scanlearn.runs import say
from scantune.agreement import Agreement, grade_agreement
from scantune.class_table import ClassRow, class_table
from scantune.clinical import SPECIFICITY, ClinicalScores
from scantune.labels import LabeledSet
from scantune.scores import Scores
from scantune.statistics import arm_interval, estimate, patient_weights


@dataclass(frozen=True)
class EvaluationRow:
    """One line of the table.

    Args:
        learner: Its name, as asked for.
        budget: Label budget, a count of scans or "all".
        auroc: Mean over label seeds and folds; NaN where undefined.
        low: Lower end of the 95 % interval over patients.
        high: Upper end.
        per_fold: AUROC of each fold, label seed by label seed; NaN where undefined.
        train_scans: Mean number of scans fitted on.
        train_patients: Mean number of their patients.
        undefined: Classes without a positive or a negative in a fold, summed over folds.
        classes: What each class scores against the rest.
        agreement: Quadratic kappa of grades; None where classes have no order.
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
    agreement: Agreement | None = None

    @property
    def macro(self) -> ClinicalScores:
        """Means over the classes; a class whose score is undefined is left out of that mean."""
        found = np.array([list(asdict(one.scores).values()) for one in self.classes])
        return ClinicalScores(*(float(value) for value in mean_of_defined(found)))

    @property
    def num_sure(self) -> int:
        """Classes whose interval excludes an AUROC of .5."""
        return sum(one.excludes_chance for one in self.classes)

    @property
    def num_defined(self) -> int:
        """Classes that have an AUROC."""
        return sum(not np.isnan(one.scores.auroc) for one in self.classes)


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
                    agreement=grade_agreement(scores, learner, budget, weights)
                    if scores.truth.task == "ordinal"
                    else None,
                )
            )
    return tuple(rows)


def say_table(evaluation: Evaluation) -> None:
    """Prints the table and the notes."""
    say(f"{'learner':<11}{'labels':>7}{'scans':>8}{'patients':>10}{'AUROC':>8}  95 % interval")
    for row in evaluation.table:
        text = f"{row.learner:<11}{row.budget:>7}{row.train_scans:>8.0f}{row.train_patients:>10.0f}"
        aside = f"  ({row.undefined} undefined left out)" if row.undefined else ""
        say(f"{text}{row.auroc:>8.3f}  {row.low:.3f} to {row.high:.3f}{aside}")
    _say_classes(evaluation)
    for note in evaluation.notes:
        say(f"note: {note}")


def _say_classes(evaluation: Evaluation) -> None:
    """Prints what each class scores with the largest label budget."""
    last = evaluation.scores.budgets[-1]
    head = f"{'learner':<11}{'class':<20}{'scans':>6}{'AUROC':>7}{'AUPRC':>7}{'share':>7}"
    say(f"{head}{'sens':>7}{'spec':>7}{'Brier':>7}{'ECE':>7}  with {last} labels")
    for row in evaluation.table:
        if row.budget != last:
            continue
        for one in row.classes:
            found = one.scores
            text = f"{row.learner:<11}{one.name[:19]:<20}{one.scans:>6}"
            cells = (
                *(found.auroc, found.auprc, one.share, found.sensitivity, found.specificity),
                *(found.brier, found.calibration_error),
            )
            say(text + "".join("      -" if np.isnan(cell) else f"{cell:>7.3f}" for cell in cells))
        if len(row.classes) > 1:
            say(f"{row.learner}: {row.num_sure} of {row.num_defined} classes exclude .5")
        if row.agreement is not None:
            found_at = row.agreement
            interval = f"{found_at.low:.3f} to {found_at.high:.3f}"
            say(f"{row.learner}: quadratic kappa {found_at.kappa:.3f}  {interval}")
    say(f"sens, spec: at the threshold for {SPECIFICITY:.0%} specificity on training patients")
