"""What the report's tables hold, as plain rows for the page."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from markupsafe import Markup

from scanlearn.views.parameters import PARAMETERS
from scantune.report import forest, plots
from scantune.study.results import ArmRow, Budget, Difference, Results, RunRow, Score
from scantune.wording import budget_name, learner_name

OUTCOMES = {
    "better": "better",
    "worse": "worse",
    "equivalent": "equivalent",
    "none": "no difference shown",
}

NOTES = {"fixed": "the same from s = 0.5 on"}


def budgets(results: Results) -> list[Budget]:
    """Label budgets, fewest first, all labels last."""
    found = {score.budget for score in results.table}
    counts: list[Budget] = sorted(budget for budget in found if isinstance(budget, int))
    return [*counts, "all"] if "all" in found else counts


def learners(results: Results) -> list[str]:
    """Learners, that of the primary comparison first."""
    found = dict.fromkeys(score.learner for score in results.table)
    lead = results.verdict.primary.learner
    return [lead, *(name for name in found if name != lead)]


def ordered_arms(results: Results) -> list[ArmRow]:
    """References first, then the trained arms in the order of the configuration."""
    rank = {"thumbnail": 0, "random": 1, "pretrained": 2}
    return sorted(results.arms, key=lambda arm: rank[arm.kind])


@dataclass(frozen=True)
class AurocTable:
    """One task: a row per arm, a cell per learner and budget.

    Args:
        task: Its name.
        columns: Learner in words and its budgets in words.
        rows: Arm and one cell per column; None where it was not scored.
        best: Per row and column, whether it is the highest of its column among trained arms.
    """

    task: str
    columns: list[tuple[str, list[str]]]
    rows: list[tuple[ArmRow, list[Score | None]]]
    best: list[list[bool]]


def auroc_table(results: Results, task: str) -> AurocTable:
    """The AUROC of every arm on one task."""
    keys = [(learner, budget) for learner in learners(results) for budget in budgets(results)]
    cells = {(s.arm, s.learner, s.budget): s for s in results.table if s.task == task}
    arms = ordered_arms(results)
    rows = [(arm, [cells.get((arm.name, *key)) for key in keys]) for arm in arms]
    tops = []
    for column in range(len(keys)):
        found = (row[column] for arm, row in rows if arm.kind == "pretrained")
        tops.append(max((s.auroc for s in found if s and s.auroc is not None), default=None))
    best = [
        [
            arm.kind == "pretrained" and s is not None and s.auroc is not None and s.auroc == top
            for s, top in zip(row, tops, strict=True)
        ]
        for arm, row in rows
    ]
    named = [budget_name(budget) for budget in budgets(results)]
    columns = [(learner_name(learner), named) for learner in learners(results)]
    return AurocTable(task, columns, rows, best)


@dataclass(frozen=True)
class Pair:
    """The differences of one pair of arms, the primary comparison first."""

    a: str
    b: str
    axis: Markup
    rows: list[tuple[Difference, Markup]]

    @property
    def primary(self) -> bool:
        """Whether the primary comparison is among them."""
        return any(difference.primary for difference, _ in self.rows)

    @property
    def summary(self) -> str:
        """How many of the rows read how."""
        counts = Counter(OUTCOMES[difference.verdict] for difference, _ in self.rows)
        return ", ".join(f"{counts[text]} {text}" for text in OUTCOMES.values() if counts[text])


def pairs(results: Results) -> list[Pair]:
    """Differences by pair of arms, the primary pair first, each with its forest cell."""
    colours, margin = plots.palette(results), results.margin
    found: dict[tuple[str, str], list[Difference]] = {}
    for difference in sorted(results.differences, key=lambda d: not d.primary):
        found.setdefault((difference.a, difference.b), []).append(difference)
    made = []
    for (a, b), rows in found.items():
        limits = forest.forest_range(rows, margin)
        cells = [(d, forest.forest_cell(d, limits, margin, colours)) for d in rows]
        made.append(Pair(a, b, forest.forest_axis(limits), cells))
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
    """What each arm's scale resolved to, with the notes of each parameter joined."""
    arms = [arm for arm in results.arms if arm.kind == "pretrained" and arm.resolved]
    names = dict.fromkeys(p.parameter for arm in arms for p in arm.resolved)
    rows = []
    for name in names:
        own = [next((p for p in arm.resolved if p.parameter == name), None) for arm in arms]
        values = [p.value if p else "–" for p in own]
        notes = dict.fromkeys(NOTES.get(p.note, p.note) for p in own if p and p.note)
        # What is neither the identity nor published is said arm by arm.
        ours = [
            f"{arm.name}: {p.source}"
            for arm, p in zip(arms, own, strict=True)
            if p and p.source not in ("identity", "") and not p.source.startswith("published")
        ]
        title = PARAMETERS[name].title if name in PARAMETERS else name
        rows.append((title, values, "; ".join([*ours, *notes])))
    return DialTable(arms, rows)


def proof_rows(results: Results) -> list[tuple[RunRow, bool]]:
    """Runs by seed; True marks the first run of a seed."""
    rank = {arm.name: index for index, arm in enumerate(ordered_arms(results))}
    runs = sorted(results.runs, key=lambda run: (run.seed, rank.get(run.arm, 99)))
    return [(run, index == 0 or runs[index - 1].seed != run.seed) for index, run in enumerate(runs)]


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


def winner(results: Results) -> str | None:
    """The arm that the primary comparison shows to be better; None where it shows none."""
    primary = results.verdict.primary
    return {"better": primary.a, "worse": primary.b}.get(results.verdict.kind)


def headline(results: Results) -> str:
    """The verdict in a few words."""
    verdict = results.verdict
    a, b = verdict.primary.a, verdict.primary.b
    words = {
        "better": f"{a} is better than {b}",
        "worse": f"{b} is better than {a}",
        "equivalent": f"{a} and {b} are equivalent",
        "none": "No difference shown",
    }[verdict.kind]
    return words[0].upper() + words[1:]
