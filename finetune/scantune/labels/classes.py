"""What the values of label columns mean: one class for each scan, or any number of findings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from scanlearn.errors import ScanlearnError, did_you_mean
from scanlearn.features.auroc import one_hot
from scanlearn.tables.reading import is_list, split_list
from scantune.labels.table import NUMBER, UNCERTAIN, YES_OR_NO, LabelMatrix, NamedTable, clean
from scantune.labels.truth import Task

# The column of a finding each, or one column.
Target = str | Sequence[str]
# What must hold of the findings chosen, see `read_list`.
Check = Literal["listed", "known", "none"]
# What ChestX-ray14 writes where there is none, and what others make of it.
_NO_FINDING = frozenset({"no finding", "no findings"})
_FINDING = {**YES_OR_NO, UNCERTAIN: -1}
# With a decimal comma where a table was written so.
_FRACTION = re.compile(r"[+-]?\d*[.,]\d+([eE][+-]?\d+)?")
_FEWEST_GRADES = 3


def read_target(
    named: NamedTable,
    target: Target,
    task: Task,
    *,
    classes: Sequence[str] | None = None,
    check: Check = "listed",
) -> LabelMatrix:
    """Returns the labels of a target: of `read_classes`, `read_list` or `read_columns`."""
    if task != "multilabel":
        assert isinstance(target, str), "several columns are findings"
        return read_classes(named, target, classes=classes, is_ordinal=task == "ordinal")
    if isinstance(target, str):
        return read_list(named, target, classes=classes, check=check)
    return read_columns(named, target)


def read_classes(
    named: NamedTable,
    target: str,
    *,
    classes: Sequence[str] | None = None,
    is_ordinal: bool = False,
) -> LabelMatrix:
    """Returns the class of each scan, by the values of a column.

    Without ``classes`` the distinct values are the classes, in numeric or alphabetic order; values
    that do not fit together, such as ``yes`` among 0 and 1, are refused rather than made a class
    of their own. -1 beside 0 and 1 is no class, unless it is given as one: a report was not sure.

    Args:
        is_ordinal: Whether the classes are grades: three or more, numbers unless they are given.

    Raises:
        ScanlearnError: There is no such column, or its values are not such classes.
    """
    raw, texts = named.raw(target), named.texts(target)
    uncertain = np.zeros(len(texts), np.bool_)
    names = None if classes is None else tuple(str(clean(name)) for name in classes)
    values = set(texts) - {None}
    if values == {UNCERTAIN, "0", "1"} if names is None else names == ("0", "1"):
        uncertain = np.array([text == UNCERTAIN for text in texts])
        texts = [None if text == UNCERTAIN else text for text in texts]
    if names is None:
        names = _infer_classes(named, target, texts)
    if is_ordinal:
        _check_grades(named, target, names, is_given=classes is not None)
    for row, text in enumerate(texts):
        if text is not None and text not in names:
            raise ScanlearnError(
                f"{named.where(row)}: label '{raw[row]}' of '{target}' is not one of "
                f"{', '.join(names)}; correct it, leave it blank, or name all classes"
            )
    y = np.array([-1 if text is None else names.index(text) for text in texts])
    matrix = one_hot(y, len(names))
    matrix[y < 0] = -1
    return LabelMatrix(names, matrix, np.repeat(uncertain[:, None], len(names), axis=1))


def _infer_classes(named: NamedTable, target: str, texts: Sequence[str | None]) -> tuple[str, ...]:
    """Returns the distinct labels, refusing values that can hardly be meant as classes."""
    counts = Counter(text for text in texts if text is not None)
    cells = [set() if text is None else {text} for text in texts]
    numbers = {text for text in counts if NUMBER.fullmatch(text)}
    fractions = [text for text in counts if _FRACTION.fullmatch(text)]
    if fractions or named.is_crowded(len(counts)):
        raise ScanlearnError(
            f"{named.name}: column '{target}' holds {len(counts)} different values such as "
            f"'{(fractions or list(counts))[0]}', which do not look like classes; name another "
            "column, or group the values into classes"
        )
    words = set(counts) - numbers
    if words and numbers:
        odd, others = sorted((words, numbers), key=lambda group: sum(counts[t] for t in group))
        _refuse_odd(named, target, cells, odd, others)
    if UNCERTAIN in numbers and numbers <= {UNCERTAIN, "0", "1"}:
        # Chest X-ray tables mark an uncertain finding so; a third class would be a silent guess.
        _refuse_odd(named, target, cells, {UNCERTAIN}, numbers - {UNCERTAIN})
    # Of - alone nobody knows whether it is blank or negative; beside + it is.
    signs = {text for text in words if not any(c.isalnum() for c in text)}
    if signs and signs != words and "+" not in signs:
        _refuse_odd(named, target, cells, signs, words - signs)
    _refuse_spellings(named, target, cells, counts)
    return tuple(sorted(counts, key=int) if numbers else sorted(counts))


def _check_grades(
    named: NamedTable, target: str, names: tuple[str, ...], *, is_given: bool
) -> None:
    if len(names) < _FEWEST_GRADES:
        raise ScanlearnError(
            f"{named.name}: column '{target}' holds {len(names)} grades ({', '.join(names)}), but "
            f"ordinal needs {_FEWEST_GRADES} or more; leave ordinal out, or list all grades with "
            "classes"
        )
    if not is_given and not all(NUMBER.fullmatch(name) for name in names):
        raise ScanlearnError(
            f"{named.name}: the grades of '{target}' are words ({', '.join(names[:8])}), whose "
            "order is not known; list them from low to high with classes"
        )


def read_columns(named: NamedTable, columns: Sequence[str]) -> LabelMatrix:
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
            if text.lower() not in _FINDING:
                raise ScanlearnError(
                    f"{named.where(row)}: label '{text}' of '{column}' is not 0, 1, -1 (uncertain) "
                    "or blank, as each of several columns must be; correct it, or name one column"
                )
            matrix[row, code] = _FINDING[text.lower()]
            uncertain[row, code] = text == UNCERTAIN
    return LabelMatrix(tuple(columns), matrix, uncertain)


def lists_findings(named: NamedTable, column: str) -> bool:
    """Returns whether a column lists findings: some value is such a list as `read_list` reads."""
    return any(is_list(text or "") for text in named.texts(column))


def read_list(
    named: NamedTable,
    column: str,
    *,
    classes: Sequence[str] | None = None,
    check: Check = "listed",
) -> LabelMatrix:
    """Returns the findings that a column lists, as ``A|B``, ``A;B`` or ``['A', 'B']``.

    Blank is unknown, and an empty list, ``[]``, none of them.

    "No Finding" is none of them. Without ``classes`` all that are listed count, in alphabetic
    order.

    Args:
        check: What must hold of ``classes``: each of them is listed, each listed finding is one of
            them, or nothing.

    Raises:
        ScanlearnError: There is no such column, or a value contradicts itself or ``classes``.
    """
    rows = [None if text is None else {*split_list(text)} for text in named.texts(column)]
    cells = [row or set() for row in rows]
    counts = Counter(name for row in cells for name in row)
    for number, cell in enumerate(cells):
        if len(cell) > 1 and any(name.casefold() in _NO_FINDING for name in cell):
            raise ScanlearnError(
                f"{named.where(number)}: '{column}' lists {', '.join(sorted(cell))}, both a "
                "finding and no finding; correct it or leave it blank"
            )
    listed = tuple(sorted(name for name in counts if name.casefold() not in _NO_FINDING))
    names = listed if classes is None else tuple(str(clean(name)) for name in classes)
    if classes is None:
        _refuse_spellings(named, column, cells, counts)
        if named.is_crowded(len(listed)):
            raise ScanlearnError(
                f"{named.name}: column '{column}' lists {len(listed)} findings, too many for its "
                "patients; choose some with classes"
            )
    elif check == "listed":
        for name in names:
            if name not in listed:
                raise ScanlearnError(
                    f"{named.name}: column '{column}' does not list '{name}'"
                    f"{did_you_mean(name, listed, cutoff=0.5)}; it lists {', '.join(listed)}"
                )
    elif check == "known":
        _check_known(named, column, cells, names)
    matrix = np.full((len(rows), len(names)), -1, np.int8)
    for number, row in enumerate(rows):
        if row is not None:
            matrix[number] = [name in row for name in names]
    return LabelMatrix(names, matrix, np.zeros(matrix.shape, np.bool_))


def _check_known(
    named: NamedTable, column: str, cells: Sequence[set[str]], names: tuple[str, ...]
) -> None:
    for number, row in enumerate(cells):
        unknown = sorted(name for name in row - {*names} if name.casefold() not in _NO_FINDING)
        if unknown:
            raise ScanlearnError(
                f"{named.where(number)}: '{column}' lists '{unknown[0]}', which is not one of "
                f"{', '.join(names)}; correct it, or choose findings with classes"
            )


def _refuse_odd(
    named: NamedTable, target: str, cells: Sequence[set[str]], odd: set[str], others: set[str]
) -> None:
    """Raises an error that says where the first odd value is, and how many there are."""
    row = next(row for row, values in enumerate(cells) if values & odd)
    times = sum(bool(values & odd) for values in cells)
    known = sorted(others)
    listed = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
    raise ScanlearnError(
        f"{named.where(row)}: label '{min(cells[row] & odd)}' of '{target}' is not one of {listed} "
        f"({times} such {'label' if times == 1 else 'labels'}); correct it, leave it blank, or "
        "name all classes"
    )


def _refuse_spellings(
    named: NamedTable, target: str, cells: Sequence[set[str]], counts: Counter[str]
) -> None:
    """Refuses values that differ in their case alone, the rarer spelling by its row."""
    by_case: dict[str, list[str]] = {}
    for text, _ in counts.most_common():
        by_case.setdefault(text.casefold(), []).append(text)
    for spellings in by_case.values():
        if len(spellings) > 1:
            odd = set(spellings[1:])
            _refuse_odd(named, target, cells, odd, set(counts) - odd)
