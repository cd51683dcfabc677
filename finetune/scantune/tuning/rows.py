"""What a linear probe is fitted on: features, or mixtures of them, and how much each counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from scantune.truth import Truth
from scantune.tuning.balance import BETA, balanced_shares, class_weights

Balance = Literal["none", "sampling", "effective"]


@dataclass(frozen=True)
class ProbeRows:
    """How the training scans of a linear probe are mixed and weighed.

    Args:
        mixup: Alpha of Beta(alpha, alpha), a share for each pair; 0 mixes nothing.
        noise: Standard deviation of what is added, in standard deviations of each feature.
        balance: "sampling" weighs every class alike, as drawing them equally often would;
            "effective" by the effective number of scans.
        beta: Of the effective number.
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
            truth: Of their scans, one class each.
            seed: Of partners, shares and noise.

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
        own = rng.beta(self.mixup, self.mixup, len(z))
        partner = rng.permutation(len(z))
        mixed = own[:, None] * z + (1 - own[:, None]) * z[partner] + noise
        parts = (shares, own * shares, (1 - own) * shares[partner])
        counted = np.concatenate(parts)
        rows = np.concatenate([z, mixed, mixed])
        return rows, np.concatenate([y, y, y[partner]]), counted * len(z) / counted.sum()

    def _shares(self, truth: Truth) -> Float[np.ndarray, " t"]:
        if self.balance == "sampling":
            return balanced_shares(truth) * len(truth)
        if self.balance == "effective":
            weights: np.ndarray = class_weights(truth, self.beta)[0][truth.classes]
            return weights
        return np.ones(len(truth))


PLAIN = ProbeRows()
