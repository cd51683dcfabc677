"""The tables of a study's page, from its results."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from scanlearn.views.operations.table import PARAMETERS
from scantune.reports import plots
from scantune.reports.selection import budgets, learners, ordered_arms, shown_arms
from scantune.study.results import ArmDifference, ArmRow, ClassScore, Results, RunRow, Score
from scantune.wording import budget_name, learner_name

# Of more pairs a page holds a part; the files beside it hold all.
_MOST_PAIRS = 40
OUTCOMES = {
    "better": "better",
    "worse": "worse",
    "higher": "higher",
    "lower": "lower",
    "equivalent": "equivalent",
    "none": "no difference shown",
}
NOTES = {"fixed": "the same from s = 0.5 on"}


@dataclass(frozen=True)
class ClassTable:
    """A row per arm and class of the primary comparison's place."""

    names: list[str]
    rows: list[ClassScore]


def class_tables(results: Results) -> ClassTable:
    """The scores of each class, class by class, arms in the order of the report."""
    arm_names = shown_arms(results)
    rows = [row for row in results.classes if row.arm in arm_names]
    names = list(dict.fromkeys(row.name for row in rows))
    rows = sorted(rows, key=lambda row: (names.index(row.name), arm_names.index(row.arm)))
    return ClassTable(names, rows)


@dataclass(frozen=True)
class AurocTable:
    """One task: a row per arm, a cell per learner and budget.

    Args:
        best: Per row and column, whether it is the highest of its column among trained arms.
        undefined: Classes that a fold cannot score, over folds and label seeds; the same in every
            cell.
    """

    task: str
    columns: list[tuple[str, list[str]]]
    rows: list[tuple[ArmRow, list[Score | None]]]
    best: list[list[bool]]
    undefined: int


def auroc_table(results: Results, task: str) -> AurocTable:
    """The AUROC of every arm on one task."""
    keys = [(learner, budget) for learner in learners(results) for budget in budgets(results)]
    cells = {(s.arm, s.learner, s.budget): s for s in results.table if s.task == task}
    arms = ordered_arms(results)
    rows = [(arm, [cells.get((arm.name, *key)) for key in keys]) for arm in arms]
    tops = []
    for column in range(len(keys)):
        trained = (row[column] for arm, row in rows if arm.kind == "pretrained")
        tops.append(max((s.auroc for s in trained if s and s.auroc is not None), default=None))
    best = [
        [
            arm.kind == "pretrained" and s is not None and s.auroc is not None and s.auroc == top
            for s, top in zip(row, tops, strict=True)
        ]
        for arm, row in rows
    ]
    named = [budget_name(budget) for budget in budgets(results)]
    columns = [(learner_name(learner), named) for learner in learners(results)]
    undefined = max((score.undefined for score in cells.values()), default=0)
    return AurocTable(task, columns, rows, best, undefined)


@dataclass(frozen=True)
class Pair:
    """The differences of one pair of arms, the primary comparison first."""

    a: str
    b: str
    axis: Markup
    rows: list[tuple[ArmDifference, Markup]]

    @property
    def primary(self) -> bool:
        """Whether the primary comparison is among them."""
        return any(difference.primary for difference, _ in self.rows)

    @property
    def summary(self) -> str:
        """How many of the rows read how."""
        return outcomes([self])


def outcomes(of_pairs: Sequence[Pair]) -> str:
    """How many of the differences of these pairs read how."""
    counts = Counter(OUTCOMES[each.verdict] for pair in of_pairs for each, _ in pair.rows)
    return ", ".join(f"{counts[text]} {text}" for text in OUTCOMES.values() if counts[text])


