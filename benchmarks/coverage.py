"""What 95 % intervals cover, and how often two arms of one recipe are called different.

    python benchmarks/coverage.py             1,000 repetitions of each setting
    python benchmarks/coverage.py --quick     200
    python benchmarks/coverage.py --only .8   the settings whose names hold a word

Scores are drawn, and then go the way of every study: `patient_folds`, `Scores`, `estimate` with
2,000 patient resamples, `arm_interval`, `paired_difference`, `verdict`.

Design. 100 or 200 patients have 1 to 4 scans each. A patient is ill with probability .4 or .2, and
nine scans of ten show what the patient has, so that some patients have scans of both classes. The
folds are stratified by class; there are 5, under 2 label seeds. The score of a scan is

    gap * is_positive + patient + scan + network by patient + network by scan + model by scan

with normal parts of variances .35, .35, .05, .15 and .10. The first two are shared by all networks,
which find the same patients and scans hard; the last is each fold's and label seed's own. The gap
is that of the recipe, plus what the fold and the label subset give to all networks alike (fixed,
-.15 to .15), plus what the pretraining seed gives to its network (normal). A recipe, and a second
one whose AUROC is .03 less, are pretrained 5 times each, and the first 5 times again with other
seeds: the A/A comparison. n seeds are the first n.

Truth. Patients and pretraining seeds are drawn, folds and label subsets fixed: the true AUROC of an
arm is the mean over folds and seeds of P(positive above negative) of scans of different patients,
a closed form. With one seed the interval speaks of that network only, and its own AUROC is the
truth; that two networks of one recipe are then called different as often as they differ is no
error, and is why the verdict says what it speaks of.

The AUROC of a recipe's networks has a standard deviation of .03 over pretraining seeds, as small
networks have on the phantom (.01 to .06), and in two settings of .06 and of .01. What one network
alone gets wrong in these patients counts in both parts of the variance; where seeds differ by
little else, as in the last setting, five of them cover more than 95 % and are called different
less often. That is shown, and no goal is set for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from common import options, save
from scipy.special import ndtr, ndtri

from scantune.labels.truth import Truth
from scantune.scores import Scores
from scantune.splits import patient_folds
from scantune.statistics.intervals import (
    Difference,
    Estimate,
    Interval,
    arm_interval,
    estimate,
    paired_difference,
    patient_weights,
    verdict,
)

SEEDS = (1, 2, 3, 5)
FOLDS, LABEL_SEEDS = 5, 2
# Standard deviations of the parts of a score, whose variances sum to one.
PATIENT, SCAN, NETWORK_PATIENT, NETWORK_SCAN, MODEL_SCAN = np.sqrt([0.35, 0.35, 0.05, 0.15, 0.10])
FOLD_GAPS = np.linspace(-0.15, 0.15, FOLDS * LABEL_SEEDS).reshape(FOLDS, LABEL_SEEDS).T
LESS = 0.03


class Setting(NamedTuple):
    """One population: patients, how well a recipe tells the classes apart, how its seeds spread."""

    name: str
    patients: int
    auroc: float
    seed_sd: float = 0.03
    ill: float = 0.4
    has_goal: bool = True


SETTINGS = (
    Setting("auroc_.7", 100, 0.7),
    Setting("auroc_.8", 100, 0.8),
    Setting("auroc_.9", 100, 0.9),
    Setting("auroc_.8_200_patients", 200, 0.8, ill=0.2),
    Setting("auroc_.8_seeds_far_apart", 100, 0.8, seed_sd=0.06),
    Setting("auroc_.8_seeds_close", 100, 0.8, seed_sd=0.01, has_goal=False),
)
# Lower and upper ends, with five seeds.
GOALS = {"arm_covered": (0.93, 0.97), "difference_covered": (0.93, 0.97), "aa_called": (0.03, 0.07)}


class Recipe(NamedTuple):
    """How far a recipe's networks part the classes: on average, and between pretraining seeds."""

    gap: float
    seed_gap: float

    @classmethod
    def of(cls, auroc: float, seed_sd: float) -> Recipe:
        """Returns the recipe whose networks have about this AUROC and its standard deviation."""
        gap = math.sqrt(2) * float(ndtri(auroc))
        slope = math.exp(-(gap**2) / 4) / math.sqrt(2 * math.pi) / math.sqrt(2)
        return cls(gap, seed_sd / slope)

    @property
    def auroc(self) -> float:
        """True AUROC, over pretraining seeds."""
        # A normal gap adds its variance to that of the two scores compared.
        return float(ndtr((self.gap + FOLD_GAPS) / math.sqrt(2 + self.seed_gap**2)).mean())

    def network_auroc(self, seed_effect: float) -> float:
        """True AUROC of one network, its seed's effect in units of ``seed_gap``."""
        gaps = self.gap + FOLD_GAPS + self.seed_gap * seed_effect
        return float(ndtr(gaps / math.sqrt(2)).mean())


