"""CSV, Excel and Parquet tables, every value as the string that a person wrote."""

from __future__ import annotations

import ast
import csv
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scanlearn.console import say, warn_user
from scanlearn.errors import ScanlearnError, did_you_mean
from scanlearn.readers.limits import memory_limited
from scanlearn.readers.scan import Undecodable, open_regular

EXCEL_SUFFIXES = (".xlsx", ".xlsm")
TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", *EXCEL_SUFFIXES)
SEPARATORS = (",", ";", "\t", "|")
# More than any table of scans has; a hostile one would fill the memory.
MAX_COLUMNS = 10_000
MAX_ROWS = 20_000_000
_MAX_LINE = 2**22
_MAX_TEXT_BYTES = 2**30
_MAX_LISTED = 40
_BLANK = frozenset({"", "nan", "none", "na", "n/a", "#n/a", "null", "<na>", "?", "??", "???"})
_LISTED_FINDINGS = re.compile(r"[|;]")
# Columns of a table of scans: file, patient and label. With fewer, a first row of one cell may be
# the header of a list of paths with remarks beside it.
_LEAST_BELOW_TITLES = 3
_PROBED_LINES = 20
# Excel's own way of saying what separates the cells, in a line before the header.
_SEPARATOR_LINE = re.compile(r'\ufeff?"?sep=(.)"?\r?\n?')
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
# Control characters, and the mark that UTF-16 begins with.
_NO_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f]|\xff\xfe")
# A sheet is read as a stream, the texts of all cells are held; both are deflated.
_MAX_SHEET_BYTES, _MAX_PART_BYTES = 2**29, 2**26
_MAX_CELLS = 2**28
_MOST_DEFLATED, _CHECKED_BYTES = 200, 2**22


def cell_text(value: object) -> str | None:
    """Returns a cell without blanks around it; None where it says that nothing is there."""
    text = "" if value is None else str(value).strip()
    return None if text.lower() in _BLANK else text


def is_list(text: str) -> bool:
    """Returns whether a cell lists several values: ``A|B``, ``A;B`` or ``['A', 'B']``."""
    return bool(_LISTED_FINDINGS.search(text)) or (text[:1] == "[" and text[-1:] == "]")


def split_list(text: str) -> tuple[str, ...]:
    """Returns the values that a cell lists, in its order, each once; one where it lists none."""
    parts: Iterable[object] = _LISTED_FINDINGS.split(text)
    if text[:1] == "[" and text[-1:] == "]":
        try:
            # As a pandas column of lists is written.
            values = ast.literal_eval(text)
            parts = values if isinstance(values, list) else [values]
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            parts = text[1:-1].split(",")
    return tuple(dict.fromkeys(part for each in parts if (part := str(each).strip())))


