"""How often classes are said to differ in what an arm gains, which they do not and do.

    python benchmarks/classes.py [STUDIES]      200: about 8 minutes of one core

Binormal scores of several findings of the same patients; a fifth of a score's variance is the
patient's in all findings, half the finding's in all networks, the rest the network's. A pretraining
seed moves the normal scores of all findings by a standard deviation of .1 and each by one of .07.
Either all findings gain .15 on normal scores, whatever their AUROC (.70 to .92), or the first alone
gains .5.
"""

from __future__ import annotations

import sys

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtri

from scantune.statistics.few_patients import Sides
from scantune.statistics.interaction import interaction
from scantune.statistics.intervals import Estimate

REPLICATES = 150
OF_ALL, OF_EACH = 0.1, 0.07
# Patients, and the share of them with each finding.
CASES = (
    (400, (0.4, 0.3, 0.2, 0.1, 0.05)),
    (200, (0.4, 0.2)),
    (300, (0.3, 0.3, 0.2)),
    (600, tuple(np.linspace(0.03, 0.3, 12))),
)
Arm = list[list[Estimate]]


def _aurocs(
    scores: Float[np.ndarray, " n"],
    positives: Bool[np.ndarray, " n"],
    weights: Float[np.ndarray, "r n"],
) -> Float[np.ndarray, " r"]:
    order = np.argsort(scores)
    ill, well = (weights[:, order] * side[order] for side in (positives, ~positives))
    return np.asarray((ill * np.cumsum(well, axis=1)).sum(1) / (ill.sum(1) * well.sum(1)))


def study(
    rng: np.random.Generator,
    patients: int,
    prevalence: tuple[float, ...],
    gains: Float[np.ndarray, " k"],
    seeds: int,
) -> tuple[Arm, Arm]:
    """Returns the estimates of both arms on new patients, by finding and seed."""
    count = len(prevalence)
    heights = ndtri(np.linspace(0.7, 0.92, count))
    drawn = rng.multinomial(patients, np.full(patients, 1 / patients), size=REPLICATES)
    weights = np.vstack([np.ones(patients), drawn])
    positives = [
        rng.permutation(np.arange(patients) < round(share * patients)) for share in prevalence
    ]
    of_finding, of_patient = rng.standard_normal((count, patients)), rng.standard_normal(patients)
    arms: list[Arm] = []
    for gain in (gains, 0 * gains):
        arm: Arm = [[] for _ in prevalence]
        for _ in range(seeds):
            of_all = OF_ALL * rng.standard_normal()
            for place, side in enumerate(positives):
                z = heights[place] + gain[place] + of_all + OF_EACH * rng.standard_normal()
                scores = 2**0.5 * z * side + 0.5**0.5 * of_finding[place] + 0.2**0.5 * of_patient
                values = _aurocs(scores + 0.3**0.5 * rng.standard_normal(patients), side, weights)
                sides = (Sides(str(place), int(side.sum()), int((~side).sum())),)
                plain = np.full((1, 1), values[0])
                arm[place].append(Estimate(float(values[0]), plain, values[1:], patients, 0, sides))
        arms.append(arm)
    return arms[0], arms[1]


def main(times: int) -> None:
    """Prints how often findings are called different that are not, and the first where it is."""
    print("findings patients seeds called  found")
    for patients, prevalence in CASES:
        alike, apart = np.full(len(prevalence), 0.15), np.zeros(len(prevalence))
        apart[0] = 0.5
        for seeds in (2, 3, 5):
            rng, called, found = np.random.default_rng(5), 0, 0
            for _ in range(times):
                contrasts = interaction(*study(rng, patients, prevalence, alike, seeds))
                called += np.nanmin([each.p for each in contrasts]) < 0.05
                contrasts = interaction(*study(rng, patients, prevalence, apart, seeds))
                found += contrasts[0].p < 0.05
            shares = f"{called / times:6.3f} {found / times:6.2f}"
            print(f"{len(prevalence):8d} {patients:8d} {seeds:5d} {shares}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
