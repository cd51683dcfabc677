"""The table of metrics, and what they need: thresholds, calibration bins, intervals of shares.

A metric is taken class by class, one against the rest, on the scans of one test fold and one
fitted model. A new one is a function and a row of `METRICS`: tables, files and pages follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.special import ndtri
from sklearn.metrics import average_precision_score

from scanlearn.features.auroc import auroc, mean_of_defined
from scantune.labels.truth import Truth

# The share of negatives that a threshold leaves alone on the validation scans.
SPECIFICITY = 0.9
CALIBRATION_BINS = 10
_LEVEL = 0.95


class Ends(NamedTuple):
    """The two ends of an interval; NaN where undefined."""

    low: float
    high: float


UNDEFINED = Ends(float("nan"), float("nan"))


@dataclass(frozen=True)
class OneVsRest:
    """One class against the rest: the scans of one test fold, scored by one model.

    Args:
        probabilities: ``[n]`` of the class, in [0, 1].
        threshold: At or above which a scan is called positive, from validation scans; NaN where
            there is none.
    """

    probabilities: Float[np.ndarray, " n"]
    positives: Bool[np.ndarray, " n"]
    threshold: float

    @property
    def num_scans(self) -> int:
        """Scans that are scored."""
        return len(self.probabilities)

    @property
    def called(self) -> Bool[np.ndarray, " n"]:
        """``[n]`` whether a scan is called positive."""
        return np.asarray(self.probabilities >= self.threshold)


@dataclass(frozen=True)
class Metric:
    """One row of the table of metrics.

    Args:
        short: Head of its column in the terminal, at most 6 letters.
        of: The metric of one class; both sides have scans.
        at_threshold: Whether it is undefined without a threshold.
        share_of: Side whose share of right calls it is; such a metric has a Wilson interval, into
            which the choice of the threshold enters.
    """

    name: str
    title: str
    short: str
    about: str
    of: Callable[[OneVsRest], float]
    at_threshold: bool = False
    share_of: Literal["positives", "negatives"] | None = None
    better: Literal["high", "low"] = "high"


def score_metrics(fold: OneVsRest) -> dict[str, float]:
    """Returns every metric by its name; NaN where undefined.

    All are undefined where the class has no positive or no negative.
    """
    positives = fold.positives
    is_undefined = positives.all() or not positives.any()
    has_no_threshold = np.isnan(fold.threshold)
    return {
        metric.name: float("nan")
        if is_undefined or (metric.at_threshold and has_no_threshold)
        else float(metric.of(fold))
        for metric in METRICS
    }


def mean_metrics(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean of each metric over models, or classes, that define it."""
    table = np.array([[row[metric.name] for metric in METRICS] for row in scores])
    means = mean_of_defined(table).tolist()
    return {metric.name: mean for metric, mean in zip(METRICS, means, strict=True)}


def sensitivity(fold: OneVsRest) -> float:
    """Returns the share of positives that are called."""
    return float(fold.called[fold.positives].mean())


def specificity(fold: OneVsRest) -> float:
    """Returns the share of negatives that are not called."""
    return float((~fold.called[~fold.positives]).mean())


def roc_sensitivity(
    scores: Float[np.ndarray, " n"],
    positives: Bool[np.ndarray, " n"],
    weights: Shaped[np.ndarray, "r n"],
    specificity: float = SPECIFICITY,
) -> Float[np.ndarray, " r"]:
    """Returns the sensitivity of the ROC curve at a specificity, under each weighting of the scans.

    Equal scores are called together, and between two thresholds the curve is straight. NaN where a
    replicate holds no positive or no negative.

    Source: Fawcett, "An introduction to ROC analysis", 2006, sections 5 and 8.1.
    """
    if positives.all() or not positives.any():
        return np.full(len(weights), np.nan)
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    drawn = weights[:, order].astype(np.float64)
    sides = []
    for side in (positives[order], ~positives[order]):
        called = np.cumsum(drawn * side, axis=1)[:, last]
        called = np.concatenate([np.zeros((len(called), 1)), called], axis=1)
        total = np.where(called[:, -1:] > 0, called[:, -1:], np.nan)
        sides.append(called / total)
    hits, alarms = sides
    allowed = 1 - specificity + 1e-9
    left = np.maximum((alarms <= allowed).sum(axis=1) - 1, 0)[:, None]
    (x, y), (x_next, y_next) = (
        [np.take_along_axis(axis, left + step, axis=1)[:, 0] for axis in (alarms, hits)]
        for step in (0, 1)
    )
    return np.asarray(y + (allowed - x) / (x_next - x) * (y_next - y))


