"""What `evaluate` returns and says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from scanlearn.console import say
from scanlearn.features.auroc import auroc_replicates, mean_of_defined
from scantune.labels.labeled_set import LabeledSet
from scantune.scores import Scores
from scantune.statistics.delong import class_interval
from scantune.statistics.intervals import Estimate, arm_interval, estimate, patient_weights
from scantune.statistics.metrics import (
    SPECIFICITY,
    Agreement,
    ClinicalScores,
    grade_agreement,
    share_interval,
    share_replicates,
)

# What each class scores against the rest: its AUROC with an interval, and clinical scores.


@dataclass(frozen=True)
class ClassRow:
    """One class against the rest, by one learner at one label budget.

    Scores are means over label seeds and folds, each on one fitted model; folds that leave a score
    undefined are left out of its mean, and NaN stands where all do.

    Args:
        name: The class.
        scans: Scans of it that are tested.
        negatives: Tested scans that are not of it.
        unknown: Tested scans of which nobody knows, left out of all that follows.
        share: Its scans' share of the known, the average precision of a blind guess.
        scores: The scores.
        low: Lower end of the 95 % interval of the AUROC over patients.
        high: Upper end.
        delong_low: Lower end of DeLong's 95 % interval, patients clustered; only of a given split,
            where all models test the same scans, and NaN with folds.
        delong_high: Upper end.
        sensitivity_low: Lower end of the 95 % interval of the sensitivity over patients, the
            threshold held fixed.
        sensitivity_high: Upper end.
        specificity_low: Likewise of the specificity.
        specificity_high: Upper end.
        undefined: Models, one for each label seed and fold, whose AUROC is undefined.
    """

    name: str
    scans: int
    negatives: int
    unknown: int
    share: float
    scores: ClinicalScores
    low: float
    high: float
    delong_low: float
    delong_high: float
    sensitivity_low: float
    sensitivity_high: float
    specificity_low: float
    specificity_high: float
    undefined: int

    @property
    def excludes_chance(self) -> bool:
        """Whether the interval lies above .5 or below it."""
        return self.low > 0.5 or self.high < 0.5


def class_table(
    scores: Scores, learner: str, budget: str | int, weights: Shaped[np.ndarray, "r m"]
) -> tuple[ClassRow, ...]:
    """Returns a row for each class, of two classes for the second alone.

    Args:
        scores: Scores of every scan.
        learner: One of its learners.
        budget: One of its label budgets.
        weights: ``[r m]`` from `statistics.patient_weights`.
    """
    codes = scores.truth.asked
    return tuple(_row(scores, learner, budget, weights, code) for code in codes)


def _row(
    scores: Scores,
    learner: str,
    budget: str | int,
    weights: Shaped[np.ndarray, "r m"],
    code: int,
) -> ClassRow:
    values = scores.of(learner, budget)[..., code]
    thresholds = scores.thresholds_of(learner, budget)[..., code]
    found, replicates = [], []
    for seed, fold in np.ndindex(thresholds.shape):
        rows = scores.test_rows(seed, fold, code)
        tested, positives = values[seed, rows], scores.truth.positives(code)[rows]
        found.append(ClinicalScores.of(tested, positives, float(thresholds[seed, fold])))
        drawn = weights[:, scores.patients[rows]]
        replicates.append(auroc_replicates(tested, positives, drawn))
    aurocs = np.array([one.auroc for one in found])
    mean = mean_of_defined(np.array([list(asdict(one).values()) for one in found]))
    estimate = Estimate(
        auroc=float(mean[0]),
        per_fold=aurocs.reshape(thresholds.shape),
        replicates=mean_of_defined(np.array(replicates)),
        num_patients=len(scores.tested_patients),
        undefined=int(np.isnan(aurocs).sum()),
    )
    interval = arm_interval([estimate])
    is_tested = (scores.fold_of >= 0).any(axis=0)
    is_known, of_class = scores.truth.known(code), scores.truth.positives(code)
    sides = is_tested & of_class, is_tested & is_known & ~of_class
    scans, negatives = (int(side.sum()) for side in sides)
    called = values >= np.take_along_axis(thresholds, np.maximum(scores.fold_of, 0), axis=1)
    right, has_threshold = called == of_class, ~np.isnan(thresholds)
    sensitivity, specificity = (
        _share_interval(scores, share, right, has_threshold, side, weights)
        for share, side in zip(mean[2:4], sides, strict=True)
    )
    delong = class_interval(scores, learner, budget, code)
    return ClassRow(
        name=scores.classes[code],
        scans=scans,
        negatives=negatives,
        unknown=int((is_tested & ~is_known).sum()),
        share=scans / (scans + negatives) if scans + negatives else float("nan"),
        scores=ClinicalScores(*(float(value) for value in mean)),
        low=interval.low,
        high=interval.high,
        delong_low=delong.low,
        delong_high=delong.high,
        sensitivity_low=sensitivity[0],
        sensitivity_high=sensitivity[1],
        specificity_low=specificity[0],
        specificity_high=specificity[1],
        undefined=estimate.undefined,
    )


def _share_interval(
    scores: Scores,
    share: float,
    right: Bool[np.ndarray, "j n"],
    has_threshold: Bool[np.ndarray, "j f"],
    side: Bool[np.ndarray, " n"],
    weights: Shaped[np.ndarray, "r m"],
) -> tuple[float, float]:
    """Returns the interval of the share of a side called right, positives or negatives."""
    replicates = []
    for seed, fold in np.argwhere(has_threshold):
        rows = np.flatnonzero((scores.fold_of[seed] == fold) & side)
        drawn = weights[:, scores.patients[rows]]
        replicates.append(share_replicates(right[seed, rows], drawn))
    patients = np.unique(scores.patients[side])
    return share_interval(share, np.array(replicates), len(patients), int(side.sum()))


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
