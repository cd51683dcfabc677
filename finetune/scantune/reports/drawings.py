"""The plots of a study's page, from its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from scantune.reports import panels, plots
from scantune.reports.label_free import label_free_panels
from scantune.reports.selection import (
    at_place,
    budgets,
    has_scale,
    learners,
    ordered_arms,
    shown_arms,
    tasks,
)
from scantune.splits import Budget
from scantune.study.dose import dose_arms
from scantune.study.results import ArmDifference, JointDoseCurve, Results, Score
from scantune.wording import dial_text


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
    arm_names = shown_arms(results)
    by_arm = {arm.name: colours[arm.name] for arm in arms if arm.name in arm_names}
    lead = [s for s in results.table if s.learner == names[0] and s.arm in arm_names]
    # Ticks of single seeds are not drawn on these.
    ends = plots.auroc_range([score.model_copy(update={"per_seed": ()}) for score in lead])
    curves = [(task, plots.label_curves(task, names[0], lead, ends, by_arm)) for task in task_names]
    quantities = {"loss": "Loss", "embedding_std": "Embedding std × √d"}
    runs = [run for run in results.runs if run.arm in arm_names]
    traces = [(title, plots.traces(runs, key, colours)) for key, title in quantities.items()]
    places = [(task, at_place(results, task)) for task in task_names]
    of_pair = [d for d in results.differences if _is_primary_place(results, d)]
    return {
        "scale": [(task, _dose_plot(results, task, scores)) for task, scores in places]
        if has_scale(results)
        else [],
        "joint": [
            (", ".join(filter(None, (each.task, each.group))), _joint_plot(results, each))
            for each in results.joint_dose
            if each.levels
        ],
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
        "label_free": label_free_panels(results, at_place(results, task_names[0]), colours),
        "traces": [(title, drawing) for title, drawing in traces if drawing is not None],
    }


def _is_primary_place(results: Results, each: ArmDifference) -> bool:
    named = results.verdict.primary
    return (each.task, each.learner, each.budget) == (named.task, named.learner, named.budget)


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


def _joint_plot(results: Results, curve: JointDoseCurve) -> Markup:
    scores: dict[tuple[str, Budget], dict[str, Score]] = {}
    for score in results.table:
        if score.task == curve.task:
            scores.setdefault((score.learner, score.budget), {})[score.arm] = score
    return panels.joint_plot(curve.task, curve, scores)


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
