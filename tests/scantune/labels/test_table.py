from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scanlearn.errors import ScanlearnError
from scantune.labels.table import NamedTable, clean


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, None), (" ", None), ("NaN", None), (" a ", "a"), ("1.0", "1"), ("-1.", "-1")],
)
def test_a_cell_is_cleaned(value: str | None, text: str | None) -> None:
    assert clean(value) == text


def test_the_nearest_column_is_suggested(table: Any) -> None:
    named = NamedTable(table({"age": ["1"], "pneumonia": ["0"]}), "scans")
    with pytest.raises(ScanlearnError, match=r"'pneumona' .did you mean 'pneumonia'"):
        named.raw("pneumona")
    with pytest.raises(ScanlearnError, match="no column 'x';"):
        named.raw("x")


def test_a_missing_column_names_those_that_are_there(table: Any) -> None:
    named = NamedTable(table({"y": ["0"]}), "scans")
    with pytest.raises(ScanlearnError, match="scans has no column 'z'; its label columns are y"):
        named.texts("z")


@pytest.mark.parametrize("cells", [["Edema | Mass", None], ["Mass", "no"], ["no", "Edema;Mass"]])
def test_a_value_asked_for_as_a_column_names_the_column_that_lists_it(
    table: Any, cells: list[str | None]
) -> None:
    named = NamedTable(table({"age": ["1", "2"], "Findings": cells}), "scans")
    with pytest.raises(ScanlearnError, match="'Mass' is a value of 'Findings': name that column"):
        named.raw("Mass")
    with pytest.raises(ScanlearnError, match=r"columns are age, Findings$"):
        named.raw("Mas")


def test_scans_without_any_label_are_one_sentence(table: Any) -> None:
    class Bare(table):  # type: ignore[misc]
        label_columns = ()

    with pytest.raises(ScanlearnError, match="scans has no label columns, so no 'y'; give"):
        NamedTable(Bare({"y": ["0"]}), "scans").texts("y")


def test_many_classes_of_few_patients_are_a_crowd(table: Any) -> None:
    named = NamedTable(table({"y": ["0"] * 100}, np.arange(100).astype(str)), "scans")
    assert named.is_crowded(51)
    assert not named.is_crowded(50)
