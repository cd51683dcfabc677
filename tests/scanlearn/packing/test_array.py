from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scanlearn.archive.layout import PATHS_FILE, REJECTED_FILE
from scanlearn.archive.reader import Archive
from scanlearn.errors import ScanlearnError
from scanlearn.locks import Lock, beside
from scanlearn.packing.array import PartsFolder, begin, cut, pack_array, work_on
from scanlearn.packing.pack import manifest_of, pack, plan_job
from scanlearn.packing.settings import PackArraySettings, PackSettings

SMALL = {"canvas": 16, "workers": 1, "summary": False}


def in_parts(parts: int, **others: object) -> PackArraySettings:
    return PackArraySettings.model_validate({**SMALL, "parts": parts, **others})


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of seven files, of which one is no picture and one has 16 bits."""
    folder = tmp_path / "site"
    folder.mkdir()
    for number in range(7):
        deep = np.random.default_rng(number).integers(0, 2**16, (16, 12 + number))
        pixels = deep.astype(np.uint16) if number == 5 else (deep >> 8).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "3.png").write_text("no picture")
    with (folder / "scans.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "patient", "label"))
        for number in range(7):
            writer.writerow((f"{number}.png", f"p{number // 2}", number % 2))
    return folder / "scans.csv"


def begun(table: Path, target: Path) -> PartsFolder:
    """Three parts that are still to be packed: rows 0 to 2, 2 to 4 and 4 to 7."""
    folder, settings = PartsFolder(target.parent / f".{target.name}.parts"), in_parts(3)
    begin(folder, manifest_of(table, settings), target, settings)
    return folder


def lines(archive: Archive, name: str) -> list[str]:
    return (archive.path / name).read_text().splitlines()


@pytest.mark.parametrize("parts", [2, 4, 50])
def test_parts_are_joined_to_the_archive_of_one_pack(
    table: Path, tmp_path: Path, parts: int
) -> None:
    whole = pack(table, tmp_path / "whole", settings=PackSettings.model_validate(SMALL))
    joined = Archive(pack_array(table, tmp_path / "joined", in_parts(parts)))
    assert joined.content_hash == whole.content_hash
    # A shard, and a group of rows of the table, ends with its part; no other entry tells of it.
    apart = {"shards", "manifest", "sha256"}
    assert {k: v for k, v in joined.info.items() if k not in apart} == {
        k: v for k, v in whole.info.items() if k not in apart
    }
    assert len(joined.info["shards"]) > 1
    for name in (PATHS_FILE, REJECTED_FILE):
        assert lines(joined, name) == lines(whole, name)
    assert (joined.path / PATHS_FILE).stat().st_mode & 0o077 == 0
    np.testing.assert_array_equal(
        joined.gather(np.arange(6)).pixels.numpy(), whole.gather(np.arange(6)).pixels.numpy()
    )


def test_parts_hold_about_as_many_scans_each(table: Path) -> None:
    manifest = manifest_of(table, PackSettings())
    job = plan_job(manifest, in_parts(1), source_hash="")
    assert cut(job, 3) == (range(2), range(2, 4), range(4, 7))
    assert cut(job, 7) == cut(job, 50) == tuple(range(row, row + 1) for row in range(7))
    job.headers.num_frames[1] = 100
    assert cut(job, 2) == (range(1), range(1, 7))


STUCK = """
import sys, time
from pathlib import Path
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.packing.array import pack_array
from scanlearn.packing.settings import PackArraySettings
add, count = ArchiveWriter.add, 0
def slow(writer, *given):
    global count
    count += 1
    if count == 3:
        print("stuck", flush=True)
        time.sleep(60)
    return add(writer, *given)
ArchiveWriter.add = slow
settings = PackArraySettings(canvas=16, workers=1, summary=False, parts=3)
pack_array(sys.argv[1], sys.argv[2], settings)
"""


def test_a_killed_part_is_packed_again_and_no_other(
    table: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-c", STUCK, str(table), str(tmp_path / "a")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("stuck" in line for line in process.stdout)
        process.send_signal(signal.SIGKILL)
    folder = PartsFolder(tmp_path / ".a.parts")
    assert [*folder.path.glob("rows-*")] == [folder.part(range(2))]
    before = next(folder.path.glob("rows-*/shards/*")).stat()
    joined = Archive(pack_array(table, tmp_path / "a", in_parts(3)))
    assert capfd.readouterr().out.count("packed the part") == 2
    first = (joined.path / "shards/00000.arrow").stat()
    assert (first.st_ino, first.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    whole = pack(table, tmp_path / "whole", settings=PackSettings.model_validate(SMALL))
    assert joined.content_hash == whole.content_hash
    # Run once more, it finds the archive and removes what the tasks would have printed.
    assert pack_array(table, tmp_path / "a", in_parts(3)) == joined.path
    assert not folder.path.exists()


def test_parts_that_others_pack_are_left_to_them(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "a"
    part = begun(table, target).part(range(2, 4))
    lock = Lock(beside(part), part)
    pack_array(table, target, in_parts(3))
    assert "1 of 3 parts are not packed; the last command joins all" in capsys.readouterr().out
    assert not target.exists()
    lock.release()
    assert len(Archive(pack_array(table, target, in_parts(3)))) == 6


def test_parts_of_other_scans_are_not_joined(table: Path, tmp_path: Path) -> None:
    folder = begun(table, tmp_path / "a")
    part = folder.part(range(2))
    lock = Lock(beside(part), part)
    pack_array(table, tmp_path / "a", in_parts(3))
    lock.release()
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(table.parent / "6.png")
    joined = Archive(pack_array(table, tmp_path / "a", in_parts(3)))
    assert not joined.gather(np.array([5])).pixels.numpy().any()


def test_a_damaged_part_is_named(table: Path, tmp_path: Path) -> None:
    folder = begun(table, tmp_path / "a")
    part = folder.part(range(4, 7))
    lock = Lock(beside(part), part)
    pack_array(table, tmp_path / "a", in_parts(3))
    lock.release()
    (folder.part(range(2)) / "shards/00000.arrow").write_bytes(b"")
    with pytest.raises(ScanlearnError, match="rows-0-2: is damaged"):
        pack_array(table, tmp_path / "a", in_parts(3))


@pytest.mark.long
def test_tasks_of_a_cluster_pack_the_parts(table: Path, tmp_path: Path) -> None:
    submitit = pytest.importorskip("submitit")
    target = pack_array(table, tmp_path / "a", in_parts(2, launcher="local"))
    logs = tmp_path / ".a.parts/tasks"
    end = time.monotonic() + 300
    while len(list(logs.glob("*_result.pkl"))) < 2:
        assert time.monotonic() < end, "".join(file.read_text() for file in logs.glob("*.err"))
        time.sleep(0.1)
    numbers = {file.name.split("_")[0] for file in logs.glob("*_result.pkl")}
    assert [submitit.LocalJob(logs, number).result() for number in numbers] == [str(target)] * 2
    whole = pack(table, tmp_path / "whole", settings=PackSettings.model_validate(SMALL))
    assert Archive(target).content_hash == whole.content_hash


@pytest.mark.parametrize("name", [".", "job.pickle"])
def test_a_job_that_others_could_have_written_is_not_read(
    table: Path, tmp_path: Path, name: str
) -> None:
    folder = begun(table, tmp_path / "archive")
    place = folder.path / name
    place.chmod(0o777)
    with pytest.raises(ScanlearnError, match="others may write to it; remove"):
        work_on(folder.path, [range(2)])
    assert not (tmp_path / "archive").exists()