def balanced_accuracy(fold: OneVsRest) -> float:
    """Returns the mean of sensitivity and specificity."""
    return (sensitivity(fold) + specificity(fold)) / 2


def f1(fold: OneVsRest) -> float:
    """Returns the harmonic mean of precision and sensitivity at the threshold.

    0 where no positive is called.

    Source: van Rijsbergen, Information Retrieval, 1979, chapter 7, with beta = 1.
    """
    hits = int((fold.called & fold.positives).sum())
    return 2 * hits / int(fold.called.sum() + fold.positives.sum())


def brier(fold: OneVsRest) -> float:
    """Returns the mean squared difference of probability and truth.

    Source: Brier 1950, of one class against the rest.
    """
    return float(np.square(fold.probabilities - fold.positives).mean())


def calibration_error(
    probabilities: Float[np.ndarray, " n"],
    positives: Bool[np.ndarray, " n"],
    bins: int = CALIBRATION_BINS,
) -> float:
    """Returns the expected calibration error: |share of positives - mean probability|, averaged.

    Bins are those of `calibration_bins`; a bin weighs by its scans.

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
    """
    edges = np.quantile(probabilities, np.arange(1, bins) / bins, method="inverted_cdf")
    return np.asarray(np.searchsorted(edges, probabilities, side="left"))


AUROC = Metric(
    "auroc",
    "AUROC",
    "AUROC",
    "Share of pairs of a positive and a negative scan in which the positive scores higher.",
    lambda fold: auroc(fold.probabilities, fold.positives),
)
METRICS: tuple[Metric, ...] = (
    AUROC,
    Metric(
        "auprc",
        "AUPRC",
        "AUPRC",
        "Average precision; guessing scores the share of positives.",
        lambda fold: float(average_precision_score(fold.positives, fold.probabilities)),
    ),
    Metric(
        "sensitivity",
        "Sensitivity",
        "sens",
        "Share of positives at or above the threshold, which was set on training scans: what that "
        "threshold finds here.",
        sensitivity,
        at_threshold=True,
        share_of="positives",
    ),
    Metric(
        "specificity",
        "Specificity",
        "spec",
        "Share of negatives below the threshold.",
        specificity,
        at_threshold=True,
        share_of="negatives",
    ),
    Metric(
        "roc_sensitivity",
        f"Sensitivity at {100 * SPECIFICITY:.0f} % specificity",
        "ROC",
        f"Sensitivity on the ROC of the test scans where it has {100 * SPECIFICITY:.0f} % "
        "specificity: what a threshold set on the test scans themselves would find.",
        lambda fold: float(
            roc_sensitivity(fold.probabilities, fold.positives, np.ones((1, fold.num_scans)))[0]
        ),
        share_of="positives",
    ),
    Metric(
        "balanced_accuracy",
        "Balanced accuracy",
        "bal",
        "Mean of sensitivity and specificity.",
        balanced_accuracy,
        at_threshold=True,
    ),
    Metric(
        "f1",
        "F1",
        "F1",
        "Harmonic mean of precision and sensitivity at the threshold.",
        f1,
        at_threshold=True,
    ),
    Metric(
        "brier",
        "Brier",
        "Brier",
        "Mean squared difference of probability and truth.",
        brier,
        better="low",
    ),
    Metric(
        "calibration_error",
        "ECE",
        "ECE",
        "Expected calibration error, in ten bins of equal numbers of scans.",
        lambda fold: calibration_error(fold.probabilities, fold.positives),
        better="low",
    ),
)


def threshold_at(
    scores: Float[np.ndarray, " n"],
    positives: Bool[np.ndarray, " n"],
    specificity: float = SPECIFICITY,
) -> float:
    """Returns the lowest threshold that leaves the given share of negatives below it.

    A score at or above the threshold is called positive. NaN where there is no negative.

    Args:
        scores: ``[n]`` of validation scans, which no test scan is among.
    """
    negatives = np.sort(scores[~positives])
    if not len(negatives):
        return float("nan")
    # Just above the k-th negative, so that it and all below it are left alone.
    k = int(np.ceil(specificity * len(negatives) - 1e-9))
    return float(np.nextafter(negatives[k - 1], np.inf)) if k else float("-inf")


