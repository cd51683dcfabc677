"""How often the curve over the scale is right: python benchmarks/dose.py [REPETITIONS [DRAWS]].

    python benchmarks/dose.py 200 800          one learner and label budget: about 5 minutes
    python benchmarks/dose.py 200 800 joint    three that share one curve: about 12 minutes

One place: planted curves, pretraining seeds (sd .01 each scale by itself, .005 together), patients
with sd .02 of which a tenth tells scales apart.

Joint: three label budgets at AUROCs of .72, .80 and .89, whose seeds have sds of .02, .012 and .008
(half of it shared by scales, and 40 % of the rest by budgets) and whose patients have .03, .025 and
.018 (correlated by .7 between budgets, .9 between scales). What the scale does is planted as one
curve of normal scores or as one of AUROCs. "auroc" fits the plain mean of the budgets' AUROCs, as
before; "probit" is `fit_joint`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr, ndtri

from scantune.statistics import dose
from scantune.statistics.few_patients import Sides
from scantune.statistics.intervals import Estimate, combined

Curve = Callable[[Float[np.ndarray, " x"]], Float[np.ndarray, " x"]]

TRUTHS: dict[str, Curve] = {
    "flat": lambda s: 0 * s + 0.8,
    "parabola, best .5": lambda s: 0.8 - 0.15 * (s - 0.5) ** 2,
    "steep, then level": lambda s: 0.7 + 0.12 * (1 - np.exp(-s / 0.15)) - 0.03 * s,
    "narrow, best .6": lambda s: 0.75 + 0.08 * np.exp(-((s - 0.6) ** 2) / 0.08),
    "rising to the end": lambda s: 0.75 + 0.06 * s,
}
SCALES = ((0.0, 0.25, 0.5, 0.75, 1.0, 1.25), (0.0, 0.25, 0.5, 1.0))
LEVELS = np.array([0.72, 0.80, 0.89])
OF_SEEDS, OF_PATIENTS = np.array([0.02, 0.012, 0.008]), np.array([0.03, 0.025, 0.018])
# Normal scores of the joint curves as multiples of the differences above: up to .17 in AUROC .8.
TIMES = 4.0
MARGIN = 0.01


def one_place(times: int) -> None:
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
                        scales, values, patients, 80.0, margin=MARGIN, seed=repetition
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
                means = np.mean(np.array(rows, dtype=np.float64), axis=0)
                print(
                    f"{len(at):6} {num_seeds:5} {name:20}"
                    + "{:6.2f} {:5.2f} {:8.2f} {:6.2f} {:5.2f} {:10.4f}".format(*means),
                    flush=True,
                )


Cells = list[list[list[Estimate]]]


class Places:
    """Studies of three label budgets, whose patients are drawn anew."""

    def __init__(self, at: Float[np.ndarray, " k"], num_seeds: int) -> None:
        self.at, self.num_seeds = at, num_seeds
        count, num_scales = len(LEVELS), len(at)
        between = 0.7 + 0.3 * np.eye(count)
        within = 0.9 + 0.1 * np.eye(num_scales)
        self._root = np.linalg.cholesky(
            np.kron(np.outer(OF_PATIENTS, OF_PATIENTS) * between, within)
        )
        drawn = self._root @ np.random.default_rng(0).standard_normal((count * num_scales, 400))
        drawn -= drawn.mean(axis=1, keepdims=True)
        self._replicates = drawn.reshape(count, num_scales, 400)

    def true(self, curve: Curve, *, is_probit: bool) -> Float[np.ndarray, "c x"]:
        """Returns the AUROC of each budget and scale, the curve's mean being at its level."""
        shape = curve(self.at)
        shape = TIMES * (shape - shape.mean())
        if is_probit:
            return np.asarray(ndtr(ndtri(LEVELS)[:, None] + shape))
        slope = np.exp(-(ndtri(0.8) ** 2) / 2) / np.sqrt(2 * np.pi)
        return np.asarray(LEVELS[:, None] + slope * shape)

    def cells(self, true: Float[np.ndarray, "c k"], rng: np.random.Generator) -> Cells:
        """Returns estimates of a new study."""
        count, num_scales = true.shape
        of_patients = self._root @ rng.standard_normal(count * num_scales)

        def correlated(share: float, *shape: int) -> Float[np.ndarray, "c k n"]:
            common, alone = rng.standard_normal((1, *shape)), rng.standard_normal((count, *shape))
            return np.asarray(np.sqrt(share) * common + np.sqrt(1 - share) * alone)

        noise = 0.5 * correlated(0.5, 1, self.num_seeds)
        noise = noise + correlated(0.4, num_scales, self.num_seeds)
        values = true[..., None] + of_patients.reshape(count, num_scales, 1)
        values = np.minimum(values + OF_SEEDS[:, None, None] * noise, 0.999)
        sides = (Sides("ill", 160, 240),)
        return [
            [
                [Estimate(float(a), np.full((1, 1), a), a + drawn, 400, 0, sides) for a in of_scale]
                for of_scale, drawn in zip(of_cell, replicates, strict=True)
            ]
            for of_cell, replicates in zip(values, self._replicates, strict=True)
        ]


