from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scanlearn.archive.layout import Layout, Origin, PackedScan, Spacing, ValueRange, is_archive
from scanlearn.archive.reader import Archive, ShardIndex, open_shards, window_over
from scanlearn.archive.shards import ShardWriter
from scanlearn.archive.withdraw import withdraw
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.errors import ScanlearnError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with ArchiveWriter(tmp_path / "a", shape=(1, 2, 2), dtype=np.uint8) as writer:
        writer.add(PackedScan(np.zeros((1, 2, 2), np.uint8)), Origin("s", "p"))
    return tmp_path / "a"


def test_folder_without_an_archive_is_one_clear_sentence(tmp_path: Path) -> None:
    assert not is_archive(tmp_path)
    with pytest.raises(ScanlearnError, match=r"is not an archive \(it holds no archive\.json\)"):
        Archive(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": "x"}', "no json"])
def test_description_that_is_none_is_one_clear_sentence(path: Path, text: str) -> None:
    (path / "archive.json").write_text(text)
    with pytest.raises(ScanlearnError, match=r"archive\.json: does not describe"):
        Archive(path)


def test_archive_of_a_later_release_says_so(path: Path) -> None:
    info = json.loads((path / "archive.json").read_text())
    (path / "archive.json").write_text(json.dumps(info | {"format_version": 3}))
    with pytest.raises(ScanlearnError, match=r"archive format 3, .* up to 2;"):
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


SHAPE = (1, 4, 3)
NAMES = ("shards/00000.arrow", "shards/00001.arrow")


@pytest.fixture
def pixels(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 65536, (300, *SHAPE)).astype(np.uint16)


@pytest.fixture
def folder(tmp_path: Path, pixels: np.ndarray) -> Path:
    """Two shards, of 300 scans and of 1, as they are after scans came and went."""
    layout = Layout(SHAPE, np.dtype(np.uint16), has_mask=True)
    for kept, part in (((), pixels), ((300,), pixels[:1])):
        with closing(ShardWriter(tmp_path, layout, kept)) as writer:
            for index, one in enumerate(part):
                high, mask = ValueRange(0, index + 1), one[0] % 2 == 0
                scan = PackedScan(one, (0, 0, 4, 3), high, Spacing(1, 2), mask)
                writer.add(scan, Origin(str(index), "p"))
    return tmp_path


def index_of(folder: Path) -> ShardIndex:
    return open_shards([folder / name for name in NAMES])


def test_rows_of_all_shards_are_copied_in_any_order(folder: Path, pixels: np.ndarray) -> None:
    rows = np.array([300, 0, 299, 256, 255, 0])
    index = index_of(folder)
    assert index.masks is not None
    where = index.find(rows)
    taken = index.pixels.take(*where).view(np.uint16).reshape(6, *SHAPE)
    np.testing.assert_array_equal(taken, pixels[rows % 300])
    masks = index.masks.take(*where).view(np.bool_).reshape(6, 4, 3)
    np.testing.assert_array_equal(masks, pixels[rows % 300, 0] % 2 == 0)


def test_items_too_far_apart_for_one_window_are_copied_all_the_same(folder: Path) -> None:
    index = index_of(folder)
    rows = np.array([299, 3])
    apart = replace(index.pixels, window=None)
    np.testing.assert_array_equal(
        apart.take(*index.find(rows)), index.pixels.take(*index.find(rows))
    )
    assert apart.take(*index.find(rows[:0])).shape == (0, 24)
    assert window_over(0, 2**46, 2**20) is None


def test_small_columns_are_those_of_all_shards(folder: Path) -> None:
    index = index_of(folder)
    assert index.first_row.tolist() == [0, 256, 300]
    assert index.facts["value_range"][:, 1].tolist() == [*range(1, 301), 1]
    assert index.facts["spacing_mm"][0].tolist() == [1, 2]
    assert index.facts["valid_box"][300].tolist() == [0, 0, 4, 3]


def test_addresses_lie_in_the_memory_maps_of_the_files(folder: Path) -> None:
    index = index_of(folder)
    assert index.masks is not None
    starts = {*index.pixels.starts.tolist(), *index.masks.starts.tolist()}
    maps = Path("/proc/self/maps").read_text().splitlines()
    mapped = [line.split("-", 1) for line in maps if str(folder) in line]
    spans = [(int(low, 16), int(rest.split(" ", 1)[0], 16)) for low, rest in mapped]
    assert len(starts) == 6
    assert all(any(low <= start < high for low, high in spans) for start in starts)


def test_an_archive_without_some_scans_reads_as_one_that_never_had_them(
    draw_pictures: Callable[..., np.ndarray], write_archive: Callable[..., Archive]
) -> None:
    pixels, patients = draw_pictures(7), ["p", "q", "q", "r", "s", "t", "u"]
    whole = write_archive(pixels, "a", patients=patients)
    rest = whole.without([str(name) for name in whole.scan_ids[[1, 4]]])
    for archive in (rest, pickle.loads(pickle.dumps(rest))):
        assert len(archive) == 5
        assert archive.scan_ids.tolist() == whole.scan_ids[[0, 2, 3, 5, 6]].tolist()
        assert archive.patients.tolist() == whole.patients[[0, 2, 3, 5, 6]].tolist()
        batch = archive.gather(np.array([4, 1]))
        assert (batch.pixels.numpy() == pixels[[6, 2]]).all()
        assert batch.ids.tolist() == [4, 1]
        assert len(archive.facts) == 5
    twice = rest.without([str(rest.scan_ids[0])])
    assert (twice.gather(np.arange(4)).pixels.numpy() == pixels[[2, 3, 5, 6]]).all()
    assert len({whole.content_hash, rest.content_hash, twice.content_hash}) == 3
    with pytest.raises(AssertionError, match="out of range"):
        rest.gather(np.array([5]))
    with pytest.raises(ScanlearnError, match="holds no scan 'x'"):
        whole.without(["x"])
    with pytest.raises(ScanlearnError, match="no scan is left"):
        whole.without(whole.scan_ids.tolist())
