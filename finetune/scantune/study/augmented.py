"""One learner at several augmentations of its own views: what that changes in the same networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from scanlearn.features.auroc import mean_of_defined
from scantune.scores import Scores
from scantune.statistics.intervals import Component, holm, paired_difference
from scantune.study.classes import between_seeds, class_cells, class_scores
from scantune.study.plan import CompareConfig
from scantune.study.results import ClassScore, FindingCount, LearnerDifference
from scantune.study.summary import Estimates, finite

# AUROC of a network that tells nothing.
_CHANCE = 0.5


def augmented_learners(config: CompareConfig) -> tuple[tuple[str, ...], ...]:
    """Returns the learners of a plan that differ in their augmentation alone, together."""
    together: dict[str, list[str]] = {}
    for name in config.evaluation.learners:
        together.setdefault(name.partition("@")[0], []).append(name)
    return tuple(tuple(names) for names in together.values() if len(names) > 1)


def learner_differences(
    config: CompareConfig, estimates: Estimates, scores: Mapping[tuple[str, str], Sequence[Scores]]
) -> tuple[LearnerDifference, ...]:
    """Returns the paired differences between augmentations, arm by arm; Holm covers them all.

    At the primary task and label budget, of the same networks on the same folds and patients.
    """
    task, budget = config.primary_task, config.primary_budget
    pairs = {}
    for names in augmented_learners(config):
        for first, second in combinations(names, 2):
            for arm in config.arms:
                sides = [estimates.get((task, each, budget, arm)) for each in (second, first)]
                if sides[0] and sides[1]:
                    pairs[arm, second, first] = sides[0], sides[1]
    seeds = between_seeds(
        {
            key: [a.auroc - b.auroc for a, b in zip(*sides, strict=True)]
            for key, sides in pairs.items()
        }
    )
    differences = []
    for key, (after, before) in pairs.items():
        subsets = Component.of(())
        if scores[task, key[0]][0].is_subset(budget):
            per_fold = [a.per_fold - b.per_fold for a, b in zip(after, before, strict=True)]
            of_draw = mean_of_defined(np.array([mean_of_defined(each.T) for each in per_fold]))
            subsets = Component.of(of_draw[np.isfinite(of_draw)])
        differences.append(
            paired_difference(after, before, between_seeds=seeds.get(key), between_subsets=subsets)
        )
    adjusted = holm([difference.p for difference in differences])
    return tuple(
        LearnerDifference(
            arm=arm,
            a=after,
            b=before,
            difference=finite(each.estimate),
            low=finite(each.low),
            high=finite(each.high),
            p=finite(each.p),
            p_holm=finite(p_holm),
            seeds=len(each.per_seed),
        )
        for (arm, after, before), each, p_holm in zip(pairs, differences, adjusted, strict=True)
    )


def finding_counts(
    config: CompareConfig,
    scores: Mapping[tuple[str, str], Sequence[Scores]],
    of_primary: Sequence[ClassScore],
) -> tuple[FindingCount, ...]:
    """Returns how many findings each arm tells from chance at each augmentation of a learner.

    Args:
        of_primary: The scores of each class by the primary learner.
    """
    counts = []
    for learner in (name for names in augmented_learners(config) for name in names):
        is_primary = learner == config.primary.learner
        rows = of_primary
        if not is_primary:
            rows = class_scores(config, scores, class_cells(config, scores, learner))
        for arm in dict.fromkeys(row.arm for row in rows):
            lows = [row.low for row in rows if row.arm == arm]
            above = sum(low is not None and low > _CHANCE for low in lows)
            counts.append(
                FindingCount(arm=arm, learner=learner, findings=len(lows), above_chance=above)
            )
    return tuple(counts)
