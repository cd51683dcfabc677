from __future__ import annotations

import stat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from scanlearn.scans.rows import ListWriter, read_column, read_paths, table_schema


def test_column_is_read_back_in_order_with_its_blanks(tmp_path: Path) -> None:
    columns = [["s0", "s1"], ["p", "p"], ["1.0", None], [None, "x"]]
    arrays = [pa.array(column, pa.string()) for column in columns]
    table = pa.Table.from_arrays(arrays, schema=table_schema(("y", "scan_id")))
    pq.write_table(table, tmp_path / "t.parquet")
    assert read_column(tmp_path / "t.parquet", "scan_id").tolist() == ["s0", "s1"]
    assert read_column(tmp_path / "t.parquet", "label:y").tolist() == ["1.0", None]
    assert read_column(tmp_path / "t.parquet", "label:scan_id").tolist() == [None, "x"]


def test_list_that_is_gone_on_with_loses_what_came_after(tmp_path: Path) -> None:
    columns = ("scan_id", "path")
    first = ListWriter(tmp_path / "paths.csv", columns)
    first.add("a", 'new\nline,"quoted"')
    reached = first.num_bytes()
    first.add("b", "lost")
    first.close()
    second = ListWriter(tmp_path / "paths.csv", columns, keep_bytes=reached)
    second.add("c", "kept")
    second.close()
    assert read_paths(tmp_path) == {"a": 'new\nline,"quoted"', "c": "kept"}


def test_new_list_replaces_an_old_one_and_may_be_the_owners_alone(tmp_path: Path) -> None:
    (tmp_path / "paths.csv").write_text("old")
    (tmp_path / "paths.csv").unlink()
    ListWriter(tmp_path / "paths.csv", ("scan_id", "path"), owner_only=True).close()
    assert stat.S_IMODE((tmp_path / "paths.csv").stat().st_mode) == 0o600
    assert (tmp_path / "paths.csv").read_text() == "scan_id,path\n"
