"""Rare classes: drawn more often, or weighed more."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from scantune.truth import Truth

BETA = 0.999


def balanced_shares(truth: Truth) -> Float[np.ndarray, " t"]:
    """Returns the probability with which each scan is drawn, so that classes are equally likely.

    A scan of several findings counts for the rarest of them, one of none for a class of its own.
    """
    has = truth.matrix == 1
    by_rarity = np.argsort(has.sum(axis=0), kind="stable")
    rarest = by_rarity[np.argmax(has[:, by_rarity], axis=1)]
    rarest = np.where(has.any(axis=1), rarest, truth.num_classes)
    _, codes, counts = np.unique(rarest, return_inverse=True, return_counts=True)
    shares: np.ndarray = 1 / counts[codes] / len(counts)
    return shares


def effective_weights(counts: Int[np.ndarray, " k"], beta: float = BETA) -> Float[np.ndarray, " k"]:
    """Returns the weight of each class, (1 - beta) / (1 - beta^n), with a mean of 1 over scans.

    Args:
        counts: ``[k]`` scans of each class; a class of none weighs 0.
        beta: 0 weighs all alike, towards 1 they weigh by 1 / n.

    Source: Cui et al., CVPR 2019 (arXiv 1901.05555), equations 2 and 6; there the weights sum to
    k, here a loss keeps its size.

    Example:
        >>> effective_weights(np.array([1, 3]), 0.0)
        array([1., 1.])
    """
    counts = np.asarray(counts)
    weights = np.zeros(len(counts))
    seen = counts > 0
    weights[seen] = (1 - beta) / -np.expm1(counts[seen] * np.log(beta)) if beta else 1.0
    mean: float = (weights * counts).sum() / counts.sum()
    return weights / mean


def class_weights(
    truth: Truth, beta: float = BETA
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Returns what a scan with each class weighs in the loss, and one without it.

    Where scans have one class each, one without it weighs by its own class: the second is 1.

    Args:
        truth: Of the training scans.
        beta: Of the effective number.
    """
    having = (truth.matrix == 1).sum(axis=0)
    if truth.is_exclusive:
        return effective_weights(having, beta), np.ones(len(having))
    lacking = (truth.matrix == 0).sum(axis=0)
    pairs = np.ones((2, len(having)))
    for place, both in enumerate(zip(having, lacking, strict=True)):
        if sum(both):
            pairs[:, place] = effective_weights(np.array(both), beta)
    return pairs[0], pairs[1]
