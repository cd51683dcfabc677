"""What 95 % intervals cover, and how often two arms of one recipe are called different.

    python benchmarks/intervals.py             150 repetitions, 75 of five seeds: 25 minutes
    python benchmarks/intervals.py --quick     20 and 10: 3 minutes
    python benchmarks/intervals.py --only few  the settings whose names hold a word

Everything goes the way of every study. Features are drawn, and then `score_learners` fits the real
learners in real folds, with their refits; `estimate`, `arm_interval`, `paired_difference` and
`verdict` follow. A bench that draws scores and fits nothing cannot see what folds share.

Fitted. Patients have one or two scans, all ill or all healthy. A scan's features are normal: half
of their variance is of the scan itself, common to all networks, which find the same patients hard,
half the network's own; half of each is the patient's. One direction tells the classes apart, by as
much as gives the best linear score the AUROC named, a network's pretraining seed moves it by a
standard deviation of .03, and every network turns its features another way. Two arms of one recipe
have 5 networks each, or one. The true AUROC of fitted models is that on 1,000 unseen patients.

The truth of an arm is its expected AUROC, when patients, models and pretraining seeds are drawn
anew; with one seed, given how good this network is (a parabola in its seed's effect, fitted to all
repetitions). "fixed" is what intervals were before: resampled patients, models held fixed, and the
variance between seeds on top of it.

Few patients. Scores are drawn for a fixed model, or two whose scores correlate by .5 or .9; n+ and
n- patients with one scan each; limits and tests are DeLong's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from common import options, save
from jaxtyping import Float, Int
from scipy.special import ndtri, stdtrit

from scanlearn.features.auroc import auroc
from scantune.labels.labeled_set import LabeledSet
from scantune.labels.truth import Truth
from scantune.learners.by_name import frozen_learner
from scantune.learners.learner import Fit, Learner
from scantune.scoring import score_learners
from scantune.statistics.delong import delong_difference, delong_interval
from scantune.statistics.intervals import (
    Component,
    Estimate,
    arm_interval,
    estimate,
    paired_difference,
    patient_weights,
)

SEED_SD = 0.03
UNSEEN = 1000


class Setting(NamedTuple):
    """One population, and how it is scored."""

    name: str
    patients: int
    ill: float
    auroc: float
    dims: int
    label_seeds: int
    seeds: int = 1
    learner: str = "linear"


SETTINGS = (
    Setting("fitted_60", 60, 0.4, 0.85, 5, 1),
    Setting("fitted_60_wide", 60, 0.4, 0.85, 50, 1),
    Setting("fitted_100", 100, 0.4, 0.85, 20, 1),
    Setting("fitted_100_draws", 100, 0.4, 0.85, 20, 3),
    Setting("fitted_200_rare", 200, 0.15, 0.9, 20, 1),
    Setting("fitted_500", 500, 0.4, 0.85, 50, 1),
    Setting("fitted_100_knn", 100, 0.4, 0.85, 20, 3, 1, "knn"),
    Setting("fitted_seeds", 100, 0.4, 0.85, 20, 1, 5),
    Setting("fitted_seeds_knn", 100, 0.4, 0.85, 5, 3, 5, "knn"),
)
# Patients with and without, AUROC of the first model.
SIDES = ((5, 15), (5, 95), (10, 10), (10, 190), (20, 80), (30, 30), (100, 100))
AUROCS = (0.6, 0.8, 0.9, 0.95, 0.98, 0.995)


class Network(NamedTuple):
    """One network on the patients of a repetition: what it scores, and the truth of its models."""

    estimate: Estimate
    effect: float
    true: float


class Cohort:
    """Labeled patients, unseen ones, and what all networks find hard in them."""

    def __init__(self, setting: Setting, generator: np.random.Generator) -> None:
        self.setting, self._generator = setting, generator
        sizes = generator.integers(1, 3, setting.patients)
        patients = np.repeat(np.arange(setting.patients), sizes)
        ill = np.zeros(setting.patients, dtype=np.int64)
        ill[: round(setting.ill * setting.patients)] = 1
        generator.shuffle(ill)
        truth = Truth.of_classes(ill[patients], 2)
        self.labeled = LabeledSet("drawn", ("no", "yes"), truth, patients, np.arange(len(patients)))
        # Unseen patients have one scan each, and as many are ill as not.
        self.y = np.concatenate([ill[patients], np.arange(UNSEEN) % 2])
        self._owner = np.concatenate([patients, setting.patients + np.arange(UNSEEN)])
        self._common = self._normal()
        self.weights: np.ndarray | None = None

    def _normal(self) -> Float[np.ndarray, "n d"]:
        of_patient = self._generator.normal(size=(self._owner[-1] + 1, self.setting.dims))
        of_scan = self._generator.normal(size=(len(self._owner), self.setting.dims))
        return (of_patient[self._owner] + of_scan) / np.sqrt(2)

    def features(self, effect: float) -> Float[np.ndarray, "n d"]:
        """Returns a network's features of labeled and unseen scans; its seed's effect is normal."""
        gap = np.sqrt(2) * ndtri(self.setting.auroc)
        slope = np.exp(-(gap**2) / 4) / np.sqrt(4 * np.pi)
        features = (self._common + self._normal()) / np.sqrt(2)
        features[:, 0] += (gap + SEED_SD / slope * effect) * self.y
        axes = self._generator.normal(size=(self.setting.dims, self.setting.dims))
        return np.asarray(features @ np.linalg.qr(axes)[0])

    def network(self, shift: float = 0.0) -> Network:
        """Returns a new pretraining seed's network, of an arm that is better by ``shift``.

        Args:
            shift: In standard deviations between seeds.
        """
        setting, generator = self.setting, self._generator
        effect = float(generator.normal()) + shift
        features = self.features(effect)
        learn, aurocs = self._watched(frozen_learner(setting.learner, features, self.labeled))
        scores = score_learners(
            {setting.learner: learn}, self.labeled, label_seeds=setting.label_seeds
        )
        if self.weights is None:
            seed = int(generator.integers(1 << 31))
            self.weights = patient_weights(scores, replicates=500, seed=seed)
        found = estimate(scores, setting.learner, "all", self.weights)
        return Network(found, effect, float(np.mean(aurocs)))

    def _watched(self, learner: Learner) -> tuple[Learner, list[float]]:
        """Returns a learner whose every model scores the unseen patients too, and their AUROCs."""
        unseen = np.arange(len(self.labeled), len(self.y))
        aurocs: list[float] = []

        def learn(rows: Int[np.ndarray, " t"], test: Int[np.ndarray, " u"], seed: int) -> Fit:
            fit = learner(rows, np.concatenate([test, unseen]), seed)
            aurocs.append(auroc(fit.scores[len(test) :, 1], self.y[unseen] == 1))
            refit = fit.refit
            assert refit is not None
            return Fit(
                fit.scores[: len(test)],
                fit.validation,
                refit=lambda kept: refit(kept)[: len(test)],
            )

        return learn, aurocs


class Found(NamedTuple):
    """Estimate, ends and p-value of one interval; of two where a difference is taken."""

    estimate: float
    low: float
    high: float
    p: float


def intervals(first: list[Estimate], second: list[Estimate], *, fixed: bool) -> list[Found]:
    """Returns those of both arms and of their difference, with refits or with models fixed."""
    if not fixed:
        paired = paired_difference(first, second)
        arms = [arm_interval(arm) for arm in (first, second)]
        plain = [Found(each.estimate, each.low, each.high, np.nan) for each in arms]
        return [*plain, Found(paired.estimate, paired.low, paired.high, paired.p)]
    found = []
    pairs = [
        replace(a, auroc=a.auroc - b.auroc, replicates=a.replicates - b.replicates)
        for a, b in zip(first, second, strict=True)
    ]
    for arm in (first, second, pairs):
        mean = float(np.mean([each.auroc for each in arm]))
        over_patients = float(np.mean([each.replicates for each in arm], axis=0).var(ddof=1))
        over_seeds = Component.of([each.auroc for each in arm])
        variance = over_patients + over_seeds.variance
        df = variance**2 / (
            over_patients**2 / (arm[0].num_patients - 1) + over_seeds.variance**2 / over_seeds.df
        )
        half = float(stdtrit(df, 0.975) * variance**0.5)
        is_called = abs(mean) > half
        found.append(Found(mean, mean - half, mean + half, 0.0 if is_called else 1.0))
    return found


class Shares(NamedTuple):
    """How often intervals hold the truth, and arms of one recipe are called different."""

    arm: float
    difference: float
    called: float
    arm_width: float
    difference_width: float


def fitted(setting: Setting, repetitions: int) -> Iterator[tuple[int, str, Shares]]:
    """Yields number of seeds, way ("fixed" or "refitted") and shares of a setting."""
    cohorts = []
    for number in range(repetitions):
        cohort = Cohort(setting, np.random.default_rng([number, *setting.name.encode()]))
        cohorts.append([cohort.network() for _ in range(2 * setting.seeds)])
    effects = np.array([[each.effect for each in networks] for networks in cohorts])
    true = np.array([[each.true for each in networks] for networks in cohorts])
    parabola = np.polyfit(effects.ravel(), true.ravel(), 2)
    expected = np.polyval(parabola, effects)
    of_recipe = float(np.polyval(parabola, np.random.default_rng(0).normal(size=100_000)).mean())
    for seeds in sorted({1, 2, 3, 5} & set(range(1, setting.seeds + 1))):
        for way in ("fixed", "refitted"):
            rows = []
            for place, networks in enumerate(cohorts):
                estimates = [each.estimate for each in networks]
                arms = estimates[:seeds], estimates[setting.seeds : setting.seeds + seeds]
                *two, paired = intervals(*arms, fixed=way == "fixed")
                truth = [of_recipe, of_recipe]
                if seeds == 1:
                    truth = [expected[place, 0], expected[place, setting.seeds]]
                gain = truth[0] - truth[1]
                held = [one.low <= real <= one.high for one, real in zip(two, truth, strict=True)]
                # Two networks of one recipe differ, and are called so if their interval misses it.
                is_held = paired.low <= gain <= paired.high
                is_called = paired.p < 0.05 if seeds > 1 else not is_held
                widths = two[0].high - two[0].low, paired.high - paired.low
                rows.append((np.mean(held), is_held, is_called, *widths))
            table = np.array(rows, dtype=np.float64)
            means, medians = table.mean(axis=0), np.median(table, axis=0)
            yield seeds, way, Shares(*means[:3].tolist(), *medians[3:].tolist())


def few(sides: tuple[int, int], true: float, repetitions: int) -> tuple[float, ...]:
    """Returns how often limits of an AUROC hold it, and those of a difference of 0 and of .03.

    Also how often the last two are called different.
    """
    generator = np.random.default_rng([*sides, round(1000 * true)])
    positives = np.repeat([True, False], sides)
    aurocs = (true, true, true - 0.03)
    gaps = np.sqrt(2) * ndtri(np.array(aurocs))
    rows = []
    for number in range(repetitions):
        shared = np.sqrt(0.9 if number % 2 else 0.5)
        noise = generator.normal(size=(sum(sides), 3))
        common = generator.normal(size=(sum(sides), 1))
        scores = shared * common + np.sqrt(1 - shared**2) * noise + gaps * positives[:, None]
        arm = delong_interval(scores[:, :1], positives)
        same = delong_difference(scores[:, :1], scores[:, 1:2], positives)
        other = delong_difference(scores[:, :1], scores[:, 2:], positives)
        rows.append(
            (
                arm.low <= true <= arm.high,
                same.low <= 0 <= same.high,
                other.low <= aurocs[0] - aurocs[2] <= other.high,
                arm.high - arm.low,
            )
        )
    return tuple(np.mean(rows, axis=0).tolist())


def main() -> None:
    parser = options(
        __doc__,
        quick="20 repetitions of fitted settings instead of 150",
        only="settings whose names contain this word",
    )
    parser.add_argument("--repetitions", type=int, help="of fitted settings, instead of 150")
    arguments = parser.parse_args()
    repetitions = arguments.repetitions or (20 if arguments.quick else 150)
    error = (0.05 * 0.95 / repetitions) ** 0.5
    print(f"{repetitions} repetitions: a share of .95 has a standard error of {error:.3f}.")
    print(f"{'':18s}{'patients':>8s} {'ill':>4s} {'AUROC':>5s} {'dims':>4s} {'label':>5s} ", end="")
    print(f"{'seeds':>5s} {'':9s} {'arm':>5s} {'diff':>5s} {'A/A':>5s} {'width of both':>13s}")
    figures: dict[str, float] = {}
    start = time.process_time()
    for setting in SETTINGS:
        if arguments.only not in setting.name:
            continue
        for seeds, way, shares in fitted(setting, repetitions // (2 if setting.seeds > 1 else 1)):
            named = shares._asdict().items()
            figures |= {f"{setting.name}_{seeds}_{way}_{key}": value for key, value in named}
            row = f"{setting.name:18s}{setting.patients:8d} {setting.ill:4.2f} {setting.auroc:5.2f}"
            row += f" {setting.dims:4d} {setting.label_seeds:5d} {seeds:5d} {way:9s}"
            row += f" {shares.arm:5.3f} {shares.difference:5.3f} {shares.called:5.3f}"
            print(f"{row} {shares.arm_width:6.3f} {shares.difference_width:6.3f}", flush=True)
    if arguments.only in "few":
        trials = 200 if arguments.quick else 1000
        print(f"\nFew patients, {trials} repetitions: AUROC / difference of 0 / of .03 held")
        print(f"{'n+ and n-':12s}" + "".join(f"{true:>18g}" for true in AUROCS))
        for sides in SIDES:
            cells = [few(sides, true, trials) for true in AUROCS]
            for true, cell in zip(AUROCS, cells, strict=True):
                figures[f"few_{sides[0]}_{sides[1]}_{true:g}"] = cell[0]
            text = "".join(f"{a:>8.3f}{b:5.2f}{c:5.2f}" for a, b, c, _ in cells)
            print(f"{sides[0]:4d} {sides[1]:4d}   {text}", flush=True)
    print(f"\n{time.process_time() - start:.0f} s of processor time")
    save(figures, arguments.json)


if __name__ == "__main__":
    main()
