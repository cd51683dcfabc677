"""What `difference` writes: a page, a CSV, a table for LaTeX, and the figures as SVG."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from markupsafe import Markup

from scanlearn import svg
from scanlearn.files import disk_errors, make_folder, write_atomically
from scanlearn.pages import page_template
from scanlearn.palette import hue
from scantune.comparison.sides import Differences, auroc_text, difference_text
from scantune.reports import plots
from scantune.reports.page_tables import OUTCOMES, p_text
from scantune.study.results import FIGURES, ArmDifference
from scantune.study.tables import rows_csv
from scantune.wording import budget_name, learner_name

_PAGE, _CSV, _LATEX = "difference.html", "difference.csv", "difference.tex"
# Readable on a phone: words above the interval, not beside it.
_ROW, _WIDTH, _LEFT = 76.0, 340.0, 130.0


def write(result: Differences, folder: Path) -> Path:
    """Writes the files, and returns the page's path.

    Raises:
        ScanlearnError: If the disk is full or may not be written to.
    """
    drawings = draw(result)
    with disk_errors(folder):
        make_folder(folder / FIGURES)
    for name, drawing in drawings.items():
        write_atomically(folder / FIGURES / f"{name}.svg", svg.standalone(drawing))
    write_atomically(folder / _CSV, table_csv(result))
    write_atomically(folder / _LATEX, latex(result))
    write_atomically(folder / _PAGE, page(result, drawings))
    return folder / _PAGE


def page(result: Differences, drawings: dict[str, Markup]) -> str:
    """Returns the page: one file that loads nothing."""
    filters: dict[str, Callable[..., str]] = {
        "learner": learner_name,
        "budget": budget_name,
        "auroc": auroc_text,
        "difference": difference_text,
        "outcome": OUTCOMES.__getitem__,
        "p": p_text,
    }
    return page_template("scantune.comparison", "difference.html.j2", filters).render(
        result=result,
        drawings=drawings,
        colours=_colours(result),
        created=f"{result.created:%d %B %Y, %H:%M} UTC",
        has_delong=any(row.delong_p is not None for row in result.differences),
        has_patients=all(row.test_patients is not None for row in result.table),
    )


def _colours(result: Differences) -> dict[str, str]:
    return {side.name: hue(index) for index, side in enumerate(result.sides)}


def draw(result: Differences) -> dict[str, Markup]:
    """Returns the AUROCs of the primary task at the primary budget, and all differences."""
    primary, colours = result.verdict.primary, _colours(result)
    cells = {
        (row.arm, row.learner): row
        for row in result.table
        if (row.task, row.budget) == (primary.task, primary.budget)
    }
    learners = list(dict.fromkeys(learner for _, learner in cells))
    limits = plots.auroc_range(list(cells.values()))
    panel = plots.auroc_panel(primary.task, cells, result.arms, learners, limits, colours)
    return {"auroc": panel, "differences": _forest(result, colours)}


def _forest(result: Differences, colours: dict[str, str]) -> Markup:
    """Returns every difference with its interval, a line each; the band is the margin."""
    limits = plots.forest_range(result.differences, result.margin)
    body = [svg.placed(plots.forest_axis(limits), _LEFT, 0)]
    for place, row in enumerate(result.differences):
        top = 18 + place * _ROW
        cell = plots.forest_cell(row, limits, result.margin, colours)
        pair = svg.shortened(f"{row.a} − {row.b}", 30)
        body.append(svg.text(0, top + 14, pair, css="label strong"))
        body.append(svg.text(_WIDTH, top + 14, difference_text(row), anchor="end", css="num small"))
        body.append(svg.text(0, top + 29, _place(row), css="muted small"))
        body.append(svg.placed(cell, _LEFT, top + 30))
    height = 18 + _ROW * len(result.differences)
    return svg.figure(_WIDTH, height, "paired differences in AUROC", body)


def _place(row: ArmDifference) -> str:
    return f"{row.task}, {learner_name(row.learner)}, {budget_name(row.budget)}"


def table_csv(result: Differences) -> str:
    """Returns a row per difference in full precision, with both AUROCs; undefined is blank."""
    aurocs = {(row.task, row.learner, row.budget, row.arm): row.auroc for row in result.table}
    places = [(row.task, row.learner, row.budget) for row in result.differences]
    rows = list(zip(places, result.differences, strict=True))
    more = {
        "auroc_a": [aurocs[*place, row.a] for place, row in rows],
        "auroc_b": [aurocs[*place, row.b] for place, row in rows],
    }
    return rows_csv(result.differences, more=more, digits=None)


_ESCAPES = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "±": r"$\pm$",
    "≥": r"$\geq$",
}


def latex(result: Differences) -> str:
    """Returns the differences as a ``tabular`` of the package booktabs, to paste into a paper."""
    sentence = _escaped(result.verdict.sentence)
    lines = [
        f"% {sentence}",
        r"\begin{tabular}{llllrrl}",
        r"\toprule",
        r"Compared & Task & Learner & Labels & Difference in AUROC (95\,\% CI) & $p$ & Result \\",
        r"\midrule",
    ]
    for row in result.differences:
        p = p_text(row.p if row.primary else row.p_holm)
        p = "--" if p == "–" else f"${p}$"
        cells = (
            _escaped(f"{row.a} − {row.b}"),
            *map(_escaped, (row.task, learner_name(row.learner), budget_name(row.budget))),
            _escaped(difference_text(row)),
            p,
            _escaped(OUTCOMES[row.verdict]),
        )
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _escaped(text: str) -> str:
    return "".join(_ESCAPES.get(letter, letter) for letter in text)
