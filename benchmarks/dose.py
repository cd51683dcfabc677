"""How often the curve over the scale is right: python benchmarks/dose.py [REPETITIONS [DRAWS]].

Planted curves, 3 pretraining seeds (sd .01 each scale by itself, .005 together), patients with sd
.02 of which a tenth tells scales apart. Takes about 20 s for 100 repetitions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from scantune.statistics import dose

Curve = Callable[[Float[np.ndarray, " x"]], Float[np.ndarray, " x"]]

TRUTHS: dict[str, Curve] = {
    "flat": lambda s: 0 * s + 0.8,
    "parabola, best .5": lambda s: 0.8 - 0.15 * (s - 0.5) ** 2,
    "steep, then level": lambda s: 0.7 + 0.12 * (1 - np.exp(-s / 0.15)) - 0.03 * s,
    "narrow, best .6": lambda s: 0.75 + 0.08 * np.exp(-((s - 0.6) ** 2) / 0.08),
    "rising to the end": lambda s: 0.75 + 0.06 * s,
}
SCALES = ((0.0, 0.25, 0.5, 0.75, 1.0, 1.25), (0.0, 0.25, 0.5, 1.0))


def main(times: int) -> None:
    """Prints a line for each set of scales and planted curve."""
    print("scales seeds curve               covers width abstains within wrong loss(take)")
    for scales in SCALES:
        at = np.array(scales)
        patients = 0.02**2 * (0.9 + 0.1 * np.eye(len(at)))
        root = np.linalg.cholesky(patients)
        for num_seeds in (1, 2, 3, 5) if len(at) > dose.FEWEST_SCALES else (2, 3, 5):
            for name, truth in TRUTHS.items():
                rng, rows = np.random.default_rng(1), []
                for repetition in range(times):
                    noise = 0.005 * rng.standard_normal((1, num_seeds))
                    noise = noise + 0.01 * rng.standard_normal((len(at), num_seeds))
                    values = (truth(at) + root @ rng.standard_normal(len(at)))[:, None] + noise
                    fit = dose.fit_curve(
                        scales, values, patients, 80.0, margin=0.01, seed=repetition
                    )
                    lost = truth(fit.at).max() - truth(fit.at)
                    tested = fit.is_within & np.isin(fit.at, at)
                    take = fit.at[tested][0] if tested.any() else fit.near
                    best = fit.at[lost.argmin()]
                    rows.append(
                        (
                            fit.best_low - 1e-9 <= best <= fit.best_high + 1e-9,
                            fit.best_high - fit.best_low,
                            fit.is_flat,
                            fit.is_within.any(),
                            (lost[fit.is_within] > 0.0101).any(),
                            float(lost.max() and truth(fit.at).max() - truth(np.array(take))),
                        )
                    )
                found = np.mean(np.array(rows, dtype=np.float64), axis=0)
                print(
                    f"{len(at):6} {num_seeds:5} {name:20}"
                    + "{:6.2f} {:5.2f} {:8.2f} {:6.2f} {:5.2f} {:10.4f}".format(*found),
                    flush=True,
                )


if __name__ == "__main__":
    if len(sys.argv) > 2:
        dose._DRAWS = int(sys.argv[2])
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
