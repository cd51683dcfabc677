from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from scanlearn.errors import ScanlearnError
from scanlearn.packing import dry_run as module
from scanlearn.packing.dry_run import tabulate
from scanlearn.packing.settings import PackSettings

MakeDicom = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path, make_dicom: MakeDicom) -> Path:
    folder = tmp_path / "tree"
    flat = np.zeros((4, 5), np.uint8)
    whose = {"PatientID": "7", "SeriesInstanceUID": "1.2"}
    for number, view in enumerate(("PA", "AP", "LL")):
        make_dicom(flat, f"tree/{number}.dcm", Modality="CR", ViewPosition=view, **whose)
    make_dicom(
        flat[None].repeat(6, 0), "tree/3.dcm", Modality="CT", PatientID="8",
        ImageType=["DERIVED", "SECONDARY"], SeriesDescription="Scout\x1b[31m",
    )  # fmt: skip
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.eye(4)), folder / "v.nii")
    Image.fromarray(flat).save(folder / "p.png")
    (folder / "broken.png").write_bytes(b"nothing")
    (folder / "notes.txt").write_text("seen")
    return folder


def counts(text: str) -> dict[tuple[str, str], list[int]]:
    """Column and value of each line of the table, and its numbers."""
    found, name = {}, ""
    for line in text.splitlines()[3:]:
        if not line:
            break
        name = line[:24].strip() or name
        found[name, line[26:66].strip()] = [
            int(word.replace(",", "")) for word in line[66:].split()
        ]
    return found


def test_kinds_tags_sizes_and_depths_are_counted_in_files_and_scans(tree: Path) -> None:
    found = counts(tabulate(tree))
    assert found["kind of file", "DICOM"] == [4, 9]
    assert found["kind of file", "NIfTI"] == [1, 5]
    assert found["kind of file", "picture"] == [1, 1]
    assert found["Modality", "CR"] == [3, 3]
    assert found["Modality", "(none)"] == [2, 6]
    assert found["ViewPosition", "AP"] == [1, 1]
    assert found["ImageType", "DERIVED\\SECONDARY"] == [1, 6]
    assert found["rows x columns", "4 x 5"] == [5, 10]
    assert found["bits", "16"] == [1, 5]
    assert found["frames", "6"] == [1, 6]
    assert ("BodyPartExamined", "(none)") not in found


def test_headline_counts_files_scans_patients_and_series(tree: Path) -> None:
    (line, *_) = tabulate(tree).splitlines()
    assert line.endswith("7 files, 15 scans, 2 patients (2 files without a patient), 1 series")


def test_what_cannot_be_read_is_listed_by_reason_and_the_rest_is_named(tree: Path) -> None:
    text = tabulate(tree)
    assert "1 file cannot be read:\n          1  is not a PNG, JPEG, TIFF, WebP or BMP" in text
    assert text.count(" (broken.png)\n") == 1
    (tree / "other.png").write_bytes(b"nothing")
    assert " (such as broken.png)\n" in tabulate(tree)
    assert "Files that are not scans: 1 .txt" in text


def test_the_filter_is_tried_and_what_stays_is_counted(tree: Path) -> None:
    settings = PackSettings(
        keep={"Modality": ("CR", "CT")}, drop={"SeriesDescription": ("*scout*",)}
    )
    text = tabulate(tree, settings=settings)
    assert counts(text)["Modality", "CR"] == [3, 3, 3]
    assert counts(text)["Modality", "CT"] == [1, 6, 0]
    assert "1  drop.SeriesDescription\n          2  keep.Modality" in text
    assert "3 scans in 3 files are kept" in text


def test_a_column_of_a_table_is_filtered_and_counted(tree: Path) -> None:
    rows = "0.dcm,a,adult\n1.dcm,a,child\np.png,b,\n"
    (tree / "t.csv").write_text("path,patient,group\n" + rows)
    text = tabulate(tree / "t.csv", settings=PackSettings(keep={"group": ("adult",)}))
    assert counts(text)["group", "adult"] == [1, 1, 1]
    assert counts(text)["group", "(none)"] == [1, 1, 0]
    assert "3 files, 3 scans, 2 patients, 1 series" in text


def test_an_unknown_tag_is_an_error_before_anything_is_read(tree: Path) -> None:
    with pytest.raises(ScanlearnError, match="did you mean 'Modality'"):
        tabulate(tree, settings=PackSettings(keep={"Modalty": ("CR",)}))


def test_nothing_is_written(tree: Path, tmp_path: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    assert tabulate(tree).endswith("Nothing was written.")
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


def test_a_description_cannot_command_the_terminal(tree: Path) -> None:
    text = tabulate(tree)
    assert "Scout?[31m" in text
    assert "\x1b" not in text


def test_of_many_values_the_commonest_are_shown_and_the_others_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size in range(1, 13):
        Image.new("L", (size, 1)).save(tmp_path / f"{size}.png")
    Image.new("L", (12, 1)).save(tmp_path / "again.png")
    found = counts(tabulate(tmp_path))
    assert found["rows x columns", "1 x 12"] == [2, 2]
    assert found["rows x columns", "4 others"] == [4, 4]
    monkeypatch.setattr(module, "_COUNTED_VALUES", 9)
    assert counts(tabulate(tmp_path))["rows x columns", "more than 1 others"] == [4, 4]


def test_real_readers_are_tabulated(real_data: Path) -> None:
    text = tabulate(real_data / "readers" / "dicom")
    assert "175 files" in text
    assert counts(text)["Modality", "CT"][0] > 10
    assert "1  is a DICOM file without" in text or "cannot be read" in text
