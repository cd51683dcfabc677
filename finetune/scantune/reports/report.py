"""Writes the one file a person reads: ``report.html``, self-contained and offline."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

from scanlearn.config.calls import checked
from scanlearn.console import say
from scanlearn.files import make_folder, write_atomically
from scanlearn.pages import page_template, png_address
from scanlearn.svg import as_png, standalone
from scanlearn.views.curves import POLICY
from scantune.reports import plots, writeup
from scantune.reports.drawings import draw
from scantune.reports.label_free import label_free_groups, signed_text
from scantune.reports.page_tables import (
    OUTCOMES,
    auroc_table,
    class_tables,
    dial_table,
    duration,
    outcomes,
    p_text,
    pairs,
    proof_rows,
    shared_conditions,
)
from scantune.reports.selection import (
    at_place,
    has_scale,
    learners,
    ordered_arms,
    primary_dose,
    shown_arms,
    tasks,
)
from scantune.study.dose import dose_headline, dose_sentences, joint_sentences, ranges_text
from scantune.study.results import FIGURES, REPORT_FILE, Results, Sheet, read_results
from scantune.study.tables import write_tables
from scantune.wording import DESIGNS, budget_name, is_separate, learner_name, signed

# Of more pictures a page holds a part; the folder beside it holds all.
_MOST_SHEET_BYTES = 3_000_000


@checked
def report(folder: Path | str) -> Path:
    """Write a comparison's report, figures and tables anew from its results.json.

    Args:
        folder: The study's, also one of an earlier version.

    Returns:
        The page, ``report.html``; its plots are ``figures/*.svg`` and ``*.png``, its tables CSV
        files beside it.

    Raises:
        ScanlearnError: The folder holds no readable results.
    """
    path = write(folder)
    say(f"Report: {path}")
    return path


def write(folder: Path | str) -> Path:
    """Writes ``report.html``, its plots as ``figures/*.svg`` and ``*.png``, and its tables as CSV.

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
        # Those of an earlier plan may be more.
        for former in (*figures.glob(f"{group}_[0-9]*.svg"), *figures.glob(f"{group}_[0-9]*.png")):
            former.unlink()
        for index, (_, drawing) in enumerate(members):
            place = figures / f"{group}_{index + 1}.svg"
            place.write_text(standalone(drawing), encoding="utf-8")
            place.with_suffix(".png").write_bytes(as_png(drawing))
    filters: dict[str, Callable[..., str]] = {
        "interval": plots.interval_text,
        "difference": plots.difference_text,
        "learner": learner_name,
        "budget": budget_name,
        "outcome": OUTCOMES.__getitem__,
        "p": p_text,
        "rho": signed_text,
        "signed": signed,
        "tight": lambda text: text.replace(" = ", "\u00a0=\u00a0").replace(" %", "\u00a0%"),
        "duration": duration,
        "thousands": lambda number: f"{number:,.0f}",
        "plain": lambda key: key.replace("_", " "),
        "short": lambda text: text[:10],
    }
    lead = tasks(results)[0]
    arm_names = shown_arms(results)
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
        shown=arm_names,
        classes=class_tables(results),
        effects={each.name: each for each in results.class_effects},
        class_effect=writeup.class_effect_sentence(results.class_effects),
        label_free=label_free_groups(results, at_place(results, lead.name)),
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
        others_summary=outcomes([pair for pair in compared if not pair.primary]),
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


def _sheets(results: Results, figures: Path) -> list[tuple[Sheet, str | None]]:
    """The sheets as addresses that hold them, as many as fit; those of shown arms come first."""
    arm_names, left = set(shown_arms(results)), _MOST_SHEET_BYTES
    held: list[tuple[Sheet, str | None]] = []
    for sheet in sorted(results.sheets, key=lambda sheet: not arm_names & set(sheet.arms)):
        picture = figures / sheet.file
        size = picture.stat().st_size if picture.is_file() else 0
        if size <= left or not held:
            left -= size
            held.append((sheet, _embedded(picture)))
    return held


def _embedded(picture: Path) -> str | None:
    """The picture as a data address; None where the file is gone."""
    return png_address(picture.read_bytes()) if picture.is_file() else None


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
