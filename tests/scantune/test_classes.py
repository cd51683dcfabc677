from __future__ import annotations

from typing import Any

import pytest

from scanlearn.core import ScanlearnError
from scantune.classes import read_classes
from scantune.label_table import NamedTable


def read(table: Any, values: list[str | None], **options: Any) -> Any:
    return read_classes(NamedTable(table({"g": values}), "labels.csv"), "g", **options)


def test_a_scan_without_a_label_is_unknown_throughout(table: Any) -> None:
    found = read(table, ["b", None, "a"])
    assert found.classes == ("a", "b")
    assert found.matrix.tolist() == [[0, 1], [-1, -1], [1, 0]]
    assert not found.uncertain.any()


def test_minus_1_beside_0_and_1_is_uncertain_found_or_given(table: Any) -> None:
    for classes in (None, ("0", "1")):
        found = read(table, ["0", "-1", "1"], classes=classes)
        assert found.matrix.tolist() == [[1, 0], [-1, -1], [0, 1]]
        assert found.uncertain.any(axis=1).tolist() == [False, True, False]


def test_grades_of_words_need_an_order(table: Any) -> None:
    grades = ["mild", "severe", "none seen"]
    with pytest.raises(ScanlearnError, match="whose order nobody said; give them from low to high"):
        read(table, grades, is_ordinal=True)
    ordered = ("none seen", "mild", "severe")
    assert read(table, grades, is_ordinal=True, classes=ordered).classes == ordered


def test_two_grades_have_no_order(table: Any) -> None:
    with pytest.raises(ScanlearnError, match=r"holds 2 grades \(0, 1\), and an order takes 3"):
        read(table, ["0", "1"], is_ordinal=True)
