from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scanlearn.archive import layout, shards
from scanlearn.archive.layout import PATHS_FILE, Origin, PackedScan
from scanlearn.archive.lists import read_paths
from scanlearn.archive.reader import Archive
from scanlearn.archive.summary import PAGE_FILE, SHEET_FILE
from scanlearn.archive.withdraw import withdraw
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.errors import ScanlearnError
from scanlearn.files import features_prefix
from scanlearn.locks import PartialFolder
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings
from scanlearn.packing.sources import open_archive

SMALL = PackSettings(canvas=32, channels=1, workers=1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten scans of noise of five patients, with a table, in shards of four scans."""
    monkeypatch.setattr(layout, "MAX_SCANS_PER_BATCH", 2)
    monkeypatch.setattr(shards, "BATCHES_PER_SHARD", 2)
    rng = np.random.default_rng(0)
    folder = tmp_path / "site"
    folder.mkdir()
    rows = ["path,patient,y"]
    for number in range(10):
        pixels = rng.integers(0, 256, (32, 32)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(f"{number}.png,p{number % 5},label{number}")
    (folder / "t.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def archive(folder: Path, tmp_path: Path) -> Archive:
    return pack(folder / "t.csv", tmp_path / "a", settings=SMALL)


def pixels_of(folder: Path, number: int) -> bytes:
    return np.asarray(Image.open(folder / f"{number}.png")).tobytes()


def bytes_on_disk(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.rglob("*") if file.is_file())


def test_withdrawn_patient_is_gone_from_rows_labels_and_disk(
    folder: Path, archive: Archive
) -> None:
    assert pixels_of(folder, 6) in bytes_on_disk(archive.path)
    gone = archive.patients[1]
    rest = withdraw(archive.path, ["p1"], issuer="site")
    assert len(rest) == 8
    assert rest.labels("y").tolist() == [f"label{n}" for n in range(10) if n not in (1, 6)]
    assert gone not in rest.patients
    batch = rest.gather(np.arange(8))
    kept = [n for n in range(10) if n not in (1, 6)]
    assert [one.numpy().tobytes() for one in batch.pixels] == [pixels_of(folder, n) for n in kept]
    left = bytes_on_disk(rest.path)
    assert pixels_of(folder, 1) not in left
    assert pixels_of(folder, 6) not in left
    assert b"label6" not in left
    assert sorted(read_paths(rest.path).values()) == sorted(f"{n}.png" for n in kept)
    assert (rest.path / PATHS_FILE).stat().st_mode & 0o077 == 0


def test_withdrawn_archive_says_so_and_counts_like_one_without_the_patient(
    folder: Path, archive: Archive, tmp_path: Path
) -> None:
    table = (folder / "t.csv").read_text().splitlines()
    others = [line for line in table if ",p1," not in line and ",p3," not in line]
    (folder / "t.csv").write_text("\n".join(others) + "\n")
    without = pack(folder / "t.csv", tmp_path / "b", settings=SMALL)
    rest = withdraw(archive.path, ["p1", "p3"], issuer="site")
    for key in ("content_hash", "mean", "std", "scans", "patients"):
        assert rest.info[key] == without.info[key], key
    assert rest.content_hash != archive.content_hash
    found = rest.info["withdrawn"]
    assert (found["patients"], found["scans"]) == (2, 4)


def test_shards_without_the_patient_are_not_touched(archive: Archive) -> None:
    whole = {shard["file"]: shard for shard in archive.info["shards"]}
    inodes = {name: (archive.path / name).stat().st_ino for name in whole}
    rest = withdraw(archive.path, ["p4"], issuer="site")  # Rows 4 and 9: the second and third.
    names = [shard["file"] for shard in rest.info["shards"]]
    assert names[0] == "shards/00000.arrow"
    assert (rest.path / names[0]).stat().st_ino == inodes[names[0]]
    assert set(names[1:]).isdisjoint(whole)
    assert sorted(f"shards/{file.name}" for file in (rest.path / "shards").iterdir()) == sorted(
        names
    )


def test_contact_sheet_and_page_no_longer_show_the_patient(archive: Archive) -> None:
    before = (archive.path / SHEET_FILE).read_bytes()
    rest = withdraw(archive.path, ["p1"], issuer="site")
    assert (rest.path / SHEET_FILE).read_bytes() != before
    assert (rest.path / PAGE_FILE).is_file()


def test_withdrawing_again_says_so_and_changes_nothing(
    archive: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    first = withdraw(archive.path, ["p1"], issuer="site")
    again = withdraw(archive.path, ["p1"], issuer="site")
    assert again.info == first.info
    assert "were withdrawn before" in capsys.readouterr().out


def test_patients_can_be_named_as_the_archive_stores_them(archive: Archive) -> None:
    assert len(withdraw(archive.path, [str(archive.patients[2])])) == 8


def test_file_can_be_named_where_patients_are_unknown(
    make_scans: Callable[..., Path], tmp_path: Path
) -> None:
    archive = pack(make_scans(3), tmp_path / "a", settings=SMALL)
    rest = withdraw(archive.path, ["scan001.png"])
    assert sorted(read_paths(rest.path).values()) == ["scan000.png", "scan002.png"]


@pytest.mark.parametrize("issuer", [None, "elsewhere"])
def test_unknown_patient_is_one_clear_sentence(archive: Archive, issuer: str | None) -> None:
    before = archive.info
    with pytest.raises(ScanlearnError, match=r"holds no patient 'p1' of issuer .*issuer="):
        withdraw(archive.path, ["p1"], issuer=issuer)
    assert Archive(archive.path).info == before


def test_archive_is_never_left_without_a_scan(archive: Archive) -> None:
    with pytest.raises(ScanlearnError, match="every scan is of these patients"):
        withdraw(archive.path, [f"p{number}" for number in range(5)], issuer="site")
    assert len(Archive(archive.path)) == 10


def test_other_key_is_one_clear_sentence(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    key.write_text("f" * 64)
    key.chmod(0o600)
    monkeypatch.setenv("SCANLEARN_KEY", str(key))
    with pytest.raises(ScanlearnError, match="hashed under another key"):
        withdraw(archive.path, ["p1"], issuer="site")


def test_archive_without_a_key_is_asked_by_stored_names(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a", shape=(1, 2, 2), dtype=np.uint8) as writer:
        for patient in "abc":
            writer.add(PackedScan(np.zeros((1, 2, 2), np.uint8)), Origin(patient, patient))
    assert withdraw(tmp_path / "a", ["b"]).scan_ids.tolist() == ["a", "c"]


@pytest.mark.parametrize("where", ["before", "after"])
def test_crash_leaves_the_old_archive_or_the_new_one_and_the_next_change_tidies_up(
    folder: Path, archive: Archive, crash: Callable[[str], Any], where: str
) -> None:
    whole = archive.content_hash
    with crash(where):
        withdraw(archive.path, ["p1"], issuer="site")
    left = Archive(archive.path)
    assert (left.content_hash == whole) == (where == "before")
    expected = [n for n in range(10) if where == "before" or n not in (1, 6)]
    batch = left.gather(np.arange(len(expected)))
    assert [one.numpy().tobytes() for one in batch.pixels] == [
        pixels_of(folder, n) for n in expected
    ]
    rest = withdraw(archive.path, ["p1"], issuer="site")
    assert len(rest) == 8
    assert pixels_of(folder, 6) not in bytes_on_disk(rest.path)
    names = {shard["file"] for shard in rest.info["shards"]}
    assert {f"shards/{file.name}" for file in (rest.path / "shards").iterdir()} == names
    assert [file.name for file in rest.path.glob("manifest*")] == [rest.table.name]
    assert "6.png" not in read_paths(rest.path).values()


def test_copies_in_the_cache_and_what_stopped_commands_left_are_removed_and_said(
    folder: Path,
    archive: Archive,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("SCANLEARN_CACHE", str(cache))
    other = tmp_path / "elsewhere"
    other.mkdir()
    shutil.copy(folder / "0.png", other)
    (other / "t.csv").write_text("path,patient\n0.png,p1\n")
    copy = open_archive(folder / "t.csv", settings=SMALL)
    namesake = open_archive(other / "t.csv", settings=SMALL)  # Of another issuer.
    partial = PartialFolder(cache / "half")
    partial.leave()
    (cache / "features").mkdir()
    files = [
        cache / "features" / f"{prefix}0123.npy"
        for prefix in (*map(features_prefix, (archive.content_hash, namesake.content_hash)), "")
    ]
    for file in files:
        file.touch()
    names = (".a.added", "..a.added.partial", ".a.partial-0123abcd-1.0")
    aside = [tmp_path / name for name in names]
    for left in aside:
        left.mkdir()
    gone = [*aside, copy.path, partial.path, files[0], files[2]]
    capsys.readouterr()
    withdraw(archive.path, ["p1"], issuer="site")
    said = capsys.readouterr().out
    assert all(f"left: {path}\n" in said and not path.exists() for path in gone)
    assert {path.name for path in cache.iterdir()} == {"features", namesake.path.name}
    assert list((cache / "features").iterdir()) == [files[1]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "cache", "elsewhere", "site"]
