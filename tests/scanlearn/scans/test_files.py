from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from scanlearn.core import Scan
from scanlearn.scans.decode import Undecodable
from scanlearn.scans.files import ReadSettings, is_scan, kind_of, read_frames, read_header

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
    kinds = {"a.dcm": "dicom", "a.nii": "nifti", "b.nii": "nifti"}
    assert len(one_of_each) == 8
    for name, path in one_of_each.items():
        expected = kinds.get(name, "image")
        assert kind_of(path) == expected
        bare = tmp_path / name.replace(".", "_")
        bare.write_bytes(path.read_bytes())
        assert kind_of(bare) == expected
        assert is_scan(bare)
        (frame, *_) = read_frames(bare, range(1), PLAIN)
        assert isinstance(frame.scan, Scan)


def test_ending_decides_where_content_is_silent(tmp_path: Path) -> None:
    for name, kind in (("a.dcm", "dicom"), ("a.NII.GZ", "nifti"), ("a.png", "image")):
        (tmp_path / name).write_bytes(b"nothing")
        assert kind_of(tmp_path / name) == kind


def test_files_that_are_no_scans_are_left_alone(tmp_path: Path, make_dicom: MakeDicom) -> None:
    (tmp_path / "notes").write_text("patient was seen")
    (tmp_path / "1.2.3").write_text("no scan")
    dicom = make_dicom(np.zeros((2, 2), np.uint8)).read_bytes()
    for name in ("DICOMDIR", "1.2.840.77", "IM0001", "a.txt", "a.img"):
        (tmp_path / name).write_bytes(dicom)
    listed = {path.name for path in tmp_path.iterdir() if is_scan(path)}
    assert listed == {"a.dcm", "1.2.840.77", "IM0001"}


def test_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.dcm")
    os.mkfifo(tmp_path / "pipe")
    assert not is_scan(tmp_path / "pipe")
    with pytest.raises(Undecodable, match="no file"):
        read_header(tmp_path / "a.dcm", PLAIN)
    with pytest.raises(Undecodable, match="no file"):
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
    program = "import sys, scanlearn.scans.pack; print({'pydicom', 'nibabel'} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
