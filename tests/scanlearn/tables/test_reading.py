from __future__ import annotations

import datetime
import zipfile
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.tables import reading as tables
from scanlearn.tables.reading import (
    cell_text,
    find_column,
    find_required,
    is_list,
    read_table,
    split_list,
)


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
    nothing = (None, " ", "NaN", "n/a", "<NA>", "none", "?")
    assert {cell_text(value) for value in nothing} == {None}
    assert [cell_text(value) for value in (" yes ", 0, 1.0, "nanny")] == [
        "yes",
        "0",
        "1.0",
        "nanny",
    ]


EXPECTED = {"path": ["ä.png", "b.png"], "Weight, kg": ["1,5", None], "y": ["A|B", "0"]}


def write_text(path: Path, separator: str, encoding: str, start: str = "") -> Path:
    rows = [["path", '"Weight, kg"', "y"], ["ä.png", '"1,5"', '"A|B"'], ["b.png", "", "0"]]
    text = start + "\r\n".join(separator.join(row) for row in rows) + "\r\n\r\n"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_text_is_read_in_the_form_it_has(tmp_path: Path, separator: str, encoding: str) -> None:
    table = write_text(tmp_path / "t.csv", separator, encoding)
    assert read_table(table).to_pydict() == EXPECTED
    assert read_table(table, sep=separator).to_pydict() == EXPECTED


def test_separator_that_excel_declares_is_taken(tmp_path: Path) -> None:
    table = write_text(tmp_path / "t.csv", ";", "utf-8-sig", start="sep=;\r\n")
    assert read_table(table).to_pydict() == EXPECTED


def test_windows_1252_is_read_and_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_table(write_text(tmp_path / "t.csv", ";", "cp1252")).to_pydict() == EXPECTED
    said = capsys.readouterr().err
    assert said.count('read as Windows-1252, as in \'ä.png;"1,5";"A|B"\'') == 1


@pytest.mark.parametrize("content", [b"a,b\n\x81,1\n", b"a,b\n\xe4\x00,1\n", b"a\n\xff\xfe1\x00"])
def test_bytes_that_are_no_text_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ScanlearnError, match="cannot be read as a table"):
        read_table(tmp_path / "t.csv")


def test_separator_in_the_last_line_that_is_looked_at_does_not_decide(tmp_path: Path) -> None:
    cell = '"' + "a;b\n" * 30 + '"'
    (tmp_path / "t.csv").write_text(f"path;a,y\n1.png;b,{cell}\n")
    assert read_table(tmp_path / "t.csv").column_names == ["path;a", "y"]


