"""What 95 % intervals cover where a budget takes one of many possible subsets of the labels.

    python benchmarks/subsets.py              20 cohorts of each setting
    python benchmarks/subsets.py --quick      10

Two fixed feature maps of the same scans, nearest class means of 30 draws of 100 labels out
of 2,000. A study has 2, 3, 5 or 10 of these draws and a few test patients; an interval speaks of
the mean over draws, here over all 30, for patients like these, here 20,000 others. Both maps see
twelve traits of a scan, one of them in noise, the other with 60 idle dimensions beside. An interval
for the draws at hand is compared with one that holds the spread between draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from common import hush, options, save

from scanlearn.features.auroc import mean_of_defined
from scantune.labels.labeled_set import LabeledSet
from scantune.labels.truth import Truth
from scantune.scores import Scores
from scantune.scoring import score_features
from scantune.statistics.intervals import (
    Component,
    Estimate,
    estimate,
    paired_difference,
    patient_weights,
)

TRAITS, POOL, UNSEEN = 12, 2000, 20_000
DRAWS, LABELS = 30, 100
SIZES = (2, 3, 5, 10)
TESTED = (200, 2000)


def cohort(generator: np.random.Generator, tested: int) -> tuple[LabeledSet, list[np.ndarray]]:
    """A pool to draw labels from, the study's test patients and unseen ones; and both maps."""
    n = POOL + tested + UNSEEN
    traits = generator.normal(size=(n, TRAITS))
    y = (traits @ np.ones(TRAITS) / TRAITS**0.5 + generator.normal(size=n) > 0.5).astype(np.int64)
    noisy = traits + 0.8 * generator.normal(size=traits.shape)
    wide = np.concatenate([traits, generator.normal(size=(n, 60))], axis=1)
    split = np.repeat(["train", "test"], [POOL, tested + UNSEEN])
    truth, rows = Truth.of_classes(y, 2), np.arange(n)
    labeled = LabeledSet("ill", ("no", "yes"), truth, rows, rows, split)
    return labeled, [features.astype(np.float32) for features in (noisy, wide)]


def seen_by(scores: Scores, rows: np.ndarray, draws: Sequence[int]) -> Scores:
    """The scores of some scans under some draws of labels."""
    kept = list(draws)
    return Scores(
        scores.learners,
        scores.budgets,
        scores.classes,
        scores.truth[rows],
        scores.patients[rows],
        scores.fold_of[np.ix_(kept, rows)],
        scores.values[:, :, kept][:, :, :, rows],
        scores.thresholds[:, :, kept],
        scores.train_scans[:, kept],
        scores.train_patients[:, kept],
    )


def between(first: Estimate, second: Estimate) -> Component:
    return Component.of(mean_of_defined((first.per_fold - second.per_fold).T))


def cohort_rows(generator: np.random.Generator, tested: int) -> dict[int, list[tuple[float, ...]]]:
    """By the number of draws, whether intervals of the difference hold the truth, and widths."""
    labeled, maps = cohort(generator, tested)
    scored = [
        score_features(each, labeled, learners=("ncm",), budgets=(LABELS,), label_seeds=DRAWS)
        for each in maps
    ]
    unseen, seen = np.arange(POOL + tested, len(labeled)), np.arange(POOL + tested)
    one = np.ones((2, len(labeled)), dtype=np.uint16)
    far = [estimate(seen_by(s, unseen, range(DRAWS)), "ncm", LABELS, one) for s in scored]
    truth = far[0].auroc - far[1].auroc
    found: dict[int, list[tuple[float, ...]]] = {}
    for size in SIZES:
        for start in range(0, DRAWS - size + 1, max(size, 3)):
            studies = [seen_by(s, seen, range(start, start + size)) for s in scored]
            weights = patient_weights(studies[0], replicates=500)
            pair = [estimate(study, "ncm", LABELS, weights) for study in studies]
            at_hand = paired_difference(pair[:1], pair[1:])
            drawn = paired_difference(pair[:1], pair[1:], between_subsets=between(*pair))
            row = [at_hand.low <= truth <= at_hand.high, drawn.low <= truth <= drawn.high]
            widths = [interval.high - interval.low for interval in (at_hand, drawn)]
            found.setdefault(size, []).append((*map(float, row), *widths))
    return found


def main() -> None:
    parser = options(__doc__, quick="10 cohorts instead of 20")
    arguments = parser.parse_args()
    hush()
    figures: dict[str, float] = {}
    print("share of intervals that hold the mean over draws: of the draws at hand, with their")
    print("spread; median widths\n")
    for tested in TESTED:
        rows: dict[int, list[tuple[float, ...]]] = {}
        for number in range(10 if arguments.quick else 20):
            generator = np.random.default_rng([number, tested])
            for size, found in cohort_rows(generator, tested).items():
                rows.setdefault(size, []).extend(found)
        for size, found in rows.items():
            table = np.array(found)
            before, after = table[:, :2].mean(axis=0)
            narrow, wide = np.median(table[:, 2:], axis=0)
            print(
                f"{tested} test patients, {size:2d} draws: {before:.3f} {after:.3f}"
                f"  {narrow:.3f} {wide:.3f}",
                flush=True,
            )
            figures |= {f"{tested}_{size}_before": before, f"{tested}_{size}_after": after}
    save(figures, arguments.json)


if __name__ == "__main__":
    main()