def read_table(path: Path, *, sep: str | None = None, sheet: str | None = None) -> pa.Table:
    """Returns a table of string columns, null where blank.

    Whole numbers that pandas stored as floats lose their ``.0``; columns of a Parquet file that
    are no plain values (lists, images) and columns without a name are left out.

    Args:
        sep: What separates the cells of a text; None finds it.
        sheet: Name of an Excel file's sheet; None takes the first, and says which that is.

    Raises:
        ScanlearnError: The file is not a table, there is no such sheet, or a column name appears
            twice.
    """
    kind = path.suffix.lower()
    if sheet is not None and kind not in EXCEL_SUFFIXES:
        raise ScanlearnError(f"{path}: has no sheets; leave sheet={sheet} out")
    try:
        open_regular(path).close()
        if kind == ".parquet":
            with memory_limited():
                table = _read_parquet(path)
        elif kind in EXCEL_SUFFIXES:
            table = _read_excel(path, sheet)
        else:
            table = _read_text(path, sep)
    except (pa.ArrowException, UnicodeError, csv.Error, OSError, Undecodable) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ScanlearnError(
            f"{path}: cannot be read as a table ({reason}); give UTF-8 CSV, Excel (.xlsx) or"
            " Parquet with a header"
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


def _read_text(path: Path, sep: str | None) -> pa.Table:
    encoding = _encoding(path)
    if encoding is not None:
        return _read_encoded(path, encoding, sep)
    try:
        return _read_encoded(path, "utf-8-sig", sep)
    except UnicodeDecodeError:
        # As Excel writes CSV on a Western Windows.
        return _read_encoded(path, "cp1252", sep)


def _encoding(path: Path) -> str | None:
    """Returns the encoding that the first bytes tell, None where they are silent."""
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if len(start) > 1 and 0 in start[:2] and start[0] != start[1]:
        return "utf-16-le" if start[1] == 0 else "utf-16-be"
    return None


def _read_encoded(path: Path, encoding: str, sep: str | None) -> pa.Table:
    with path.open(newline="", encoding=encoding) as file:
        declared = _SEPARATOR_LINE.fullmatch(file.readline(_MAX_LINE))
        if declared is None:
            file.seek(0)
        lines = _lines(file)
        if encoding == "cp1252":
            lines = _as_western(lines, path.name)
        start = list(islice(lines, _PROBED_LINES))
        delimiter = sep or (declared[1] if declared else _separator(start))
        return _as_table(csv.reader(chain(start, lines), delimiter=delimiter, strict=True))


def _as_western(lines: Iterator[str], name: str) -> Iterator[str]:
    """Passes lines that were read as Windows-1252, and says so at the first that shows it."""
    is_said = False
    for line in lines:
        if _NO_TEXT.search(line):
            raise csv.Error("it is neither UTF-8 nor Windows-1252 text")
        foreign = None if is_said else _NOT_ASCII.search(line)
        if foreign is not None:
            is_said = True
            excerpt = line[max(0, foreign.start() - 20) : foreign.end() + 20].strip()
            warn_user(
                f"{name}: is not UTF-8 and was read as Windows-1252, as in {excerpt!r}; save it as"
                " UTF-8 if that is misread"
            )
        yield line


def _separator(lines: list[str]) -> str:
    """Returns what separates the cells of a text: what gives all its first rows the same width."""

    def fits(separator: str) -> tuple[bool, int]:
        try:
            # Signs inside quotes do not count: "Height, cm";"Age, years".
            rows = [row for row in csv.reader(lines, delimiter=separator) if row]
        except csv.Error:
            return False, 0
        width = len(rows[0]) if rows else 0
        # The last may be cut, inside a cell of several lines.
        return width > 1 and all(len(row) == width for row in rows[1:-1] or rows), width

    return max(SEPARATORS, key=fits)


def _as_table(rows: Iterable[Sequence[str | None]]) -> pa.Table:
    """Returns rows as columns; blank rows at the end and nameless columns are left out."""
    numbered = enumerate(rows, 1)
    last, header = next((each for each in numbered if any(each[1])), (1, ()))
    names = [(name or "").strip() for name in header]
    _check_size(len(names), 0)
    columns: list[list[str | None]] = [[] for _ in names]
    for number, row in numbered:
        if not row:
            continue
        if len(row) > len(names) and any(row[len(names) :]):
            raise csv.Error(f"row {number} has {len(row)} values for {len(names)} columns")
        _check_size(len(names), number)
        for column, value in zip(columns, [*row, *[None] * len(names)], strict=False):
            # Blank lines between others count: messages name rows as a person sees them.
            column.extend([None] * (number - 1 - last))
            column.append(value if value and value.strip() else None)
        last = number
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
    is_huge = num_columns > MAX_COLUMNS or num_rows > MAX_ROWS
    if is_huge or num_columns * num_rows > _MAX_CELLS:
        raise csv.Error(
            f"{num_columns:,} columns and {num_rows:,} rows; at most {MAX_COLUMNS:,} and"
            f" {MAX_ROWS:,}, and {_MAX_CELLS:,} cells, are read"
        )


def _read_excel(path: Path, sheet: str | None) -> pa.Table:
    import openpyxl

    _check_parts(path)
    try:
        with warnings.catch_warnings():
            # What it leaves out (styles, validation, extensions) is no cell.
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
            with closing(book):
                names = [each.title for each in book.worksheets]
                if not names:
                    raise csv.Error("it has no sheet of cells")
                if sheet is not None and sheet not in names:
                    raise ScanlearnError(
                        f"{path}: has no sheet {sheet!r}{did_you_mean(sheet, names)}; its sheets"
                        f" are {', '.join(names[:_MAX_LISTED])}"
                    )
                chosen = book.worksheets[names.index(sheet) if sheet else 0]
                if sheet is None:
                    others = f", the first of {len(names)}; sheet=NAME reads another"
                    more = others if len(names) > 1 else ""
                    say(f"{path.name}: reading sheet {chosen.title!r}{more}")
                # The size that the sheet claims is not believed: rows would be filled up to it.
                chosen.reset_dimensions()
                return _as_table(
                    _below_titles(_cells(chosen.iter_rows(values_only=True)), path.name)
                )
    except (ScanlearnError, csv.Error, OSError):
        raise
    except Exception as error:  # What damaged XML raises has no common base.
        raise csv.Error(f"{type(error).__name__}: {error}") from error


def _below_titles(rows: Iterator[list[str | None]], name: str) -> Iterator[list[str | None]]:
    """Yields a sheet's rows; those of titles above the header come blank, and that is said.

    A title has its first cell alone, and the header below it as many as a table of scans needs.
    """
    start = list(islice(rows, _PROBED_LINES))
    widths = [sum(1 for cell in row if cell) for row in start]
    is_title = [width == 1 and bool(row[0]) for row, width in zip(start, widths, strict=True)]
    header = next((at for at, width in enumerate(widths) if width and not is_title[at]), 0)
    if any(is_title[:header]) and widths[header] >= _LEAST_BELOW_TITLES:
        title = next(row[0] for row in start[:header] if row and row[0])
        say(f"{name}: the header is row {header + 1}; above it stands {title!r}")
        start[:header] = [[] for _ in start[:header]]
    return chain(start, rows)


def _check_parts(path: Path) -> None:
    """Refuses a file that is no Excel workbook, or one that would fill the memory."""
    try:
        with zipfile.ZipFile(path) as file:
            parts = file.infolist()
    except (zipfile.BadZipFile, NotImplementedError) as error:
        with path.open("rb") as raw:
            is_old = raw.read(4) == b"\xd0\xcf\x11\xe0"
        kind = "is an old or encrypted Excel file" if is_old else "is not an Excel file"
        raise csv.Error(f"it {kind}: save it as .xlsx without a password, or as CSV") from error
    for part in parts:
        name = part.filename.casefold()
        most = _MAX_SHEET_BYTES if "worksheets/" in name else _MAX_PART_BYTES
        # Other media, such as pictures on a sheet, are never opened.
        ratio = part.file_size / max(1, part.compress_size)
        is_bomb = part.file_size > _CHECKED_BYTES and ratio > _MOST_DEFLATED
        if name.endswith((".xml", ".rels")) and (part.file_size > most or is_bomb):
            raise csv.Error(
                f"its part {part.filename} unpacks to {part.file_size:,} bytes from"
                f" {part.compress_size:,}; save the table as CSV"
            )


def _cells(rows: Iterable[tuple[object, ...]]) -> Iterator[list[str | None]]:
    num_cells = 0
    for row in rows:
        num_cells += len(row) + 1
        if num_cells > _MAX_CELLS:
            raise csv.Error(f"its sheet has more than {_MAX_CELLS:,} cells; save the table as CSV")
        yield [_as_written(value) for value in row]


def _as_written(value: object) -> str | None:
    """Returns the value of an Excel cell as CSV would hold it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return None if value is None else str(value)


def _read_parquet(path: Path) -> pa.Table:
    file = pq.ParquetFile(path)
    _check_size(file.metadata.num_columns, file.metadata.num_rows)
    # What is left out need not be read: a column of pictures may be large.
    names = [field.name for field in file.schema_arrow if _is_plain(field.type)]
    # A value that many rows share is stored once, and would be written out in each of them.
    file = pq.ParquetFile(path, read_dictionary=names)
    parts = [file.metadata.row_group(k) for k in range(file.num_row_groups)]
    _check_text_bytes(sum(part.total_byte_size for part in parts))
    table = file.read() if len(names) == len(file.schema_arrow) else file.read(columns=names)
    _check_text_bytes(sum(map(_text_bytes, table.columns)))
    strings = zip(table.column_names, map(_as_strings, table.columns), strict=True)
    kept = [(name, column) for name, column in strings if column is not None]
    return pa.Table.from_arrays([column for _, column in kept], names=[name for name, _ in kept])


def _check_text_bytes(num_bytes: int) -> None:
    if num_bytes > _MAX_TEXT_BYTES:
        raise csv.Error(f"its cells hold {num_bytes:,} bytes; at most {_MAX_TEXT_BYTES:,} are read")


def _text_bytes(column: pa.ChunkedArray) -> int:
    """Returns how many bytes the texts of a column take where each row has its own."""
    total = 0
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type) and pa.types.is_string(chunk.type.value_type):
            lengths = pc.binary_length(chunk.dictionary).cast(pa.int64())
            total += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    return total


def _is_plain(kind: pa.DataType) -> bool:
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind))


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