def write_excel(path: Path, **sheets: list[list[object]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_excel_cells_are_the_strings_that_csv_would_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[list[object]] = [
        ["path", "number", "share", "flag", "day", None],
        ["00061", 61, 0.5, True, datetime.date(2020, 1, 2), None],
        ["b.png", 61.0, 1e-3, False, None, None],
        [None, None, None, None, None, None],
    ]
    table = write_excel(tmp_path / "t.xlsx", Scans=rows, Notes=[["path"], ["c.png"]])
    assert read_table(table).slice(0, 2).to_pydict() == {
        "path": ["00061", "b.png"],
        "number": ["61", "61"],
        "share": ["0.5", "0.001"],
        "flag": ["true", "false"],
        "day": ["2020-01-02 00:00:00", None],
    }
    said = capsys.readouterr().out
    assert said == "t.xlsx: reading sheet 'Scans', the first of 2; sheet=NAME reads another\n"
    assert read_table(table, sheet="Notes").to_pydict() == {"path": ["c.png"]}
    assert capsys.readouterr().out == ""
    with pytest.raises(ScanlearnError, match=r"no sheet 'notes' \(did you mean 'Notes'\?\); its"):
        read_table(table, sheet="notes")


TITLE = "Pneumonia study, 2024"


@pytest.mark.parametrize(
    ("rows", "columns", "said"),
    [
        ([[TITLE], [], ["file", "id", "y"], ["a", 1, 0]], ["file", "id", "y"], "header is row 3"),
        ([[TITLE], ["ward 3"], ["file", "id", "y"], ["a"]], ["file", "id", "y"], "header is row 3"),
        ([["path"], ["a.png"], ["b.png"]], ["path"], ""),
        ([["path"], ["a.png", "remark"]], None, "row 2 has 2 values for 1 columns"),
        ([["file", "id", "y"], ["a"], ["b", 2, 1]], ["file", "id", "y"], ""),
        ([[None, "path"], [0, "a.png"], [1, "b.png", None]], ["path"], ""),
    ],
)
def test_titles_above_the_header_of_a_sheet_are_left_out_and_that_is_said(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rows: list[list[object]],
    columns: list[str] | None,
    said: str,
) -> None:
    path = write_excel(tmp_path / "t.xlsx", Sheet=rows)
    if columns is None:
        with pytest.raises(ScanlearnError, match=said):
            read_table(path)
        return
    assert read_table(path).column_names == columns
    told = capsys.readouterr().out
    assert said in told
    assert (repr(TITLE) in told) == bool(said)


def test_sheet_is_for_excel(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path\n")
    with pytest.raises(ScanlearnError, match="has no sheets; leave sheet=A out"):
        read_table(tmp_path / "t.csv", sheet="A")


def repacked(path: Path, **parts: str) -> Path:
    """Writes an Excel file anew, with other texts for some of its parts."""
    with zipfile.ZipFile(path) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in contents.items():
            file.writestr(name, parts.get(Path(name).stem, content))
    return path


_CELL = '<c r="{}" t="inlineStr"><is><t>{}</t></is></c>'
_SHEET = (
    '<?xml version="1.0"?>{}<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/'
    '2006/main"><dimension ref="A1:XFD1048576"/><sheetData>{}</sheetData></worksheet>'
)


def test_size_that_a_sheet_claims_is_not_believed(tmp_path: Path) -> None:
    rows = "".join(
        f'<row r="{n}">{_CELL.format(f"A{n}", t)}</row>' for n, t in ((1, "path"), (2, "a"))
    )
    table = repacked(write_excel(tmp_path / "t.xlsx", A=[["x"]]), sheet1=_SHEET.format("", rows))
    assert read_table(table).to_pydict() == {"path": ["a"]}


def test_bombs_in_excel_files_are_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = _SHEET.format("", f'<row r="1">{_CELL.format("A1", "a" * 2**23)}</row>')
    table = repacked(write_excel(tmp_path / "t.xlsx", A=[["x"]]), sheet1=big)
    with pytest.raises(ScanlearnError, match=r"its part xl/worksheets/sheet1\.xml unpacks to 8,"):
        read_table(table)
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    entities = f'<!DOCTYPE x [<!ENTITY l0 "lol">{laughs}]>'
    rows = f'<row r="1">{_CELL.format("A1", "&l9;")}</row>'
    table = repacked(
        write_excel(tmp_path / "u.xlsx", A=[["x"]]), sheet1=_SHEET.format(entities, rows)
    )
    with pytest.raises(ScanlearnError, match="cannot be read as a table"):
        read_table(table)
    monkeypatch.setattr(tables, "_MAX_CELLS", 20_000)
    wide = "".join(f'<row r="{n}"><c r="XFD{n}"/></row>' for n in range(1, 4))
    table = repacked(write_excel(tmp_path / "v.xlsx", A=[["x"]]), sheet1=_SHEET.format("", wide))
    with pytest.raises(ScanlearnError, match="more than 20,000 cells; save the table as CSV"):
        read_table(table)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("['A', 'B']", ("A", "B")),
        ('["Pleural effusion", "A"]', ("Pleural effusion", "A")),
        ("[A, B]", ("A", "B")),
        ("[]", ()),
        ("A|B|A", ("A", "B")),
        ("A; B", ("A", "B")),
        ("A, acute", ("A, acute",)),
        ("[" * 10_000 + "]" * 10_000, ("[" * 9_999 + "]" * 9_999,)),
    ],
)
def test_cells_that_list_values_are_read_alike(text: str, parts: tuple[str, ...]) -> None:
    assert split_list(text) == parts
    assert is_list(text) == (parts != (text,))
