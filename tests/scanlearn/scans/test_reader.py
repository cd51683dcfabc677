from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scanlearn.core import ScanlearnError
from scanlearn.scans.archive import ArchiveWriter
from scanlearn.scans.reader import Archive, is_archive
from scanlearn.scans.withdrawal import withdraw


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with ArchiveWriter(tmp_path / "a", shape=(1, 2, 2), dtype=np.uint8) as writer:
        writer.add(np.zeros((1, 2, 2), np.uint8), scan_id="s", patient="p")
    return tmp_path / "a"


def test_folder_without_an_archive_is_one_clear_sentence(tmp_path: Path) -> None:
    assert not is_archive(tmp_path)
    with pytest.raises(ScanlearnError, match=r"is not an archive \(it holds no archive\.json\)"):
        Archive(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": "x"}', "no json"])
def test_description_that_is_none_is_one_clear_sentence(path: Path, text: str) -> None:
    (path / "archive.json").write_text(text)
    with pytest.raises(ScanlearnError, match="not the description of an archive"):
        Archive(path)


def test_archive_of_a_later_release_says_so(path: Path) -> None:
    info = json.loads((path / "archive.json").read_text())
    (path / "archive.json").write_text(json.dumps(info | {"format_version": 3}))
    with pytest.raises(ScanlearnError, match="has archive format 3, this release reads up to 2"):
        Archive(path)


@pytest.mark.parametrize("name", ["shards/00000.arrow", "manifest.parquet"])
def test_missing_or_cut_short_part_is_found_when_it_is_opened(path: Path, name: str) -> None:
    whole = (path / name).read_bytes()
    (path / name).write_bytes(whole[:-1])
    with pytest.raises(ScanlearnError, match="missing or cut short"):
        Archive(path)
    (path / name).unlink()
    with pytest.raises(ScanlearnError, match="missing or cut short"):
        Archive(path)


def write_version_1(path: Path) -> np.ndarray:
    """Writes an archive as the first format had it and returns its pixels."""
    pixels = np.arange(5 * 4, dtype=np.uint8).reshape(5, 1, 2, 2)
    tensors = pa.fixed_shape_tensor(pa.uint8(), (1, 2, 2))

    def fixed(values: np.ndarray) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])

    def batch(rows: slice) -> pa.RecordBatch:
        part, number = pixels[rows], len(pixels[rows])
        strings = pa.array(["p", "q", "p", "r", "r"][rows], pa.string())
        columns = {
            "pixels": pa.ExtensionArray.from_storage(tensors, fixed(part.reshape(number, 4))),
            "valid_box": fixed(np.tile(np.array([0, 0, 2, 1], np.int32), (number, 1))),
            "spacing_mm": fixed(np.ones((number, 2), np.float32)),
            "value_range": fixed(np.tile(np.array([0, 255], np.float32), (number, 1))),
            "scan_id": strings,
            "patient": strings,
        }
        return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))

    (path / "shards").mkdir(parents=True)
    with pa.ipc.new_file(path / "shards/00000.arrow", batch(slice(0)).schema) as writer:
        for rows in (slice(0, 4), slice(4, 5)):
            writer.write_batch(batch(rows))
    names = ["a", "b", "c", "d", "e"]
    labels = ["1", None, "0", "1", "1"]
    table = {"scan_id": names, "patient": ["p", "q", "p", "r", "r"], "label:y": labels}
    pq.write_table(pa.table(table), path / "manifest.parquet")
    (path / "rejected.csv").write_text("path,reason\n")
    parts = {
        name: (path / name).stat().st_size for name in ("shards/00000.arrow", "manifest.parquet")
    }
    info = {
        "format_version": 1, "shape": [1, 2, 2], "dtype": "uint8", "has_mask": False,
        "patients_known": True, "synthetic_phantom": False, "label_columns": ["y"],
        "source_hash": "", "settings": {}, "scans": 5, "patients": 3, "rejected": 0,
        "mean": [0.5], "std": [0.25], "content_hash": "0" * 64,
        "manifest": {"file": "manifest.parquet", "bytes": parts["manifest.parquet"]},
        "shards": [
            {"file": "shards/00000.arrow", "bytes": parts["shards/00000.arrow"], "scans": 5}
        ],
    }  # fmt: skip
    (path / "archive.json").write_text(json.dumps(info))
    return pixels


def test_version_1_is_read(tmp_path: Path) -> None:
    pixels = write_version_1(tmp_path / "old")
    archive = Archive(tmp_path / "old")
    rows = np.array([4, 0, 3])
    batch = archive.gather(rows)
    np.testing.assert_array_equal(batch.pixels.numpy(), pixels[rows])
    assert batch.valid_box.tolist() == [[0, 0, 2, 1]] * 3
    assert archive.patients.tolist() == ["p", "q", "p", "r", "r"]
    assert archive.labels("y").tolist() == ["1", None, "0", "1", "1"]


def test_version_1_cannot_be_changed(tmp_path: Path) -> None:
    write_version_1(tmp_path / "old")
    with pytest.raises(ScanlearnError, match="earlier release and can be read but not changed"):
        withdraw(tmp_path / "old", ["p"])
