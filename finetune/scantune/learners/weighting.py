"""What counts for how much: rare classes, and the rows that a linear probe is fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from scantune.labels.truth import Truth

# Of the effective number of scans.
BETA = 0.999
Balance = Literal["none", "sampling", "effective"]


def balanced_shares(truth: Truth) -> Float[np.ndarray, " t"]:
    """Returns the probability with which each scan is drawn, so that classes are equally likely.

    A scan of several findings counts for the rarest of them, one of none for a class of its own.
    """
    has = truth.matrix == 1
    by_rarity = np.argsort(has.sum(axis=0), kind="stable")
    rarest = by_rarity[np.argmax(has[:, by_rarity], axis=1)]
    rarest = np.where(has.any(axis=1), rarest, truth.num_classes)
    _, codes, counts = np.unique(rarest, return_inverse=True, return_counts=True)
    return np.asarray(1 / counts[codes] / len(counts))


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
    present = counts > 0
    weights[present] = (1 - beta) / -np.expm1(counts[present] * np.log(beta)) if beta else 1.0
    mean: float = (weights * counts).sum() / counts.sum()
    return weights / mean


def class_weights(
    truth: Truth, beta: float = BETA
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Returns what a scan with each class weighs in the loss, and one without it.

    Where scans have one class each, one without it weighs by its own class: the second is 1.
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


@dataclass(frozen=True)
class ProbeRows:
    """How the training scans of a linear probe are mixed and weighed.

    Args:
        mixup: Alpha of Beta(alpha, alpha), a share for each pair; 0 mixes nothing.
        noise: Standard deviation of what is added, in standard deviations of each feature.
        balance: "sampling" weighs every class alike, as drawing them equally often would;
            "effective" by the effective number of scans.
    """

    mixup: float = 0.0
    noise: float = 0.0
    balance: Balance = "none"
    beta: float = BETA

    def of(
        self, z: Float[np.ndarray, "t e"], truth: Truth, seed: int
    ) -> tuple[Float[np.ndarray, "r e"], Int[np.ndarray, " r"], Float[np.ndarray, " r"]]:
        """Returns ``r`` rows, their classes, and how many scans each counts for, ``t`` in all.

        Half of the weight stays with the scans as they are. A mixture of two classes is two rows
        that share its weight.

        Args:
            z: ``[t e]`` features, of unit variance.

        Source: Zhang et al. 2018 (arXiv 1710.09412), equation 1, at the features as in Verma et
        al. 2019 (arXiv 1806.05236).
        """
        y, shares = truth.classes, self._shares(truth)
        if not self.mixup and not self.noise:
            return z, y, shares
        rng = np.random.default_rng([seed, len(z)])
        noise = self.noise * rng.normal(size=z.shape)
        if not self.mixup:
            return np.concatenate([z, z + noise]), np.tile(y, 2), np.tile(shares / 2, 2)
        share = rng.beta(self.mixup, self.mixup, len(z))
        partner = rng.permutation(len(z))
        mixed = share[:, None] * z + (1 - share[:, None]) * z[partner] + noise
        parts = (shares, share * shares, (1 - share) * shares[partner])
        counted = np.concatenate(parts)
        rows = np.concatenate([z, mixed, mixed])
        return rows, np.concatenate([y, y, y[partner]]), counted * len(z) / counted.sum()

    def _shares(self, truth: Truth) -> Float[np.ndarray, " t"]:
        if self.balance == "sampling":
            return balanced_shares(truth) * len(truth)
        if self.balance == "effective":
            return np.asarray(class_weights(truth, self.beta)[0][truth.classes])
        return np.ones(len(truth))


PLAIN = ProbeRows()