class Seen(NamedTuple):
    """What a fit says of one study: the curve, each budget's on its AUROCs, and one shape's p."""

    fit: dose.DoseFit
    of_cells: list[Float[np.ndarray, " x"]]
    shape_p: float


def _plain(scales: Sequence[float], cells: Cells) -> Seen:
    """Returns the curve of the budgets' mean AUROC, each at its level, as it was fitted before."""

    def mean(weights: Sequence[float]) -> dose.DoseFit:
        arms = [
            [combined(of_seed, weights) for of_seed in zip(*of_arm, strict=True)]
            for of_arm in zip(*cells, strict=True)
        ]
        fit = dose.fit_dose(scales, arms, margin=MARGIN)
        assert fit is not None
        return fit

    count = len(cells)
    fit = mean([1 / count] * count)
    apart = [
        mean([1.0 if place == number else -1 / (count - 1) for place in range(count)]).flat_p
        for number in range(count)
    ]
    heights = [float(np.mean([[each.auroc for each in arm] for arm in cell])) for cell in cells]
    return Seen(
        fit,
        [fit.auroc + height - np.mean(heights) for height in heights],
        min(1, count * min(apart)),
    )


def _probit(scales: Sequence[float], cells: Cells) -> Seen:
    joint = dose.fit_joint(scales, cells, margin=MARGIN, told=1)
    assert joint is not None
    curves = [dose.at_level(joint.fit.auroc, level) for level in joint.levels]
    return Seen(joint.fit, curves, joint.shape_p)


def joint(times: int) -> None:
    """Prints a line for each number of seeds, planted curve, scale of planting and fit."""
    scales = SCALES[0]
    at = np.array(scales)
    print("seeds curve               planted  fitted  covers width  flat other-shape off")
    for num_seeds in (3, 2):
        places = Places(at, num_seeds)
        for name, curve in TRUTHS.items():
            for planted in ("probit",) if name == "flat" else ("probit", "auroc"):
                true = places.true(curve, is_probit=planted == "probit")
                rng = np.random.default_rng(1)
                studies = [places.cells(true, rng) for _ in range(times)]
                for fitted, fit_of in (("auroc", _plain), ("probit", _probit)):
                    rows = []
                    for cells in studies:
                        seen = fit_of(scales, cells)
                        fit = seen.fit
                        best = fit.at[curve(fit.at).argmax()]
                        tested = np.isin(fit.at, at)
                        off = np.array([each[tested] for each in seen.of_cells]) - true
                        off -= off.mean(axis=1, keepdims=True)
                        rows.append(
                            (
                                fit.best_low - 1e-9 <= best <= fit.best_high + 1e-9,
                                fit.best_high - fit.best_low,
                                fit.is_flat,
                                seen.shape_p < 0.05,
                                np.sqrt((off**2).mean()),
                            )
                        )
                    means = np.mean(np.array(rows, dtype=np.float64), axis=0)
                    print(
                        f"{num_seeds:5} {name:20} {planted:7}  {fitted:7}"
                        + "{:6.2f} {:5.2f} {:5.2f} {:11.2f} {:.4f}".format(*means),
                        flush=True,
                    )


if __name__ == "__main__":
    if len(sys.argv) > 2:
        dose._DRAWS = int(sys.argv[2])
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    if sys.argv[3:] == ["joint"]:
        joint(repetitions)
    else:
        one_place(repetitions)
