"""The tables of a report as CSV, in the study's folder."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import zip_longest
from pathlib import Path

from scanlearn.config.settings import Settings
from scanlearn.files import csv_cell, write_atomically
from scantune.study.results import TABLE_FILE, Results, Score

_DIGITS = 6


def write_tables(folder: Path, results: Results) -> None:
    """Writes every table of the report: ``results.csv``, ``differences.csv`` and the others.

    One without a row is taken away: it would be that of an earlier plan.
    """
    for name, text in _tables(results).items():
        if text.count("\n") > 1:
            write_atomically(folder / name, text)
        else:
            (folder / name).unlink(missing_ok=True)


def _tables(results: Results) -> dict[str, str]:
    parameters = [
        (arm.name, p.parameter, p.value, p.source, p.note)
        for arm in results.arms
        for p in arm.resolved
    ]
    names = list(dict.fromkeys(name for each in results.label_free for name in each.measures))
    return {
        TABLE_FILE: table_csv(results.table),
        "differences.csv": rows_csv(results.differences),
        "dose.csv": rows_csv(results.dose, without=("at", "auroc", "low", "high")),
        "dose_curve.csv": _csv(
            ("task", "learner", "budget", "group", "scale", "auroc", "low", "high"),
            [
                (each.task, each.learner, each.budget, each.group, *point)
                for each in results.dose
                for point in zip(each.at, each.auroc, each.low, each.high, strict=True)
            ],
        ),
        "classes.csv": rows_csv(results.classes),
        "class_differences.csv": rows_csv(results.class_effects),
        "findings.csv": rows_csv(results.finding_counts),
        "learner_differences.csv": rows_csv(results.learner_differences),
        "roc.csv": _csv(
            ("arm", "class", "false_positives", "sensitivity", "low", "high"),
            [
                (curve.arm, curve.name, place / (len(curve.sensitivity) - 1), *point)
                for curve in results.roc
                for place, point in enumerate(zip_longest(curve.sensitivity, curve.low, curve.high))
            ],
        ),
        "label_free.csv": _csv(
            ("arm", "seed", *names, "problem"),
            [
                (each.arm, each.seed, *map(each.measures.get, names), each.problem)
                for each in results.label_free
            ],
        ),
        "runs.csv": rows_csv(results.runs, without=("curve", "conditions")),
        "augmentation.csv": _csv(("arm", "parameter", "value", "source", "note"), parameters),
        "leaks.csv": rows_csv(results.leaks),
    }


def table_csv(table: Sequence[Score]) -> str:
    """The table as CSV, one row per arm, task, learner and budget; undefined is blank."""
    names = [name for name in Score.model_fields if name != "per_seed"]
    seeds = max((len(score.per_seed) for score in table), default=0)
    header = [*names, *(f"auroc_{number + 1}" for number in range(seeds))]
    return _csv(header, ([getattr(s, name) for name in names] + [*s.per_seed] for s in table))


def rows_csv(
    rows: Sequence[Settings],
    without: Sequence[str] = (),
    more: Mapping[str, Sequence[object]] | None = None,
    digits: int | None = _DIGITS,
) -> str:
    """Rows of one kind as CSV, a column per field; undefined is blank.

    Args:
        more: Columns after these, a value per row.
        digits: Of a number; None writes it in full precision.
    """
    names = [name for name in type(rows[0]).model_fields if name not in without] if rows else []
    others = more or {}
    added = zip(*others.values(), strict=True) if others else [()] * len(rows)
    cells = ([getattr(row, name) for name in names] for row in rows)
    lines = [[*line, *extra] for line, extra in zip(cells, added, strict=True)]
    return _csv([*names, *others], lines, digits)


def html_table(rows: Sequence[Settings], without: Sequence[str] = ()) -> str:
    """Rows of one kind as a table of HTML, the cells of `rows_csv`."""
    header, *lines = csv.reader(rows_csv(rows, without).splitlines())
    row = "<tr>{}</tr>".format
    head = row("".join(f"<th>{escape(name)}</th>" for name in header))
    body = [row("".join(f"<td>{escape(cell)}</td>" for cell in line)) for line in lines]
    return f"<meta charset='utf-8'><table>{head}{''.join(body)}</table>"


def _csv(
    header: Sequence[str], rows: Iterable[Sequence[object]], digits: int | None = _DIGITS
) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([csv_cell(_cell(value, digits)) for value in row] for row in rows)
    return out.getvalue()


def _cell(value: object, digits: int | None) -> object:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, dict):
        return "; ".join(f"{name} {_cell(each, digits)}" for name, each in value.items())
    if isinstance(value, tuple):
        return "; ".join(str(_cell(each, digits)) for each in value)
    return f"{value:.{digits}g}" if digits and isinstance(value, float) else value
