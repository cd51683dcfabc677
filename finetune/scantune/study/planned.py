"""What a plan can show, in words; and what of it was changed once results were known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from scanlearn.packing.sources import PHANTOM_PREFIX
from scantune.labels.labeled_set import LabeledSet
from scantune.scores import Scores
from scantune.statistics.few_patients import Sides, too_few
from scantune.statistics.intervals import Estimate
from scantune.statistics.power import (
    PHANTOM,
    POWER,
    XRAYS,
    PlannedTest,
    Variation,
    smallest_difference,
    variation_of,
    what_helps,
)
from scantune.study.plan import CompareConfig
from scantune.study.results import EarlierAnswer, Fact
from scantune.study.summary import Estimates, spreads
from scantune.wording import budget_name, learner_name


def planned_test(
    config: CompareConfig, labeled: LabeledSet, num_training: int | None = None
) -> PlannedTest:
    """Returns the primary comparison of a plan on the scans that are labeled for its task.

    Args:
        num_training: Scans that train, where all of ``labeled`` are an external test set; None
            takes those of the folds or of the split.
    """
    tested = labeled.truth.is_real.copy()
    if labeled.split is not None:
        tested &= labeled.split == "test"
    sides, scans, owners = [], 0, 0
    for code in labeled.truth.asked:
        known, positives = labeled.truth.known(code) & tested, labeled.truth.positives(code)
        counts = [
            len(np.unique(labeled.patients[known & side])) for side in (positives, ~positives)
        ]
        sides.append(Sides(labeled.classes[code], *counts))
        scans, owners = scans + int(known.sum()), owners + sum(counts)
    budget, evaluation = config.primary_budget, config.evaluation
    if num_training is None:
        held = int(labeled.truth.is_real.sum())
        in_folds = held * (evaluation.folds - 1) // evaluation.folds
        num_training = in_folds if labeled.split is None else held - int(tested.sum())
    is_subset = isinstance(budget, int) and budget < num_training
    seeded = {name for name, arm in config.arms.items() if arm.kind in ("pretrained", "random")}
    pair = {config.primary.better, config.primary.than}
    return PlannedTest(
        sides=tuple(sides),
        scans_per_patient=scans / max(1, owners),
        seeds=len(config.seeds) if pair & seeded else 1,
        label_draws=evaluation.label_seeds if is_subset else None,
        trained_arms=len(config.trained),
    )


def usual_variation(config: CompareConfig) -> Variation:
    """Returns how networks were measured to vary where this study has none yet."""
    return PHANTOM if config.labels.startswith(PHANTOM_PREFIX) else XRAYS


def variation_so_far(
    config: CompareConfig,
    estimates: Estimates,
    scores: Mapping[tuple[str, str], Sequence[Scores]],
    planned: PlannedTest,
) -> Variation | None:
    """Returns how the primary pair varies in this study; None where it cannot be told."""
    place = (config.primary_task, config.primary.learner, config.primary_budget)
    pair = (config.primary.better, config.primary.than)
    members = [list(estimates.get((*place, arm), ())) for arm in pair]
    if not all(members) or any(math.isnan(each.auroc) for arm in members for each in arm):
        return None
    if not _has_variance(members):
        return None
    spread = spreads(config, estimates, scores)[place, frozenset(pair)]
    seeds = max(map(len, members))
    first, second = (arm * seeds if len(arm) == 1 else arm for arm in members)
    draws = scores[place[0], pair[0]][0].num_label_seeds
    variation = variation_of(
        first,
        second,
        seed_variance=spread.seeds.variance * seeds,
        subset_sd=math.sqrt(spread.subsets.variance * draws),
        scans_per_patient=planned.scans_per_patient,
        otherwise=usual_variation(config),
    )
    return variation if math.isfinite(variation.scale) else None


def _has_variance(members: Sequence[Sequence[Estimate]]) -> bool:
    """Whether the AUROCs vary at all: those of a saturated task, all 1, tell nothing."""
    return all(0 < each.auroc < 1 for arm in members for each in arm)


def power_in_words(config: CompareConfig, planned: PlannedTest, variation: Variation) -> str:
    """Returns the smallest difference that the primary comparison will find."""
    reason = too_few(planned.sides)
    counts = "; ".join(
        f"{side.positives:,} patients with {config.primary_task} {side.name} and "
        f"{side.negatives:,} without"
        for side in planned.sides[:1]
    )
    more = f" and {len(planned.sides) - 1} more classes" if len(planned.sides) > 1 else ""
    seeds = f"{planned.seeds} pretraining seed{'s' if planned.seeds > 1 else ''}"
    labels = "" if planned.label_draws is None else f", {planned.label_draws} label seeds"
    head = f"with {counts}{more}, {seeds}{labels}"
    if reason:
        return f"{head} nothing can be shown: {reason}"
    smallest = smallest_difference(planned, variation, alpha=config.alpha)
    value = f"{smallest:.3f}" if smallest < 0.5 else "more than any two AUROCs can differ by"
    return (
        f"{head} the smallest difference in AUROC that is found with power {POWER:g} is {value}, "
        f"where the arms lie about {variation.auroc:.2f}; the margin is {config.margin:g}. "
        f"Variances are those of {variation.source}"
    )


def power_warning(config: CompareConfig, planned: PlannedTest, variation: Variation) -> str | None:
    """Returns what helps where the plan cannot show its margin; None where it can."""
    smallest = smallest_difference(planned, variation, alpha=config.alpha)
    if smallest <= config.margin:
        return None
    advice = "more labeled patients" if math.isnan(smallest) else what_helps(planned, variation)
    return f"This plan cannot show a difference as small as its margin: {advice} help most"


def look_in_words(config: CompareConfig) -> str:
    """Returns at which look a study stands; empty where only one was planned."""
    if len(config.looks) == 1:
        return ""
    *others, last = config.looks
    listed = f"{', '.join(map(str, others))} and {last}"
    return (
        f"Look {config.looks.index(len(config.seeds)) + 1} of {len(config.looks)} planned at "
        f"{listed} seeds: each is tested at the level {config.alpha:.3f}, which keeps the error "
        "over all of them at .05, and intervals of differences are wider for it."
    )


def power_at_start(config: CompareConfig, tasks: Mapping[str, LabeledSet]) -> str:
    """Returns what a study can show, as it is said before anything is trained."""
    planned = planned_test(config, tasks[config.primary_task])
    variation = usual_variation(config)
    text = power_in_words(config, planned, variation)
    return ". ".join(filter(None, (text, power_warning(config, planned, variation))))


def power_fact(
    config: CompareConfig,
    tasks: Mapping[str, LabeledSet],
    estimates: Estimates,
    scores: Mapping[tuple[str, str], Sequence[Scores]],
) -> Fact:
    """Returns the line of the report that says what the study could show."""
    planned = planned_test(config, tasks[config.primary_task])
    variation = variation_so_far(config, estimates, scores, planned) or usual_variation(config)
    text = power_in_words(config, planned, variation)
    warning = power_warning(config, planned, variation)
    return Fact(name="Power", value=". ".join(filter(None, (text, warning))))


def after_results(
    config: CompareConfig, answered: Sequence[tuple[CompareConfig, EarlierAnswer]]
) -> Iterator[str]:
    """Yields what a plan changes of those whose results were known, as sentences.

    A comparison, a margin or seeds that results have chosen are not those of a test whose error
    rate is told; nor are those of a study that goes on until it finds something, unless its looks
    are planned.

    Args:
        answered: The plans before, the first one first, each with what it answered.
    """
    if not answered:
        return
    plans = [plan for plan, _ in answered]
    if is_other_question(config, plans[0]):
        yield (
            f"The primary comparison was chosen after results were known: before it was "
            f"{_question(plans[0])}. The answer was: {answered[0][1].in_words}"
        )
    date = answered[-1][1].created[:10]
    seeds = {seed for plan in plans for seed in plan.seeds}
    is_planned = all(each.max_seeds is not None for each in (config, *plans))
    is_planned = is_planned and all(config.looks == plan.looks for plan in plans)
    added = [str(seed) for seed in config.seeds if seed not in seeds]
    if added and not is_planned:
        yield (
            f"Pretraining {_of('seed', added)} added after results were known ({date}): where "
            "results decide whether a study goes on, arms that are alike are called different in "
            "more than 5 of 100 studies; seeds=auto plans its looks and keeps that rate."
        )
    arms = {name for plan in plans for name in plan.trained} - {*config.trained}
    left_out = {
        "pretraining seed": [str(seed) for seed in sorted(seeds - {*config.seeds})],
        "arm": sorted(arms),
        "task": sorted({name for plan in plans for name in plan.task_names} - {*config.task_names}),
        "learner": sorted(
            {name for plan in plans for name in plan.evaluation.learners}
            - {*config.evaluation.learners}
        ),
    }
    for noun, names in left_out.items():
        if names and not (noun == "pretraining seed" and is_planned):
            were = _of(noun, names)
            yield f"{were[0].upper()}{were[1:]} part of earlier results ({date}) and left out here."


def is_other_question(config: CompareConfig, before: CompareConfig) -> bool:
    """Whether two plans differ in the primary comparison or the margin."""
    return _question(config) != _question(before)


def _question(config: CompareConfig) -> str:
    primary = config.primary
    return (
        f"{primary.better} against {primary.than} on {config.primary_task} with "
        f"{learner_name(primary.learner)} and {budget_name(config.primary_budget)}, and a margin "
        f"of {config.margin:g}"
    )


def _of(noun: str, names: Sequence[str]) -> str:
    """Returns names with their noun and a verb in the past, such as ``seeds 2 and 3 were``."""
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"{noun} {listed} was" if len(names) == 1 else f"{noun}s {listed} were"
