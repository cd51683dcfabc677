"""What each class scores against the rest: its AUROC with an interval, and clinical scores."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Shaped

from scanlearn.metrics import auroc_replicates, mean_of_defined
from scantune.clinical import ClinicalScores
from scantune.fixed_test import class_interval
from scantune.rates import share_interval, share_replicates
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
