"""What `evaluate` returns, and the tables it prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from scanlearn.console import say
from scanlearn.features.auroc import auroc_replicates, mean_of_defined
from scantune.labels.labeled_set import Design, LabeledSet
from scantune.scores import Scores
from scantune.statistics.agreement import Agreement, grade_agreement
from scantune.statistics.delong import class_interval
from scantune.statistics.few_patients import sides_of, too_few
from scantune.statistics.intervals import (
    Estimate,
    arm_interval,
    estimate,
    limits_note,
    paired_difference,
    patient_weights,
)
from scantune.statistics.metrics import (
    AUROC,
    METRICS,
    SPECIFICITY,
    Ends,
    Metric,
    OneVsRest,
    mean_metrics,
    roc_sensitivity,
    score_metrics,
    share_interval,
    share_replicates,
    threshold_replicates,
)
from scantune.wording import design_name, learner_name

# Resamples behind the variance of a share; its standard deviation is known to 3 % then.
_REPLICATES = 500


@dataclass(frozen=True)
class ClassRow:
    """One class against the rest, by one learner at one label budget.

    Scores are means over label seeds and folds, each on one fitted model; folds that leave a score
    undefined are left out of its mean, and NaN stands where all do.

    Args:
        unknown: Tested scans whose label is not known, left out of all that follows.
        share: Share of positives among the known, the average precision of guessing.
        intervals: 95 % intervals over patients of the AUROC and of each metric that is a share;
            the patients that set its threshold are resampled too.
        delong: DeLong's 95 % interval of the AUROC, patients clustered; only of a given split,
            where all models test the same scans, and NaN with folds.
        undefined: Models, one for each label seed and fold, whose AUROC is undefined.
        note: Why the AUROC has no interval; empty where it has one.
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
    note: str = ""

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
        return plain | {"undefined": self.undefined, "note": self.note}


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
                sides=(sides_of(scores, code),),
                refits=scores.refits_of(learner, budget, [code]),
                is_crossed=scores.num_folds > 1,
            )
        ]
    )
    is_tested = (scores.fold_of >= 0).any(axis=0)
    is_known, of_class = scores.truth.known(code), scores.truth.positives(code)
    sides = {"positives": is_tested & of_class, "negatives": is_tested & is_known & ~of_class}
    scans, negatives = (int(side.sum()) for side in sides.values())
    intervals = {AUROC.name: Ends(interval.low, interval.high)}
    whole = with_training(weights[:_REPLICATES], scores)
    for metric in METRICS:
        if metric.share_of is not None:
            side, mean = sides[metric.share_of], means[metric.name]
            replicates = [
                _share_replicates(scores, (learner, budget), code, metric, model, whole)
                for model in np.ndindex(thresholds.shape)
                if not (metric.at_threshold and np.isnan(thresholds[model]))
            ]
            num_patients = len(np.unique(scores.patients[side]))
            intervals[metric.name] = share_interval(
                mean, np.array(replicates), num_patients, int(side.sum())
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
        note=too_few((sides_of(scores, code),)),
    )


def with_training(
    weights: Shaped[np.ndarray, "r m"], scores: Scores, *, seed: int = 1
) -> Shaped[np.ndarray, "r m"]:
    """Returns patient weights in which patients who only train are resampled too.

    Of folds all patients are tested, and the weights stay as they are: a patient weighs the same
    where it sets a threshold and where it is called.
    """
    others = np.setdiff1d(scores.patients, scores.tested_patients)
    if not len(others):
        return weights
    whole = weights.copy()
    whole[:, others] = np.random.default_rng(seed).multinomial(
        len(others), np.full(len(others), 1 / len(others)), size=len(weights)
    )
    return whole


def _share_replicates(
    scores: Scores,
    cell: tuple[str, str | int],
    code: int,
    metric: Metric,
    model: Sequence[int],
    weights: Shaped[np.ndarray, "r m"],
) -> Float[np.ndarray, " r"]:
    """Returns the share of a side that one model calls right, under each patient resample.

    The threshold is chosen anew in each. Where its validation scores were not kept it is held
    fixed, which leaves the noise of choosing it out.
    """
    seed, fold = model
    rows = scores.test_rows(seed, fold, code)
    tested, positives = scores.of(*cell)[seed, rows, code], scores.truth.positives(code)[rows]
    drawn = weights[:, scores.patients[rows]]
    if not metric.at_threshold:
        return roc_sensitivity(tested, positives, drawn)
    thresholds = scores.thresholds_of(*cell)[[seed], fold, code]
    kept = scores.validation_of(*cell, seed, fold)
    if kept is not None:
        used = scores.truth.known(code)[kept.rows] & ~np.isnan(kept.scores[:, code])
        at = kept.rows[used]
        of_patients = weights[:, scores.patients[at]]
        of_class = scores.truth.positives(code)[at]
        thresholds = threshold_replicates(kept.scores[used, code], of_class, of_patients)
    side = positives if metric.share_of == "positives" else ~positives
    is_called = tested[side] >= thresholds[:, None]
    is_right = is_called if metric.share_of == "positives" else ~is_called
    shares = share_replicates(is_right, drawn[:, side])
    return np.where(np.isnan(thresholds), np.nan, shares)


@dataclass(frozen=True)
class ReferenceScore:
    """What a reference scores where the backbone does, and how much more the backbone scores.

    Args:
        name: ``thumbnail`` or ``untrained``.
        difference: AUROC of the backbone minus that of the reference, paired by patient, with its
            95 % interval; of these two networks only.
        note: Why there is no interval; empty where there is one.
    """

    name: str
    auroc: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    p: float
    note: str = ""


