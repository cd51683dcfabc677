"""Curves behind an evaluation's figures: ROC, precision and recall, calibration, confusion.

A curve is made for each fitted model, a label seed and a fold, and averaged; scores of different
models are never pooled. Bands come from patient resamples, the models held fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from scanlearn.features.auroc import mean_of_defined
from scantune.scores import Scores
from scantune.statistics.agreement import predicted_grades
from scantune.statistics.metrics import calibration_bins

GRID = np.linspace(0.0, 1.0, 101)
_LEVEL = 0.95

_Curve = Callable[
    [Float[np.ndarray, " n"], Bool[np.ndarray, " n"], Shaped[np.ndarray, " n"]],
    Float[np.ndarray, " g"],
]


@dataclass(frozen=True)
class Band:
    """A curve over `GRID`, mean over models, with its band; NaN where no model defines it.

    The band leaves out 2.5 % of resamples at either side.
    """

    mean: Float[np.ndarray, " g"]
    low: Float[np.ndarray, " g"]
    high: Float[np.ndarray, " g"]


def roc(
    scores: Float[np.ndarray, " n"],
    positives: Bool[np.ndarray, " n"],
    weights: Shaped[np.ndarray, " n"],
) -> Float[np.ndarray, " g"]:
    """Returns the sensitivity at each share of false positives in `GRID`.

    Source: vertical averaging of ROC curves: Fawcett, "An introduction to ROC analysis", 2006,
    section 8.1.
    """
    hits, alarms = _counts(scores, positives, weights)
    if hits[-1] == 0 or alarms[-1] == 0:
        return np.full(len(GRID), np.nan)
    curve: np.ndarray = np.interp(GRID, alarms / alarms[-1], hits / hits[-1])
    # Of several sensitivities at one share the highest is reached.
    curve[0] = hits[np.flatnonzero(alarms == 0)[-1]] / hits[-1]
    return curve


def precision_recall(
    scores: Float[np.ndarray, " n"],
    positives: Bool[np.ndarray, " n"],
    weights: Shaped[np.ndarray, " n"],
) -> Float[np.ndarray, " g"]:
    """Returns the precision at the first threshold that reaches each recall in `GRID`."""
    hits, alarms = _counts(scores, positives, weights)
    if hits[-1] == 0 or alarms[-1] == 0:
        return np.full(len(GRID), np.nan)
    place = np.searchsorted(hits / hits[-1], np.maximum(GRID, 1e-9) - 1e-12)
    return np.asarray(hits[place] / (hits[place] + alarms[place]))


def _counts(
    scores: Float[np.ndarray, " n"],
    positives: Bool[np.ndarray, " n"],
    weights: Shaped[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, " s"], Float[np.ndarray, " s"]]:
    """Returns positives and negatives called at each threshold, from none to all."""
    order = np.argsort(-scores, kind="stable")
    # Equal scores are called together.
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    weight = np.asarray(weights, dtype=np.float64)[order]
    hits = np.cumsum(weight * positives[order])[last]
    alarms = np.cumsum(weight * ~positives[order])[last]
    return np.concatenate([[0.0], hits]), np.concatenate([[0.0], alarms])


def band(
    curve: _Curve,
    scores: Scores,
    learner: str,
    budget: str,
    code: int,
    weights: Shaped[np.ndarray, "r m"],
) -> Band:
    """Returns a class's curve over all models, with its band over patients."""
    return band_over_seeds(curve, [scores], learner, budget, code, weights)


def band_over_seeds(
    curve: _Curve,
    members: Sequence[Scores],
    learner: str,
    budget: str,
    code: int,
    weights: Shaped[np.ndarray, "r m"],
) -> Band:
    """Returns a class's mean curve over pretraining seeds, its band over patients and seeds.

    A resample of patients is one of seeds too: as many as there are, drawn with replacement.

    Args:
        members: The scores of one arm, one for each seed.
        weights: As of `patient_weights`; without a resample there is no band.
    """
    networks = [_resampled(curve, each, learner, budget, code, weights) for each in members]
    mean = mean_of_defined(np.array([of_network for of_network, _ in networks]))
    undefined = np.full(len(GRID), np.nan)
    if not len(weights):
        return Band(mean, undefined, undefined)
    of_seed = np.stack([resampled for _, resampled in networks])
    picked = np.random.default_rng(0).integers(len(members), size=(len(members), len(weights)))
    resampled = mean_of_defined(of_seed[picked, np.arange(len(weights))])
    # A resample defines all of a curve or nothing of it.
    resampled = resampled[~np.isnan(resampled[:, 0])]
    tails = ((1 - _LEVEL) / 2, (1 + _LEVEL) / 2)
    low, high = np.quantile(resampled, tails, axis=0) if len(resampled) else (undefined, undefined)
    return Band(mean, low, high)


def _resampled(
    curve: _Curve,
    scores: Scores,
    learner: str,
    budget: str,
    code: int,
    weights: Shaped[np.ndarray, "r m"],
) -> tuple[Float[np.ndarray, " g"], Float[np.ndarray, "r g"]]:
    """Returns the mean curve of one network's models, and that of each resample of patients."""
    values = scores.of(learner, budget)[..., code]
    undefined = np.full(len(GRID), np.nan)
    means, drawn = [undefined], [[undefined] * len(weights)]
    for seed, fold in np.ndindex(scores.num_label_seeds, scores.num_folds):
        rows = scores.test_rows(seed, fold, code, budget)
        if not len(rows):
            continue
        tested, positives = values[seed, rows], scores.truth.positives(code)[rows]
        means.append(curve(tested, positives, np.ones(len(rows))))
        of_rows = weights[:, scores.patients[rows]]
        drawn.append([curve(tested, positives, weight) for weight in of_rows])
    return mean_of_defined(np.array(means)), mean_of_defined(np.array(drawn))


def reliability(scores: Scores, learner: str, budget: str, code: int) -> Float[np.ndarray, "2 b"]:
    """Returns mean probability and share of positives in bins, ``[2 b]``, the least probable first.

    Bins are `metrics.calibration_bins`, cut over the scans of all models together, since those
    of one fold are few; a scan counts once for each label seed that tests it.
    """
    values = scores.of(learner, budget)[..., code]
    counted = (scores.fold_of >= 0) & scores.truth.known(code)
    probabilities = values[counted]
    positives = np.broadcast_to(scores.truth.positives(code), values.shape)[counted]
    place = calibration_bins(probabilities)
    counts = np.bincount(place)
    sums = np.stack([np.bincount(place, values) for values in (probabilities, positives)])
    return np.asarray(sums[:, counts > 0] / counts[counts > 0])


def confusion(scores: Scores, learner: str, budget: str) -> Float[np.ndarray, "k k"]:
    """Returns scans by class and by the class they are called, mean over label seeds.

    That is the class of the highest score, or `predicted_grades` of grades.
    """
    k = len(scores.classes)
    counts = np.zeros((k, k))
    seeds, rows = np.nonzero(scores.fold_of >= 0)
    tested = scores.of(learner, budget)[seeds, rows]
    is_ordinal = scores.truth.task == "ordinal"
    called = predicted_grades(tested) if is_ordinal else tested.argmax(axis=1)
    np.add.at(counts, (scores.truth.classes[rows], called), 1)
    return counts / scores.num_label_seeds
