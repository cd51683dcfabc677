"""CSV and Parquet tables, every value as the string that a person wrote."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scanlearn.errors import ScanlearnError, did_you_mean

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
# More than any table of scans has; a hostile one would fill the memory.
MAX_COLUMNS = 10_000
MAX_ROWS = 20_000_000
_MAX_LINE = 2**22
_MAX_LISTED = 40
_BLANK = frozenset({"", "nan", "none", "na", "n/a", "null", "<na>"})


def cell_text(value: object) -> str | None:
    """Returns a cell without blanks around it; None where it says that nothing is there."""
    text = "" if value is None else str(value).strip()
    return None if text.lower() in _BLANK else text


def read_table(path: Path) -> pa.Table:
    """Returns a table of string columns, null where blank.

    Whole numbers that pandas stored as floats lose their ``.0``; columns of a Parquet file that
    are no plain values (lists, images) and columns without a name are left out.

    Raises:
        ScanlearnError: The file is not a table, or a column name appears twice.
    """
    try:
        is_parquet = path.suffix.lower() == ".parquet"
        table = _read_parquet(path) if is_parquet else _read_text(path)
    except (pa.ArrowException, UnicodeDecodeError, csv.Error, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ScanlearnError(
            f"{path}: cannot be read as a table ({reason}); give UTF-8 CSV or Parquet with a header"
        ) from error
    names = table.column_names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ScanlearnError(f"{path}: column {twice[0]!r} appears twice; rename one of them")
    return table


def find_column(table: pa.Table, usual: tuple[str, ...]) -> str | None:
    """Returns the first column with a usual name, whatever its case, blanks and underscores."""
    by_plain = {_plain(name): name for name in reversed(table.column_names)}
    return next((by_plain[_plain(name)] for name in usual if _plain(name) in by_plain), None)


def is_one_of(name: str, names: tuple[str, ...]) -> bool:
    """Returns whether a column is called one of ``names``, whatever its case, blanks and dashes."""
    return _plain(name) in {_plain(other) for other in names}


def find_required(
    table: pa.Table, source: Path, column: str | None, usual: tuple[str, ...], setting: str
) -> str:
    """Returns the column that a setting asks for, or the one with a usual name where that is None.

    Raises:
        ScanlearnError: There is no such column; lists the columns and the nearest spelling.
    """
    name = find_column(table, usual) if column is None else column
    if name in table.column_names:
        return str(name)
    columns = ", ".join(table.column_names[:_MAX_LISTED])
    columns += ", ..." if table.num_columns > _MAX_LISTED else ""
    if column is None:
        raise ScanlearnError(
            f"{source}: has no column called {', '.join(usual)}; name one of its columns with"
            f" {setting}: {columns}"
        )
    near = did_you_mean(column, table.column_names)
    raise ScanlearnError(
        f"{source}: has no column {column!r} for {setting}{near}; its columns are {columns}"
    )


def _plain(name: str) -> str:
    return name.casefold().replace(" ", "").replace("_", "").replace("-", "")


def _read_text(path: Path) -> pa.Table:
    with path.open(newline="", encoding="utf-8-sig") as file:
        first = file.readline(_MAX_LINE)
        file.seek(0)
        delimiter = max(",;\t", key=first.count)
        rows = csv.reader(_lines(file), delimiter=delimiter, strict=True)
        names = [name.strip() for name in next(rows, [])]
        _check_size(len(names), 0)
        columns: list[list[str | None]] = [[] for _ in names]
        for row in rows:
            if not row:
                continue
            if len(row) > len(names) and any(row[len(names) :]):
                raise csv.Error(
                    f"row {len(columns[0]) + 2} has {len(row)} values for {len(names)} columns"
                )
            for column, value in zip(columns, [*row, *[""] * len(names)], strict=False):
                column.append(value if value.strip() else None)
    kept = [index for index, name in enumerate(names) if name]
    arrays = [pa.chunked_array([pa.array(columns[index], pa.string())]) for index in kept]
    return pa.Table.from_arrays(arrays, names=[names[index] for index in kept])


def _lines(file: TextIO) -> Iterator[str]:
    number = 0
    while line := file.readline(_MAX_LINE):
        number += 1
        if len(line) == _MAX_LINE:
            raise csv.Error(f"line {number} has {_MAX_LINE:,} characters or more")
        yield line


def _check_size(num_columns: int, num_rows: int) -> None:
    if num_columns > MAX_COLUMNS or num_rows > MAX_ROWS:
        raise csv.Error(
            f"{num_columns:,} columns and {num_rows:,} rows; at most {MAX_COLUMNS:,} and"
            f" {MAX_ROWS:,} are read"
        )


def _read_parquet(path: Path) -> pa.Table:
    file = pq.ParquetFile(path)
    _check_size(file.metadata.num_columns, file.metadata.num_rows)
    table = file.read()
    strings = zip(table.column_names, map(_as_strings, table.columns), strict=True)
    kept = [(name, column) for name, column in strings if column is not None]
    return pa.Table.from_arrays([column for _, column in kept], names=[name for name, _ in kept])


def _as_strings(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
        return None
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
        whole = pc.all(pc.equal(column, pc.floor(column))).as_py()
        column = column.cast(pa.int64()) if whole else column
    strings = column.cast(pa.string())
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(strings), ""), None, strings)
