"""How often real tests find the difference that a plan says is found four times in five.

    python benchmarks/power.py             40 repetitions: about 6 minutes
    python benchmarks/power.py --quick     20: 3 minutes
    python benchmarks/power.py --only ncm  the settings whose names hold a word

The networks are those of coverage.py: drawn features, probes fitted in real folds with their
refits, seeds whose AUROC varies by .03. Five pilot studies of one recipe tell how they vary, and
`smallest_difference` follows from it. Then studies of two arms that differ by so much are drawn,
and those are counted in which `paired_difference` finds p < .05. What is drawn is a difference of
the best linear scores; fitted models reach less of it, so that the mean difference that they reach
is told, and the power promised for it.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from common import options, save
from coverage import SEED_SD, Cohort, Setting

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
    found = [
        variation_of(*study(setting, seeds + 2, 0.0, 1000 + number), scans_per_patient=per_patient)
        for number in range(PILOTS)
    ]
    mean = {
        name: float(np.mean([getattr(each, name) for each in found]))
        for name in ("auroc", "scale", "unshared", "shared", "seed_variance")
    }
    return replace(XRAYS, **mean, source=f"{PILOTS} pilots")


def main() -> None:
    parser = options(
        __doc__, quick="20 repetitions instead of 40", only="settings whose names hold this word"
    )
    arguments = parser.parse_args()
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
        tests = [
            paired_difference(*study(setting, seeds, asked / SEED_SD, number))
            for number in range(repetitions)
        ]
        called = float(np.mean([each.p < 0.05 for each in tests]))
        reached = float(np.mean([each.estimate for each in tests]))
        promised = power_at(reached, planned, variation)
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
