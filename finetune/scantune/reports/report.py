"""Writes the one file a person reads: ``report.html``, self-contained and offline."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from scanlearn.console import say
from scanlearn.files import make_folder, write_atomically
from scanlearn.pages import page_template, png_address
from scanlearn.svg import standalone
from scanlearn.views.curves import POLICY
from scanlearn.views.operations.table import PARAMETERS
from scantune.reports import panels, plots, writeup
from scantune.reports.label_free import label_free_groups, label_free_panels, signed_text
from scantune.splits import Budget
from scantune.study.dose import (
    dose_arms,
    dose_headline,
    dose_sentences,
    joint_sentences,
    ranges_text,
)
from scantune.study.results import (
    FIGURES,
    ArmDifference,
    ArmRow,
    ClassScore,
    DoseCurve,
    Results,
    RunRow,
    Score,
    Sheet,
    TaskCount,
    read_results,
)
from scantune.study.tables import write_tables
from scantune.wording import DESIGNS, budget_name, dial_text, is_separate, learner_name

REPORT_FILE = "report.html"
OUTCOMES = {
    "better": "better",
    "worse": "worse",
    "higher": "higher",
    "lower": "lower",
    "equivalent": "equivalent",
    "none": "no difference shown",
}
# Of more arms, pairs and pictures a page holds a part; the files beside it hold all.
_MOST_ARMS, _MOST_PAIRS, _MOST_SHEET_BYTES = 16, 40, 3_000_000
NOTES = {"fixed": "the same from s = 0.5 on"}


def report(folder: Path | str) -> Path:
    """Write a comparison's report, figures and tables anew from its results.json.

    Args:
        folder: The study's, also one of an earlier version.

    Returns:
        The page, ``report.html``; its plots are ``figures/*.svg``, its tables CSV files beside it.

    Raises:
        ScanlearnError: The folder holds no readable results.
    """
    path = write(folder)
    say(f"Report: {path}")
    return path


def write(folder: Path | str) -> Path:
    """Writes ``report.html``, its plots as ``figures/*.svg`` and its tables as CSV.

    Returns:
        The page's path.

    Raises:
        ScanlearnError: The folder holds no readable results.
    """
    folder = Path(folder).expanduser()
    results = read_results(folder)
    write_tables(folder, results)
    drawings = draw(results)
    figures = folder / FIGURES
    make_folder(figures)
    for group, members in drawings.items():
        for index, (_, drawing) in enumerate(members):
            text = standalone(drawing)
            (figures / f"{group}_{index + 1}.svg").write_text(text, encoding="utf-8")
    filters: dict[str, Callable[..., str]] = {
        "interval": plots.interval_text,
        "difference": plots.difference_text,
        "learner": learner_name,
        "budget": budget_name,
        "outcome": OUTCOMES.__getitem__,
        "p": p_text,
        "rho": signed_text,
        "tight": lambda text: text.replace(" = ", "\u00a0=\u00a0").replace(" %", "\u00a0%"),
        "duration": duration,
        "thousands": lambda number: f"{number:,.0f}",
        "plain": lambda key: key.replace("_", " "),
        "short": lambda text: text[:10],
    }
    lead = tasks(results)[0]
    shown = shown_arms(results)
    compared = pairs(results)
    page = page_template("scantune.reports", "report.html.j2", filters).render(
        r=results,
        drawings=drawings,
        sheets=_sheets(results, figures),
        plain_words=writeup.plain_words(results),
        paragraph=writeup.methods_paragraph(results),
        checklists=writeup.checklists(results),
        dose=primary_dose(results),
        dose_says=dose_sentences,
        joint=[each for each in results.joint_dose if each.task == lead.name],
        joint_says=joint_sentences,
        dose_head=dose_headline,
        ranges=ranges_text,
        has_scale=has_scale(results),
        shown=shown,
        classes=class_tables(results),
        label_free=label_free_groups(results, _at_place(results, lead.name)),
        created=f"{datetime.datetime.fromisoformat(results.created):%d %B %Y, %H:%M} UTC",
        winner=winner(results),
        headline=headline(results),
        primary_task=lead.name,
        lead=lead,
        separate=is_separate(lead.design, lead.count, is_compared=lead.is_compared),
        untested=DESIGNS[lead.design].untested,
        arms=ordered_arms(results),
        colours=plots.palette(results),
        auroc=[auroc_table(results, task.name) for task in tasks(results)],
        pairs=compared,
        pairs_left_out=len({(d.a, d.b) for d in results.differences}) - len(compared),
        dial=dial_table(results),
        proof=proof_rows(results),
        conditions=shared_conditions(results),
        learners=learners(results),
        has_classes=any(len(task.classes) > 2 for task in results.tasks),
        has_policy=any(
            each.source.startswith(POLICY) for arm in results.arms for each in arm.resolved
        ),
        label_draws=max((d.label_draws or 0 for d in results.differences), default=0),
    )
    path = folder / REPORT_FILE
    write_atomically(path, page)
    return path


def tasks(results: Results) -> list[TaskCount]:
    """Tasks, that of the primary comparison first."""
    lead = results.verdict.primary.task
    return sorted(results.tasks, key=lambda task: task.name != lead)


def draw(results: Results) -> dict[str, list[tuple[str, Markup]]]:
    """All plots of the report, each named, in reading order; the key begins its file's name."""
    colours, arms = plots.palette(results), ordered_arms(results)
    names, task_names = learners(results), [task.name for task in tasks(results)]
    primary_budget = results.verdict.primary.budget
    at_budget = [score for score in results.table if score.budget == primary_budget]
    limits = plots.auroc_range(at_budget)
    aurocs = []
    for task in task_names:
        cells = {(s.arm, s.learner): s for s in at_budget if s.task == task}
        aurocs.append((task, plots.auroc_panel(task, cells, arms, names, limits, colours)))
    shown = shown_arms(results)
    by_arm = {arm.name: colours[arm.name] for arm in arms if arm.name in shown}
    lead = [s for s in results.table if s.learner == names[0] and s.arm in shown]
    # Ticks of single seeds are not drawn on these.
    ends = plots.auroc_range([score.model_copy(update={"per_seed": ()}) for score in lead])
    curves = [(task, plots.label_curves(task, names[0], lead, ends, by_arm)) for task in task_names]
    quantities = {"loss": "Loss", "embedding_std": "Embedding std × √d"}
    runs = [run for run in results.runs if run.arm in shown]
    traces = [(title, plots.traces(runs, key, colours)) for key, title in quantities.items()]
    places = [(task, _at_place(results, task)) for task in task_names]
    of_pair = [d for d in results.differences if _is_primary_place(results, d)]
    return {
        "scale": [(task, _dose_plot(results, task, scores)) for task, scores in places]
        if has_scale(results)
        else [],
        "auroc": aurocs,
        "differences": [
            (title, _forest(results, rows)) for title, rows in _sides(results, of_pair).items()
        ],
        "roc": _roc_panels(results, colours),
        "labels": curves if len(budgets(results)) > 1 else [],
        "levers": [
            (f"{task}, {place}", panels.lever_map(task, cells))
            for task, scores in places
            for place, cells in lever_cells(results, scores).items()
        ],
        "archive": [
            (task, panels.archive_curve(task, lines))
            for task, scores in places
            if (lines := archive_lines(results, scores))
        ],
        "label_free": label_free_panels(results, _at_place(results, task_names[0]), colours),
        "traces": [(title, drawing) for title, drawing in traces if drawing is not None],
    }


def _at_place(results: Results, task: str) -> dict[str, Score]:
    """The scores of a task with the primary learner and budget, by arm."""
    named = results.verdict.primary
    place = (task, named.learner, named.budget)
    return {s.arm: s for s in results.table if (s.task, s.learner, s.budget) == place}


def _is_primary_place(results: Results, each: ArmDifference) -> bool:
    named = results.verdict.primary
    return (each.task, each.learner, each.budget) == (named.task, named.learner, named.budget)


def has_scale(results: Results) -> bool:
    """Whether some arms differ in one scale, so that AUROC can be drawn over it."""
    return any(len(group.scales) > 1 for group in dose_arms(results.arms))


def _dose_plot(results: Results, task: str, scores: Mapping[str, Score]) -> Markup:
    named = results.verdict.primary
    groups = [group for group in dose_arms(results.arms) if len(group.scales) > 1]
    place = (task, named.learner, named.budget)
    curves = [each for each in results.dose if (each.task, each.learner, each.budget) == place]
    joint = [c for c in results.joint_dose if (c.task, c.learner, c.budget) == place]
    references = [arm for arm in ordered_arms(results) if arm.scale is None]
    drawn = {arm.name for group in groups for arm in group.arms}
    limits = plots.auroc_range([s for s in scores.values() if s.arm in drawn])
    colours = plots.palette(results)
    return panels.dose_plot(task, groups, scores, curves, references, limits, colours, joint)


def primary_dose(results: Results) -> list[DoseCurve]:
    """The curves of the primary task, learner and budget, one per group of arms."""
    named = results.verdict.primary
    place = (named.task, named.learner, named.budget)
    return [each for each in results.dose if (each.task, each.learner, each.budget) == place]


def _sides(
    results: Results, differences: Sequence[ArmDifference]
) -> dict[str, list[ArmDifference]]:
    """Differences between trained arms, and those with a reference, which are larger."""
    trained = {arm.name for arm in results.arms if arm.kind == "pretrained"}
    sides: dict[str, list[ArmDifference]] = {}
    for each in differences:
        is_between = {each.a, each.b} <= trained
        title = "Between trained arms" if is_between else "With a reference"
        sides.setdefault(title, []).append(each)
    return dict(sorted(sides.items(), key=lambda side: not any(d.primary for d in side[1])))


def _forest(results: Results, differences: Sequence[ArmDifference]) -> Markup:
    """The differences at one place, those of the primary pair's arms first."""
    named = results.verdict.primary
    ordered = sorted(
        differences,
        key=lambda d: (not d.primary, not {d.a, d.b} & {named.a, named.b}, -abs(d.difference or 0)),
    )
    return panels.forest(ordered, results.margin, plots.palette(results))


def _roc_panels(results: Results, colours: Mapping[str, str]) -> list[tuple[str, Markup]]:
    names = dict.fromkeys(curve.name for curve in results.roc)
    return [
        (name, panels.roc_panel(name, [c for c in results.roc if c.name == name], colours))
        for name in names
    ]


def lever_cells(
    results: Results, scores: Mapping[str, Score]
) -> dict[str, dict[tuple[float, float], Score]]:
    """Scores by crop and photometric scale, where arms of a group and geometry cross them."""
    cells: dict[str, dict[tuple[float, float], Score]] = {}
    for arm in results.arms:
        if arm.scale is not None and arm.name in scores:
            place = ", ".join(filter(None, (arm.group, f"geometry {arm.scale.geometry:g}")))
            key = (arm.scale.crop, arm.scale.photometric)
            cells.setdefault(place, {}).setdefault(key, scores[arm.name])
    return {
        place: crossed
        for place, crossed in cells.items()
        if all(len({key[axis] for key in crossed}) > 1 for axis in (0, 1))
        and len(crossed) > 3
        and any(score.auroc is not None for score in crossed.values())
    }


def archive_lines(
    results: Results, scores: Mapping[str, Score]
) -> dict[str, list[tuple[float, Score]]]:
    """Scores by the share of the archive, a line for each method and scale that has several."""
    lines: dict[str, list[tuple[float, Score]]] = {}
    methods = {arm.method for arm in results.arms if arm.scale is not None}
    for arm in results.arms:
        score = scores.get(arm.name)
        if arm.scale is not None and score is not None and score.auroc is not None:
            name = dial_text(arm.scale.model_dump())
            name = f"{arm.method}, {name}" if len(methods) > 1 else name
            lines.setdefault(name, []).append((arm.share or 1.0, score))
    ordered = {name: sorted(line, key=lambda point: point[0]) for name, line in lines.items()}
    return {name: line for name, line in ordered.items() if len({share for share, _ in line}) > 1}


def shown_arms(results: Results) -> list[str]:
    """The arms that curves and tables by arm show: of many the primary pair, references, the best.

    All others are in the CSV files.
    """
    arms, named = ordered_arms(results), results.verdict.primary
    if len(arms) <= _MOST_ARMS:
        return [arm.name for arm in arms]
    scores = _at_place(results, named.task)
    trained = [arm.name for arm in arms if arm.kind == "pretrained" and arm.name in scores]
    best = sorted(trained, key=lambda name: -(scores[name].auroc or 0))[: _MOST_ARMS // 2]
    kept = {named.a, named.b, *best}
    return [arm.name for arm in arms if arm.kind != "pretrained" or arm.name in kept]


def _sheets(results: Results, figures: Path) -> list[tuple[Sheet, str | None]]:
    """The sheets as addresses that hold them, as many as fit; those of shown arms come first."""
    shown, left = set(shown_arms(results)), _MOST_SHEET_BYTES
    held: list[tuple[Sheet, str | None]] = []
    for sheet in sorted(results.sheets, key=lambda sheet: not shown & set(sheet.arms)):
        picture = figures / sheet.file
        size = picture.stat().st_size if picture.is_file() else 0
        if size <= left or not held:
            left -= size
            held.append((sheet, _embedded(picture)))
    return held


@dataclass(frozen=True)
class ClassTable:
    """A row per arm and class of the primary comparison's place."""

    names: list[str]
    rows: list[ClassScore]


def class_tables(results: Results) -> ClassTable:
    """The scores of each class, class by class, arms in the order of the report."""
    shown = shown_arms(results)
    rows = [row for row in results.classes if row.arm in shown]
    names = list(dict.fromkeys(row.name for row in rows))
    rows = sorted(rows, key=lambda row: (names.index(row.name), shown.index(row.arm)))
    return ClassTable(names, rows)


def _embedded(picture: Path) -> str | None:
    """The picture as a data address; None where the file is gone."""
    return png_address(picture.read_bytes()) if picture.is_file() else None


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
        counts = Counter(OUTCOMES[difference.verdict] for difference, _ in self.rows)
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
    shown = shown_arms(results)
    arms = [arm for arm in results.arms if arm.resolved and arm.name in shown]
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
        "higher": f"{a} scores higher than {b}",
        "lower": f"{b} scores higher than {a}",
        "equivalent": f"{a} and {b} are equivalent",
        "none": "No difference shown",
    }[verdict.kind]
    if verdict.holds_for:
        words += f" {verdict.holds_for}"
    return words[0].upper() + words[1:]
