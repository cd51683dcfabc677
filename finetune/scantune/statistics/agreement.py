"""How well predicted grades agree with the true ones: quadratic weighted kappa."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.special import stdtrit

from scanlearn.features.auroc import mean_of_defined
from scantune.scores import Scores
from scantune.statistics.few_patients import sides_of, too_few
from scantune.statistics.intervals import widening

_LEVEL = 0.95


@dataclass(frozen=True)
class Agreement:
    """Quadratic weighted kappa with its interval; NaN where undefined.

    Args:
        kappa: Mean over label seeds and folds, each on one fitted model.
        low: Lower end of the 95 % interval over patients; at least -1. NaN where patients are too
            few. With folds its variance is widened by as much as that of the AUROC is by refits.
        undefined: Models whose kappa is undefined, left out of the mean.
    """

    kappa: float
    low: float
    high: float
    undefined: int


def grade_agreement(
    scores: Scores, learner: str, budget: str | int, weights: Shaped[np.ndarray, "r m"]
) -> Agreement:
    """Returns the agreement of one learner's grades at one label budget.

    The interval is Student's with one degree of freedom less than patients, as for an AUROC.
    """
    values, k = scores.of(learner, budget), len(scores.classes)
    kappas, replicates = [], []
    for seed, fold in np.ndindex(scores.num_label_seeds, scores.num_folds):
        rows = scores.test_rows(seed, fold)
        both = scores.truth.classes[rows], predicted_grades(values[seed, rows])
        kappas.append(quadratic_kappa(*both, k, np.ones((1, len(rows))))[0])
        replicates.append(quadratic_kappa(*both, k, weights[:, scores.patients[rows]]))
    kappa = float(mean_of_defined(np.array(kappas)))
    resampled = mean_of_defined(np.array(replicates))
    resampled = resampled[~np.isnan(resampled)]
    spread = float(resampled.std(ddof=1)) if len(resampled) > 1 else float("nan")
    sides = [sides_of(scores, code) for code in scores.truth.asked]
    if too_few(sides):
        spread = float("nan")
    spread *= widening(scores.refits_of(learner, budget, scores.truth.asked)) ** 0.5
    half = float(stdtrit(len(scores.tested_patients) - 1, (1 + _LEVEL) / 2)) * spread
    low, high = float(np.maximum(-1, kappa - half)), float(np.minimum(1, kappa + half))
    return Agreement(kappa, low, high, int(np.isnan(kappas).sum()))


def predicted_grades(probabilities: Float[np.ndarray, "n k"]) -> Int[np.ndarray, " n"]:
    """Returns the grade nearest to the expected one.

    Of all grades it has the least expected squared distance to the truth, the very cost that
    quadratic kappa counts; the likeliest grade has the least expected number of errors, however
    far off they are.

    Source: the mean minimises squared error loss: Berger, Statistical Decision Theory, 1985,
    section 4.4.2.
    """
    total = probabilities.sum(axis=1)
    expected = probabilities @ np.arange(probabilities.shape[1]) / np.where(total > 0, total, 1)
    return np.asarray(np.floor(expected + 0.5).astype(np.int64))


def quadratic_kappa(
    truth: Int[np.ndarray, " n"],
    predicted: Int[np.ndarray, " n"],
    num_grades: int,
    weights: Shaped[np.ndarray, "r n"],
) -> Float[np.ndarray, " r"]:
    """Returns kappa with quadratic weights under each of many weightings of the same scans.

    Args:
        weights: ``[r n]``, not negative, such as how often a resample drew each scan.

    Returns:
        ``[r]``, 1 where all agree, 0 as by chance; NaN where all are of one grade, or no scan is
        drawn.

    Source: Cohen 1968, "Weighted kappa".
    """
    cells = np.eye(num_grades**2)[truth * num_grades + predicted]
    counts = (weights.astype(np.float64) @ cells).reshape(-1, num_grades, num_grades)
    distance = np.square(np.subtract.outer(np.arange(num_grades), np.arange(num_grades)))
    observed = (counts * distance).sum(axis=(1, 2)) * counts.sum(axis=(1, 2))
    rows, columns = counts.sum(axis=2), counts.sum(axis=1)
    chance = np.einsum("ra,ab,rb->r", rows, distance, columns)
    kappa: np.ndarray = np.full(len(weights), np.nan)
    np.divide(chance - observed, chance, out=kappa, where=chance > 0)
    return kappa
