"""What of a study its page shows, and in which order."""

from __future__ import annotations

from scantune.splits import Budget
from scantune.study.dose import dose_arms
from scantune.study.results import ArmRow, DoseCurve, Results, Score, TaskCount

# Of more arms curves and tables by arm hold a part; the files beside the page hold all.
_MOST_ARMS = 16


def tasks(results: Results) -> list[TaskCount]:
    """Tasks, that of the primary comparison first."""
    lead = results.verdict.primary.task
    return sorted(results.tasks, key=lambda task: task.name != lead)


def at_place(results: Results, task: str) -> dict[str, Score]:
    """The scores of a task with the primary learner and budget, by arm."""
    named = results.verdict.primary
    place = (task, named.learner, named.budget)
    return {s.arm: s for s in results.table if (s.task, s.learner, s.budget) == place}


def primary_dose(results: Results) -> list[DoseCurve]:
    """The curves of the primary task, learner and budget, one per group of arms."""
    named = results.verdict.primary
    place = (named.task, named.learner, named.budget)
    return [each for each in results.dose if (each.task, each.learner, each.budget) == place]


def has_scale(results: Results) -> bool:
    """Whether some arms differ in one scale, so that AUROC can be drawn over it."""
    return any(len(group.scales) > 1 for group in dose_arms(results.arms))


def shown_arms(results: Results) -> list[str]:
    """The arms that curves and tables by arm show: of many the primary pair, references, the best.

    All others are in the CSV files.
    """
    arms, named = ordered_arms(results), results.verdict.primary
    if len(arms) <= _MOST_ARMS:
        return [arm.name for arm in arms]
    scores = at_place(results, named.task)
    trained = [arm.name for arm in arms if arm.kind == "pretrained" and arm.name in scores]
    best = sorted(trained, key=lambda name: -(scores[name].auroc or 0))[: _MOST_ARMS // 2]
    kept = {named.a, named.b, *best}
    return [arm.name for arm in arms if arm.kind != "pretrained" or arm.name in kept]


def budgets(results: Results) -> list[Budget]:
    """Label budgets, fewest first, all labels last."""
    scored = {score.budget for score in results.table}
    counts: list[Budget] = sorted(budget for budget in scored if isinstance(budget, int))
    return [*counts, "all"] if "all" in scored else counts


def learners(results: Results) -> list[str]:
    """Learners, that of the primary comparison first."""
    scored = dict.fromkeys(score.learner for score in results.table)
    lead = results.verdict.primary.learner
    return [lead, *(name for name in scored if name != lead)]


def ordered_arms(results: Results) -> list[ArmRow]:
    """References first, then the trained arms in the order of the configuration."""
    rank = {"thumbnail": 0, "random": 1, "scratch": 2, "backbone": 3, "pretrained": 4}
    return sorted(results.arms, key=lambda arm: rank[arm.kind])
