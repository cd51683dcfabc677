from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from scanlearn.archive import layout, shards
from scanlearn.archive.layout import Origin, PackedScan, Spacing, ValueRange
from scanlearn.archive.reader import Archive
from scanlearn.archive.writer import ArchiveWriter, Checkpoint, drop_checkpoint, read_checkpoint
from scanlearn.errors import ScanlearnError
from scanlearn.locks import BusyError

SHAPE = (2, 6, 5)


def write(path: Path, pixels: np.ndarray, **settings: Any) -> Archive:
    shape = pixels.shape[1:]
    with ArchiveWriter(path, shape=shape, dtype=pixels.dtype, **settings) as writer:
        for index, one in enumerate(pixels):
            writer.add(PackedScan(one), Origin(f"s{index}", f"p{index // 2}"))
        return writer.close()


@pytest.fixture
def pixels(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (700, *SHAPE)).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_written_is_read_back(tmp_path: Path, pixels: np.ndarray, dtype: type) -> None:
    scans = pixels.astype(dtype) * (257 if dtype is np.uint16 else 1)
    archive = write(tmp_path / "a", scans)
    batch = archive.gather(np.arange(700))
    np.testing.assert_array_equal(batch.pixels.numpy(), scans)
    assert len(archive) == 700
    assert archive.shape == SHAPE
    assert archive.dtype == dtype
    assert archive.patients.tolist() == [f"p{index // 2}" for index in range(700)]
    assert archive.scan_ids.tolist() == [f"s{index}" for index in range(700)]


def test_everything_about_a_scan_survives(tmp_path: Path) -> None:
    mask = np.eye(6, 5, dtype=bool)
    zeros = np.zeros(SHAPE, np.uint8)
    columns = {"shape": SHAPE, "dtype": np.uint8, "label_columns": ("y", "patient")}
    with ArchiveWriter(tmp_path / "a", has_mask=True, **columns) as writer:
        writer.add(
            PackedScan(zeros, (1, 0, 5, 4), ValueRange(10, 20), Spacing(0.5, 0.25), mask),
            Origin("x y\n眼", "007", {"y": "1.0", "patient": "a"}),
        )
        writer.add(PackedScan(zeros, valid_box=(0, 0, 2, 2)), Origin("b", "7"))
        archive = writer.close()
    batch = archive.gather(np.array([1, 0]))
    assert batch.valid_box.tolist() == [[0, 0, 2, 2], [1, 0, 5, 4]]
    assert batch.spacing_mm[1].tolist() == [0.5, 0.25]
    assert batch.spacing_mm[0].isnan().all()
    assert batch.value_range.tolist() == [[0, 255], [10, 20]]
    assert batch.mask is not None
    np.testing.assert_array_equal(batch.mask[1].numpy(), mask)
    assert batch.mask[0].sum() == batch.mask[0, :2, :2].sum() == 4
    assert archive.labels("y").tolist() == [("1.0"), None]
    assert archive.labels("patient").tolist() == ["a", None]
    assert archive.scan_ids[0] == "x y\n眼"
    assert archive.patients.tolist() == ["007", "7"]


def test_archive_without_masks_gathers_none(tmp_path: Path, pixels: np.ndarray) -> None:
    assert write(tmp_path / "a", pixels[:3]).gather(np.array([0])).mask is None


def test_gather_takes_unsorted_and_repeated_rows(tmp_path: Path, pixels: np.ndarray) -> None:
    archive = write(tmp_path / "a", pixels)
    rows = np.array([699, 3, 3, 256, 255, 0, 699])
    batch = archive.gather(rows)
    np.testing.assert_array_equal(batch.pixels.numpy(), pixels[rows])
    assert batch.ids.tolist() == rows.tolist()


@pytest.mark.parametrize("rows", [[-1], [700], [0, 1_000_000]])
def test_row_out_of_range_is_an_assertion(
    tmp_path: Path, pixels: np.ndarray, rows: list[int]
) -> None:
    archive = write(tmp_path / "a", pixels)
    with pytest.raises(AssertionError, match="out of range"):
        archive.gather(np.array(rows))


def test_empty_batch_is_empty(tmp_path: Path, pixels: np.ndarray) -> None:
    batch = write(tmp_path / "a", pixels[:3]).gather(np.array([], np.int64))
    assert batch.pixels.shape == (0, *SHAPE)


