"""AUROC in plain numpy: one value, a macro average, and thousands of weighted replicates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Int8, Shaped

# Replicates worked on at a time: a block of about this many weights stays in the cache.
_BLOCK_WEIGHTS = 1 << 17


@dataclass(frozen=True)
class MacroAuroc:
    """A macro average of AUROCs, each of one class; NaN where undefined.

    Args:
        undefined: Classes left out of the mean because they have no positive or no negative.
    """

    auroc: float
    per_class: Float[np.ndarray, " k"]
    undefined: int


def auroc(
    scores: Float[np.ndarray, " n"],
    positives: Bool[np.ndarray, " n"],
    weights: Shaped[np.ndarray, " n"] | None = None,
) -> float:
    """Returns the area under the ROC curve: P(positive above negative) + P(tie) / 2.

    Args:
        scores: ``[n]``, larger means more likely positive.
        weights: ``[n]``, not negative; all 1 where None.

    Returns:
        A number in [0, 1]; NaN where there is no positive or no negative of weight above 0.

    Raises:
        ValueError: If a score is NaN or the lengths differ.

    Source: Hanley and McNeil 1982: the AUROC is the Mann-Whitney statistic over the pairs.

    Example:
        >>> auroc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, False, True, True]))
        0.875
    """
    row = np.ones((1, len(scores))) if weights is None else np.asarray(weights)[None]
    return float(auroc_replicates(scores, positives, row)[0])


def auroc_replicates(
    scores: Float[np.ndarray, " n"],
    positives: Bool[np.ndarray, " n"],
    weights: Shaped[np.ndarray, "r n"],
) -> Float[np.ndarray, " r"]:
    """Returns the weighted AUROC under each of many weightings of the same scans.

    The scans are sorted once; a replicate is then one cumulative sum, so that 2,000 resamples
    cost little more than reading their weights. See `auroc`.

    Args:
        weights: ``[r n]``, not negative, such as how often a resample drew each scan.

    Raises:
        ValueError: If a score is NaN or the lengths differ.
    """
    scores, positives = np.asarray(scores), np.asarray(positives, dtype=bool)
    if scores.shape != positives.shape or weights.shape[1:] != scores.shape:
        raise ValueError(
            f"scores {scores.shape}, positives {positives.shape} and weights {weights.shape} must "
            "be [n], [n] and [r n] with the same n"
        )
    if np.isnan(scores).any():
        row = int(np.flatnonzero(np.isnan(scores))[0])
        raise ValueError(f"the score in row {row} is NaN; an AUROC needs numbers")
    result = np.full(len(weights), np.nan)
    negative, positive = np.flatnonzero(~positives), np.flatnonzero(positives)
    if not len(negative) or not len(positive):
        return result
    negative = negative[np.argsort(scores[negative], kind="stable")]
    positive = positive[np.argsort(scores[positive], kind="stable")]
    below = np.searchsorted(scores[negative], scores[positive], side="left")
    not_above = np.searchsorted(scores[negative], scores[positive], side="right")
    block = max(1, _BLOCK_WEIGHTS // len(scores))
    for start in range(0, len(weights), block):
        columns = np.ascontiguousarray(weights[start : start + block].T, dtype=np.float64)
        mass = np.zeros((len(negative) + 1, columns.shape[1]))
        np.cumsum(columns[negative], axis=0, out=mass[1:])
        drawn = columns[positive]
        # A tie counts one half: the mean of "strictly below" and "below or equal".
        wins = np.einsum("pr,pr->r", drawn, mass[below] + mass[not_above]) / 2
        pairs = drawn.sum(axis=0) * mass[-1]
        np.divide(wins, pairs, out=result[start : start + block], where=pairs > 0)
    return result


def macro_auroc(scores: Float[np.ndarray, "n k"], truth: Int8[np.ndarray, "n k"]) -> MacroAuroc:
    """Returns the mean AUROC of several questions, undefined ones left out and counted.

    Args:
        scores: ``[n k]``, a score of each class asked about.
        truth: ``[n k]``, 1 for positives, 0 for negatives, -1 for unknown scans, which are left
            out of their class.
    """
    per_class = _per_class(scores, truth, np.ones((1, len(truth))))[:, 0]
    return MacroAuroc(
        auroc=float(mean_of_defined(per_class)),
        per_class=per_class,
        undefined=int(np.isnan(per_class).sum()),
    )


def macro_auroc_replicates(
    scores: Float[np.ndarray, "n k"],
    truth: Int8[np.ndarray, "n k"],
    weights: Shaped[np.ndarray, "r n"],
) -> Float[np.ndarray, " r"]:
    """Returns the `macro_auroc` under each weighting; NaN where it leaves no class defined."""
    return mean_of_defined(_per_class(scores, truth, weights))


def asked_classes(num_classes: int) -> range:
    """Returns the classes to ask about one against the rest: of two the second alone.

    Where a scan is of exactly one of two classes, the first is the same question upside down.
    """
    return range(1, 2) if num_classes == 2 else range(num_classes)


def one_hot(y: Int[np.ndarray, " n"], num_classes: int) -> Int8[np.ndarray, "n k"]:
    """Returns the truth of scans that are of one class each: 1 for it and 0 for the others."""
    truth: np.ndarray = (np.asarray(y)[:, None] == np.arange(num_classes)).astype(np.int8)
    return truth


def mean_of_defined(values: Float[np.ndarray, "a ..."]) -> Float[np.ndarray, ...]:
    """Returns the mean over the first axis of what is no NaN; NaN where nothing is."""
    defined = ~np.isnan(values)
    count, total = defined.sum(axis=0), np.where(defined, values, 0.0).sum(axis=0)
    mean = np.full(np.shape(count), np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean


def _per_class(
    scores: Float[np.ndarray, "n k"],
    truth: Int8[np.ndarray, "n k"],
    weights: Shaped[np.ndarray, "r n"],
) -> Float[np.ndarray, "k r"]:
    aurocs = []
    for values, column in zip(scores.T, truth.T, strict=True):
        known = column >= 0
        # Weights are many: they are copied only where some scan is left out.
        part = weights if known.all() else weights[:, known]
        aurocs.append(auroc_replicates(values[known], column[known] == 1, part))
    return np.stack(aurocs)
