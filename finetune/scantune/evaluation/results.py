"""What `evaluate` returns, and the tables it prints."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from scanlearn.console import say
from scanlearn.features.auroc import auroc_replicates, mean_of_defined
from scantune.labels.labeled_set import LabeledSet
from scantune.scores import Scores
from scantune.statistics.agreement import Agreement, grade_agreement
from scantune.statistics.delong import class_interval
from scantune.statistics.intervals import Estimate, arm_interval, estimate, patient_weights
from scantune.statistics.metrics import (
    AUROC,
    METRICS,
    SPECIFICITY,
    Ends,
    OneVsRest,
    mean_metrics,
    score_metrics,
    share_interval,
    share_replicates,
)


@dataclass(frozen=True)
class ClassRow:
    """One class against the rest, by one learner at one label budget.

    Scores are means over label seeds and folds, each on one fitted model; folds that leave a score
    undefined are left out of its mean, and NaN stands where all do.

    Args:
        unknown: Tested scans whose label is not known, left out of all that follows.
        share: Share of positives among the known, the average precision of guessing.
        intervals: 95 % intervals over patients, thresholds held fixed, of the AUROC and of each
            metric that is a share.
        delong: DeLong's 95 % interval of the AUROC, patients clustered; only of a given split,
            where all models test the same scans, and NaN with folds.
        undefined: Models, one for each label seed and fold, whose AUROC is undefined.
    """

    name: str
    scans: int
    negatives: int
    unknown: int
    share: float
    scores: dict[str, float]
    intervals: dict[str, Ends]
    delong: Ends
    undefined: int

    @property
    def auroc(self) -> float:
        """Mean over models."""
        return self.scores[AUROC.name]

    @property
    def low(self) -> float:
        """Lower end of the interval of the AUROC."""
        return self.intervals[AUROC.name].low

    @property
    def high(self) -> float:
        """Upper end."""
        return self.intervals[AUROC.name].high

    def as_json(self) -> dict[str, Any]:
        """Returns the row as in metrics.json; the AUROC's interval is ``low`` and ``high``."""
        ends = {"": self.intervals[AUROC.name], "delong_": self.delong}
        ends |= {f"{key}_": pair for key, pair in self.intervals.items() if key != AUROC.name}
        plain = {
            name: getattr(self, name)
            for name in ("name", "scans", "negatives", "unknown", "share", "scores")
        }
        for prefix, pair in ends.items():
            plain |= {f"{prefix}low": pair.low, f"{prefix}high": pair.high}
        return plain | {"undefined": self.undefined}


def class_table(
    scores: Scores, learner: str, budget: str | int, weights: Shaped[np.ndarray, "r m"]
) -> tuple[ClassRow, ...]:
    """Returns a row for each class, of two classes for the second alone."""
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
    by_model, replicates = [], []
    for seed, fold in np.ndindex(thresholds.shape):
        rows = scores.test_rows(seed, fold, code, budget)
        tested, positives = values[seed, rows], scores.truth.positives(code)[rows]
        threshold = float(thresholds[seed, fold])
        by_model.append(score_metrics(OneVsRest(tested, positives, threshold)))
        replicates.append(auroc_replicates(tested, positives, weights[:, scores.patients[rows]]))
    means = mean_metrics(by_model)
    aurocs = np.array([model[AUROC.name] for model in by_model])
    interval = arm_interval(
        [
            Estimate(
                auroc=means[AUROC.name],
                per_fold=aurocs.reshape(thresholds.shape),
                replicates=mean_of_defined(np.array(replicates)),
                num_patients=len(scores.tested_patients),
                undefined=int(np.isnan(aurocs).sum()),
            )
        ]
    )
    is_tested = (scores.fold_of >= 0).any(axis=0)
    is_known, of_class = scores.truth.known(code), scores.truth.positives(code)
    sides = {"positives": is_tested & of_class, "negatives": is_tested & is_known & ~of_class}
    scans, negatives = (int(side.sum()) for side in sides.values())
    called = values >= np.take_along_axis(thresholds, np.maximum(scores.fold_of, 0), axis=1)
    is_right, has_threshold = called == of_class, ~np.isnan(thresholds)
    intervals = {AUROC.name: Ends(interval.low, interval.high)}
    for metric in METRICS:
        if metric.share_of is not None:
            side, mean = sides[metric.share_of], means[metric.name]
            intervals[metric.name] = _share_interval(
                scores, mean, is_right, has_threshold, side, weights
            )
    delong = class_interval(scores, learner, budget, code)
    return ClassRow(
        name=scores.classes[code],
        scans=scans,
        negatives=negatives,
        unknown=int((is_tested & ~is_known).sum()),
        share=scans / (scans + negatives) if scans + negatives else float("nan"),
        scores=means,
        intervals=intervals,
        delong=Ends(delong.low, delong.high),
        undefined=int(np.isnan(aurocs).sum()),
    )


