"""From scores to the table of AUROCs and the paired differences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from scanlearn.console import track
from scantune.comparison.plan import CompareConfig
from scantune.comparison.results import ArmDifference, ArmRow, Matched, Primary, Score, Verdict
from scantune.scores import Scores
from scantune.splits import Budget
from scantune.statistics.delong import class_difference
from scantune.statistics.intervals import (
    Estimate,
    arm_interval,
    estimate,
    holm,
    paired_difference,
    patient_weights,
    verdict,
)
from scantune.wording import budget_name, learner_name


def state_verdict(
    config: CompareConfig,
    arms: Sequence[ArmRow],
    table: Sequence[Score],
    differences: Sequence[ArmDifference],
    matched: Matched,
) -> Verdict:
    """Says what the primary comparison shows, and what it does not.

    Example of a sentence: "Weak (s = 0.5) is better than strong (s = 1): AUROC 0.842 against
    0.815, difference +0.027 (95 % interval 0.011 to 0.043), pneumonia, linear probe, all labels."
    """
    primary = next(difference for difference in differences if difference.primary)
    titles = {arm.name: f"{arm.name} ({arm.scale_text})" for arm in arms}
    a, b = titles[primary.a], titles[primary.b]
    claim = {
        "better": f"{a} is better than {b}",
        "worse": f"{a} is worse than {b}",
        "equivalent": f"{a} and {b} are equivalent within ±{config.margin:g}",
        "none": f"no difference shown between {a} and {b}",
    }[primary.verdict]
    if not matched.ok:
        claim = f"the arms are not matched, so the dial alone may not explain it, but {claim}"
    learner, budget = learner_name(primary.learner), budget_name(primary.budget)
    numbers = _numbers(primary, table)
    claim = claim[0].upper() + claim[1:]
    sentence = f"{claim}: {numbers}, {primary.task}, {learner}, {budget}."
    if primary.seeds == 1:
        sentence += " One pretraining seed: this holds for these two networks only."
    named = {key: getattr(primary, key) for key in Primary.model_fields}
    return Verdict(kind=primary.verdict, sentence=sentence, primary=Primary(**named))


def _numbers(primary: ArmDifference, table: Sequence[Score]) -> str:
    aurocs: Mapping[str, float | None] = {
        score.arm: score.auroc
        for score in table
        if (score.task, score.learner, score.budget)
        == (primary.task, primary.learner, primary.budget)
    }
    first, second = aurocs[primary.a], aurocs[primary.b]
    if None in (first, second, primary.difference, primary.low, primary.high):
        return "the AUROC is undefined in some fold"
    assert first is not None
    assert second is not None
    assert primary.difference is not None
    assert primary.low is not None
    assert primary.high is not None
    # A true minus, as in the difference.
    ends = f"{primary.low:.3f} to {primary.high:.3f}".replace("-", "−")
    return (
        f"AUROC {first:.3f} against {second:.3f}, difference {signed(primary.difference)} "
        f"(95 % interval {ends})"
    )


def signed(value: float) -> str:
    """``+0.027`` or ``−0.027``, with a true minus."""
    return ("+" if value >= 0 else "−") + f"{abs(value):.3f}"


Cell = tuple[str, str, Budget, str]
Estimates = Mapping[Cell, Sequence[Estimate]]


def estimate_all(
    config: CompareConfig, scores: Mapping[tuple[str, str], Sequence[Scores]]
) -> dict[Cell, list[Estimate]]:
    """AUROC and patient resamples of every network, learner and budget.

    Returns:
        By task, learner, budget and arm, one estimate per pretraining seed.
    """
    evaluation = config.evaluation
    estimates: dict[Cell, list[Estimate]] = {}
    total = len(evaluation.budgets) * sum(
        len(member.learners) for members in scores.values() for member in members
    )
    with track(total, "resampling patients") as progress:
        for (task, arm), members in scores.items():
            # The weights depend on labels and folds alone, which all arms of a task share.
            weights = patient_weights(members[0], replicates=evaluation.replicates)
            for learner in members[0].learners:
                for budget in evaluation.budgets:
                    of_arm = estimates.setdefault((task, learner, budget, arm), [])
                    for member in members:
                        of_arm.append(estimate(member, learner, budget, weights))
                        progress.advance()
    return estimates


def score_rows(
    estimates: Estimates, scores: Mapping[tuple[str, str], Sequence[Scores]]
) -> tuple[Score, ...]:
    """The table: one row per task, learner, budget and arm."""
    rows = []
    for (task, learner, budget, arm), members in estimates.items():
        interval = arm_interval(members)
        first = scores[task, arm][0]
        place = first.budgets.index(str(budget))
        rows.append(
            Score(
                arm=arm,
                task=task,
                learner=learner,
                budget=budget,
                auroc=finite(interval.estimate),
                low=finite(interval.low),
                high=finite(interval.high),
                per_seed=tuple(finite(value) for value in interval.per_seed),
                train_scans=float(first.train_scans[place].mean()),
                train_patients=float(first.train_patients[place].mean()),
                test_patients=members[0].num_patients,
            )
        )
    return tuple(rows)


def difference_rows(
    config: CompareConfig,
    estimates: Estimates,
    scores: Mapping[tuple[str, str], Sequence[Scores]],
) -> tuple[ArmDifference, ...]:
    """The paired differences, the primary one first; Holm covers the rest."""
    compared = list(comparisons(config))
    differences = [
        paired_difference(estimates[(*cell, a)], estimates[(*cell, b)]) for cell, a, b in compared
    ]
    adjusted = holm([difference.p for difference in differences[1:]])
    rows = []
    for index, ((cell, a, b), difference) in enumerate(zip(compared, differences, strict=True)):
        p_holm = None if index == 0 else adjusted[index - 1]
        defined = math.isfinite(difference.estimate) and math.isfinite(difference.p)
        rows.append(
            ArmDifference(
                task=cell[0],
                learner=cell[1],
                budget=cell[2],
                a=a,
                b=b,
                difference=finite(difference.estimate),
                low=finite(difference.low),
                high=finite(difference.high),
                p=finite(difference.p),
                p_holm=None if p_holm is None else finite(p_holm),
                df=finite(difference.df),
                seeds=len(difference.per_seed),
                verdict=verdict(difference, margin=config.margin, p=p_holm) if defined else "none",
                primary=index == 0,
                delong_p=_delong_p(scores, cell, a, b),
            )
        )
    return tuple(rows)


def _delong_p(
    scores: Mapping[tuple[str, str], Sequence[Scores]],
    cell: tuple[str, str, Budget],
    a: str,
    b: str,
) -> float | None:
    task, learner, budget = cell
    first, second = scores[task, a], scores[task, b]
    codes = first[0].truth.asked
    if len(codes) > 1:
        return None
    return finite(class_difference(first, second, learner, budget, codes[0]).p)


def comparisons(
    config: CompareConfig,
) -> Iterator[tuple[tuple[str, str, Budget], str, str]]:
    """What is compared: the primary pair everywhere, all other pairs where the primary one is.

    Every comparison more makes Holm's correction harder on the others; pairs that nobody named
    are therefore compared with the primary learner and budget only.

    Yields:
        Task, learner and budget, then the first arm and the second; the primary comparison first.
    """
    primary, evaluation = config.primary, config.evaluation
    named = (config.primary_task, primary.learner, config.primary_budget)
    pair = (primary.better, primary.than)
    yield named, *pair
    tasks = [named[0], *(task for task in config.task_names if task != named[0])]
    learners = [named[1], *(name for name in evaluation.learners if name != named[1])]
    for task in tasks:
        for learner in learners:
            for budget in evaluation.budgets:
                if (task, learner, budget) != named:
                    yield (task, learner, budget), *pair
    for second, first in combinations(config.arms, 2):
        if {first, second} != set(pair):
            for task in tasks:
                yield (task, named[1], named[2]), first, second


def finite(value: float) -> float | None:
    """The value, or None where it is undefined."""
    return float(value) if math.isfinite(value) else None
