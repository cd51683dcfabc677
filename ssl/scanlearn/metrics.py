"""AUROC in plain numpy: one value, a macro average, and thousands of weighted replicates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

# Replicates worked on at a time: a block of about this many weights stays in the cache.
_BLOCK_WEIGHTS = 1 << 17


@dataclass(frozen=True)
class MacroAuroc:
    """A macro average of one-against-rest AUROCs.

    Args:
        auroc: Mean over the classes that are defined; NaN where none is.
        per_class: ``[k]`` AUROC of each class against the rest; NaN where undefined. With two
            classes both entries are the AUROC of the second.
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
        positives: ``[n]``, True for positives.
        weights: ``[n]``, not negative; all 1 where None.

    Returns:
        A number in [0, 1]; NaN where there is no positive or no negative of weight above 0.

    Raises:
        ValueError: If a score is NaN or the lengths differ.

    Source:
        Hanley and McNeil 1982: the AUROC is the Mann-Whitney statistic over the pairs.

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
    cost little more than reading their weights.

    Args:
        scores: ``[n]``, larger means more likely positive.
        positives: ``[n]``, True for positives.
        weights: ``[r n]``, not negative, such as how often a resample drew each scan.

    Returns:
        ``[r]``; NaN where a replicate has no positive or no negative.

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
        here = result[start : start + block]
        np.divide(wins, pairs, out=here, where=pairs > 0)
    return result


def macro_auroc(scores: Float[np.ndarray, "n k"], y: Int[np.ndarray, " n"]) -> MacroAuroc:
    """Returns the mean one-against-rest AUROC, undefined classes left out and counted.

    Args:
        scores: ``[n k]``, a score of each class.
        y: ``[n]``, the class of each scan, from 0 to k - 1.
    """
    ones = np.ones((1, len(y)))
    scored = _scored_classes(scores)
    values = np.array([auroc_replicates(scores[:, c], y == c, ones)[0] for c in scored])
    per_class = np.repeat(values, 2) if len(scored) == 1 else values
    return MacroAuroc(
        auroc=float(_mean_of_defined(values[:, None])[0]),
        per_class=per_class,
        undefined=int(np.isnan(per_class).sum()),
    )


def macro_auroc_replicates(
    scores: Float[np.ndarray, "n k"],
    y: Int[np.ndarray, " n"],
    weights: Shaped[np.ndarray, "r n"],
) -> Float[np.ndarray, " r"]:
    """Returns the macro AUROC under each weighting; a class undefined in a replicate is left out.

    Args:
        scores: ``[n k]``, a score of each class.
        y: ``[n]``, the class of each scan, from 0 to k - 1.
        weights: ``[r n]``, not negative.

    Returns:
        ``[r]``; NaN where a replicate leaves no class defined.
    """
    per_class = [auroc_replicates(scores[:, c], y == c, weights) for c in _scored_classes(scores)]
    return _mean_of_defined(np.stack(per_class))


def _scored_classes(scores: Float[np.ndarray, "n k"]) -> range:
    # With two classes one against the rest is one question, asked of the second class.
    num_classes = scores.shape[1]
    return range(1, 2) if num_classes == 2 else range(num_classes)


def _mean_of_defined(values: Float[np.ndarray, "k r"]) -> Float[np.ndarray, " r"]:
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    total = np.where(defined, values, 0.0).sum(axis=0)
    mean = np.full(values.shape[1], np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean
