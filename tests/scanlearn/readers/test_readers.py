from __future__ import annotations

import importlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from scanlearn.readers.readers import (
    READERS,
    SCAN_SUFFIXES,
    is_scan,
    libraries,
    read_frames,
    read_header,
    reader_of,
)
from scanlearn.readers.scan import ReadSettings, Scan, Undecodable

MakeDicom = Callable[..., Path]
PLAIN = ReadSettings()


@pytest.fixture
def one_of_each(tmp_path: Path, make_dicom: MakeDicom) -> dict[str, Path]:
    pixels = np.arange(60, dtype=np.uint8).reshape(6, 10)
    nibabel.save(nibabel.Nifti1Image(pixels[None].repeat(3, 0), np.eye(4)), tmp_path / "a.nii")
    nibabel.save(nibabel.Nifti2Image(pixels[None].repeat(3, 0), np.eye(4)), tmp_path / "b.nii")
    for suffix in (".png", ".jpg", ".tif", ".webp", ".bmp"):
        Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
    found = {path.name: path for path in tmp_path.iterdir()}
    return found | {"a.dcm": make_dicom(pixels, "a.dcm")}


def test_kind_is_told_by_content_whatever_the_ending(
    tmp_path: Path, one_of_each: dict[str, Path]
) -> None:
    kinds = {"a.dcm": "DICOM", "a.nii": "NIfTI", "b.nii": "NIfTI"}
    assert len(one_of_each) == 8
    for name, path in one_of_each.items():
        expected = kinds.get(name, "picture")
        assert read_header(path, PLAIN).kind == expected
        bare = tmp_path / name.replace(".", "_")
        bare.write_bytes(path.read_bytes())
        assert read_header(bare, PLAIN).kind == expected
        assert is_scan(bare)
        (frame, *_) = read_frames(bare, range(1), PLAIN)
        assert isinstance(frame.scan, Scan)


def test_ending_decides_where_content_is_silent() -> None:
    for name, kind in (("a.dcm", "DICOM"), ("a.NII.GZ", "NIfTI"), ("a.png", "picture")):
        assert reader_of(b"nothing", name).kind == kind


def test_each_format_has_a_name_and_endings_of_its_own() -> None:
    assert len({reader.kind for reader in READERS}) == len(READERS)
    assert len(set(SCAN_SUFFIXES)) == len(SCAN_SUFFIXES)
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in SCAN_SUFFIXES)


def test_files_that_are_no_scans_are_left_alone(tmp_path: Path, make_dicom: MakeDicom) -> None:
    (tmp_path / "notes").write_text("patient was seen")
    (tmp_path / "1.2.3").write_text("no scan")
    dicom = make_dicom(np.zeros((2, 2), np.uint8)).read_bytes()
    for name in ("DICOMDIR", "1.2.840.77", "IM0001", "a.txt", "a.img"):
        (tmp_path / name).write_bytes(dicom)
    listed = {path.name for path in tmp_path.iterdir() if is_scan(path)}
    assert listed == {"a.dcm", "1.2.840.77", "IM0001"}


def test_file_without_an_ending_that_may_not_be_read_is_not_passed_over(
    tmp_path: Path, one_of_each: dict[str, Path]
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.write(one_of_each["a.png"], "bare")
    raw = (tmp_path / "a.zip").read_bytes()
    assert is_scan(tmp_path / "a.zip" / "bare")
    (tmp_path / "a.zip").write_bytes(raw.replace(b"PNG", b"no!", 1))
    assert is_scan(tmp_path / "a.zip" / "bare")
    with pytest.raises(Undecodable, match="damaged in its archive"):
        read_header(tmp_path / "a.zip" / "bare", PLAIN)


def test_members_of_archives_are_read_like_files(
    tmp_path: Path, one_of_each: dict[str, Path]
) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as file:
        for name, path in one_of_each.items():
            file.write(path, f"x/{name}")
    for name, path in one_of_each.items():
        member = tmp_path / "all.zip" / "x" / name
        assert read_header(member, PLAIN) == read_header(path, PLAIN)
        (inside, *_), (plain, *_) = (
            list(read_frames(where, range(1), PLAIN)) for where in (member, path)
        )
        assert isinstance(inside.scan, Scan)
        assert isinstance(plain.scan, Scan)
        np.testing.assert_array_equal(inside.scan.pixels, plain.scan.pixels)


def test_rows_of_an_npz_file_are_read(tmp_path: Path) -> None:
    images = np.arange(2 * 8 * 9, dtype=np.uint8).reshape(2, 8, 9)
    np.savez_compressed(tmp_path / "m.npz", train_images=images)
    row = tmp_path / "m.npz" / "train" / "0000001"
    assert read_header(row, PLAIN).num_frames == 1
    (frame,) = read_frames(row, range(1), PLAIN)
    assert isinstance(frame.scan, Scan)
    np.testing.assert_array_equal(frame.scan.pixels, images[1:])


def test_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.dcm")
    os.mkfifo(tmp_path / "pipe")
    assert not is_scan(tmp_path / "pipe")
    with pytest.raises(Undecodable, match="not a regular file"):
        read_header(tmp_path / "a.dcm", PLAIN)
    with pytest.raises(Undecodable, match="not a regular file"):
        list(read_frames(tmp_path / "a.dcm", range(1), PLAIN))


def test_settings_reach_the_readers(one_of_each: dict[str, Path]) -> None:
    volume = one_of_each["a.nii"]
    assert read_header(volume, PLAIN).num_frames == 10
    assert read_header(volume, ReadSettings(axis="sagittal")).num_frames == 3
    numbers = [
        frame.number for frame in read_frames(volume, range(10), ReadSettings(empty_below=1))
    ]
    assert 0 < len(numbers) < 10


def test_readers_are_loaded_only_when_a_file_needs_them() -> None:
    program = (
        "import sys, scanlearn.packing.pack; print({'pydicom', 'nibabel'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_libraries_are_those_that_the_endings_ask_for() -> None:
    assert not {"nibabel", "pydicom.pixels.decoders"} & set(libraries(["a.png", "b/C.JPG"]))
    assert "pydicom.pixels.decoders" in libraries(["a.png", "b.DCM"])
    assert "pydicom.pixels.decoders" in libraries(["1.2.840.10008"])
    assert "nibabel" in libraries(["a/b.nii.gz"])
    assert all(importlib.import_module(name) for name in libraries(["a.dcm", "b.nii"]))
