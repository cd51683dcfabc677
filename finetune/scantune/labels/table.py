"""The table that labels are read from: its columns by name, its cells as a person wrote them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Int8

from scanlearn.archive.layout import is_archive
from scanlearn.archive.reader import Archive
from scanlearn.errors import ScanlearnError, did_you_mean
from scanlearn.packing.sources import PHANTOM_PREFIX
from scanlearn.phantom.tasks import TASKS
from scanlearn.tables.identifying import is_identifying
from scanlearn.tables.join import joined_archive
from scanlearn.tables.labels import NIH_COLUMNS, PATH_COLUMNS, PATIENT_COLUMNS
from scanlearn.tables.merge import FIRST_ROW
from scanlearn.tables.reading import TABLE_SUFFIXES, cell_text, read_table
from scanlearn.tables.settings import TableSettings

# 1, 1.0 and, with a decimal comma, 1,0; but 1,000 is a thousand to some.
NUMBER = re.compile(r"[+-]?\d+(\.0*|,0{1,2})?")
# As CheXpert and MIMIC-CXR write it: Irvin et al., AAAI 2019, section 2.
UNCERTAIN = "-1"
# What a cell says of one finding or mark.
YES_OR_NO = {"1": 1, "true": 1, "0": 0, "false": 0}
# More classes than this, with few patients each, are a measurement or names, not a target.
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
    def patients_known(self) -> bool:
        """Whether every scan's patient is known."""

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
class LabelMatrix:
    """What a table says of every scan, labeled or not.

    Args:
        matrix: ``[n k]`` as of `truth.Truth`; a scan without a label is unknown throughout.
        uncertain: ``[n k]`` where it is unknown because the table says -1.
    """

    classes: tuple[str, ...]
    matrix: Int8[np.ndarray, "n k"]
    uncertain: Bool[np.ndarray, "n k"]


@dataclass(frozen=True)
class NamedTable:
    """A table and what messages call it.

    Args:
        is_numbered: Whether it has a row for each scan, in the same order.
    """

    table: LabelTable
    name: str
    is_numbered: bool = True

    def raw(self, column: str) -> np.ndarray:
        """Returns a column as it is, or raises a ScanlearnError where there is none."""
        check_column(column, self.name, self.table.label_columns, self.table.labels)
        return self.table.labels(column)

    def texts(self, column: str) -> list[str | None]:
        """Returns a column's cleaned values; None where blank.

        Raises:
            ScanlearnError: There is no such column, or nothing in it.
        """
        texts = [clean(value) for value in self.raw(column)]
        if texts.count(None) == len(texts):
            raise ScanlearnError(
                f"{self.name}: column '{column}' is blank for all {len(texts)} scans; name a "
                "column that has labels"
            )
        return texts

    def where(self, row: int) -> str:
        """Returns which scan that is, in words."""
        # An archive has no rows that a person could look up, and where scans are missing, or
        # several in a file, those of the table no longer count alike: the scan's name must do.
        is_table = Path(self.name).suffix.lower() in TABLE_SUFFIXES
        is_numbered = is_table and self.is_numbered and not self.table.num_rejected
        is_numbered &= not any("#" in str(name) for name in self.table.scan_ids[: row + 1])
        number = f" row {row + FIRST_ROW}" if is_numbered else ""
        return f"{self.name}{number} (scan {self.table.scan_ids[row]})"

    def is_crowded(self, num_classes: int) -> bool:
        """Whether there are too many classes, and too few patients, for a target."""
        people = len(set(self.table.patients))
        return num_classes > _MANY_CLASSES and people < _PATIENTS_PER_CLASS * num_classes


def check_columns(labels: str, columns: Sequence[str], settings: TableSettings) -> None:
    """Refuses misspelt label columns of a table, an archive or a phantom that is not opened yet.

    Raises:
        ScanlearnError: There is no such column, or the table cannot be read.
    """
    path = Path(labels).expanduser()
    if labels.startswith(PHANTOM_PREFIX):
        for column in columns:
            check_column(column, labels, TASKS, lambda _: np.array([], dtype=object))
    elif is_archive(path):
        named = NamedTable(Archive(path), path.name)
        for column in columns:
            named.raw(column)
    elif path.suffix.lower() in TABLE_SUFFIXES and joined_archive(path, settings) is None:
        table = read_table(path, sep=settings.sep, sheet=settings.sheet)
        if not all(name in table.column_names for name in NIH_COLUMNS):  # gets one for each finding
            aside = (*PATH_COLUMNS, *PATIENT_COLUMNS, settings.path_column, settings.patient_column)
            known = [
                name
                for name in table.column_names
                if name in columns or not (name in aside or is_identifying(name))
            ]
            for column in columns:
                check_column(column, path.name, known, lambda name: np.array(table[name]))


def check_column(
    column: str, table: str, known: Sequence[str], cells: Callable[[str], np.ndarray]
) -> None:
    """Refuses a column that is not among the label columns of a table.

    Args:
        table: What messages call it.
        cells: Returns what stands in one of its label columns, ``[n]``.

    Raises:
        ScanlearnError: It is not.
    """
    if not known:
        raise ScanlearnError(
            f"{table} has no label columns, so no '{column}'; give the table that lists "
            "its scans, or folder_labels=true and target=folder for one folder per class"
        )
    if column in known:
        return
    left_out = ""
    if is_identifying(column):
        left_out = (
            "; a column that may identify a person is left out when a table is packed,"
            f" unless allow_columns=[{column}] is given"
        )
    raise ScanlearnError(
        f"{table} has no column '{column}'{did_you_mean(column, known, cutoff=0.5)}; "
        f"its label columns are {', '.join(known)}{_place_of(column, known, cells)}{left_out}"
    )


def _place_of(value: str, known: Sequence[str], cells: Callable[[str], np.ndarray]) -> str:
    """Returns which column lists a finding or class that was asked for as if it were one."""
    for column in known:
        texts = {str(text) for text in cells(column) if text is not None}
        if any(value in re.split(r"\s*[|;]\s*", text.strip()) for text in texts):
            return f"; '{value}' is a value of {column!r}: name that column"
    return ""


def clean(value: object) -> str | None:
    """Returns a label without blanks around it and with 1.0 or 1,0 as 1; None where it is blank."""
    text = cell_text(value)
    return str(int(float(text.replace(",", ".")))) if text and NUMBER.fullmatch(text) else text
