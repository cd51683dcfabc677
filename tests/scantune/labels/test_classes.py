from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scanlearn.errors import ScanlearnError
from scantune.labels.classes import lists_findings, read_classes, read_columns, read_list
from scantune.labels.table import NamedTable


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
    with pytest.raises(ScanlearnError, match="order is not known; list them from low to high"):
        read(table, grades, is_ordinal=True)
    ordered = ("none seen", "mild", "severe")
    assert read(table, grades, is_ordinal=True, classes=ordered).classes == ordered


@pytest.mark.parametrize(
    ("columns", "chosen", "said"),
    [
        (
            {"a": ["1", "0"], "b": ["1", "2"]},
            "ab",
            r"row 3 \(.*\): label '2' of 'b' is not 0, 1, -1",
        ),
        ({"a": ["1", "0"]}, "aa", "target names a column twice"),
        ({"a": ["1", "0"]}, "", "target names no column"),
    ],
)
def test_columns_that_are_no_findings_are_refused(
    table: Any, columns: dict[str, list[str]], chosen: str, said: str
) -> None:
    with pytest.raises(ScanlearnError, match=said):
        read_columns(named(table, **columns), chosen)


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (["a", "No Finding|a"], {}, r"row 3 .* both a finding and no finding"),
        (
            ["Effusion|Mass"],
            {"classes": ("Efusion",)},
            r"not list 'Efusion' .did you mean 'Effusion'",
        ),
        (["Mass|Edema", "Mass", "mass"], {}, r"row 4 .* 'mass' of 'f' is not one of Edema, Mass"),
        (
            [f"a{number}|b" for number in range(60)],
            {},
            "lists 61 findings, too many for its patients",
        ),
    ],
)
def test_lists_that_are_no_findings_are_refused(
    table: Any, rows: list[str], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ScanlearnError, match=said):
        read_list(named(table, f=rows), "f", **options)


def test_two_grades_have_no_order(table: Any) -> None:
    with pytest.raises(ScanlearnError, match=r"holds 2 grades \(0, 1\), but ordinal needs 3"):
        read(table, ["0", "1"], is_ordinal=True)


def named(table: Any, **columns: list[str | None]) -> NamedTable:
    return NamedTable(table(columns), "labels.csv")


def test_a_column_each_says_yes_no_unknown_or_unsure(table: Any) -> None:
    found = read_columns(
        named(table, a=["1", "0.0", "-1.0", None], b=["True", "false", "0", "1"]), "ab"
    )
    assert found.matrix.tolist() == [[1, 1], [0, 0], [-1, 0], [-1, 1]]
    assert np.argwhere(found.uncertain).tolist() == [[2, 0]]


def test_a_bar_in_any_value_makes_a_list(table: Any) -> None:
    assert lists_findings(named(table, f=["a", None, "a|b"]), "f")
    assert not lists_findings(named(table, f=["a", None, "b"]), "f")


def test_no_finding_is_none_of_them_whatever_its_case(table: Any) -> None:
    found = read_list(named(table, f=["NO FINDING", "a | b|", "No findings"]), "f")
    assert found.classes == ("a", "b")
    assert found.matrix.tolist() == [[0, 0], [1, 1], [0, 0]]


def test_chosen_findings_are_taken_in_their_order_and_others_left(table: Any) -> None:
    found = read_list(named(table, f=["a|b|c", "c", None]), "f", classes=("c", "a"))
    assert found.classes == ("c", "a")
    assert found.matrix.tolist() == [[1, 1], [1, 0], [-1, -1]]


def test_a_test_set_may_lack_findings_but_not_have_others(table: Any) -> None:
    found = read_list(named(table, f=["a", "No Finding"]), "f", classes=("a", "b"), check="known")
    assert found.matrix.tolist() == [[1, 0], [0, 0]]
    with pytest.raises(ScanlearnError, match=r"row 3 .* lists 'c', which is not one of a, b"):
        read_list(named(table, f=["a", "b|c"]), "f", classes=("a", "b"), check="known")
    found = read_list(named(table, f=["a", "b|c"]), "f", classes=("a", "d"), check="none")
    assert found.matrix.tolist() == [[1, 0], [0, 0]]
