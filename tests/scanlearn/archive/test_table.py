from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scanlearn.archive.layout import Layout, Origin, PackedScan
from scanlearn.archive.shards import ShardWriter
from scanlearn.archive.table import read_column, table_schema, write_table


def test_column_is_read_back_in_order_with_its_blanks(tmp_path: Path) -> None:
    columns = [["s0", "s1"], ["p", "p"], ["z", None], ["1.0", None], [None, "x"]]
    arrays = [pa.array(column, pa.string()) for column in columns]
    table = pa.Table.from_arrays(arrays, schema=table_schema(("y", "scan_id")))
    pq.write_table(table, tmp_path / "t.parquet")
    assert read_column(tmp_path / "t.parquet", "scan_id").tolist() == ["s0", "s1"]
    assert read_column(tmp_path / "t.parquet", "label:y").tolist() == ["1.0", None]
    assert read_column(tmp_path / "t.parquet", "label:scan_id").tolist() == [None, "x"]


DTYPE = np.dtype(np.uint8)
NAMES = ["shards/00000.arrow", "shards/00001.arrow"]


def write(
    folder: Path, columns: tuple[str, ...], kept: tuple[int, ...], patients: str, first: int = 0
) -> None:
    layout = Layout((1, 2, 2), DTYPE, label_columns=columns)
    folder.mkdir(exist_ok=True)
    with closing(ShardWriter(folder, layout, kept)) as writer:
        for index, patient in enumerate(patients, first):
            pixels = np.full((1, 2, 2), 51 * index, np.uint8)
            labels = {column: f"{column}{index}" for column in columns}
            writer.add(PackedScan(pixels), Origin(f"{patient}{index}", patient, labels))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, ("y",), (), "bab")
    write(tmp_path, ("z", "y"), (3,), "ca")
    return tmp_path


def test_all_shards_are_counted_together(folder: Path) -> None:
    layout = Layout((1, 2, 2), DTYPE, label_columns=("y", "z"))
    found = write_table(folder, layout, NAMES, folder / "t.parquet")
    assert (found["scans"], found["patients"]) == (5, 3)
    values = np.array([0, 0.2, 0.4, 0, 0.2])
    np.testing.assert_allclose(found["mean"], [values.mean()], rtol=1e-12)
    np.testing.assert_allclose(found["std"], [values.std()], rtol=1e-12)


def test_table_holds_every_scan_and_blanks_where_a_shard_lacks_a_column(folder: Path) -> None:
    layout = Layout((1, 2, 2), DTYPE, label_columns=("y", "z"))
    write_table(folder, layout, NAMES, folder / "t.parquet")
    table = folder / "t.parquet"
    assert read_column(table, "scan_id").tolist() == ["b0", "a1", "b2", "c0", "a1"]
    assert read_column(table, "patient").tolist() == list("babca")
    assert read_column(table, "label:y").tolist() == ["y0", "y1", "y2", "y0", "y1"]
    assert read_column(table, "label:z").tolist() == [None, None, None, "z0", "z1"]


def test_hash_does_not_follow_where_shards_end(tmp_path: Path) -> None:
    layout = Layout((1, 2, 2), DTYPE)
    write(tmp_path / "whole", (), (), "aba")
    write(tmp_path / "parts", (), (), "a")
    write(tmp_path / "parts", (), (1,), "ba", first=1)
    whole = write_table(tmp_path / "whole", layout, NAMES[:1], tmp_path / "t.parquet")
    parts = write_table(tmp_path / "parts", layout, NAMES, tmp_path / "t.parquet")
    assert parts == whole