def pairs(results: Results) -> list[Pair]:
    """Differences by pair of arms, the primary pair first, each with its forest cell.

    Of many pairs those of one of the primary pair's arms; all are in ``differences.csv``.
    """
    colours, margin = plots.palette(results), results.margin
    by_pair: dict[tuple[str, str], list[ArmDifference]] = {}
    for difference in sorted(results.differences, key=lambda d: not d.primary):
        by_pair.setdefault((difference.a, difference.b), []).append(difference)
    named = {results.verdict.primary.a, results.verdict.primary.b}
    if len(by_pair) > _MOST_PAIRS:
        by_pair = dict(sorted(by_pair.items(), key=lambda each: -len(named & set(each[0]))))
    made = []
    for (a, b), rows in list(by_pair.items())[:_MOST_PAIRS]:
        limits = plots.forest_range(rows, margin)
        cells = [(d, plots.forest_cell(d, limits, margin, colours)) for d in rows]
        made.append(Pair(a, b, plots.forest_axis(limits), cells))
    return made


def p_text(value: float | None) -> str:
    """A p value for a person."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


@dataclass(frozen=True)
class DialTable:
    """Resolved augmentation parameters: a row per parameter, a cell per trained arm."""

    arms: list[ArmRow]
    rows: list[tuple[str, list[str], str]]


def dial_table(results: Results) -> DialTable:
    """What the scale of each shown arm resolved to, with the notes of each parameter joined."""
    arm_names = shown_arms(results)
    arms = [arm for arm in results.arms if arm.resolved and arm.name in arm_names]
    names = dict.fromkeys(p.parameter for arm in arms for p in arm.resolved)
    rows = []
    for name in names:
        of_arm = [next((p for p in arm.resolved if p.parameter == name), None) for arm in arms]
        values = [p.value if p else "–" for p in of_arm]
        notes = dict.fromkeys(NOTES.get(p.note, p.note) for p in of_arm if p and p.note)
        # A source that is neither the identity nor published is named for each arm.
        named = [
            (arm.name, p.source)
            for arm, p in zip(arms, of_arm, strict=True)
            if p and p.source not in ("identity", "")
        ]
        sources = [
            f"{arm}: {source}" for arm, source in named if not source.startswith("published")
        ]
        if len(sources) > 1 and len({source for _, source in named}) == 1:
            sources = [named[0][1]]
        title = PARAMETERS[name].title if name in PARAMETERS else name
        rows.append((title, values, "; ".join([*sources, *notes])))
    return DialTable(arms, rows)


def proof_rows(results: Results) -> list[tuple[RunRow, bool]]:
    """Runs by seed; True marks the first run of a seed."""
    rank = {arm.name: index for index, arm in enumerate(ordered_arms(results))}
    runs = sorted(results.runs, key=lambda run: (run.seed, rank.get(run.arm, 99)))
    return [(run, index == 0 or runs[index - 1].seed != run.seed) for index, run in enumerate(runs)]


@dataclass(frozen=True)
class ConditionGroup:
    """Recorded values of one kind that all trained runs share."""

    title: str
    rows: list[tuple[str, str]]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.rows)


_GROUPS = {
    "": "Training and machine",
    "method": "Method",
    "schedule": "Learning rate and weight decay",
    "backbone": "Network",
    "views": "Views",
    "archive": "Scans",
    "versions": "Versions",
}


def shared_conditions(results: Results) -> list[ConditionGroup]:
    """What every trained run recorded alike, in groups; empty where runs recorded nothing."""
    trained = [run.conditions for run in results.runs if run.steps > 0]
    keys = [k for k in (trained or [{}])[0] if len({run.get(k) for run in trained}) == 1]
    groups: dict[str, list[tuple[str, str]]] = {}
    for key in keys:
        prefix, _, name = key.rpartition(".")
        value = trained[0][key]
        is_long = re.fullmatch(r"\d*\.\d{7,}(e-?\d+)?", value) is not None
        groups.setdefault(prefix, []).append((name, f"{float(value):.6g}" if is_long else value))
    order = [*_GROUPS, *(prefix for prefix in groups if prefix not in _GROUPS)]
    return [ConditionGroup(_GROUPS.get(p, p), groups[p]) for p in order if p in groups]


def duration(seconds: float) -> str:
    """``3 min 32 s``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