def test_gathering_allocates_one_batch_and_no_more(tmp_path: Path) -> None:
    tracemalloc = pytest.importorskip("tracemalloc")
    scans = np.zeros((64, 1, 128, 128), np.uint8)
    archive = write(tmp_path / "a", scans)
    archive.gather(np.arange(64))
    tracemalloc.start()
    archive.gather(np.arange(64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert scans.nbytes <= peak < 1.1 * scans.nbytes


def test_same_scans_give_the_same_bytes(tmp_path: Path, pixels: np.ndarray) -> None:
    def digest(folder: Path) -> dict[str, str]:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        }

    first, second = (write(tmp_path / name, pixels) for name in "ab")
    assert digest(first.path) == digest(second.path)
    assert sorted(digest(first.path)) == [
        "archive.json", "manifest.parquet", "rejected.csv", "shards/00000.arrow",
    ]  # fmt: skip


def test_content_hash_follows_pixels_boxes_patients_and_order(
    tmp_path: Path, pixels: np.ndarray
) -> None:
    def hashed(name: str, scans: np.ndarray, patients: str = "pp", box: int = 6) -> str:
        with ArchiveWriter(tmp_path / name, shape=SHAPE, dtype=np.uint8) as writer:
            for one, patient in zip(scans, patients, strict=True):
                writer.add(PackedScan(one, valid_box=(0, 0, box, 5)), Origin(name, patient))
            return writer.close().content_hash

    two = pixels[:2]
    first = hashed("first", two)
    assert hashed("again", two) == first
    assert hashed("same patient under another name", two, "qq") == first
    others = [
        hashed("order", two[::-1]),
        hashed("two patients", two, "pq"),
        hashed("box", two, box=5),
        hashed("pixel", np.where(np.arange(5) == 2, two + 1, two).astype(np.uint8)),
    ]
    assert len({first, *others}) == 5


def test_several_shards_are_read_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAX_SCANS_PER_BATCH", 2)
    monkeypatch.setattr(shards, "BATCHES_PER_SHARD", 3)
    scans = np.arange(17, dtype=np.uint8).reshape(17, 1, 1, 1).repeat(4, axis=3)
    archive = write(tmp_path / "a", scans)
    assert [shard["scans"] for shard in archive.info["shards"]] == [6, 6, 5]
    rows = np.array([16, 0, 5, 6, 11, 12, 13])
    np.testing.assert_array_equal(archive.gather(rows).pixels.numpy(), scans[rows])


def test_any_arrow_reader_reads_a_shard(tmp_path: Path, pixels: np.ndarray) -> None:
    archive = write(tmp_path / "a", pixels)
    with pa.memory_map(str(archive.path / "shards/00000.arrow")) as source:
        table = pa.ipc.open_file(source).read_all()
    column = table["pixels"].combine_chunks()
    np.testing.assert_array_equal(column.to_numpy_ndarray(), pixels)
    assert table["scan_id"][3].as_py() == "s3"


def _gather_elsewhere(archive: Archive, queue: Any) -> None:
    queue.put(archive.gather(np.array([1])).pixels.numpy().tolist())


def test_archive_travels_by_pickle_and_reopens(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write(tmp_path / "a", pixels)
    archive.gather(np.array([0]))
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(pickle.dumps(Archive("a")))
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(again.gather(np.array([699])).pixels.numpy(), pixels[699:])
    assert len(pickle.dumps(archive)) < 1000


def test_forked_worker_reads_what_the_parent_opened(tmp_path: Path, pixels: np.ndarray) -> None:
    archive = write(tmp_path / "a", pixels)
    archive.gather(np.array([0]))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=_gather_elsewhere, args=(archive, queue))
    worker.start()
    assert queue.get(timeout=30) == [pixels[1].tolist()]
    worker.join()


def test_unknown_label_column_names_the_nearest(tmp_path: Path, pixels: np.ndarray) -> None:
    archive = write(tmp_path / "a", pixels[:2], label_columns=("pneumonia", "age"))
    with pytest.raises(ScanlearnError, match=r"did you mean 'pneumonia'\?.* pneumonia, age"):
        archive.labels("pnuemonia")


def test_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def write_and_fail() -> None:
        with ArchiveWriter(tmp_path / "a", shape=SHAPE, dtype=np.uint8) as writer:
            writer.add(PackedScan(np.zeros(SHAPE, np.uint8)), Origin("a", "p"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert not list(tmp_path.iterdir())


KILLED = """
import sys, time
import numpy as np
from scanlearn.archive.layout import Origin, PackedScan
from scanlearn.archive.writer import ArchiveWriter
writer = ArchiveWriter(sys.argv[1], shape=(1, 64, 64), dtype=np.uint8)
for index in range(600):
    writer.add(PackedScan(np.zeros((1, 64, 64), np.uint8)), Origin(str(index), "p"))
print("written", flush=True)
time.sleep(60)
"""


@pytest.mark.long
def test_killed_writer_leaves_no_archive_and_the_next_one_sweeps_up(
    tmp_path: Path, pixels: np.ndarray
) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "a")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "a").exists()
    assert {path.name for path in tmp_path.iterdir()} == {".a.partial", "..a.partial.lock"}
    write(tmp_path / "a", pixels[:2])
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_one_clear_sentence(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    class Full:
        closed = False

        def fail(self, *data: object) -> int:
            raise OSError(number, os.strerror(number))

        write = flush = close = fail  # What is still in a buffer cannot be written on closing.

    monkeypatch.setattr(shards, "_open_sink", lambda path: Full())
    with pytest.raises(ScanlearnError, match="disk is full; free some space"):
        write(tmp_path / "a", pixels)
    assert not list(tmp_path.iterdir())


def test_disk_that_fills_up_under_arrow_is_one_clear_sentence(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no device that is always full")
    open_sink = shards._open_sink
    monkeypatch.setattr(shards, "_open_sink", lambda path: open_sink(Path("/dev/full")))
    with pytest.raises(ScanlearnError, match="disk is full; free some space"):
        write(tmp_path / "a", pixels)
    assert not list(tmp_path.iterdir())


def test_target_that_holds_something_is_not_overwritten(tmp_path: Path, pixels: np.ndarray) -> None:
    (tmp_path / "note.txt").touch()
    with pytest.raises(ScanlearnError, match="something lies there already"):
        write(tmp_path, pixels)


def test_one_writer_at_a_time_fills_an_archive(tmp_path: Path, pixels: np.ndarray) -> None:
    with ArchiveWriter(tmp_path / "a", shape=SHAPE, dtype=np.uint8) as writer:
        writer.add(PackedScan(pixels[0]), Origin("a", "p"))
        with pytest.raises(BusyError, match=r"a: process .* has been at work on it since"):
            ArchiveWriter(tmp_path / "a", shape=SHAPE, dtype=np.uint8)
    assert len(Archive(tmp_path / "a")) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(("rows", "is_same"), [(slice(0, 1), True), (slice(5, 7), False)])
def test_an_archive_that_appears_meanwhile_is_kept_and_taken_for_ours_if_it_is_the_same(
    tmp_path: Path, pixels: np.ndarray, rows: slice, is_same: bool
) -> None:
    """As a copy from elsewhere may: no lock keeps it away."""
    writer = ArchiveWriter(tmp_path / "a", shape=SHAPE, dtype=np.uint8)
    writer.add(PackedScan(pixels[0]), Origin("0", "p"))
    other = write(tmp_path / "b", pixels[rows])
    other.path.rename(tmp_path / "a")
    if is_same:
        assert writer.close().content_hash == other.content_hash
    else:
        with pytest.raises(ScanlearnError, match="wrote another archive there"):
            writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_rejected_scans_are_listed_and_counted(tmp_path: Path, pixels: np.ndarray) -> None:
    with ArchiveWriter(tmp_path / "a", shape=SHAPE, dtype=np.uint8) as writer:
        writer.reject('new\nline,"quoted".png', "file is empty")
        writer.add(PackedScan(pixels[0]), Origin("a", "p"))
    archive = Archive(tmp_path / "a")
    assert archive.num_rejected == 1
    text = (archive.path / "rejected.csv").read_text("utf-8")
    assert text == 'scan_id,reason\n"new\nline,""quoted"".png",file is empty\n'


def test_mean_and_std_are_those_of_the_unit_range(tmp_path: Path, pixels: np.ndarray) -> None:
    archive = write(tmp_path / "a", pixels)
    unit = pixels / 255
    np.testing.assert_allclose(archive.mean, unit.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(archive.std, unit.std(axis=(0, 2, 3)), rtol=1e-10)


def test_opening_is_instant(tmp_path: Path, pixels: np.ndarray) -> None:
    path = write(tmp_path / "a", pixels).path
    start = time.perf_counter()
    Archive(path)
    assert time.perf_counter() - start < 0.1
    assert json.loads((path / "archive.json").read_text())["format_version"] == 2


HEADER = {"source_hash": "a", "shape": [1, 2, 2]}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    (tmp_path / "s0").write_bytes(b"12345")
    (tmp_path / "list").write_bytes(b"123")
    shards = [{"file": "s0", "bytes": 5, "scans": 2}]
    found = Checkpoint(HEADER, shards, {"list": 2}, {"n": 1}, {"num_done": 7})
    found.write(tmp_path)
    return found


def test_checkpoint_is_read_back(tmp_path: Path, checkpoint: Checkpoint) -> None:
    assert read_checkpoint(tmp_path, HEADER) == checkpoint


def test_later_checkpoint_takes_the_place_of_the_one_before(
    tmp_path: Path, checkpoint: Checkpoint
) -> None:
    replace(checkpoint, state={"num_done": 9}).write(tmp_path)
    found = read_checkpoint(tmp_path, HEADER)
    assert found is not None
    assert found.state == {"num_done": 9}


def test_checkpoint_of_another_archive_is_none(tmp_path: Path, checkpoint: Checkpoint) -> None:
    assert read_checkpoint(tmp_path, checkpoint.header | {"source_hash": "b"}) is None


@pytest.mark.usefixtures("checkpoint")
@pytest.mark.parametrize(("file", "content"), [("s0", b"1234"), ("list", b"1")])
def test_checkpoint_whose_files_are_cut_short_is_none(
    tmp_path: Path, file: str, content: bytes
) -> None:
    (tmp_path / file).write_bytes(content)
    assert read_checkpoint(tmp_path, HEADER) is None


@pytest.mark.usefixtures("checkpoint")
def test_folder_without_a_checkpoint_or_with_a_broken_one_has_none(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.json").write_text("{")
    assert read_checkpoint(tmp_path, HEADER) is None
    drop_checkpoint(tmp_path)
    assert read_checkpoint(tmp_path, HEADER) is None
