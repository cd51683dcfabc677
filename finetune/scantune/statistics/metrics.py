"""Scores beside the AUROC: precision, decisions at a threshold, calibration.

Each is taken class by class, one against the rest, on scans of one test fold and one fitted model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.special import ndtri, stdtrit
from sklearn.metrics import average_precision_score

from scanlearn.features.auroc import auroc, mean_of_defined
from scantune.labels.truth import Truth
from scantune.scores import Scores

# How well predicted grades agree with the true ones: quadratic weighted kappa, over patients.


_LEVEL = 0.95


@dataclass(frozen=True)
class Agreement:
    """Quadratic weighted kappa with its interval; NaN where undefined.

    Args:
        kappa: Mean over label seeds and folds, each on one fitted model.
        low: Lower end of the 95 % interval over patients, the models held fixed; at least -1.
        high: Upper end, at most 1.
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

    Args:
        scores: Scores of every scan of an ordinal task.
        learner: One of its learners.
        budget: One of its label budgets.
        weights: ``[r m]`` from `statistics.patient_weights`.
    """
    values, k = scores.of(learner, budget), len(scores.classes)
    found, replicates = [], []
    for seed, fold in np.ndindex(scores.num_label_seeds, scores.num_folds):
        rows = scores.test_rows(seed, fold)
        both = scores.truth.classes[rows], predicted_grades(values[seed, rows])
        found.append(quadratic_kappa(*both, k, np.ones((1, len(rows))))[0])
        replicates.append(quadratic_kappa(*both, k, weights[:, scores.patients[rows]]))
    kappa = float(mean_of_defined(np.array(found)))
    resampled = mean_of_defined(np.array(replicates))
    resampled = resampled[~np.isnan(resampled)]
    spread = float(resampled.std(ddof=1)) if len(resampled) > 1 else float("nan")
    half = float(stdtrit(len(scores.tested_patients) - 1, (1 + _LEVEL) / 2)) * spread
    low, high = float(np.maximum(-1, kappa - half)), float(np.minimum(1, kappa + half))
    return Agreement(kappa, low, high, int(np.isnan(found).sum()))


def predicted_grades(probabilities: Float[np.ndarray, "n k"]) -> Int[np.ndarray, " n"]:
    """Returns the grade nearest to the expected one.

    Of all grades it has the least expected squared distance to the truth, the very cost that
    quadratic kappa counts; the likeliest grade has the least expected number of errors, however
    far off they are.

    Args:
        probabilities: ``[n k]`` of the grades, in their order.

    Source: the mean minimises squared error loss: Berger, Statistical Decision Theory, 1985,
    section 4.4.2.
    """
    total = probabilities.sum(axis=1)
    expected = probabilities @ np.arange(probabilities.shape[1]) / np.where(total > 0, total, 1)
    grades: np.ndarray = np.floor(expected + 0.5).astype(np.int64)
    return grades


def quadratic_kappa(
    truth: Int[np.ndarray, " n"],
    predicted: Int[np.ndarray, " n"],
    num_grades: int,
    weights: Shaped[np.ndarray, "r n"],
) -> Float[np.ndarray, " r"]:
    """Returns kappa with quadratic weights under each of many weightings of the same scans.

    Args:
        truth: ``[n]`` grades from 0.
        predicted: ``[n]``.
        num_grades: k.
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


# The interval of a share of scans, such as a sensitivity, over patients.


_LEVEL = 0.95


def share_replicates(
    hits: Bool[np.ndarray, " n"], weights: Shaped[np.ndarray, "r n"]
) -> Float[np.ndarray, " r"]:
    """Returns the weighted share of hits under each of many weightings of the same scans.

    Args:
        hits: ``[n]`` scans that are counted, such as positives, and whether each is called.
        weights: ``[r n]``, not negative, such as how often a resample drew each scan.

    Returns:
        ``[r]``; NaN where a replicate holds no scan.
    """
    drawn = weights.astype(np.float32)
    total = drawn.sum(axis=1)
    share: np.ndarray = np.full(len(weights), np.nan)
    np.divide(drawn @ hits.astype(np.float32), total, out=share, where=total > 0)
    return share


def share_interval(
    share: float, replicates: Float[np.ndarray, "a r"], num_patients: int, num_scans: int
) -> tuple[float, float]:
    """Returns the 95 % interval of a share of scans of several patients.

    It is Wilson's, for as many independent scans as would vary as much as the share varies
    between patient resamples, at most ``num_scans``. A resample of a share of 0 or 1 never
    varies; there each patient counts for one scan.

    Args:
        share: In [0, 1], mean over models; NaN where undefined.
        replicates: ``[a r]`` of each model under the same patient resamples.
        num_patients: Patients whose scans are counted.
        num_scans: Scans that are counted.

    Returns:
        Lower and upper end; NaN where undefined.

    Source: Wilson 1927; with the effective number of a clustered sample: Franco, Little, Louis,
    Slud, Journal of Survey Statistics and Methodology 7(3), 2019, which recommends it.
    """
    resampled = mean_of_defined(replicates)
    resampled = resampled[~np.isnan(resampled)]
    if np.isnan(share) or len(resampled) < 2:
        return float("nan"), float("nan")
    variance = float(resampled.var(ddof=1))
    varying = share * (1 - share)
    size = float(num_patients)
    if varying > 1e-9 and variance > 0:
        size = min(varying / variance, float(num_scans))
    z = float(ndtri((1 + _LEVEL) / 2))
    middle = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(varying / size + z**2 / (4 * size**2))
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