class Cohort:
    """Patients, their scans and folds, and what all networks find hard in them."""

    def __init__(self, setting: Setting, generator: np.random.Generator) -> None:
        sizes = generator.integers(1, 5, setting.patients)
        self.patients = np.repeat(np.arange(setting.patients), sizes)
        is_ill = (generator.random(setting.patients) < setting.ill)[self.patients]
        self.y = (is_ill ^ (generator.random(len(is_ill)) < 0.1)).astype(np.int64)
        self.truth = Truth.of_classes(self.y, 2)
        self.fold_of = np.empty((LABEL_SEEDS, len(self.y)), dtype=np.int64)
        for seed in range(LABEL_SEEDS):
            folds = patient_folds(self.truth, self.patients, FOLDS, seed)
            for number, fold in enumerate(folds):
                self.fold_of[seed, fold.test] = number
        self._shared = PATIENT * generator.normal(size=setting.patients)[self.patients]
        self._shared += SCAN * generator.normal(size=len(self.y))

    def scores(self, recipe: Recipe, seed_effect: float, generator: np.random.Generator) -> Scores:
        """Returns what one network scores."""
        n = len(self.y)
        own = NETWORK_PATIENT * generator.normal(size=int(self.patients[-1]) + 1)[self.patients]
        own += NETWORK_SCAN * generator.normal(size=n)
        models = MODEL_SCAN * generator.normal(size=(LABEL_SEEDS, n))
        gaps = recipe.gap + recipe.seed_gap * seed_effect
        gaps = gaps + np.take_along_axis(FOLD_GAPS, self.fold_of, axis=1)
        positive = gaps * self.y + self._shared + own + models
        used = np.full((1, LABEL_SEEDS, FOLDS), n)
        return Scores(
            learners=("drawn",),
            budgets=("all",),
            classes=("no", "yes"),
            truth=self.truth,
            patients=self.patients,
            fold_of=self.fold_of,
            values=np.stack([-positive, positive], axis=-1)[None, None],
            thresholds=np.zeros((1, 1, LABEL_SEEDS, FOLDS, 2)),
            train_scans=used,
            train_patients=used,
        )


class Row(NamedTuple):
    """What one repetition shows with n seeds."""

    arm_covered: bool
    difference_covered: bool
    aa_called: bool
    arm_error: float
    difference_error: float
    arm_width: float
    difference_width: float


def covers(found: Interval | Difference, truth: float) -> bool:
    return found.low <= truth <= found.high


