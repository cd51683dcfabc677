"""Labels of any number of findings for each scan: a column each, or one that lists them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from scanlearn.core import ScanlearnError
from scantune.classes import refuse_spellings
from scantune.label_table import UNCERTAIN, Found, NamedTable, clean, did_you_mean

SEPARATOR = "|"
# What ChestX-ray14 writes where there is none, and what others make of it.
_NONE = frozenset({"no finding", "no findings"})
_MEANING = {"1": 1, "true": 1, "0": 0, "false": 0, UNCERTAIN: -1}


def read_columns(named: NamedTable, columns: Sequence[str]) -> Found:
    """Returns findings that have a column each: 1, 0, -1 where a report is not sure, or blank.

    Raises:
        ScanlearnError: A column is missing, named twice or blank, or holds anything else.
    """
    if len(set(columns)) < len(columns) or not columns:
        raise ScanlearnError(
            f"target names {'a column twice' if columns else 'no column'}; name each column once"
        )
    matrix = np.full((len(named.table), len(columns)), -1, np.int8)
    uncertain = np.zeros(matrix.shape, np.bool_)
    for code, column in enumerate(columns):
        for row, text in enumerate(named.texts(column)):
            if text is None:
                continue
            if text.lower() not in _MEANING:
                raise ScanlearnError(
                    f"{named.where(row)}: label '{text}' of '{column}' is not 0, 1, -1 (uncertain) "
                    "or blank, as each of several columns must be; correct it, or name one column"
                )
            matrix[row, code] = _MEANING[text.lower()]
            uncertain[row, code] = text == UNCERTAIN
    return Found(tuple(columns), matrix, uncertain)


def lists_findings(named: NamedTable, column: str) -> bool:
    """Returns whether a column lists findings: some value holds ``|``."""
    return any(SEPARATOR in (text or "") for text in named.texts(column))


def read_list(
    named: NamedTable,
    column: str,
    *,
    classes: Sequence[str] | None = None,
    asked: Literal["listed", "known", "any"] = "listed",
) -> Found:
    """Returns the findings that a column lists, separated by ``|``; blank is unknown.

    "No Finding" is none of them. Without ``classes`` all that are listed count, in alphabetic
    order.

    Args:
        named: The table.
        column: The column.
        classes: Findings, in the order of their codes.
        asked: What must hold of ``classes``: that each of them is listed, that each that is listed
            is known among them, or nothing.

    Raises:
        ScanlearnError: There is no such column, or a value contradicts itself or ``classes``.
    """
    rows = [None if text is None else _parts(text) for text in named.texts(column)]
    cells = [row or set() for row in rows]
    counts = Counter(name for row in cells for name in row)
    _check_none(named, column, cells)
    listed = tuple(sorted(name for name in counts if name.casefold() not in _NONE))
    names = listed if classes is None else tuple(str(clean(name)) for name in classes)
    if classes is None:
        refuse_spellings(named, column, cells, counts)
        if named.is_crowded(len(listed)):
            raise ScanlearnError(
                f"{named.name}: column '{column}' lists {len(listed)} findings, too many for its "
                "patients; choose some with classes"
            )
    elif asked == "listed":
        for name in names:
            if name not in listed:
                raise ScanlearnError(
                    f"{named.name}: column '{column}' lists no '{name}'; "
                    f"{did_you_mean(name, listed)}it lists {', '.join(listed)}"
                )
    elif asked == "known":
        _check_known(named, column, cells, names)
    matrix = np.full((len(rows), len(names)), -1, np.int8)
    for number, row in enumerate(rows):
        if row is not None:
            matrix[number] = [name in row for name in names]
    return Found(names, matrix, np.zeros(matrix.shape, np.bool_))


def _parts(text: str) -> set[str]:
    return {part.strip() for part in text.split(SEPARATOR)} - {""}


def _check_none(named: NamedTable, column: str, cells: Sequence[set[str]]) -> None:
    for number, row in enumerate(cells):
        if len(row) > 1 and any(name.casefold() in _NONE for name in row):
            raise ScanlearnError(
                f"{named.where(number)}: '{column}' lists {', '.join(sorted(row))}, a finding and "
                "that there is none; correct it or leave it blank"
            )


def _check_known(
    named: NamedTable, column: str, cells: Sequence[set[str]], names: tuple[str, ...]
) -> None:
    for number, row in enumerate(cells):
        unknown = sorted(name for name in row - {*names} if name.casefold() not in _NONE)
        if unknown:
            raise ScanlearnError(
                f"{named.where(number)}: '{column}' lists '{unknown[0]}', which is none of "
                f"{', '.join(names)}; correct it, or choose findings with classes"
            )
