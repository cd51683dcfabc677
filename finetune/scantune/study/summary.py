"""From scores to the table of AUROCs and the paired differences."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float

from scanlearn.console import track
from scanlearn.features.auroc import mean_of_defined
from scantune.evaluation.settings import THUMBNAIL
from scantune.scores import Scores
from scantune.splits import Budget
from scantune.statistics.delong import class_difference
from scantune.statistics.intervals import (
    Component,
    Estimate,
    VerdictKind,
    arm_interval,
    equivalence_p,
    estimate,
    holm,
    limits_note,
    paired_difference,
    patient_weights,
    verdict,
)
from scantune.statistics.moderation import moderate
from scantune.study.plan import CompareConfig
from scantune.study.results import (
    ArmDifference,
    ArmRow,
    Matched,
    Outcome,
    Primary,
    Score,
    Verdict,
)
from scantune.wording import budget_name, learner_name, signed


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
    titles = {arm.name: f"{arm.name} ({arm.scale_text})" for arm in arms}
    return stated(titles, table, differences, margin=config.margin, matched=matched)


def stated(
    titles: Mapping[str, str],
    table: Sequence[Score],
    differences: Sequence[ArmDifference],
    *,
    margin: float,
    matched: Matched | None = None,
) -> Verdict:
    """Says what `state_verdict` does of arms by their titles; nothing of matching without proof."""
    primary = next(difference for difference in differences if difference.primary)
    a, b = titles[primary.a], titles[primary.b]
    lead, shown = "", "shown"
    if matched is not None and not matched.ok:
        lead = "the arms are not matched, so more than the dial may be at work; "
        shown = "is shown"
    claim = {
        "better": f"{a} is better than {b}",
        "worse": f"{a} is worse than {b}",
        "higher": f"{a} scores higher than {b}",
        "lower": f"{a} scores lower than {b}",
        "equivalent": f"{a} and {b} are equivalent within ±{margin:g}",
        "none": f"no difference {shown} between {a} and {b}",
    }[primary.verdict]
    if primary.holds_for:
        claim += f" {primary.holds_for}"
    learner, budget = learner_name(primary.learner), budget_name(primary.budget)
    numbers = _numbers(primary, table)
    claim = lead + claim
    claim = claim[0].upper() + claim[1:]
    sentence = f"{claim}: {numbers}, {primary.task}, {learner}, {budget}."
    if primary.seeds == 1:
        sentence += " One pretraining seed: this holds for these two networks only."
    if primary.label_draws == 1:
        sentence += " One label seed: this holds for this draw of labels only."
    named = {key: getattr(primary, key) for key in Primary.model_fields}
    return Verdict(
        kind=primary.verdict,
        sentence=sentence,
        primary=Primary(**named),
        holds_for=primary.holds_for,
    )


def _numbers(primary: ArmDifference, table: Sequence[Score]) -> str:
    aurocs: Mapping[str, float | None] = {
        score.arm: score.auroc
        for score in table
        if (score.task, score.learner, score.budget)
        == (primary.task, primary.learner, primary.budget)
    }
    first, second = aurocs[primary.a], aurocs[primary.b]
    if primary.low is None and primary.note and first is not None and second is not None:
        return f"AUROC {first:.3f} against {second:.3f}, {primary.note}"
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
        f"({100 * primary.level:.3g} % interval {ends})"
    )


Place = tuple[str, str, Budget]
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


@dataclass(frozen=True)
class Spread:
    """What the draw of pretraining seeds and that of label subsets add to a variance."""

    seeds: Component
    subsets: Component


# One arm, or two of which the difference is taken, in one place of the table.
Contrast = tuple[Place, frozenset[str]]


def spreads(
    config: CompareConfig,
    estimates: Estimates,
    scores: Mapping[tuple[str, str], Sequence[Scores]],
) -> dict[Contrast, Spread]:
    """Returns how seeds and label subsets vary, moderated over the cells of the study.

    The cells of a group are each trained arm; each pair of trained arms; or each trained arm
    against one untrained, in every place of the table, which has a prior of its own. With as many
    networks it has at most (trained arms - 2)(draws - 1) degrees of freedom. With all labels
    there is no subset to draw. What is particular to a seed on a subset counts in both.
    """
    return spreads_of(trained_arms(config), estimates, scores)


def trained_arms(config: CompareConfig) -> frozenset[str]:
    """Returns the arms of which every pretraining seed gives another network."""
    return frozenset(config.trained)


def spreads_of(
    trained: Set[str],
    estimates: Estimates,
    scores: Mapping[tuple[str, str], Sequence[Scores]],
) -> dict[Contrast, Spread]:
    """Returns what `spreads` does, by the names of the trained arms."""
    arms_of: dict[Place, list[str]] = {}
    for task, learner, budget, arm in estimates:
        arms_of.setdefault((task, learner, budget), []).append(arm)
    groups: dict[tuple[int, frozenset[str]], list[Contrast]] = {}
    for place, arms in arms_of.items():
        for size in (1, 2):
            for names in map(frozenset, combinations(arms, size)):
                groups.setdefault((size, names - trained), []).append((place, names))
    spread_of: dict[Contrast, Spread] = {}
    for contrasts in groups.values():
        num_trained = len(trained & {arm for _, arms in contrasts for arm in arms})
        values = {contrast: _values(estimates, *contrast) for contrast in contrasts}
        drawn = [
            ((task, learner, budget), arms)
            for (task, learner, budget), arms in contrasts
            if scores[task, next(iter(arms))][0].is_subset(budget)
        ]
        seeds = _moderated({c: mean_of_defined(values[c].T) for c in contrasts}, num_trained)
        subsets = _moderated({c: mean_of_defined(values[c]) for c in drawn}, num_trained)
        nothing = Component.of(())
        spread_of |= {c: Spread(seeds[c], subsets.get(c, nothing)) for c in contrasts}
    return spread_of


def _values(estimates: Estimates, place: Place, arms: frozenset[str]) -> Float[np.ndarray, "n j"]:
    """The AUROC of an arm, or the difference of two, for each pretraining and label seed."""
    members = _aligned([estimates[(*place, arm)] for arm in arms])
    aurocs = [
        [mean_of_defined(estimate.per_fold.T) for estimate in estimates_of]
        for estimates_of in members
    ]
    return np.asarray(aurocs[0]) - (np.asarray(aurocs[1]) if len(aurocs) > 1 else 0.0)


def _aligned(arms: Sequence[Sequence[Estimate]]) -> list[list[Estimate]]:
    """As many estimates of each arm: what has no seed, such as the thumbnail, is repeated."""
    seeds = max(len(members) for members in arms)
    return [list(members) * (seeds if len(members) == 1 else 1) for members in arms]


def _moderated(
    values: Mapping[Contrast, Float[np.ndarray, " n"]], num_trained: int
) -> dict[Contrast, Component]:
    draws = {len(of_draw) for of_draw in values.values()}
    if not draws or draws == {1}:
        return {contrast: Component.of(of_draw) for contrast, of_draw in values.items()}
    (n,) = draws
    # A label seed none of whose folds is defined tells nothing.
    defined = [of_draw[np.isfinite(of_draw)] for of_draw in values.values()]
    variances = [float(np.var(d, ddof=1)) if len(d) > 1 else math.nan for d in defined]
    places = [place for place, _ in values]
    known = moderate(variances, n - 1, (num_trained - 2) * (n - 1), places)
    return {
        contrast: Component(known_of.variance / n, known_of.df)
        for contrast, known_of in zip(values, known, strict=True)
    }


def score_rows(
    config: CompareConfig,
    estimates: Estimates,
    scores: Mapping[tuple[str, str], Sequence[Scores]],
    patients_unknown: Collection[str] = (),
) -> tuple[Score, ...]:
    """The table: one row per task, learner, budget and arm.

    Args:
        patients_unknown: Tasks whose patients nobody knows, so that none are counted.
    """
    return table_rows(trained_arms(config), estimates, scores, patients_unknown)


def table_rows(
    trained: Set[str],
    estimates: Estimates,
    scores: Mapping[tuple[str, str], Sequence[Scores]],
    patients_unknown: Collection[str] = (),
) -> tuple[Score, ...]:
    """Returns what `score_rows` does, by the names of the trained arms."""
    rows = []
    spread_of = spreads_of(trained, estimates, scores)
    for (task, learner, budget, arm), members in estimates.items():
        spread = spread_of[(task, learner, budget), frozenset({arm})]
        interval = arm_interval(members, between_seeds=spread.seeds, between_subsets=spread.subsets)
        first = scores[task, arm][0]
        place = first.budgets.index(str(budget))
        is_known = task not in patients_unknown
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
                train_patients=float(first.train_patients[place].mean()) if is_known else None,
                test_patients=members[0].num_patients if is_known else None,
                undefined=members[0].undefined,
                note=limits_note(members),
            )
        )
    return tuple(rows)


def difference_rows(
    config: CompareConfig,
    estimates: Estimates,
    scores: Mapping[tuple[str, str], Sequence[Scores]],
) -> tuple[ArmDifference, ...]:
    """The paired differences, the primary one first; Holm covers the rest.

    Whether two arms differ and whether they are equivalent are corrected each for itself.
    """
    compared = list(comparisons(config))
    return paired_rows(
        compared, trained_arms(config), estimates, scores, margin=config.margin, alpha=config.alpha
    )


def paired_rows(
    compared: Sequence[tuple[Place, str, str]],
    trained: Set[str],
    estimates: Estimates,
    scores: Mapping[tuple[str, str], Sequence[Scores]],
    *,
    margin: float,
    alpha: float = 0.05,
) -> tuple[ArmDifference, ...]:
    """Returns what `difference_rows` does of the pairs given, the first of which is primary."""
    spread_of = spreads_of(trained, estimates, scores)
    differences = []
    for place, a, b in compared:
        spread = spread_of[place, frozenset({a, b})]
        pair = _aligned([estimates[(*place, arm)] for arm in (a, b)])
        differences.append(
            paired_difference(
                *pair,
                level=1 - alpha,
                between_seeds=spread.seeds,
                between_subsets=spread.subsets,
            )
        )
    adjusted = holm([difference.p for difference in differences[1:]])
    equivalent = holm([equivalence_p(each, margin) for each in differences[1:]])
    rows = []
    for index, ((place, a, b), difference) in enumerate(zip(compared, differences, strict=True)):
        p_holm, p_equivalent = (
            (None, None) if index == 0 else (adjusted[index - 1], equivalent[index - 1])
        )
        design = scores[place[0], a][0]
        row = ArmDifference(
            task=place[0],
            learner=place[1],
            budget=place[2],
            a=a,
            b=b,
            difference=finite(difference.estimate),
            low=finite(difference.low),
            high=finite(difference.high),
            p=finite(difference.p),
            p_holm=None if p_holm is None else finite(p_holm),
            p_equivalent=None if p_equivalent is None else finite(p_equivalent),
            df=finite(difference.df),
            seeds=len(difference.per_seed),
            label_draws=design.num_label_seeds if design.is_subset(place[2]) else None,
            verdict="none",
            primary=index == 0,
            level=1 - alpha,
            note=limits_note([*estimates[(*place, a)], *estimates[(*place, b)]]),
            delong_p=_delong_p(scores, place, a, b),
        )
        if math.isfinite(difference.estimate) and math.isfinite(difference.p):
            kind = verdict(
                difference, margin=margin, p=p_holm, p_equivalent=p_equivalent, alpha=alpha
            )
            row = row.model_copy(update={"verdict": _said(kind, row.holds_for)})
        rows.append(row)
    return tuple(rows)


def _said(kind: VerdictKind, holds_for: str) -> Outcome:
    """The outcome: what holds for some networks or labels alone is better of no recipe."""
    narrow: dict[VerdictKind, Outcome] = {"better": "higher", "worse": "lower"}
    return narrow.get(kind, kind) if holds_for else kind


def _delong_p(
    scores: Mapping[tuple[str, str], Sequence[Scores]],
    place: Place,
    a: str,
    b: str,
) -> float | None:
    task, learner, budget = place
    first, second = scores[task, a], scores[task, b]
    codes = first[0].truth.asked
    if len(codes) > 1:
        return None
    return finite(class_difference(first, second, learner, budget, codes[0]).p)


def comparisons(config: CompareConfig) -> Iterator[tuple[Place, str, str]]:
    """What is compared: the primary pair everywhere, all other pairs where the primary one is.

    The thumbnail is compared with every arm, where the primary learner can score it.

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
                is_scored = all(learner in config.learners_of(arm) for arm in pair)
                if is_scored and (task, learner, budget) != named:
                    yield (task, learner, budget), *pair
    arms = [arm for arm in (THUMBNAIL, *config.arms) if primary.learner in config.learners_of(arm)]
    for second, first in combinations(arms, 2):
        if {first, second} != set(pair):
            for task in tasks:
                yield (task, named[1], named[2]), first, second


def finite(value: float) -> float | None:
    """The value, or None where it is undefined."""
    return float(value) if math.isfinite(value) else None