def repetition(setting: Setting, generator: np.random.Generator) -> Iterator[Row]:
    """Yields a row for each number of seeds."""
    cohort = Cohort(setting, generator)
    recipe = Recipe.of(setting.auroc, setting.seed_sd)
    lesser = Recipe.of(setting.auroc - LESS, setting.seed_sd)
    effects = generator.normal(size=(3, SEEDS[-1]))
    weights: np.ndarray | None = None
    arms: list[list[Estimate]] = []
    for own, seed_effects in zip((recipe, recipe, lesser), effects, strict=True):
        arms.append([])
        for effect in seed_effects:
            scores = cohort.scores(own, effect, generator)
            if weights is None:
                weights = patient_weights(scores, seed=int(generator.integers(1 << 31)))
            arms[-1].append(estimate(scores, "drawn", "all", weights))
    for n in SEEDS:
        arm, twin, other = (one[:n] for one in arms)
        if n == 1:
            truth = recipe.network_auroc(effects[0, 0])
            gain = truth - lesser.network_auroc(effects[2, 0])
        else:
            truth, gain = recipe.auroc, recipe.auroc - lesser.auroc
        interval, difference = arm_interval(arm), paired_difference(arm, other)
        yield Row(
            arm_covered=covers(interval, truth),
            difference_covered=covers(difference, gain),
            aa_called=verdict(paired_difference(arm, twin)) in ("better", "worse"),
            arm_error=interval.estimate - truth,
            difference_error=difference.estimate - gain,
            arm_width=interval.high - interval.low,
            difference_width=difference.high - difference.low,
        )


def simulate(setting: Setting, repetitions: int, seed: int = 0) -> dict[int, Row]:
    """Returns a row for each number of seeds: means, of errors in square, and median widths."""
    found: dict[int, list[Row]] = {n: [] for n in SEEDS}
    for number in range(repetitions):
        # Settings share no draws, so that chance does not move them together.
        generator = np.random.default_rng([seed, number, *setting.name.encode()])
        for n, row in zip(SEEDS, repetition(setting, generator), strict=True):
            found[n].append(row)
    means = {}
    for n, rows in found.items():
        table = np.array(rows, dtype=np.float64)
        mean, root = table.mean(axis=0), np.sqrt(np.square(table).mean(axis=0))
        is_error, is_width = ([word in name for name in Row._fields] for word in ("error", "width"))
        middle = np.where(is_width, np.median(table, axis=0), mean)
        means[n] = Row(*np.where(is_error, root, middle).tolist())
    return means


def line(setting: Setting, n: int, row: Row) -> str:
    """One line of the table, with the goals that are missed."""
    judged = n == SEEDS[-1] and setting.has_goal
    missed = [
        f"{name} missed"
        for name, (least, most) in GOALS.items()
        if judged and not least <= getattr(row, name) <= most
    ]
    shares = f"{row.arm_covered:6.3f} {row.difference_covered:6.3f} {row.aa_called:6.3f}"
    arm = f"{row.arm_error:6.3f} {row.arm_width:6.3f}"
    difference = f"{row.difference_error:6.3f} {row.difference_width:6.3f}"
    return f"{setting.name:24s}{n:6d} {shares}  {arm}  {difference} {' '.join(missed)}"


def main() -> None:
    parser = options(
        __doc__,
        quick="200 repetitions instead of 1,000",
        only="settings whose names contain this word",
    )
    arguments = parser.parse_args()
    repetitions = 200 if arguments.quick else 1000
    print(f"{repetitions} repetitions. Share of intervals that hold the truth, of an arm and of a")
    print("difference; share of A/A comparisons called different; for arm and difference the root")
    print("mean square error and the median width of the interval\n")
    print(f"{'':24s}{'seeds':>6s} {'arm':>6s} {'diff':>6s} {'A/A':>6s}", end="")
    print(f"  {'error':>6s} {'width':>6s}" * 2)
    figures: dict[str, float] = {}
    start = time.perf_counter()
    for setting in SETTINGS:
        if arguments.only not in setting.name:
            continue
        for n, row in simulate(setting, repetitions).items():
            figures |= {f"{setting.name}_{n}_seeds_{name}": getattr(row, name) for name in GOALS}
            print(line(setting, n, row), flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s; goals with five seeds:", end=" ")
    print(", ".join(f"{name} {least} to {most}" for name, (least, most) in GOALS.items()))
    save(figures, arguments.json)


if __name__ == "__main__":
    main()