def _share_interval(
    scores: Scores,
    share: float,
    is_right: Bool[np.ndarray, "j n"],
    has_threshold: Bool[np.ndarray, "j f"],
    side: Bool[np.ndarray, " n"],
    weights: Shaped[np.ndarray, "r m"],
) -> Ends:
    """Returns the interval of the share of a side called right, positives or negatives."""
    replicates = []
    for seed, fold in np.argwhere(has_threshold):
        rows = np.flatnonzero((scores.fold_of[seed] == fold) & side)
        drawn = weights[:, scores.patients[rows]]
        replicates.append(share_replicates(is_right[seed, rows], drawn))
    patients = np.unique(scores.patients[side])
    return share_interval(share, np.array(replicates), len(patients), int(side.sum()))


@dataclass(frozen=True)
class EvaluationRow:
    """One learner at one label budget.

    Args:
        auroc: Mean over label seeds and folds, with its 95 % interval over patients; NaN where
            undefined.
        per_fold: AUROC of each fold, label seed by label seed; NaN where undefined.
        undefined: Classes without a positive or a negative in a fold, summed over folds.
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
    def macro(self) -> dict[str, float]:
        """Mean of each metric over the classes that define it."""
        return mean_metrics([row.scores for row in self.classes])

    @property
    def num_sure(self) -> int:
        """Classes whose interval excludes an AUROC of .5."""
        return sum(row.low > 0.5 or row.high < 0.5 for row in self.classes)

    @property
    def num_defined(self) -> int:
        """Classes that have an AUROC."""
        return sum(not np.isnan(row.auroc) for row in self.classes)

    def as_json(self) -> dict[str, Any]:
        """Returns the row as metrics.json holds it."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain | {
            "classes": [row.as_json() for row in self.classes],
            "agreement": None if self.agreement is None else asdict(self.agreement),
            "macro": self.macro,
            "exclude_chance": self.num_sure,
        }


@dataclass(frozen=True)
class Evaluation:
    """The scores of a backbone on a labeled set."""

    inputs: dict[str, Any]
    table: tuple[EvaluationRow, ...]
    labeled: LabeledSet
    scores: Scores
    notes: tuple[str, ...]


def score_table(scores: Scores) -> tuple[EvaluationRow, ...]:
    """Returns a row per learner and label budget, with intervals over patients."""
    weights = patient_weights(scores)
    is_ordinal = scores.truth.task == "ordinal"
    rows = []
    for learner in scores.learners:
        for place, budget in enumerate(scores.budgets):
            whole = estimate(scores, learner, budget, weights)
            interval = arm_interval([whole])
            agreement = grade_agreement(scores, learner, budget, weights) if is_ordinal else None
            rows.append(
                EvaluationRow(
                    learner=learner,
                    budget=budget,
                    auroc=whole.auroc,
                    low=interval.low,
                    high=interval.high,
                    per_fold=tuple(tuple(fold_aurocs) for fold_aurocs in whole.per_fold.tolist()),
                    train_scans=float(scores.train_scans[place].mean()),
                    train_patients=float(scores.train_patients[place].mean()),
                    undefined=whole.undefined,
                    classes=class_table(scores, learner, budget, weights),
                    agreement=agreement,
                )
            )
    return tuple(rows)


def say_table(evaluation: Evaluation) -> None:
    """Prints the table and the notes."""
    say(f"{'learner':<11}{'labels':>7}{'scans':>8}{'patients':>10}{'AUROC':>8}  95 % interval")
    for row in evaluation.table:
        text = f"{row.learner:<11}{row.budget:>7}{row.train_scans:>8.0f}{row.train_patients:>10.0f}"
        aside = f"  ({row.undefined} undefined, left out)" if row.undefined else ""
        say(f"{text}{row.auroc:>8.3f}  {row.low:.3f} to {row.high:.3f}{aside}")
    _say_classes(evaluation)
    for note in evaluation.notes:
        say(f"note: {note}")


def _say_classes(evaluation: Evaluation) -> None:
    """Prints each metric of each class with the largest label budget."""
    last = evaluation.scores.budgets[-1]
    heads = "".join(f"{metric.short:>7}" for metric in METRICS)
    say(f"{'learner':<11}{'class':<20}{'scans':>6}{'share':>7}{heads}  with {last} labels")
    for row in evaluation.table:
        if row.budget != last:
            continue
        for line in row.classes:
            cells = (line.share, *(line.scores[metric.name] for metric in METRICS))
            numbers = "".join(f"{'-' if np.isnan(n) else f'{n:.3f}':>7}" for n in cells)
            say(f"{row.learner:<11}{line.name[:19]:<20}{line.scans:>6}{numbers}")
        if len(row.classes) > 1:
            say(f"{row.learner}: {row.num_sure} of {row.num_defined} AUROC intervals exclude .5")
        if row.agreement is not None:
            kappa = row.agreement
            say(
                f"{row.learner}: quadratic kappa {kappa.kappa:.3f}  {kappa.low:.3f} to "
                f"{kappa.high:.3f}"
            )
    at_threshold = ", ".join(metric.short for metric in METRICS if metric.at_threshold)
    say(f"{at_threshold}: at the threshold for {SPECIFICITY:.0%} specificity on training patients")
