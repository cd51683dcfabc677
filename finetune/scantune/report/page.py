"""Writes the one file a person reads: ``report.html``, self-contained and offline."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

from markupsafe import Markup

from scanlearn.pages import page_template, png_address
from scantune.report import forest, plots, tables
from scantune.report.svg import standalone
from scantune.study.results import FIGURES, Results, Score, TaskCount, read_results
from scantune.wording import budget_name, learner_name

REPORT_FILE = "report.html"


def write(folder: Path | str) -> Path:
    """Writes ``report.html`` and its plots as ``figures/*.svg`` from the folder's results.

    Args:
        folder: The output folder of a finished comparison.

    Returns:
        The report.

    Raises:
        ScanlearnError: The folder holds no readable results.
    """
    folder = Path(folder)
    results = read_results(folder)
    drawings = draw(results)
    _save_figures(folder / FIGURES, drawings)
    page = page_template("scantune.report", "page.html.j2", _filters()).render(
        r=results,
        drawings=drawings,
        sheets=[(sheet, _embedded(folder / FIGURES / sheet.file)) for sheet in results.sheets],
        created=_date(results.created),
        winner=tables.winner(results),
        headline=tables.headline(results),
        primary_task=results.verdict.primary.task,
        arms=tables.ordered_arms(results),
        colours=plots.palette(results),
        light=plots.LIGHT,
        dark=plots.DARK,
        auroc=[tables.auroc_table(results, task.name) for task in tasks(results)],
        pairs=tables.pairs(results),
        dial=tables.dial_table(results),
        proof=tables.proof_rows(results),
        learners=tables.learners(results),
    )
    path = folder / REPORT_FILE
    aside = path.with_suffix(".html.part")
    aside.write_text(page, encoding="utf-8")
    return aside.replace(path)


def tasks(results: Results) -> list[TaskCount]:
    """Tasks, that of the primary comparison first."""
    lead = results.verdict.primary.task
    return sorted(results.tasks, key=lambda task: task.name != lead)


def draw(results: Results) -> dict[str, list[tuple[str, Markup]]]:
    """All plots of the report.

    Returns:
        ``auroc``, ``labels`` and ``traces``: named drawings, in the order to show them.
    """
    colours, arms = plots.palette(results), tables.ordered_arms(results)
    learners, budgets = tables.learners(results), tables.budgets(results)
    ordered = [task.name for task in tasks(results)]
    lead = results.verdict.primary.budget
    shown = [s for s in results.table if s.budget == lead]
    limits = plots.auroc_range(shown)
    panels = [
        (task, plots.auroc_panel(task, _cells(shown, task), arms, learners, limits, colours))
        for task in ordered
    ]
    own = {arm.name: colours[arm.name] for arm in arms}
    drawn = [s for s in results.table if s.learner == learners[0]]
    ends = plots.auroc_range([s.model_copy(update={"per_seed": ()}) for s in drawn])
    curves = [(task, plots.label_curves(task, learners[0], drawn, ends, own)) for task in ordered]
    named = {"loss": "Loss", "embedding_std": "Embedding std × √d"}
    traces = [(name, plots.traces(results.runs, key, colours)) for key, name in named.items()]
    return {
        "auroc": panels,
        "labels": curves if len(budgets) > 1 else [],
        "traces": [(name, drawing) for name, drawing in traces if drawing is not None],
    }


def _cells(scores: list[Score], task: str) -> dict[tuple[str, str], Score]:
    return {(s.arm, s.learner): s for s in scores if s.task == task}


def _filters() -> dict[str, Callable[..., str]]:
    return {
        "interval": plots.interval_text,
        "difference": forest.difference_text,
        "learner": learner_name,
        "budget": budget_name,
        "outcome": tables.OUTCOMES.__getitem__,
        "p": tables.p_text,
        "tight": lambda text: text.replace(" = ", "\u00a0=\u00a0").replace(" %", "\u00a0%"),
        "duration": tables.duration,
        "thousands": lambda number: f"{number:,.0f}",
        "short": lambda text: text[:10],
    }


def _date(created: str) -> str:
    return f"{datetime.datetime.fromisoformat(created):%d %B %Y, %H:%M} UTC"


def _embedded(picture: Path) -> str | None:
    """The picture as a data address; None where the file is gone."""
    if not picture.is_file():
        return None
    return png_address(picture.read_bytes())


def _save_figures(folder: Path, drawings: dict[str, list[tuple[str, Markup]]]) -> None:
    folder.mkdir(exist_ok=True)
    for group, members in drawings.items():
        for index, (_, drawing) in enumerate(members):
            text = standalone(drawing, plots.LIGHT)
            (folder / f"{group}_{index + 1}.svg").write_text(text, encoding="utf-8")
