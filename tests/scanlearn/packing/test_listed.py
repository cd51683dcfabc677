"""The scans of a source as they would be packed, told by headers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from scanlearn.errors import ScanlearnError
from scanlearn.packing.listed import count_scans, list_scans
from scanlearn.packing.settings import PackSettings
from scanlearn.packing.sources import open_archive
from scanlearn.phantom.phantom import PhantomSpec, write_phantom


@pytest.mark.parametrize("kind", ["phantom", "archive", "table"])
def test_patients_and_prevalence_are_those_of_the_packed_scans(kind: str, tmp_path: Path) -> None:
    spec = PhantomSpec(patients=6, height=32, width=32)
    archive = write_phantom(spec, tmp_path / "a")
    source = {"phantom": "phantom:patients=6,size=32x32", "archive": str(archive.path)}
    rows = ["file,person,pallor"]
    for place in range(len(spec)):
        Image.new("L", (8, 8)).save(tmp_path / f"{place}.png")
        rows.append(f"{place}.png,{archive.patients[place]},{archive.labels('pallor')[place]}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    settings = PackSettings(path_column="file", patient_column="person", allow_columns=("pallor",))
    scans = list_scans(source.get(kind, str(tmp_path / "t.csv")), settings)
    assert scans.patients_known
    assert scans.labels("pallor").tolist() == archive.labels("pallor").tolist()
    same = [np.unique(each, return_inverse=True)[1] for each in (scans.patients, archive.patients)]
    assert np.array_equal(same[0] == same[0][:, None], same[1] == same[1][:, None])


def test_scans_are_counted_as_they_would_be_packed(tmp_path: Path) -> None:
    rows = ["path,patient,y,site"]
    for place in range(3):
        slices = np.random.default_rng(place).integers(0, 99, (4, 5, 6 + place), np.int16)
        nibabel.save(nibabel.Nifti1Image(slices, np.eye(4)), tmp_path / f"{place}.nii")
        rows.append(f"{place}.nii,p{place},{place % 2},north")
    (tmp_path / "3.nii").write_bytes(b"broken")
    rows += ["3.nii,p3,1,north", "0.nii,p0,0,north", "gone.nii,p4,1,north", "1.nii,,1,north"]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    scans = list_scans(str(tmp_path / "t.csv"), PackSettings())
    packed = open_archive(tmp_path / "t.csv", cache=tmp_path / "cache")
    assert len(scans) == len(packed) == 6 + 7 + 8
    assert scans.labels("y").tolist() == packed.labels("y").tolist()
    assert len(set(scans.patients)) == len(set(packed.patients)) == 3
    assert count_scans(str(tmp_path / "t.csv"), PackSettings())[0] == 21
    only = PackSettings(keep={"y": ("1",)})
    assert len(list_scans(str(tmp_path / "t.csv"), only)) == 7
    with pytest.raises(ScanlearnError, match="holds no scan that can be read; scanlearn pack"):
        list_scans(str(tmp_path / "t.csv"), PackSettings(keep={"y": ("7",)}))


def test_patients_are_those_of_the_files_where_no_table_names_them(
    tmp_path: Path, make_dicom: Callable[..., Path]
) -> None:
    (tmp_path / "d").mkdir()
    for place in range(4):
        make_dicom(np.zeros((4, 5), np.uint8), f"d/{place}.dcm", PatientID=f"p{place // 2}")
    scans = list_scans(str(tmp_path / "d"), PackSettings())
    assert scans.patients_known
    assert len(set(scans.patients)) == 2
    make_dicom(np.zeros((4, 5), np.uint8), "d/x.dcm", PatientID="ANONYMOUS")
    unknown = list_scans(str(tmp_path / "d"), PackSettings())
    assert not unknown.patients_known
    assert len(set(unknown.patients)) == 3


def test_unlabeled_scans_are_counted_by_a_sample_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanlearn.packing.listed._COUNTED_FILES", 3)
    for place in range(9):
        slices = np.full((4, 5, 2 + place % 2), 9, np.int16)
        nibabel.save(nibabel.Nifti1Image(slices, np.eye(4)), tmp_path / f"{place}.nii")
    # The files 0, 4 and 8 hold two each.
    assert count_scans(str(tmp_path), PackSettings()) == (18, None)
    # Those that a filter leaves are none of the sample.
    table = ["path,patient,kind", *(f"{place}.nii,p{place},{place}" for place in range(9))]
    (tmp_path / "t.csv").write_text("\n".join(table))
    only = PackSettings(keep={"kind": ("1",)})
    assert count_scans(str(tmp_path / "t.csv"), only) == (3, None)


def test_files_and_what_was_examined_are_told(
    tmp_path: Path, make_dicom: Callable[..., Path]
) -> None:
    (tmp_path / "d").mkdir()
    for place, part in enumerate(("CHEST", "CHEST", "HAND")):
        tags = {"Modality": "DX", "BodyPartExamined": part, "PatientID": f"p{place}"}
        make_dicom(np.zeros((4, 5), np.uint8), f"d/{place}.dcm", **tags)
    scans = list_scans(tmp_path / "d", PackSettings())
    archive = open_archive(tmp_path / "d", cache=tmp_path / "cache")
    assert set(scans.examined) == set(archive.examined) == {"DX CHEST", "DX HAND"}
    assert scans.files == tuple((tmp_path / "d").resolve() / f"{place}.dcm" for place in range(3))
    packed = list_scans(archive.path, PackSettings())
    assert set(packed.examined) == set(archive.examined)
    assert packed.files is None
    assert packed.shape == archive.shape
