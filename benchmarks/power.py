"""How often real tests find the difference that a plan says is found four times in five.

    python benchmarks/power.py             40 repetitions: about 6 minutes
    python benchmarks/power.py --quick     20: 3 minutes
    python benchmarks/power.py --only ncm  the settings whose names hold a word
    python benchmarks/power.py --drawn     a grid of cases with drawn scores, 300 studies of each

The networks are those of intervals.py: drawn features, probes fitted in real folds with their
refits, seeds whose AUROC varies by .03. Five pilot studies of one recipe tell how they vary, and
`smallest_difference` follows from it. Then studies of two arms that differ by so much are drawn,
and those are counted in which `paired_difference` finds p < .05. What is drawn is a difference of
the best linear scores; fitted models reach less of it, so that the mean difference that they reach
is told, and the power promised for it, where the arms were planned and where they came to lie.

Drawn: scores by a binormal model, of which one half is the patient's and the other the network's,
seeds that move an AUROC of .85 by .03; nothing is fitted, 300 pilots. The plan's difference is put
half up and half down of where the pilots lay, all of it up (one arm alone is better), or all down.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from common import options, save
from intervals import SEED_SD, Cohort, Setting
from scipy.special import ndtri

from scantune.statistics.few_patients import Sides
from scantune.statistics.intervals import Estimate, paired_difference
from scantune.statistics.power import (
    XRAYS,
    PlannedTest,
    Variation,
    power_at,
    smallest_difference,
    variation_of,
)

PILOTS = 5
SETTINGS = (
    (Setting("linear", 200, 0.4, 0.75, 5, 1), 4),
    (Setting("ncm", 200, 0.4, 0.75, 5, 1, 1, "ncm"), 4),
    # Few patients: a difference so large that the two arms vary otherwise than the pilots.
    (Setting("sixty_ncm", 60, 0.4, 0.85, 5, 1, 1, "ncm"), 3),
)


def study(setting: Setting, seeds: int, shift: float, number: int) -> list[list[Estimate]]:
    """Returns the estimates of both arms of a cohort."""
    cohort = Cohort(setting, np.random.default_rng([number, *setting.name.encode()]))
    # Half of it up and half down: the variance of an AUROC goes by its height.
    halves = (shift / 2, -shift / 2)
    return [[cohort.network(each).estimate for _ in range(seeds)] for each in halves]


def pilot(setting: Setting, seeds: int) -> Variation:
    """Returns how networks vary, the mean of several small studies of one recipe."""
    per_patient = 1.5
    pilots = [
        variation_of(*study(setting, seeds + 2, 0.0, 1000 + number), scans_per_patient=per_patient)
        for number in range(PILOTS)
    ]
    return _mean(pilots)


def _mean(pilots: list[Variation]) -> Variation:
    mean = {
        name: float(np.mean([getattr(each, name) for each in pilots]))
        for name in ("auroc", "scale", "unshared", "shared", "seed_variance")
    }
    return replace(XRAYS, **mean, source=f"{len(pilots)} pilots")


RHO, REPLICATES, DRAWN_PILOTS, DRAWN_STUDIES = 0.5, 150, 300, 300
# Patients, share of ill ones, AUROC of the pilots.
CASES = ((120, 0.4, 0.82), (400, 0.1, 0.75), (60, 0.4, 0.82), (200, 0.4, 0.7))


def drawn_study(
    patients: int, ill: float, aurocs: tuple[float, float], seeds: int, rng: np.random.Generator
) -> list[list[Estimate]]:
    """Returns estimates of both arms on new patients."""
    positives = np.arange(patients) < round(ill * patients)
    sides = (Sides("ill", int(positives.sum()), int((~positives).sum())),)
    common = rng.standard_normal(patients)
    drawn = rng.multinomial(patients, np.full(patients, 1 / patients), size=REPLICATES)
    weights = np.vstack([np.ones(patients), drawn])
    of_seed = SEED_SD * np.sqrt(4 * np.pi) * np.exp(ndtri(0.85) ** 2 / 2)
    arms: list[list[Estimate]] = []
    for auroc in aurocs:
        arms.append([])
        for _ in range(seeds):
            gap = np.sqrt(2) * ndtri(auroc) + of_seed * rng.standard_normal()
            own = rng.standard_normal(patients)
            scores = gap * positives + np.sqrt(RHO) * common + np.sqrt(1 - RHO) * own
            order = np.argsort(scores)
            ill_ones, others = (weights[:, order] * side[order] for side in (positives, ~positives))
            below = np.cumsum(others, axis=1)
            value = (ill_ones * below).sum(axis=1) / (ill_ones.sum(axis=1) * others.sum(axis=1))
            plain = np.full((1, 1), value[0])
            arms[-1].append(Estimate(float(value[0]), plain, value[1:], patients, 0, sides))
    return arms


def drawn_grid(figures: dict[str, float]) -> None:
    """Prints what is promised and found of each case, number of seeds and place of the arms."""
    print("patients   ill  pilots seeds arms     difference  promised there  at the pilots'  found")
    for patients, ill, base in CASES:
        for seeds in (2, 3, 5):
            rng = np.random.default_rng([patients, seeds])
            pilots = [
                variation_of(*drawn_study(patients, ill, (base, base), seeds + 2, rng))
                for _ in range(DRAWN_PILOTS)
            ]
            variation = _mean(pilots)
            num_ill = round(patients * ill)
            planned = PlannedTest((Sides("ill", num_ill, patients - num_ill),), seeds=seeds)
            asked = smallest_difference(planned, variation)
            for name, share in (("halves", 0.5), ("raised", 1.0), ("lowered", 0.0)):
                aurocs = base + share * asked, base - (1 - share) * asked
                # Beyond these there is no such pair of arms.
                if aurocs[0] > 0.985 or aurocs[1] < 0.5:
                    continue
                tests = [
                    paired_difference(*drawn_study(patients, ill, aurocs, seeds, rng))
                    for _ in range(DRAWN_STUDIES)
                ]
                reached = float(np.mean([each.estimate for each in tests]))
                middle = sum(aurocs) / 2
                promised = power_at(reached, planned, variation, auroc=middle)
                called = float(np.mean([each.p < 0.05 for each in tests]))
                key = f"drawn_{patients}_{base:g}_{seeds}_{name}"
                figures |= {f"{key}_promised": promised, f"{key}_found": called}
                print(
                    f"{patients:8d} {ill:5.2f} {base:7.2f} {seeds:5d} {name:8s} {reached:10.3f} "
                    f"{promised:15.2f} {power_at(reached, planned, variation):15.2f} {called:6.2f}",
                    flush=True,
                )


def main() -> None:
    parser = options(
        __doc__, quick="20 repetitions instead of 40", only="settings whose names hold this word"
    )
    parser.add_argument("--drawn", action="store_true", help="the grid of drawn scores instead")
    arguments = parser.parse_args()
    if arguments.drawn:
        drawn: dict[str, float] = {}
        drawn_grid(drawn)
        save(drawn, arguments.json)
        return
    repetitions = 20 if arguments.quick else 40
    figures: dict[str, float] = {}
    start = time.process_time()
    for setting, seeds in SETTINGS:
        if arguments.only not in setting.name:
            continue
        variation = pilot(setting, seeds)
        ill = round(setting.ill * setting.patients)
        sides = (Sides("ill", ill, setting.patients - ill),)
        planned = PlannedTest(sides, scans_per_patient=1.5, seeds=seeds)
        asked = smallest_difference(planned, variation)
        studies = [study(setting, seeds, asked / SEED_SD, number) for number in range(repetitions)]
        tests = [paired_difference(*arms) for arms in studies]
        called = float(np.mean([each.p < 0.05 for each in tests]))
        reached = float(np.mean([each.estimate for each in tests]))
        middle = float(np.mean([each.auroc for arms in studies for arm in arms for each in arm]))
        promised = power_at(reached, planned, variation, auroc=middle)
        figures |= {
            f"{setting.name}_asked": asked,
            f"{setting.name}_reached": reached,
            f"{setting.name}_promised": promised,
            f"{setting.name}_found": called,
        }
        print(
            f"{setting.name}: {setting.patients} patients, {seeds} seeds, {variation.scale:.2f} "
            f"{variation.unshared:.2f} {variation.shared:.2f} {variation.seed_variance:.4f}; "
            f"asked {asked:.3f}, reached {reached:.3f}, power promised {promised:.2f}, found "
            f"{called:.2f} +- {(called * (1 - called) / repetitions) ** 0.5:.2f}",
            flush=True,
        )
    print(f"{time.process_time() - start:.0f} s of processor time")
    save(figures, arguments.json)


if __name__ == "__main__":
    main()
