"""What each class scores against the rest: its AUROC with an interval, and clinical scores."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Shaped

from scanlearn.metrics import auroc_replicates, mean_of_defined
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
    of_class = scores.truth.positives(code)[is_tested & scores.truth.known(code)]
    return ClassRow(
        name=scores.classes[code],
        scans=int(of_class.sum()),
        share=float(of_class.mean()),
        scores=ClinicalScores(*(float(value) for value in mean)),
        low=interval.low,
        high=interval.high,
        undefined=estimate.undefined,
    )
