from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from scanlearn.archive import layout, shards
from scanlearn.archive.layout import Layout, Origin, PackedScan, scans_per_batch
from scanlearn.archive.shards import ShardWriter

SHAPE = (1, 4, 3)
LAYOUT = Layout(SHAPE, np.dtype(np.uint8), label_columns=("y",))


def scan(index: int) -> tuple[PackedScan, Origin]:
    return PackedScan(np.full(SHAPE, index % 256, np.uint8)), Origin(
        f"s{index}", "p", {"y": "1"}, spelling="z"
    )


def test_writer_says_when_a_shard_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "MAX_SCANS_PER_BATCH", 2)
    monkeypatch.setattr(shards, "BATCHES_PER_SHARD", 3)
    with closing(ShardWriter(tmp_path, LAYOUT)) as writer:
        assert [writer.add(*scan(index)) for index in range(13)] == ([False] * 5 + [True]) * 2 + [
            False
        ]
    assert writer.counts == [6, 6, 1]


def test_writer_goes_on_after_shards_that_are_there(tmp_path: Path) -> None:
    with closing(ShardWriter(tmp_path, LAYOUT, kept=(7, 9))) as writer:
        writer.add(*scan(0))
    assert writer.counts == [7, 9, 1]
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["00002.arrow"]


def test_shard_holds_all_there_is_of_a_scan(tmp_path: Path) -> None:
    with closing(ShardWriter(tmp_path, LAYOUT)) as writer:
        writer.add(*scan(5))
    with pa.memory_map(str(tmp_path / "shards/00000.arrow")) as source:
        (found,) = pa.ipc.open_file(source).read_all().drop_columns(["pixels"]).to_pylist()
    sums = found.pop("sums")
    assert sums == pytest.approx([12, 12 * 5 / 255, 12 * (5 / 255) ** 2])
    assert len(found.pop("digest")) == 32
    assert np.isnan(found.pop("spacing_mm")).all()
    assert found == {
        "valid_box": [0, 0, 4, 3],
        "value_range": [0, 255],
        "scan_id": "s5",
        "patient": "p",
        "spelling": "z",
        "label:y": "1",
    }


@pytest.mark.parametrize(
    ("shape", "dtype", "rows"),
    [
        ((1, 226, 226), np.uint8, 256),
        ((3, 1024, 1024), np.uint16, 16),
        ((3, 9999, 9999), np.uint16, 1),
    ],
)
def test_batches_of_large_scans_are_smaller(
    shape: tuple[int, int, int], dtype: type, rows: int
) -> None:
    assert scans_per_batch(shape, np.dtype(dtype)) == rows