@dataclass(frozen=True)
class EvaluationRow:
    """One learner at one label budget.

    Args:
        auroc: Mean over label seeds and folds, with its 95 % interval over patients; NaN where
            undefined.
        per_fold: AUROC of each fold, label seed by label seed; NaN where undefined.
        undefined: Classes without a positive or a negative in a fold, summed over folds.
        agreement: Quadratic kappa of grades; None where classes have no order.
        note: Why the AUROC has no interval, or one that is too narrow; empty where neither is so.
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
    references: tuple[ReferenceScore, ...] = ()
    note: str = ""

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
            "references": [asdict(reference) for reference in self.references],
            "macro": self.macro,
            "exclude_chance": self.num_sure,
        }


@dataclass(frozen=True)
class Evaluation:
    """The scores of a backbone on a labeled set.

    Args:
        named: Data set, backbone, method and the like as a person calls them, by what they are.
        references: What each reference is, by its name.
    """

    inputs: dict[str, Any]
    table: tuple[EvaluationRow, ...]
    labeled: LabeledSet
    scores: Scores
    notes: tuple[str, ...]
    named: Mapping[str, str] = field(default_factory=dict)
    references: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def is_tested(self) -> Bool[np.ndarray, " n"]:
        """``[n]`` which labeled scans are tested."""
        return np.asarray((self.scores.fold_of >= 0).any(axis=0))


def score_table(
    scores: Scores, references: Mapping[str, Scores] | None = None
) -> tuple[EvaluationRow, ...]:
    """Returns a row per learner and label budget, with intervals over patients.

    Args:
        references: Scores of the same scans, folds and subsets by the learners that references can
            have, by their names.
    """
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
                    note=limits_note([whole]),
                    references=tuple(
                        _compared(name, whole, estimate(each, learner, budget, weights))
                        for name, each in (references or {}).items()
                        if learner in each.learners
                    ),
                )
            )
    return tuple(rows)


def _compared(name: str, backbone: Estimate, reference: Estimate) -> ReferenceScore:
    interval, paired = arm_interval([reference]), paired_difference([backbone], [reference])
    return ReferenceScore(
        name=name,
        auroc=reference.auroc,
        low=interval.low,
        high=interval.high,
        difference=paired.estimate,
        difference_low=paired.low,
        difference_high=paired.high,
        p=paired.p,
        note=paired.note if np.isnan(paired.low) else "",
    )


def remarks(table: Sequence[EvaluationRow], design: Design) -> tuple[str, ...]:
    """Returns a sentence for each class that an external test set turns upside down."""
    if design != "test":
        return ()
    below: dict[str, list[str]] = {}
    for row in table:
        for line in row.classes:
            if line.high < 0.5:
                text = f"{learner_name(row.learner)}, {row.budget} labels: {line.auroc:.3f}"
                below.setdefault(line.name, []).append(text)
    return tuple(
        f"{name}: on the external test set the AUROC and its interval lie below .5 "
        f"({'; '.join(rows)}): are its labels of the opposite sense, or its classes in another "
        "order? classes= names the order"
        for name, rows in below.items()
    )


def interval_notes(table: Sequence[EvaluationRow]) -> tuple[str, ...]:
    """Returns a sentence for each reason why AUROCs have no interval, or one that is too narrow."""
    learners: dict[str, dict[str, None]] = {}
    for row in table:
        for note in (row.note, *(line.note for line in row.classes)):
            if note:
                learners.setdefault(note, {})[learner_name(row.learner)] = None
    return tuple(f"{', '.join(names)}: {note}" for note, names in learners.items())


def say_table(evaluation: Evaluation) -> None:
    """Prints the table and the notes."""
    labeled = evaluation.labeled
    count = labeled.count()
    tested = design_name(labeled.design, count, evaluation.scores.num_folds)
    say(f"tested on {tested}")
    has_patients = count.known_patients is not None
    head = f"{'patients':>10}" if has_patients else ""
    say(f"{'learner':<11}{'labels':>7}{'scans':>8}{head}{'AUROC':>8}  95 % interval")
    for row in evaluation.table:
        text = f"{row.learner:<11}{row.budget:>7}{row.train_scans:>8.0f}"
        text += f"{row.train_patients:>10.0f}" if has_patients else ""
        aside = f"  ({row.undefined} undefined, left out)" if row.undefined else ""
        say(f"{text}{row.auroc:>8.3f}  {_ends(row.low, row.high)}{aside}")
        for each in row.references:
            signs = f"{each.difference_low:+.3f} to {each.difference_high:+.3f}"
            over = each.note or f"backbone {each.difference:+.3f}  {signs}"
            name = f"  {each.name}"
            say(f"{name:<{len(text)}}{each.auroc:>8.3f}  {_ends(each.low, each.high)}  {over}")
    _say_classes(evaluation)
    for note in evaluation.notes:
        say(f"note: {note}")


def _ends(low: float, high: float) -> str:
    return "no interval   " if np.isnan(low) else f"{low:.3f} to {high:.3f}"


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
            say(f"{row.learner}: quadratic kappa {kappa.kappa:.3f}  {_ends(kappa.low, kappa.high)}")
    at_threshold = ", ".join(metric.short for metric in METRICS if metric.at_threshold)
    say(
        f"{at_threshold}: at the threshold for {SPECIFICITY:.0%} specificity on training "
        f"{evaluation.labeled.count().units}; ROC: sensitivity at {SPECIFICITY:.0%} specificity on "
        "the test scans' own ROC"
    )
