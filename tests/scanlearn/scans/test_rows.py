from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from scanlearn.scans import rows
from scanlearn.scans.rows import TableWriter, read_column


def test_rows_are_streamed_and_read_back_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "SCANS_PER_ROW_GROUP", 3)
    writer = TableWriter(tmp_path / "manifest.parquet", ("y", "scan_id"))
    for index in range(8):
        writer.add(f"s{index}", f"p{index // 2}", {"y": None if index == 5 else "1.0"})
    writer.close()
    assert (writer.num_scans, writer.num_patients) == (8, 4)
    assert pq.ParquetFile(tmp_path / "manifest.parquet").num_row_groups == 3
    assert read_column(tmp_path, "scan_id").tolist() == [f"s{index}" for index in range(8)]
    assert read_column(tmp_path, "label:y").tolist() == ["1.0"] * 5 + [None] + ["1.0"] * 2
    assert read_column(tmp_path, "label:scan_id").tolist() == [None] * 8
