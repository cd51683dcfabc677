"""Scores beside the AUROC: precision, decisions at a threshold, calibration.

Each is taken class by class, one against the rest, on scans of one test fold and one fitted model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.metrics import average_precision_score

from scanlearn.metrics import auroc
from scantune.truth import Truth

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
