"""What each class scores against the rest: its AUROC with an interval, and clinical scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from scanlearn.metrics import auroc_replicates
from scantune.clinical import ClinicalScores
from scantune.scores import Scores
from scantune.statistics import Estimate, arm_interval


@dataclass(frozen=True)
class ClassRow:
    """One class against the rest, by one learner at one label budget.

    Scores are means over label seeds and folds, each on one fitted model; folds that leave a score
    undefined are left out of its mean, and NaN stands where all do.

    Args:
        name: The class.
        scans: Scans of it that are tested.
        share: Their share of the tested scans, the average precision of a blind guess.
        scores: The scores.
        low: Lower end of the 95 % interval of the AUROC over patients.
        high: Upper end.
        undefined: Models, one for each label seed and fold, whose AUROC is undefined.
    """

    name: str
    scans: int
    share: float
    scores: ClinicalScores
    low: float
    high: float
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
    codes = scores.asked_classes
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
        rows = scores.test_rows(seed, fold)
        tested, positives = values[seed, rows], scores.y[rows] == code
        found.append(ClinicalScores.of(tested, positives, float(thresholds[seed, fold])))
        drawn = weights[:, scores.patients[rows]]
        replicates.append(auroc_replicates(tested, positives, drawn))
    aurocs = np.array([one.auroc for one in found])
    mean = _mean([list(asdict(one).values()) for one in found])
    estimate = Estimate(
        auroc=float(mean[0]),
        per_fold=aurocs.reshape(thresholds.shape),
        replicates=_mean(replicates),
        num_patients=len(scores.tested_patients),
        undefined=int(np.isnan(aurocs).sum()),
    )
    interval = arm_interval([estimate])
    is_tested = (scores.fold_of >= 0).any(axis=0)
    of_class = scores.y[is_tested] == code
    return ClassRow(
        name=scores.classes[code],
        scans=int(of_class.sum()),
        share=float(of_class.mean()),
        scores=ClinicalScores(*(float(value) for value in mean)),
        low=interval.low,
        high=interval.high,
        undefined=estimate.undefined,
    )


def _mean(rows: Sequence[Any]) -> Float[np.ndarray, " b"]:
    """Returns the mean down each column, of what is defined; NaN where nothing is."""
    values = np.asarray(rows, dtype=np.float64)
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    total = np.where(defined, values, 0.0).sum(axis=0)
    mean = np.full(values.shape[1], np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean
