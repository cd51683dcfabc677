from __future__ import annotations

import csv
import hashlib
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from scanlearn.archive import layout, shards
from scanlearn.archive.identity import read_identities, source_name
from scanlearn.archive.layout import PATHS_FILE
from scanlearn.archive.lists import read_paths
from scanlearn.archive.reader import Archive
from scanlearn.errors import ScanlearnError
from scanlearn.packing import pack as pack_module
from scanlearn.packing import parallel as pool
from scanlearn.packing import prepare as prepare_module
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings

MakeScans = Callable[..., Path]
SMALL = PackSettings(canvas=32, workers=1)


def digest(archive: Archive) -> dict[str, str]:
    files = sorted(path for path in archive.path.rglob("*") if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rejected(archive: Archive) -> dict[str, str]:
    paths = read_paths(archive.path)
    with (archive.path / "rejected.csv").open(newline="", encoding="utf-8") as file:
        return {paths[row["scan_id"]]: row["reason"] for row in csv.DictReader(file)}


def names(archive: Archive) -> list[str]:
    """Path of each scan, with the number of a frame."""
    frames = (name.partition("#") for name in archive.scan_ids.tolist())
    return [
        f"{path}{mark}{frame}"
        for path, (_, mark, frame) in zip(archive.paths(), frames, strict=True)
    ]


def test_folder_is_packed_in_order(make_scans: MakeScans, tmp_path: Path) -> None:
    folder = make_scans(5)
    archive = pack(folder, tmp_path / "a", settings=SMALL)
    assert names(archive) == [f"scan{index:03d}.png" for index in range(5)]
    assert archive.shape == (1, 32, 32)
    batch = archive.gather(np.array([3]))
    assert batch.valid_box.tolist() == [[0, 0, 32, 27]]
    original = Image.open(folder / "scan003.png").resize((27, 32), Image.Resampling.BICUBIC)
    difference = batch.pixels[0, 0, :32, :27].numpy().astype(float) - np.asarray(original)
    assert np.abs(difference).max() <= 3
    assert not archive.patients_known
    assert not archive.synthetic_phantom


def test_table_gives_patients_and_raw_labels(make_scans: MakeScans, tmp_path: Path) -> None:
    folder = make_scans(3)
    rows = "scan000.png,007,1\nscan001.png,7,\nscan002.png,7,yes\n"
    (folder / "t.csv").write_text("path,patient,y\n" + rows)
    archive = pack(folder / "t.csv", tmp_path / "a", settings=SMALL)
    assert archive.patients_known
    whose = read_identities(source_name(folder))
    assert archive.patients.tolist() == [whose.patient(number) for number in ("007", "7", "7")]
    assert len(set(archive.patients)) == 2
    assert archive.labels("y").tolist() == ["1", None, "yes"]
    assert archive.info["patients"] == 2


def test_bad_scans_are_set_aside_with_their_reasons(
    make_scans: MakeScans, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_scans(4, suffix=".jpg")
    (folder / "empty.jpg").touch()
    (folder / "text\n1.jpg").write_text("no image")
    whole = (folder / "scan000.jpg").read_bytes()
    (folder / "short.jpg").write_bytes(whole[:-100])
    archive = pack(folder, tmp_path / "a", settings=SMALL)
    assert len(archive) == 4
    assert archive.num_rejected == 3
    reasons = rejected(archive)
    assert reasons["empty.jpg"] == "file is empty"
    assert reasons["text\n1.jpg"] == "is not a PNG, JPEG, TIFF, WebP or BMP image"
    assert "damaged" in reasons["short.jpg"]
    assert "3 scans could not be packed" in capsys.readouterr().err


def test_rows_that_cannot_be_used_are_set_aside(make_scans: MakeScans, tmp_path: Path) -> None:
    folder = make_scans(4)
    rows = "scan000.png,a\nscan001.png,\n,b\nscan000.png,a\ngone.png,c\nscan002.png,d\n"
    rows += "scan003.png,e\nscan003.png,f\n"
    (folder / "t.csv").write_text("path,patient\n" + rows)
    archive = pack(folder / "t.csv", tmp_path / "a", settings=SMALL)
    assert names(archive) == ["scan000.png", "scan002.png"]
    assert rejected(archive) == {
        "scan001.png": "the table gives no patient",
        "": "the table gives no path",
        "gone.png": "file not found",
        "scan003.png": "rows 8 and 9 of the table give it to different patients",
    }


def test_nothing_readable_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.png").write_text("no image")
    with pytest.raises(ScanlearnError, match=r"none of 1 scans .*'a\.png': is not a PNG, JPEG"):
        pack(tmp_path / "scans", tmp_path / "a", settings=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["scans"]


def test_same_scans_give_the_same_bytes_with_one_or_two_processes(
    make_scans: MakeScans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_scans(40)
    (folder / "bad.png").write_text("no image")
    alone = pack(folder, tmp_path / "a", settings=PackSettings(canvas=96, workers=1))
    monkeypatch.setattr(pool, "_TIMED_ITEMS", 3)
    monkeypatch.setattr(pool, "_SECONDS_WORTH_PROCESSES", 0.0)
    together = pack(folder, tmp_path / "b", settings=PackSettings(canvas=96, workers=2))
    assert digest(together) == digest(alone)


def test_packing_again_returns_what_is_there(
    make_scans: MakeScans, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_scans(3)
    first = pack(folder, tmp_path / "a", settings=SMALL)
    before = (first.path / "archive.json").stat().st_mtime_ns
    again = pack(folder, tmp_path / "a", settings=PackSettings(canvas=32, workers=2))
    assert again.content_hash == first.content_hash
    assert (first.path / "archive.json").stat().st_mtime_ns == before
    assert "already holds these 3 scans" in capsys.readouterr().out


def test_other_archive_at_the_target_is_not_overwritten(
    make_scans: MakeScans, tmp_path: Path
) -> None:
    folder = make_scans(3)
    pack(folder, tmp_path / "a", settings=SMALL)
    with pytest.raises(ScanlearnError, match="the same scans packed with other settings"):
        pack(folder, tmp_path / "a", settings=PackSettings(canvas=16))
    with pytest.raises(ScanlearnError, match="already holds an archive of other scans"):
        pack(make_scans(2, "others"), tmp_path / "a", settings=SMALL)
    with pytest.raises(ScanlearnError, match="something lies there already"):
        pack(folder, folder, settings=SMALL)
    with pytest.raises(ScanlearnError, match="is an archive already"):
        pack(tmp_path / "a", tmp_path / "b", settings=SMALL)


def test_auto_channels_are_three_where_there_is_colour(
    make_scans: MakeScans, tmp_path: Path
) -> None:
    archive = pack(make_scans(3, colour=True), tmp_path / "a", settings=SMALL)
    assert archive.shape == (3, 32, 32)


def test_auto_channels_are_one_for_gray_scans_saved_as_colour(
    make_scans: MakeScans, tmp_path: Path
) -> None:
    folder = make_scans(3)
    gray = pack(folder, tmp_path / "gray", settings=SMALL)
    for path in folder.iterdir():
        Image.open(path).convert("RGBA").save(path)
    archive = pack(folder, tmp_path / "a", settings=SMALL)
    assert archive.content_hash == gray.content_hash
    assert archive.info["notes"] == {"alpha dropped": 3, "three stored channels made one": 3}


def test_channels_on_request(make_scans: MakeScans, tmp_path: Path) -> None:
    settings = PackSettings(canvas=32, channels=3)
    pixels = pack(make_scans(2), tmp_path / "a", settings=settings).gather(np.array([0])).pixels
    np.testing.assert_array_equal(pixels[0, 0], pixels[0, 2])


def test_eight_bit_scans_among_sixteen_bit_ones_keep_their_own_range(
    make_scans: MakeScans, tmp_path: Path
) -> None:
    folder = make_scans(2)
    shallow = np.asarray(Image.open(folder / "scan000.png"))
    Image.fromarray(shallow.astype(np.uint16) * 257).save(folder / "scan001.png")
    archive = pack(folder, tmp_path / "a", settings=PackSettings(canvas=64))
    assert archive.dtype == np.uint16
    batch = archive.gather(np.array([0, 1]))
    assert batch.value_range.tolist() == [[0, 255], [0, 65535]]
    unit = batch.pixels.float() / batch.value_range[:, 1, None, None, None]
    np.testing.assert_allclose(unit[0], unit[1], atol=1e-6)


def test_percentile_range_lies_inside_the_full_one(make_scans: MakeScans, tmp_path: Path) -> None:
    settings = PackSettings(canvas=64, intensity="percentile")
    archive = pack(make_scans(2), tmp_path / "a", settings=settings)
    low, high = archive.gather(np.array([0])).value_range[0].tolist()
    assert 0 < low < high < 255


def test_large_jpeg_packs_within_a_gray_level_of_the_slow_way(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 10, 3)).astype(np.uint8))
    large = coarse.resize((1000, 1200), Image.Resampling.BICUBIC)
    large.save(tmp_path / "scans" / "a.jpg", quality=95)
    archive = pack(tmp_path / "scans", tmp_path / "a", settings=PackSettings(canvas=128))
    slow = Image.open(tmp_path / "scans" / "a.jpg").resize((107, 128), Image.Resampling.BICUBIC)
    packed = archive.gather(np.array([0])).pixels[0, :, :, :107].numpy().transpose(1, 2, 0)
    difference = np.abs(packed.astype(float) - np.asarray(slow))
    assert difference.mean() < 1.0
    assert difference.max() < 8


def mixed_tree(tmp_path: Path, make_dicom: Callable[..., Path]) -> Path:
    """Two patients in DICOM files, a picture, a volume and a broken file."""
    rng = np.random.default_rng(0)
    deep = rng.integers(0, 4000, (3, 20, 16)).astype(np.uint16)
    one = {"PatientID": "ann", "SeriesInstanceUID": "1.2"}
    make_dicom(deep, "tree/a/IM1", WindowCenter=2000, WindowWidth=1000, **one)
    make_dicom(deep[0], "tree/a/IM2.dcm", PhotometricInterpretation="MONOCHROME1", **one)
    make_dicom(deep[1], "tree/b/1.2.77", PatientID="bob", IssuerOfPatientID="Mercy")
    broken = make_dicom(deep[1], "tree/b/short.dcm", PatientID="bob")
    broken.write_bytes(broken.read_bytes()[:-40])
    Image.fromarray(deep[0].astype(np.uint8)).save(tmp_path / "tree" / "p.png")
    voxels = np.zeros((16, 20, 4), np.int16)
    voxels[:, :, 1:3] = deep[:2].T.transpose(0, 1, 2)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2, 2, 5, 1])), tmp_path / "tree" / "v.nii.gz")
    (tmp_path / "tree" / "notes").write_text("seen on Monday")
    return tmp_path / "tree"


