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


def test_a_column_of_anything_else_names_its_row(table: Any) -> None:
    with pytest.raises(
        ScanlearnError, match=r"row 2 \(scan .*\): label '2' of 'b' is not 0, 1, -1"
    ):
        read_columns(named(table, a=["1", "0"], b=["1", "2"]), "ab")


@pytest.mark.parametrize(("columns", "said"), [("aa", "a column twice"), ("", "no column")])
def test_each_column_is_named_once(table: Any, columns: str, said: str) -> None:
    with pytest.raises(ScanlearnError, match=f"target names {said}"):
        read_columns(named(table, a=["1", "0"]), columns)


def test_a_bar_in_any_value_makes_a_list(table: Any) -> None:
    assert lists_findings(named(table, f=["a", None, "a|b"]), "f")
    assert not lists_findings(named(table, f=["a", None, "b"]), "f")


def test_no_finding_is_none_of_them_whatever_its_case(table: Any) -> None:
    found = read_list(named(table, f=["NO FINDING", "a | b|", "No findings"]), "f")
    assert found.classes == ("a", "b")
    assert found.matrix.tolist() == [[0, 0], [1, 1], [0, 0]]


def test_a_finding_and_none_at_once_is_refused(table: Any) -> None:
    with pytest.raises(ScanlearnError, match=r"row 2 .* both a finding and no finding"):
        read_list(named(table, f=["a", "No Finding|a"]), "f")


def test_chosen_findings_are_taken_in_their_order_and_others_left(table: Any) -> None:
    found = read_list(named(table, f=["a|b|c", "c", None]), "f", classes=("c", "a"))
    assert found.classes == ("c", "a")
    assert found.matrix.tolist() == [[1, 1], [1, 0], [-1, -1]]


def test_a_chosen_finding_that_is_not_listed_names_the_nearest(table: Any) -> None:
    with pytest.raises(ScanlearnError, match=r"does not list 'Efusion' .did you mean 'Effusion'"):
        read_list(named(table, f=["Effusion|Mass"]), "f", classes=("Efusion",))


def test_a_test_set_may_lack_findings_but_not_have_others(table: Any) -> None:
    found = read_list(named(table, f=["a", "No Finding"]), "f", classes=("a", "b"), check="known")
    assert found.matrix.tolist() == [[1, 0], [0, 0]]
    with pytest.raises(ScanlearnError, match=r"row 2 .* lists 'c', which is not one of a, b"):
        read_list(named(table, f=["a", "b|c"]), "f", classes=("a", "b"), check="known")
    found = read_list(named(table, f=["a", "b|c"]), "f", classes=("a", "d"), check="none")
    assert found.matrix.tolist() == [[1, 0], [0, 0]]


def test_spellings_that_differ_in_case_are_refused(table: Any) -> None:
    with pytest.raises(
        ScanlearnError, match=r"row 3 .* label 'mass' of 'f' is not one of Edema, Mass"
    ):
        read_list(named(table, f=["Mass|Edema", "Mass", "mass"]), "f")


def test_a_crowd_of_findings_is_no_target(table: Any) -> None:
    rows: list[str | None] = [f"a{number}|b" for number in range(60)]
    with pytest.raises(ScanlearnError, match="lists 61 findings, too many for its patients"):
        read_list(named(table, f=rows), "f")
