from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.packing import tables
from scanlearn.packing.tables import cell_text, find_column, find_required, read_table


def test_every_csv_value_stays_the_string_it_is(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\n007,1e3\n"x,\ny",TRUE\n,\n\n')
    table = read_table(tmp_path / "t.csv")
    assert table.to_pydict() == {"a": ["007", "x,\ny", None], "b": ["1e3", "TRUE", None]}


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_more_columns_than_any_table_has_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(tables, "MAX_COLUMNS", 2)
    (tmp_path / "t.csv").write_text("path,x,y\n1,2,3\n")
    pq.write_table(pa.table({"path": ["a"], "x": ["b"], "y": ["c"]}), tmp_path / "t.parquet")
    with pytest.raises(ScanlearnError, match=r"3 columns and . rows; at most 2"):
        read_table(tmp_path / name)


def test_more_rows_than_any_table_has_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MAX_ROWS", 2)
    pq.write_table(pa.table({"path": ["a"] * 3}), tmp_path / "t.parquet")
    with pytest.raises(ScanlearnError, match="1 columns and 3 rows; at most"):
        read_table(tmp_path / "t.parquet")


def test_endless_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MAX_LINE", 20)
    (tmp_path / "t.csv").write_text("path,x\n" + "a,b\n" * 9 + "a" * 30)
    with pytest.raises(ScanlearnError, match="line 11 has 20 characters or more"):
        read_table(tmp_path / "t.csv")


def test_message_lists_some_of_very_many_columns(tmp_path: Path) -> None:
    table = pa.table({f"c{number}": ["x"] for number in range(100)})
    with pytest.raises(ScanlearnError, match=r"c39, \.\.\.$"):
        find_required(table, tmp_path / "t.csv", None, ("path",), "path_column")


def test_parquet_values_become_the_strings_that_csv_would_hold(tmp_path: Path) -> None:
    columns = {
        "whole": pa.array([1.0, None, 3.0]),
        "float": pa.array([0.5, float("nan"), 2.0]),
        "int": pa.array([1, 2, None]),
        "category": pa.array(["a", None, "a"]).dictionary_encode(),
        "flag": pa.array([True, False, None]),
        "nested": pa.array([[1], [2], [3]]),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").to_pydict() == {
        "whole": ["1", None, "3"],
        "float": ["0.5", None, "2"],
        "int": ["1", "2", None],
        "category": ["a", None, "a"],
        "flag": ["true", "false", None],
    }


def test_short_rows_are_blank_at_the_end_and_nameless_columns_left_out(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,\n1\n2,3,\n")
    assert read_table(tmp_path / "t.csv").to_pydict() == {"a": ["1", "2"], "b": [None, "3"]}


def test_first_of_the_usual_names_wins() -> None:
    table = pa.table({"image": [""], "PATH": [""], "Patient-ID": [""]})
    assert find_column(table, ("path", "image")) == "PATH"
    assert find_column(table, ("patient_id",)) == "Patient-ID"
    assert find_column(table, ("file",)) is None


def test_asked_for_column_is_taken_literally(tmp_path: Path) -> None:
    table = pa.table({"path": [""], "Path 2": [""]})
    assert find_required(table, tmp_path, "Path 2", ("path",), "path_column") == "Path 2"
    with pytest.raises(ScanlearnError, match="did you mean 'Path 2'"):
        find_required(table, tmp_path, "path2", ("path",), "path_column")


def test_a_cell_that_says_nothing_is_none_however_it_says_so() -> None:
    assert [cell_text(value) for value in (None, " ", "NaN", "n/a", "<NA>", "none")] == [None] * 6
    assert [cell_text(value) for value in (" yes ", 0, 1.0, "nanny")] == [
        "yes",
        "0",
        "1.0",
        "nanny",
    ]