# The share of scans without a finding that a threshold leaves alone on the validation scans.
SPECIFICITY = 0.9


CALIBRATION_BINS = 10


@dataclass(frozen=True)
class ClinicalScores:
    """What one class scores against the rest; NaN where it has no positive or no negative.

    Args:
        auroc: Area under the ROC curve.
        auprc: Average precision; that of a blind guess is the share of positives.
        sensitivity: Share of positives at or above the threshold.
        specificity: Share of negatives below it; `SPECIFICITY` is aimed at on other scans.
        balanced_accuracy: Mean of both.
        brier: Mean squared difference of probability and truth.
        calibration_error: Expected calibration error.
    """

    auroc: float
    auprc: float
    sensitivity: float
    specificity: float
    balanced_accuracy: float
    brier: float
    calibration_error: float

    @classmethod
    def of(
        cls,
        probabilities: Float[np.ndarray, " n"],
        positives: Bool[np.ndarray, " n"],
        threshold: float,
    ) -> ClinicalScores:
        """Returns the scores of one class on one test fold.

        Args:
            probabilities: ``[n]`` of the class.
            positives: ``[n]`` whether a scan is of it.
            threshold: From validation scans; NaN leaves what needs one undefined.
        """
        nan = float("nan")
        if positives.all() or not positives.any():
            return cls(nan, nan, nan, nan, nan, nan, nan)
        called = probabilities >= threshold
        has_threshold = not np.isnan(threshold)
        sensitivity = float(called[positives].mean()) if has_threshold else nan
        specificity = float((~called[~positives]).mean()) if has_threshold else nan
        return cls(
            auroc=auroc(probabilities, positives),
            auprc=float(average_precision_score(positives, probabilities)),
            sensitivity=sensitivity,
            specificity=specificity,
            balanced_accuracy=(sensitivity + specificity) / 2,
            brier=float(np.square(probabilities - positives).mean()),
            calibration_error=calibration_error(probabilities, positives),
        )


def calibration_error(
    probabilities: Float[np.ndarray, " n"],
    positives: Bool[np.ndarray, " n"],
    bins: int = CALIBRATION_BINS,
) -> float:
    """Returns the expected calibration error: |share of positives - mean probability|, averaged.

    Bins are those of `calibration_bins`; a bin weighs by its scans.

    Args:
        probabilities: ``[n]`` in [0, 1].
        positives: ``[n]``.
        bins: At most so many.

    Source: Naeini, Cooper, Hauskrecht, AAAI 2015, equation 3; equal numbers instead of equal
    widths: Nixon et al., "Measuring Calibration in Deep Learning", CVPR workshops 2019.
    """
    place = calibration_bins(probabilities, bins)
    gaps = np.bincount(place, positives - probabilities, minlength=bins)
    return float(np.abs(gaps).sum() / len(probabilities))


def calibration_bins(
    probabilities: Float[np.ndarray, " n"], bins: int = CALIBRATION_BINS
) -> Int[np.ndarray, " n"]:
    """Returns the bin of each scan, 0 for the least probable.

    The scans are cut, in the order of their probability, into bins of equal numbers; scans of one
    probability share a bin, so that fewer bins may be filled.

    Args:
        probabilities: ``[n]``.
        bins: At most so many.
    """
    edges = np.quantile(probabilities, np.arange(1, bins) / bins, method="inverted_cdf")
    place: np.ndarray = np.searchsorted(edges, probabilities, side="left")
    return place


def threshold_at(
    scores: Float[np.ndarray, " n"],
    positives: Bool[np.ndarray, " n"],
    specificity: float = SPECIFICITY,
) -> float:
    """Returns the lowest threshold that leaves the given share of negatives below it.

    A score at or above the threshold is called positive. NaN where there is no negative.

    Args:
        scores: ``[n]`` of validation scans, which no test scan is among.
        positives: ``[n]``.
        specificity: Share of negatives that must lie below.
    """
    negatives = np.sort(scores[~positives])
    if not len(negatives):
        return float("nan")
    # Just above the k-th negative, so that it and all below it are left alone.
    k = int(np.ceil(specificity * len(negatives) - 1e-9))
    return float(np.nextafter(negatives[k - 1], np.inf)) if k else float("-inf")


def thresholds_of(validation: Float[np.ndarray, "t k"], truth: Truth) -> Float[np.ndarray, " k"]:
    """Returns the threshold of each class, ``[k]``, by the scans that were validated.

    Args:
        validation: ``[t k]`` scores; rows of NaN were not validated.
        truth: Classes of the same scans.
    """
    found = np.full(truth.num_classes, np.nan)
    for code in range(truth.num_classes):
        rows = truth.known(code) & ~np.isnan(validation[:, code])
        found[code] = threshold_at(validation[rows, code], truth.positives(code)[rows])
    return found