def threshold_replicates(
    scores: Float[np.ndarray, " n"],
    positives: Bool[np.ndarray, " n"],
    weights: Shaped[np.ndarray, "r n"],
    specificity: float = SPECIFICITY,
) -> Float[np.ndarray, " r"]:
    """Returns `threshold_at` under each of many resamples of the validation scans.

    Args:
        weights: ``[r n]`` how often each scan is drawn.

    Returns:
        ``[r]``; NaN where no negative is drawn.
    """
    negatives = np.flatnonzero(~positives)
    thresholds: np.ndarray = np.full(len(weights), np.nan)
    if not len(negatives):
        return thresholds
    negatives = negatives[np.argsort(scores[negatives], kind="stable")]
    drawn = np.cumsum(weights[:, negatives], axis=1, dtype=np.int64)
    k = np.ceil(specificity * drawn[:, -1] - 1e-9)
    place = (drawn < k[:, None]).sum(axis=1)
    is_drawn = drawn[:, -1] > 0
    thresholds[is_drawn] = np.nextafter(scores[negatives[place[is_drawn]]], np.inf)
    return thresholds


def thresholds_of(validation: Float[np.ndarray, "t k"], truth: Truth) -> Float[np.ndarray, " k"]:
    """Returns the threshold of each class, ``[k]``, by the scans that were validated.

    Args:
        validation: ``[t k]`` scores; rows of NaN were not validated.
    """
    thresholds = np.full(truth.num_classes, np.nan)
    for code in range(truth.num_classes):
        rows = truth.known(code) & ~np.isnan(validation[:, code])
        thresholds[code] = threshold_at(validation[rows, code], truth.positives(code)[rows])
    return thresholds


def share_replicates(
    hits: Bool[np.ndarray, "... n"], weights: Shaped[np.ndarray, "r n"]
) -> Float[np.ndarray, " r"]:
    """Returns the weighted share of hits under each of many weightings of the same scans.

    Args:
        hits: ``[n]`` scans that are counted, such as positives, and whether each is called; or
            ``[r n]``, where that differs between replicates.
        weights: ``[r n]``, not negative, such as how often a resample drew each scan.

    Returns:
        ``[r]``; NaN where a replicate holds no scan.
    """
    drawn = weights.astype(np.float32)
    total = drawn.sum(axis=1)
    share: np.ndarray = np.full(len(weights), np.nan)
    np.divide((drawn * hits).sum(axis=1), total, out=share, where=total > 0)
    return share


def share_interval(
    share: float, replicates: Float[np.ndarray, "a r"], num_patients: int, num_scans: int
) -> Ends:
    """Returns the 95 % interval of a share of scans of several patients.

    It is Wilson's, for as many independent scans as would vary as much as the share varies
    between patient resamples, at most ``num_scans``. Of a share of 0 or 1 each patient
    counts for one scan at most.

    Args:
        share: In [0, 1], mean over models; NaN where undefined.
        replicates: ``[a r]`` of each model under the same patient resamples.

    Source: Wilson 1927; with the effective number of a clustered sample: Franco, Little, Louis,
    Slud, Journal of Survey Statistics and Methodology 7(3), 2019, which recommends it.
    """
    resampled = mean_of_defined(replicates)
    resampled = resampled[~np.isnan(resampled)]
    if np.isnan(share) or len(resampled) < 2:
        return UNDEFINED
    variance = float(resampled.var(ddof=1))
    varying, size = share * (1 - share), float(num_patients)
    if varying > 1e-9 and variance > 0:
        size = min(varying / variance, float(num_scans))
    elif variance > 0:
        # Where the threshold is chosen anew, resamples of a share of 0 or 1 vary too.
        middle = float(resampled.mean())
        size = min(middle * (1 - middle) / variance, size)
    z = float(ndtri((1 + _LEVEL) / 2))
    middle = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(varying / size + z**2 / (4 * size**2))
    return Ends(float(max(0.0, middle - half)), float(min(1.0, middle + half)))
