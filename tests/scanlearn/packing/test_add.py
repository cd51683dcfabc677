from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scanlearn.archive import changes
from scanlearn.archive.layout import PATHS_FILE, Origin, PackedScan
from scanlearn.archive.lists import read_paths
from scanlearn.archive.reader import Archive
from scanlearn.archive.summary import PAGE_FILE
from scanlearn.archive.withdraw import withdraw
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.errors import ScanlearnError
from scanlearn.locks import BusyError
from scanlearn.packing.add import add
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings

SMALL = PackSettings(canvas=32, workers=1)


def draw(folder: Path, *numbers: int, dtype: type = np.uint8) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32)).astype(dtype)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return draw(tmp_path / "site", 0, 1, 2)


@pytest.fixture
def archive(folder: Path, tmp_path: Path) -> Archive:
    return pack(folder, tmp_path / "a", settings=SMALL)


def test_new_files_come_behind_those_that_are_there(folder: Path, archive: Archive) -> None:
    first = (archive.path / "shards/00000.arrow").stat()
    draw(folder, 3, 4)
    grown = add(archive.path, folder)
    assert [shard["scans"] for shard in grown.info["shards"]] == [3, 2]
    found = (grown.path / "shards/00000.arrow").stat()
    assert (found.st_ino, found.st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    expected = [np.asarray(Image.open(folder / f"{n}.png")) for n in range(5)]
    np.testing.assert_array_equal(grown.gather(np.arange(5)).pixels[:, 0].numpy(), expected)
    assert grown.paths().tolist() == [f"{n}.png" for n in range(5)]
    assert (grown.path / PATHS_FILE).stat().st_mode & 0o077 == 0
    assert (grown.path / PAGE_FILE).is_file()
    assert sorted(file.name for file in archive.path.parent.iterdir()) == ["a", "site"]


def test_grown_archive_counts_like_one_packed_at_once(
    folder: Path, archive: Archive, tmp_path: Path
) -> None:
    draw(folder, 3, 4)
    grown = add(archive.path, folder)
    whole = pack(folder, tmp_path / "b", settings=SMALL)
    for key in ("content_hash", "mean", "std", "scans", "patients", "notes", "rejected"):
        assert grown.info[key] == whole.info[key], key
    assert grown.content_hash != archive.content_hash


def test_source_without_a_new_file_changes_nothing(
    folder: Path, archive: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add(archive.path, folder).info == archive.info
    assert "holds all files" in capsys.readouterr().out


def test_files_set_aside_are_tried_again(folder: Path, tmp_path: Path) -> None:
    (folder / "3.png").write_text("no picture")
    (folder / "4.png").touch()
    archive = pack(folder, tmp_path / "a", settings=SMALL)
    assert archive.num_rejected == 2
    draw(folder, 3)
    grown = add(archive.path, folder)
    assert len(grown) == 4
    assert grown.num_rejected == 1
    paths = read_paths(grown.path)
    with (grown.path / "rejected.csv").open(newline="") as file:
        assert [paths[row["scan_id"]] for row in csv.DictReader(file)] == ["4.png"]


def test_labels_of_a_table_that_has_others_are_blank_where_there_are_none(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "t.csv").write_text("path,patient,y\n0.png,a,1\n1.png,b,0\n")
    archive = pack(folder / "t.csv", tmp_path / "a", settings=SMALL)
    (folder / "t.csv").write_text("path,patient,z\n2.png,a,5\n")
    grown = add(archive.path, folder / "t.csv")
    assert grown.label_columns == ("y", "z")
    assert grown.labels("y").tolist() == ["1", "0", None]
    assert grown.labels("z").tolist() == [None, None, "5"]
    assert grown.patients[2] == grown.patients[0]
    assert grown.info["patients"] == 2


def test_withdrawn_patient_does_not_come_back(folder: Path, tmp_path: Path) -> None:
    (folder / "t.csv").write_text("path,patient\n0.png,a\n1.png,b\n")
    archive = pack(folder / "t.csv", tmp_path / "a", settings=SMALL)
    withdraw(archive.path, ["a"], issuer="site")
    (folder / "t.csv").write_text("path,patient\n0.png,a\n1.png,b\n2.png,c\n")
    grown = add(archive.path, folder / "t.csv")
    assert grown.paths().tolist() == ["1.png", "2.png"]
    assert grown.info["withdrawn"]["patients"] == 1


def test_withdrawn_patient_whose_scans_are_all_there_is_new_adds_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "t.csv").write_text("path,patient\n0.png,a\n1.png,b\n")
    archive = pack(folder / "t.csv", tmp_path / "a", settings=SMALL)
    rest = withdraw(archive.path, ["a"], issuer="site")
    assert add(archive.path, folder / "t.csv").content_hash == rest.content_hash
    assert "withdrawn" in capsys.readouterr().out
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "site"]


def test_equal_paths_of_another_source_are_refused(archive: Archive, tmp_path: Path) -> None:
    other = draw(tmp_path / "other", 2, 7)
    with pytest.raises(ScanlearnError, match="1 of its files have the same paths"):
        add(archive.path, other)


def test_other_source_may_be_added(archive: Archive, tmp_path: Path) -> None:
    other = draw(tmp_path / "other" / "deep", 7).parent
    assert add(archive.path, other).paths().tolist()[-1] == "deep/7.png"


def test_deep_scans_do_not_fit_into_8_bits(folder: Path, archive: Archive) -> None:
    draw(folder, 3, dtype=np.uint16)
    with pytest.raises(ScanlearnError, match="pack them into an archive of their own"):
        add(archive.path, folder)
    assert Archive(archive.path).info == archive.info


def test_8_bits_fit_into_a_deep_archive(tmp_path: Path) -> None:
    folder = draw(tmp_path / "site", 0, dtype=np.uint16)
    archive = pack(folder, tmp_path / "a", settings=SMALL)
    grown = add(archive.path, draw(folder, 1))
    assert grown.dtype == np.uint16
    assert grown.gather(np.arange(2)).value_range[1].tolist() == [0, 255]


def test_other_settings_are_refused(folder: Path, archive: Archive) -> None:
    draw(folder, 3)
    with pytest.raises(ScanlearnError, match="packed with canvas=32, not 16"):
        add(archive.path, folder, settings=PackSettings(canvas=16))
    assert len(add(archive.path, folder, settings=SMALL)) == 4


def test_archive_that_was_drawn_takes_no_files(folder: Path, tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a", shape=(1, 2, 2), dtype=np.uint8) as writer:
        writer.add(PackedScan(np.zeros((1, 2, 2), np.uint8)), Origin("s", "p"))
    with pytest.raises(ScanlearnError, match="was not packed from files"):
        add(tmp_path / "a", folder)


@pytest.mark.parametrize("where", ["before", "after"])
def test_crash_leaves_the_old_archive_or_the_new_one_and_adding_again_ends_alike(
    folder: Path, archive: Archive, crash: Callable[[str], Any], where: str
) -> None:
    draw(folder, 3, 4)
    with crash(where):
        add(archive.path, folder)
    assert len(Archive(archive.path)) == (3 if where == "before" else 5)
    grown = add(archive.path, folder)
    assert len(grown) == 5
    assert len(list((grown.path / "shards").iterdir())) == 2
    assert sorted(read_paths(grown.path).values()) == [f"{n}.png" for n in range(5)]


def test_two_processes_do_not_change_an_archive_at_once(folder: Path, archive: Archive) -> None:
    draw(folder, 3)
    with changes.changing(archive.path), pytest.raises(BusyError, match="at work on it since"):
        add(archive.path, folder)
