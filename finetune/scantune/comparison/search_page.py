"""The page of a search: ``search.html``, one file that loads nothing."""

from __future__ import annotations

import datetime
from pathlib import Path

from markupsafe import Markup

from scanlearn import svg
from scanlearn.files import disk_errors, make_folder, write_atomically
from scanlearn.pages import page_template
from scanlearn.palette import hue
from scanlearn.svg import Axis, Point
from scantune.comparison.search_results import (
    ALL,
    RungRow,
    SearchResults,
    probe_note,
    seeds_note,
)
from scantune.reports.plots import LEFT, RIGHT, WIDTH, end_labels
from scantune.study.dose import dose_headline
from scantune.study.results import FIGURES
from scantune.wording import budget_name, learner_name

SEARCH_PAGE = "search.html"
_INK, _REFERENCE = "var(--ink)", "var(--ref)"
FATES = {"kept": "went on", "left": "left", "collapsed": "collapsed", "chosen": "chosen"}


def write(results: SearchResults, folder: Path) -> Path:
    """Writes the page and its plots as SVG, and returns the page's path.

    Raises:
        ScanlearnError: If the disk is full or may not be written to.
    """
    drawings = {"rungs": rungs_plot(results), "cost": cost_plot(results)}
    with disk_errors(folder):
        make_folder(folder / FIGURES)
    for name, drawing in drawings.items():
        write_atomically(folder / FIGURES / f"search_{name}.svg", svg.standalone(drawing))
    filters = {"learner": learner_name, "budget": budget_name}
    page = page_template("scantune.comparison", "search.html.j2", filters).render(
        r=results,
        drawings=drawings,
        headline=headline(results),
        rungs=rungs(results),
        fates=FATES,
        sureness=sureness(results),
        halves=[each for each in results.choices if each.patients != ALL],
        curve=results.curve,
        curve_head=dose_headline,
        probe=probe_note(results),
        seeds=seeds_note(results),
        has_patches=any(row.patches is not None for row in results.rungs),
        backbone=_within(Path(results.backbone), folder),
        created=f"{datetime.datetime.fromisoformat(results.created):%d %B %Y, %H:%M} UTC",
    )
    write_atomically(folder / SEARCH_PAGE, page)
    return folder / SEARCH_PAGE


def _within(path: Path, folder: Path) -> str:
    """The path from the search's folder on: a page that is passed on names no other folders."""
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name


def headline(results: SearchResults) -> str:
    """The answer in a few words."""
    if results.reported is not None and results.reported.is_at_chance:
        return "No scale is shown to do better than chance"
    if results.is_flat:
        return f"Take scale {results.scale:g}: others do as well"
    return f"Take scale {results.scale:g}"


def rungs(results: SearchResults) -> dict[int, list[RungRow]]:
    """The scales of each rung, by its steps; the best first, collapsed ones last."""
    by_step: dict[int, list[RungRow]] = {}
    for row in results.rungs:
        by_step.setdefault(row.step, []).append(row)
    return {
        step: sorted(rows, key=lambda row: -(row.auroc if row.auroc is not None else -1))
        for step, rows in by_step.items()
    }


def sureness(results: SearchResults) -> list[tuple[str, float]]:
    """Scales and the share of patient resamples that choose each, of those compared at the end."""
    answer = next(each for each in results.choices if each.patients == ALL)
    scale_of = {row.arm: row.scale for row in results.rungs}
    shares = [(f"{scale_of[arm]:g}", share) for arm, share in answer.sureness.items()]
    return sorted(shares, key=lambda each: -each[1])


def rungs_plot(results: SearchResults) -> Markup:
    """AUROC over the scale, a line for each rung; another seed is hollow, the choice ringed."""
    foot, names = 210.0, [row for row in results.rungs if "-" not in row.arm]
    further = results.confirmed.rows if results.confirmed else ()
    scales = sorted({row.scale for row in names})
    values = [row.auroc for row in (*names, *further) if row.auroc is not None]
    pad = 0.06 * (scales[-1] - scales[0])
    across = Axis(scales[0] - pad, scales[-1] + pad, LEFT, RIGHT)
    up = Axis(*svg.padded(values or [0.5, 1.0]), foot - 14, 8)
    body = svg.grid(up, LEFT, RIGHT)
    last = -100.0
    for scale in scales:
        if across.at(scale) - last >= 24:
            last = across.at(scale)
            body.append(svg.text(last, foot + 15, f"{scale:g}", css="muted small", anchor="middle"))
    title = "augmentation scale s: 0 none, 1 as published"
    body.append(svg.text((LEFT + RIGHT) / 2, foot + 32, title, css="muted small", anchor="middle"))
    if results.curve is not None and not results.curve.is_flat:
        y, curve = foot - 6, results.curve
        ends = ((across.at(curve.best_low), y), (across.at(curve.best_high), y))
        body.append(svg.line(*ends, css="line", width=2.6, colour=_INK))
        body.append(svg.dot(across.at(curve.best), y, 3.6, colour=_INK, hint=dose_headline(curve)))
    steps = sorted({row.step for row in names})
    colours = {f"{step:,} steps": hue(place) for place, step in enumerate(steps)}
    tips: dict[str, Point] = {}
    for step, (name, colour) in zip(steps, colours.items(), strict=True):
        of_step = [row for row in names if row.step == step and row.auroc is not None]
        of_step.sort(key=lambda row: row.scale)
        points = [(across.at(row.scale), up.at(row.auroc or 0)) for row in of_step]
        body.append(svg.polyline(points, colour=colour, width=1.6))
        for row, (x, y) in zip(of_step, points, strict=True):
            hint = f"{row.scale:g} after {step:,} steps: {row.auroc:.3f}, {FATES[row.fate]}"
            body.append(svg.dot(x, y, 4.2, colour=colour, hint=hint))
            if row.fate == "chosen":
                body.append(svg.dot(x, y, 8, colour=colour, hollow=True))
                body.append(svg.dot(x, y, 4.2, colour=colour, hint=hint))
        if points:
            tips[name] = (RIGHT, points[-1][1])
        for row in further:
            if row.step == step and row.auroc is not None:
                hint = f"{row.scale:g} with another seed after {step:,} steps: {row.auroc:.3f}"
                x, y = across.at(row.scale), up.at(row.auroc)
                body.append(svg.dot(x, y, 4.2, colour=colour, hollow=True, hint=hint))
    body += end_labels(tips, colours, (14, foot - 20))
    return svg.figure(WIDTH, foot + 38, "AUROC over the augmentation scale, rung by rung", body)


def cost_plot(results: SearchResults) -> Markup:
    """The steps of the search beside those of the grid."""
    across, height = Axis(0, max(results.grid_steps, results.steps), 0, WIDTH), 22.0
    confirmed = results.confirmed.steps if results.confirmed else 0
    rung_steps = results.steps - confirmed
    parts = [("rungs", 0, rung_steps, 1.0), ("confirmation", rung_steps, confirmed, 0.5)]
    body = [svg.box(0, 0, across.at(results.grid_steps), height, css="band")]
    body += [
        svg.box(
            across.at(start),
            0,
            across.at(steps),
            height,
            css="area",
            colour=hue(0),
            opacity=opacity,
            hint=f"{name}: {steps:,} steps",
        )
        for name, start, steps, opacity in parts
        if steps
    ]
    text = f"{results.steps:,} of {results.grid_steps:,} steps, {results.cost:.0%}"
    body.append(svg.text(0, height + 16, text, css="small num"))
    return svg.figure(WIDTH, height + 22, "steps of the search beside the grid's", body)