def test_tree_of_dicom_volumes_and_pictures_is_packed(
    make_dicom: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = pack(mixed_tree(tmp_path, make_dicom), tmp_path / "a", settings=SMALL)
    hashed = read_identities(source_name(tmp_path / "tree"))
    ann = hashed.patient("ann")
    whose = dict(zip(names(archive), archive.patients.tolist(), strict=True))
    assert whose == {
        "a/IM1#1": ann,
        "a/IM1#2": ann,
        "a/IM1#3": ann,
        "a/IM2.dcm": ann,
        "b/1.2.77": hashed.patient("bob", "Mercy"),
        "p.png": hashed.file("p.png"),
        "v.nii.gz#2": hashed.file("v.nii.gz"),
        "v.nii.gz#3": hashed.file("v.nii.gz"),
    }
    assert not archive.patients_known
    assert archive.dtype == np.uint16
    assert archive.labels("series").tolist() == [hashed.series("1.2")] * 4 + [None] * 4
    assert list(rejected(archive)) == ["b/short.dcm"]
    assert archive.info["notes"] == {"empty slices left out": 2}
    batch = archive.gather(np.arange(8))
    assert batch.value_range[0].tolist() == [1500, 2499]
    assert batch.value_range[5].tolist() == [0, 255]
    assert batch.spacing_mm[6].tolist() == [2, 2]
    said = capsys.readouterr().out
    assert "packed 8 scans of partly unknown patients" in said
    assert "empty slices left out: 2" in said


def test_mixed_tree_gives_the_same_bytes_with_processes_and_is_not_packed_twice(
    make_dicom: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = mixed_tree(tmp_path, make_dicom)
    alone = pack(tree, tmp_path / "a", settings=SMALL)
    monkeypatch.setattr(pool, "_TIMED_ITEMS", 1)
    monkeypatch.setattr(pool, "_SECONDS_WORTH_PROCESSES", 0.0)
    monkeypatch.setattr(prepare_module, "_MAX_ITEM_BYTES", 2 * 2 * 32 * 32)
    together = pack(tree, tmp_path / "b", settings=PackSettings(canvas=32, workers=2))
    assert digest(together) == digest(alone)
    assert pack(tree, tmp_path / "b", settings=SMALL).content_hash == alone.content_hash


def test_file_refused_in_several_pieces_is_listed_once(
    make_scans: MakeScans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_scans(2)
    nibabel.save(nibabel.Nifti1Image(np.ones((8, 8, 7), np.uint8), np.eye(4)), folder / "v.hdr")
    (folder / "v.img").unlink()
    monkeypatch.setattr(prepare_module, "_MAX_ITEM_BYTES", 2 * 32 * 32)
    archive = pack(folder, tmp_path / "a", settings=SMALL)
    with (archive.path / "rejected.csv").open(newline="", encoding="utf-8") as file:
        (_, reason) = list(csv.reader(file))[1:][0]
    assert reason == "has a part in another file, which is missing"
    assert list(rejected(archive)) == ["v.hdr"]
    assert archive.num_rejected == 1


def test_patients_are_known_where_every_file_names_its_own(
    make_dicom: Callable[..., Path], tmp_path: Path
) -> None:
    pixels = np.arange(80, dtype=np.uint8).reshape(8, 10)
    make_dicom(pixels, "scans/1", PatientID="ann")
    make_dicom(pixels, "scans/2", PatientID="ann")
    archive = pack(tmp_path / "scans", tmp_path / "a", settings=SMALL)
    assert archive.patients_known
    assert archive.info["patients"] == 1
    assert archive.dtype == np.uint8
    (tmp_path / "scans" / "t.csv").write_text("path,patient\n1,mine\n2,yours\n")
    table = pack(tmp_path / "scans" / "t.csv", tmp_path / "b", settings=SMALL)
    hashed = read_identities(source_name(tmp_path / "scans"))
    assert table.patients.tolist() == [hashed.patient("mine"), hashed.patient("yours")]


def test_nothing_in_an_archive_names_a_patient_a_series_or_a_file(
    make_dicom: Callable[..., Path], tmp_path: Path
) -> None:
    tree = mixed_tree(tmp_path, make_dicom)
    make_dicom(np.ones((4, 4), np.uint8), "tree/ann-smith.dcm", PatientName="Smith^Ann")
    (tree / "ann-jones.png").write_text("no picture")
    (tree / "ann-brown.hdr").write_bytes(b"")
    archive = pack(tree, tmp_path / "a", settings=SMALL)
    listed = archive.path / PATHS_FILE
    assert listed.stat().st_mode & 0o077 == 0
    assert "ann-smith.dcm" in listed.read_text()
    words = ["ann", "Ann", "bob", "Smith", "Mercy", "IM1", "short.dcm", "1.2.77", tmp_path.name]
    for file in archive.path.rglob("*"):
        if file.is_file() and file != listed:
            content = file.read_bytes()
            found = [word for word in words if re.search(rf"\b{re.escape(word)}".encode(), content)]
            assert found == [], file.name


def test_archive_without_its_list_of_paths_is_read_and_says_what_it_lacks(
    make_scans: MakeScans, tmp_path: Path
) -> None:
    archive = pack(make_scans(2), tmp_path / "a", settings=SMALL)
    (archive.path / PATHS_FILE).unlink()
    copy = Archive(archive.path)
    assert len(copy.gather(np.arange(2))) == 2
    with pytest.raises(ScanlearnError, match="only the owner"):
        copy.paths()


def test_patient_is_the_same_in_scans_and_labels_of_one_issuer_alone(
    make_dicom: Callable[..., Path], tmp_path: Path
) -> None:
    pixels = np.arange(80, dtype=np.uint8).reshape(8, 10)
    make_dicom(pixels, "north/images/1.dcm", PatientID="7")
    make_dicom(pixels, "south/1.dcm", PatientID=" 7 ")
    (tmp_path / "north" / "labels.csv").write_text("path,patient,y\n1.dcm,7,1\n")

    def patient(source: str, name: str, issuer: str | None = None) -> str:
        settings = PackSettings(canvas=32, issuer=issuer)
        return str(pack(tmp_path / source, tmp_path / name, settings=settings).patients[0])

    scans = patient("north/images", "a")
    assert patient("north/labels.csv", "b") == scans
    assert patient("south", "c") != scans
    assert patient("south", "d", issuer="north") == scans


def test_columns_that_may_name_a_person_are_kept_out_and_said(
    make_scans: MakeScans, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_scans(1)
    (folder / "t.csv").write_text(
        "path,patient,y,Patient Name,Date-of-Birth\nscan000.png,7,1,Ann,1950-01-01\n"
    )
    archive = pack(folder / "t.csv", tmp_path / "a", settings=SMALL)
    assert archive.label_columns == ("y",)
    said = " ".join(capsys.readouterr().out.split())
    assert "may identify a person or a file: Patient Name, Date-of-Birth" in said


def test_archive_hashed_under_another_key_is_not_taken_for_the_same(
    make_scans: MakeScans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_scans(2)
    first = pack(folder, tmp_path / "a", settings=SMALL)
    key = tmp_path / "key"
    key.write_text("f" * 64)
    key.chmod(0o600)
    monkeypatch.setenv("SCANLEARN_KEY", str(key))
    with pytest.raises(ScanlearnError, match="hashed under another key or issuer"):
        pack(folder, tmp_path / "a", settings=SMALL)
    second = pack(folder, tmp_path / "b", settings=SMALL)
    assert first.info["key"] != second.info["key"]
    assert not set(first.scan_ids) & set(second.scan_ids)


def test_axis_and_emptiness_choose_the_slices(tmp_path: Path) -> None:
    voxels = np.zeros((16, 12, 4), np.uint8)
    voxels[3:9, :, 1] = np.arange(12) + 50
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "v.nii")
    (tmp_path / "t.csv").write_text("path,patient,y\nv.nii,ann,1\n")

    def packed(name: str, **chosen: object) -> list[str]:
        settings = PackSettings.model_validate({"canvas": 32, "workers": 1} | chosen)
        archive = pack(tmp_path / "t.csv", tmp_path / name, settings=settings)
        assert set(archive.labels("y")) == {"1"}
        return names(archive)

    assert packed("a") == ["v.nii#2"]
    assert len(packed("b", empty_below=0)) == 4
    assert packed("c", axis="sagittal") == [f"v.nii#{number}" for number in range(4, 10)]
    with pytest.raises(ScanlearnError, match=r"none of 1 scans .*every slice is empty"):
        packed("d", empty_below=0.99)


@pytest.mark.long
def test_real_reader_files_are_packed_or_set_aside(real_data: Path, tmp_path: Path) -> None:
    settings = PackSettings(canvas=64, workers=1)
    archive = pack(real_data / "readers", tmp_path / "a", settings=settings)
    # Of the 18 segmentations and doses 5 could not be decoded anyway.
    assert archive.num_rejected == (10 - 5) + 18 + 4
    assert (
        sum("not a picture of a patient" in reason for reason in rejected(archive).values()) == 18
    )
    assert archive.shape == (3, 64, 64)
    assert archive.dtype == np.uint16
    files = set(archive.paths())
    assert sum(name.startswith("dicom/") for name in files) == 152
    assert len(set(files)) == 152 + 8


@pytest.mark.parametrize(
    "settings",
    [
        {"canvas": 0},
        {"canvas": (8, -1)},
        {"channels": 2},
        {"c": 1},
        {"axis": "z"},
        {"empty_below": 1},
    ],
)
def test_settings_refuse_what_makes_no_sense(settings: dict[str, object]) -> None:
    with pytest.raises(ScanlearnError, match="PackSettings: "):
        PackSettings(**settings)


SCRIPT = """
import sys
from scanlearn.packing import pack as module
from scanlearn.packing import parallel as pool
print("script", flush=True)
pool._TIMED_ITEMS, pool._SECONDS_WORTH_PROCESSES = 1, 0.0
module.pack(sys.argv[1], sys.argv[2], settings=module.PackSettings(canvas=256, workers=2))
"""


@pytest.mark.long
def test_script_without_a_main_guard_packs_in_processes(
    make_scans: MakeScans, tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, tmp_path / "script.py", make_scans(40), tmp_path / "a"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines().count("script") == 1
    assert done.stderr == ""
    assert len(Archive(tmp_path / "a")) == 40


SLOWLY = """
import time
add = module.ArchiveWriter.add
module.ArchiveWriter.add = lambda *args, **named: time.sleep(0.1) or add(*args, **named)
"""


@pytest.mark.long
def test_kill_leaves_no_archive_and_no_process_and_packing_again_works(
    make_scans: MakeScans, tmp_path: Path
) -> None:
    folder = make_scans(200)
    slow = SCRIPT.replace("module.pack", SLOWLY + "module.pack")
    (tmp_path / "script.py").write_text(slow)
    command = [sys.executable, str(tmp_path / "script.py"), str(folder), str(tmp_path / "a")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        deadline = time.monotonic() + 60
        # Script, resource tracker, fork server and a worker: decoding is under way.
        shards = ".a.partial/shards"
        while len(_session(process.pid)) < 4 or not list(tmp_path.glob(shards)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert len(_session(process.pid)) >= 4
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "a").exists()
    while _session(process.pid) and time.monotonic() < deadline + 30:
        time.sleep(0.1)
    assert not _session(process.pid)
    assert len(pack(folder, tmp_path / "a", settings=SMALL)) == 200
    assert not list(tmp_path.glob(".a.*"))


def _session(leader: int) -> list[str]:
    """Command lines of the living processes of a session."""
    listed = subprocess.run(
        ["ps", "-o", "stat=,args=", "-s", str(leader)], capture_output=True, text=True, check=False
    )
    return [line for line in listed.stdout.splitlines() if not line.startswith("Z")]


def test_target_in_a_folder_that_may_not_be_written_is_one_clear_sentence(
    make_scans: MakeScans, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ScanlearnError, match="part of this path is a file"):
        pack(make_scans(2), tmp_path / "file" / "a", settings=SMALL)


@pytest.mark.long
def test_real_xrays_are_packed_and_a_broken_one_is_listed(real_data: Path, tmp_path: Path) -> None:
    shutil.copytree(real_data / "nih1000", tmp_path / "nih")
    broken = tmp_path / "nih" / "images" / "00000061_012.jpg"
    broken.write_bytes(broken.read_bytes()[:1000])
    source = tmp_path / "nih" / "Data_Entry_2017.csv"
    archive = pack(source, tmp_path / "a", settings=PackSettings(canvas=226))
    assert archive.shape == (1, 226, 226)
    assert len(archive) == 999
    assert list(rejected(archive)) == ["00000061_012.jpg"]
    assert len(set(archive.patients)) == 682
    assert archive.labels("Pneumonia").tolist().count("1") == 499
    assert 0.4 < archive.mean[0] < 0.7


# Ends itself, as kill -9 does, at a place in the work that its last argument names.
KILLED = """
import os, signal, sys
from scanlearn.packing import pack as module
from scanlearn.archive import layout, shards, writer

layout.MAX_SCANS_PER_BATCH = shards.BATCHES_PER_SHARD = 2
where, opened, written = sys.argv[3], [], []

def end():
    os.kill(os.getpid(), signal.SIGKILL)

class Sink:
    def __init__(self, path):
        self._file, self._number = path.open("wb"), len(opened)
        opened.append(path)

    def write(self, data):
        if where == "inside a shard" and self._number == 2 and len(data) > 2000:
            self._file.write(bytes(data)[:1000])
            self._file.flush()
            end()
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)

write = writer.Checkpoint.write

def counted(self, folder):
    written.append(folder)
    if where == "before a checkpoint" and len(written) == 3:
        end()
    write(self, folder)
    if where == "after a checkpoint" and len(written) == 3:
        end()

shards._open_sink, writer.Checkpoint.write = Sink, counted
module.pack(sys.argv[1], sys.argv[2], settings=module.PackSettings(canvas=32, workers=1))
"""
KEPT = {"inside a shard": 2, "before a checkpoint": 2, "after a checkpoint": 3}


@pytest.fixture
def source(make_scans: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures, two broken files and a volume with empty slices, in shards of four scans."""
    monkeypatch.setattr(layout, "MAX_SCANS_PER_BATCH", 2)
    monkeypatch.setattr(shards, "BATCHES_PER_SHARD", 2)
    folder = make_scans(6)
    voxels = np.random.default_rng(0).integers(1, 255, (16, 12, 9)).astype(np.uint8)
    voxels[:, :, 4] = 0
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / "scan000a.nii")
    (folder / "scan000b.png").write_text("no picture")
    (folder / "scan001b.png").touch()
    return folder


def pack_until_killed(source: Path, target: Path, where: str) -> Path:
    """Returns the folder that the killed process left."""
    command = [sys.executable, "-c", KILLED, str(source), str(target), where]
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    assert done.returncode == -9, done.stderr
    (left,) = target.parent.glob(f".{target.name}.partial")
    assert not target.exists()
    return left


@pytest.mark.parametrize(
    "where",
    [
        "inside a shard",
        pytest.param("before a checkpoint", marks=pytest.mark.long),
        pytest.param("after a checkpoint", marks=pytest.mark.long),
    ],
)
def test_killed_packing_is_gone_on_with_and_ends_in_the_same_bytes(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    whole = pack(source, tmp_path / "whole", settings=SMALL)
    left = pack_until_killed(source, tmp_path / "a", where)
    names = [f"{number:05d}.arrow" for number in range(KEPT[where])]
    before = {name: (left / "shards" / name).stat() for name in names}
    capsys.readouterr()
    archive = pack(source, tmp_path / "a", settings=SMALL)
    assert f"resuming after {4 * KEPT[where]} scans" in capsys.readouterr().out
    for name in names:
        found = (archive.path / "shards" / name).stat()
        assert (found.st_ino, found.st_mtime_ns) == (before[name].st_ino, before[name].st_mtime_ns)
    assert digest(archive) == digest(whole)
    assert archive.info["notes"] == {"empty slices left out": 1}
    assert archive.num_rejected == 2
    assert not list(tmp_path.glob(".a.*"))


@pytest.mark.long
def test_changed_source_or_settings_start_over(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack_until_killed(source, tmp_path / "a", "after a checkpoint")
    pack(source, tmp_path / "a", settings=PackSettings(canvas=16, workers=1))
    assert "going on" not in capsys.readouterr().out
    pack_until_killed(source, tmp_path / "b", "after a checkpoint")
    os.utime(source / "scan002.png", (1, 1))
    pack(source, tmp_path / "b", settings=SMALL)
    assert "going on" not in capsys.readouterr().out
    assert not list(tmp_path.glob(".*"))


def test_interrupted_packing_is_gone_on_with_in_the_same_process(
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from scanlearn.archive.writer import ArchiveWriter

    add = ArchiveWriter.add

    def interrupted(self: ArchiveWriter, *args: object, **named: object) -> bool:
        if self.num_scans == 9:
            raise KeyboardInterrupt
        return add(self, *args, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(ArchiveWriter, "add", interrupted)
        with pytest.raises(KeyboardInterrupt, match="8 scans in finished shards are kept"):
            pack(source, tmp_path / "a", settings=SMALL)
    archive = pack(source, tmp_path / "a", settings=SMALL)
    assert "resuming after 8 scans" in capsys.readouterr().out
    assert digest(archive) == digest(pack(source, tmp_path / "whole", settings=SMALL))


# Of a module on the path, where the processes that call it find it.
CRASHING = """
import os
from scanlearn.packing import prepare as module

def prepare(plan, job):
    if job.path.name == "scan002.png":
        os._exit(3)
    return module.prepare(plan, job)
"""


def test_decoder_that_crashes_costs_its_file_alone_though_there_are_few(
    make_scans: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crashing_decoder.py").write_text(CRASHING)
    monkeypatch.syspath_prepend(str(tmp_path))
    crashing = importlib.import_module("crashing_decoder")
    monkeypatch.setattr(pack_module, "prepare", crashing.prepare)
    archive = pack(make_scans(5), tmp_path / "a", settings=PackSettings(canvas=32))
    assert len(archive) == 4
    assert "brings down the process" in (archive.path / "rejected.csv").read_text()


def test_masks_and_pixels_are_the_same_from_one_process_and_from_two(tmp_path: Path) -> None:
    folder = tmp_path / "fundus"
    folder.mkdir()
    rows, columns = np.mgrid[:140, :160] - 75
    for index in range(60):
        inside = (rows - index / 8) ** 2 + columns**2 < (40 + index / 3) ** 2
        drawn = np.where(inside[..., None], (180, 90 + index, 40), 0).astype(np.uint8)
        Image.fromarray(drawn).save(folder / f"{index:02d}.png")
    one, two = (
        pack(
            folder,
            tmp_path / f"with_{workers}",
            settings=PackSettings(canvas=96, workers=workers, field_of_view="fundus"),
        )
        for workers in (1, 2)
    )
    assert digest(two) == digest(one)
    masks = one.gather(np.arange(60)).mask
    assert masks is not None
    assert len({mask.numpy().tobytes() for mask in masks}) > 30


@pytest.mark.parametrize(
    ("tops", "chosen", "num_dark"),
    [
        ((4095, 2000), {}, 2),
        ((4095, 4096), {}, 0),  # One shows that all 16 bits are in use.
        ((4095, 2000), {"intensity": "percentile"}, 0),
    ],
)
def test_twelve_bits_stored_in_sixteen_are_one_warning(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    tops: tuple[int, ...],
    chosen: dict[str, Any],
    num_dark: int,
) -> None:
    (tmp_path / "scans").mkdir()
    for top in tops:
        values = np.linspace(0, top, 32 * 32).astype(np.uint16).reshape(32, 32)
        Image.fromarray(values).save(tmp_path / "scans" / f"{top}.png")
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "scans" / "eight.png")
    settings = PackSettings(canvas=32, workers=1, summary=False, **chosen)
    archive = pack(tmp_path / "scans", tmp_path / "packed", settings=settings)
    warnings = [line for line in capsys.readouterr().err.splitlines() if "sixteenth" in line]
    assert len(warnings) == bool(num_dark)
    assert all(f": {num_dark};" in line and "percentile" in line for line in warnings)
    notes = {"no value above a sixteenth of 16 bits": num_dark} if num_dark else {}
    assert archive.info["notes"] == notes


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        (["1", "00001", "2", "2.0"], "2 patients agree with another but for leading zeros"),
        (["p1", "P1", "x", "y"], "1 patient agrees with another"),
        (["12345678901234500", "12345678901239900"] * 2, "as spreadsheets make of long ones"),
        (["0"] * 9 + ["1", "2", "3"], "patient '0' has 9 scans, no other more than 1"),
        (["1", "10", "100", "2"], None),
        (["0", "0", "1", "2"], None),
    ],
)
def test_patients_who_may_be_one_or_several_are_one_warning(
    make_scans: MakeScans,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    numbers: list[str],
    told: str | None,
) -> None:
    folder = make_scans(len(numbers))
    rows = [f"scan{row:03d}.png,{number}" for row, number in enumerate(numbers)]
    (folder / "t.csv").write_text("\n".join(["path,patient", *rows]) + "\n")
    archive = pack(folder / "t.csv", tmp_path / "a", settings=SMALL)
    warnings = capsys.readouterr().err
    assert warnings.count("Warning") == (told is not None)
    assert (told or "") in warnings
    assert archive.info["patients"] == len(set(numbers))


def test_a_number_that_a_spreadsheet_shortened_is_refused_by_its_row(
    make_scans: MakeScans, tmp_path: Path
) -> None:
    folder = make_scans(3)
    (folder / "t.csv").write_text(
        "path,patient\nscan000.png,5\nscan001.png,6.10E+10\nscan002.png,6.10E+10\n"
    )
    with pytest.raises(ScanlearnError, match=r"row 3: patient '6.10E\+10' .* set that column to"):
        pack(folder / "t.csv", tmp_path / "a", settings=SMALL)


@pytest.mark.parametrize("word", ["nan", "unknown", "-", "Anonymous"])
def test_a_word_for_nobody_is_no_patient_of_a_table(
    make_scans: MakeScans, tmp_path: Path, word: str
) -> None:
    folder = make_scans(3)
    (folder / "t.csv").write_text(
        f"path,patient\nscan000.png,5\nscan001.png,{word}\nscan002.png,{word}\n"
    )
    archive = pack(folder / "t.csv", tmp_path / "a", settings=SMALL)
    reason = f"the table gives no patient (it says {word!r})"
    assert rejected(archive) == {"scan001.png": reason, "scan002.png": reason}


def test_files_of_nobody_are_not_all_of_one_patient(
    make_dicom: Callable[..., Path], tmp_path: Path
) -> None:
    for row, number in enumerate(["ANONYMOUS", "ANONYMOUS", "7"]):
        make_dicom(np.full((8, 8), row, np.uint8), f"tree/{row}.dcm", PatientID=number)
    archive = pack(tmp_path / "tree", tmp_path / "a", settings=SMALL)
    assert archive.info["patients"] == 3
    assert not archive.patients_known
    (note,) = (note for note in archive.info["notes"] if "names nobody" in note)
    assert archive.info["notes"][note] == 2


def test_a_file_that_contradicts_the_table_is_a_warning_for_its_owner_alone(
    make_dicom: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for row, number in enumerate(["0061", "DOE62", "63", "anon"]):
        make_dicom(np.full((8, 8), row, np.uint8), f"tree/{row}.dcm", PatientID=number)
    rows = "".join(f"{row}.dcm,{61 + row}\n" for row in range(4))
    (tmp_path / "tree/t.csv").write_text(f"path,patient\n{rows}")
    archive = pack(tmp_path / "tree/t.csv", tmp_path / "a", settings=SMALL)
    told = capsys.readouterr().err
    assert "not the table's patient in 1 files (first 1.dcm: 'DOE62' in the file, '62'" in told
    assert archive.info["notes"] == {"PatientID of the file is not the table's patient": 1}
    shared = [path for path in archive.path.rglob("*") if path.suffix != ".arrow"]
    assert not any(b"DOE62" in path.read_bytes() for path in shared if path.is_file())


@pytest.mark.parametrize("pieces", ["one", "many"])
def test_file_that_gives_no_scan_is_set_aside_once_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: str
) -> None:
    if pieces == "many":
        monkeypatch.setattr(prepare_module, "_MAX_ITEM_BYTES", 2 * 32 * 32)
    scans = tmp_path / "scans"
    scans.mkdir()
    voxels = np.zeros((16, 12, 5), np.uint8)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), scans / "empty.nii")
    voxels[3:9, :, 1] = np.arange(12) + 50
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), scans / "full.nii")
    archive = pack(scans, tmp_path / "a", settings=PackSettings(canvas=32, workers=1))
    assert names(archive) == ["full.nii#2"]
    reason = "every slice is empty (5 with less foreground than empty_below)"
    assert rejected(archive) == {"empty.nii": reason}
    assert archive.num_rejected == 1
    assert archive.info["notes"]["empty slices left out"] == 5 + 4


def test_masks_and_doses_beside_a_scan_are_counted_and_kept_when_asked_for(
    make_dicom: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = np.arange(48 * 40, dtype=np.uint16).reshape(48, 40)
    make_dicom(scan, "scans/ct.dcm", Modality="CT")
    mask = {"Modality": "SEG", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}
    make_dicom((scan % 2).astype(np.uint8), "scans/mask.dcm", **mask)
    make_dicom(scan, "scans/dose.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.481.2")
    archive = pack(tmp_path / "scans", tmp_path / "a", settings=PackSettings(workers=1))
    assert names(archive) == ["ct.dcm"]
    said = capsys.readouterr().out
    assert "no pictures of a patient (masks, doses, reports): 2" in said
    settings = PackSettings.model_validate({"workers": 1, "keep": {"Modality": "seg"}})
    assert names(pack(tmp_path / "scans", tmp_path / "b", settings=settings)) == ["mask.dcm"]
    settings = PackSettings.model_validate({"workers": 1, "keep": {"Modality": "CT"}})
    assert names(pack(tmp_path / "scans", tmp_path / "c", settings=settings)) == ["ct.dcm"]


@pytest.mark.parametrize(("channels", "is_lost"), [(1, True), (3, False), ("auto", False)])
def test_colour_that_is_lost_is_a_warning_with_a_count(
    make_scans: MakeScans,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    channels: Any,
    is_lost: bool,
) -> None:
    scans = make_scans(3, colour=True)
    Image.new("RGB", (40, 48), (9, 9, 9)).save(scans / "gray.png")
    settings = PackSettings(canvas=32, channels=channels, workers=1)
    pack(scans, tmp_path / "a", settings=settings)
    warned = "4 of 4 files store colour, which channels=1 turns into gray; channels=3 or auto"
    assert (warned in capsys.readouterr().err) == is_lost


@pytest.mark.parametrize(
    ("tag", "kind", "value"),
    [
        ("PatientID", b"DS", "DOE123"),
        ("PatientID", b"IS", "DOE^JOHN"),
        ("PatientID", b"FD", "DOE1DOE2"),
        ("IssuerOfPatientID", b"IS", "DOE^JOHN"),
        ("StudyDescription", b"DS", "DOE^JOHN"),
        ("NumberOfFrames", None, "DOE^"),
        ("Rows", None, "DO"),
        ("RescaleSlope", None, "DOE^JOHN"),
    ],
)
def test_no_reason_quotes_what_a_file_says_of_its_patient(
    make_dicom: Callable[..., Path], tmp_path: Path, tag: str, kind: bytes | None, value: str
) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    make_dicom(pixels + 1, "tree/whole.dcm", PatientID="7")
    written = {"NumberOfFrames": "1234", "Rows": 8, "RescaleSlope": "1.000001"}.get(tag, value)
    bad = make_dicom(pixels, "tree/bad.dcm", **{tag: written})
    number = pydicom.datadict.tag_for_keyword(tag)
    assert number is not None
    head = (number >> 16).to_bytes(2, "little") + (number & 0xFFFF).to_bytes(2, "little")
    raw = bad.read_bytes()
    at = raw.index(head)
    if kind is not None:
        raw = raw[: at + 4] + kind + raw[at + 6 :]
    else:
        raw = raw[: at + 8] + value.encode() + raw[at + 8 + len(value) :]
    bad.write_bytes(raw)
    archive = pack(tmp_path / "tree", tmp_path / "a", settings=SMALL)
    for file in archive.path.rglob("*"):
        if file.is_file() and file.name != PATHS_FILE:
            assert b"DOE" not in file.read_bytes()
    assert len(archive) + archive.num_rejected == 2
