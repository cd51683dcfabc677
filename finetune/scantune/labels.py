"""The labeled set: which scans of an archive have a usable label, and whose they are."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Int

from scanlearn.core import ScanlearnError
from scanlearn.scans.identity import patient_codes
from scantune.truth import Truth

_BLANK = frozenset({"", "nan", "none", "na", "n/a", "null", "<na>"})
_NUMBER = re.compile(r"[+-]?\d+(\.0*)?")
_FRACTION = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?")
# As CheXpert and MIMIC-CXR write it: Irvin et al., AAAI 2019, section 2.
_UNCERTAIN = "-1"
# More classes than this, with few patients each, is a measurement or a name, not a target.
_MANY_CLASSES = 50
_PATIENTS_PER_CLASS = 20


class LabelTable(Protocol):
    """What labels are read from; an archive is one."""

    @property
    def path(self) -> Path:
        """Where it lies, for messages."""

    @property
    def patients(self) -> np.ndarray:
        """``[n]`` str, the patient of each scan."""

    @property
    def scan_ids(self) -> np.ndarray:
        """``[n]`` str, the name of each scan."""

    @property
    def num_rejected(self) -> int:
        """Scans of the table that could not be read and are not here."""

    @property
    def label_columns(self) -> tuple[str, ...]:
        """Names of the label columns."""

    def labels(self, column: str) -> np.ndarray:
        """Returns ``[n]`` object: str as the table held it, or None where blank."""

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class LabeledSet:
    """The scans with a label for one target.

    Args:
        target: Column that the labels came from.
        classes: Names of the classes, in the order of their codes.
        truth: Which scan is of which class.
        patients: ``[n]`` patient of each scan, as a code from 0.
        rows: ``[n]`` row of each scan in its archive, ascending from 0.
        split: ``[n]`` str "train" or "test", or None where no split was given.
        num_blank: Scans left out because their label is blank.
        num_uncertain: Scans left out because their label, -1 beside 0 and 1, says "uncertain".
    """

    target: str
    classes: tuple[str, ...]
    truth: Truth
    patients: Int[np.ndarray, " n"]
    rows: Int[np.ndarray, " n"]
    split: np.ndarray | None = None
    num_blank: int = 0
    num_uncertain: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_patients(self) -> int:
        """Patients with at least one labeled scan."""
        return len(np.unique(self.patients))

    @property
    def counts(self) -> dict[str, int]:
        """Scans of each class."""
        present = (self.truth.matrix == 1).sum(axis=0)
        return {name: int(count) for name, count in zip(self.classes, present, strict=True)}


def read_labels(
    table: LabelTable,
    target: str,
    *,
    classes: Sequence[str] | None = None,
    split_column: str | None = None,
    source: str | None = None,
) -> LabeledSet:
    """Returns the scans that have a label for one target.

    Blank labels are left out and counted, and so is -1 beside 0 and 1, which tables of findings
    write where a report is not sure. Without ``classes`` the distinct values are the
    classes, in numeric or alphabetic order; values that do not fit together, such as ``yes``
    among 0 and 1, are refused rather than made a class of their own.

    Args:
        table: The packed labeled scans.
        target: The label column.
        classes: The values allowed, in the order of their codes.
        split_column: A column of "train" and "test", or None.
        source: What a message calls the table; None takes the name of its folder.

    Raises:
        ScanlearnError: If a column is missing, a label is outside its values, or all labels are
            blank or of one class.
    """
    named = _Named(table, source or table.path.name)
    raw = named.column(target)
    texts = [_clean(value) for value in raw]
    num_blank = texts.count(None)
    if classes is None and set(texts) - {None} == {_UNCERTAIN, "0", "1"}:
        texts = [None if text == _UNCERTAIN else text for text in texts]
    labeled = [row for row, text in enumerate(texts) if text is not None]
    if not labeled:
        raise ScanlearnError(
            f"{named.name}: column '{target}' is blank in all {len(table)} scans; "
            "name a column that has labels"
        )
    names = (
        tuple(str(_clean(name)) for name in classes)
        if classes is not None
        else _infer_classes(named, target, texts)
    )
    for row in labeled:
        if texts[row] not in names:
            raise ScanlearnError(
                f"{named.where(row)}: label '{raw[row]}' of '{target}' is not one of "
                f"{', '.join(names)}; correct it, leave it blank, or name all classes"
            )
    rows = np.array(labeled, dtype=np.int64)
    y = np.array([names.index(str(texts[row])) for row in labeled], dtype=np.int64)
    if len(np.unique(y)) < 2:
        raise ScanlearnError(
            f"{named.name}: column '{target}' holds one class only, '{names[y[0]]}', in all "
            f"{len(y)} labeled scans; at least two are needed"
        )
    return LabeledSet(
        target=target,
        classes=names,
        truth=Truth.of_classes(y, len(names)),
        patients=patient_codes(np.asarray(table.patients)[rows]),
        rows=rows,
        split=None if split_column is None else _read_split(named, split_column, rows),
        num_blank=num_blank,
        num_uncertain=len(table) - len(rows) - num_blank,
    )


@dataclass(frozen=True)
class _Named:
    """A table and what messages call it."""

    table: LabelTable
    name: str

    def column(self, name: str) -> np.ndarray:
        known = self.table.label_columns
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise ScanlearnError(
                f"{self.name} has no column '{name}'; {hint}its label columns are "
                f"{', '.join(known) or 'none'}"
            )
        return self.table.labels(name)

    def where(self, row: int) -> str:
        # Rows are counted from 1, as a person counts the scans of a table below its header. Where
        # scans are missing they no longer count alike: the scan's own name must do.
        number = "" if self.table.num_rejected else f" row {row + 1}"
        return f"{self.name}{number} (scan {self.table.scan_ids[row]})"


def _clean(value: object) -> str | None:
    """Returns a label without blanks around it and with 1.0 as 1; None where it is blank."""
    text = "" if value is None else str(value).strip()
    if text.lower() in _BLANK:
        return None
    return str(int(float(text))) if _NUMBER.fullmatch(text) else text


def _infer_classes(named: _Named, target: str, texts: Sequence[str | None]) -> tuple[str, ...]:
    """Returns the distinct labels, refusing values that can hardly be meant as classes."""
    counts = Counter(text for text in texts if text is not None)
    numbers = {text for text in counts if _NUMBER.fullmatch(text)}
    fractions = [text for text in counts if _FRACTION.fullmatch(text)]
    people = len(set(named.table.patients))
    crowded = len(counts) > _MANY_CLASSES and people < _PATIENTS_PER_CLASS * len(counts)
    if fractions or crowded:
        raise ScanlearnError(
            f"{named.name}: column '{target}' holds {len(counts)} different values such as "
            f"'{(fractions or list(counts))[0]}', which is no set of classes; name another column "
            "or put the values into classes"
        )
    words = set(counts) - numbers
    if words and numbers:
        odd, others = sorted((words, numbers), key=lambda group: sum(counts[t] for t in group))
        _refuse(named, target, texts, odd, others)
    if "-1" in numbers and numbers <= {"-1", "0", "1"}:
        # Chest X-ray tables mark an uncertain finding so; a third class would be a silent guess.
        _refuse(named, target, texts, {"-1"}, numbers - {"-1"})
    by_case: dict[str, list[str]] = {}
    for text in sorted(words, key=lambda text: -counts[text]):
        by_case.setdefault(text.casefold(), []).append(text)
    for spellings in by_case.values():
        if len(spellings) > 1:
            _refuse(named, target, texts, set(spellings[1:]), set(counts) - set(spellings[1:]))
    return tuple(sorted(counts, key=int) if numbers else sorted(counts))


def _refuse(
    named: _Named,
    target: str,
    texts: Sequence[str | None],
    odd: set[str],
    others: set[str],
) -> None:
    row = next(row for row, text in enumerate(texts) if text in odd)
    times = sum(text in odd for text in texts)
    known = sorted(others)
    listed = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
    raise ScanlearnError(
        f"{named.where(row)}: label '{texts[row]}' of '{target}' is not one of {listed} "
        f"({times} such {'label' if times == 1 else 'labels'}); correct it, leave it blank, or "
        "name all classes"
    )


def _read_split(named: _Named, column: str, rows: Int[np.ndarray, " n"]) -> np.ndarray:
    values = named.column(column)[rows]
    sides = np.array([str(_clean(value)).lower() for value in values])
    for row, side in zip(rows, sides, strict=True):
        if side not in ("train", "test"):
            given = "blank" if side == "none" else f"'{values[list(rows).index(row)]}'"
            raise ScanlearnError(
                f"{named.where(int(row))}: split column '{column}' is {given}, not train or "
                "test; give every labeled scan one of the two"
            )
    return sides
