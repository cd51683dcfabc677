from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from scanlearn.archive.lists import read_paths
from scanlearn.archive.reader import Archive
from scanlearn.errors import ScanlearnError
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings
from scanlearn.packing.sources import open_archive

SMALL = PackSettings(canvas=16, workers=1, summary=False)
# Path: patient, study, accession, series and instance.
SCANS = {
    "a.dcm": ("7", "1.1", "A1", "1.1.1", "1.1.1.1"),
    "b.dcm": ("7", "1.1", "A1", "1.1.1", "1.1.1.2"),
    "c.dcm": ("7", "1.2", "A2", "1.2.1", "1.2.1.1"),
    "d.dcm": ("8", "1.3", "A3", "1.3.1", "1.3.1.1"),
}


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """An archive of DICOM files of two patients, three studies and four instances."""
    folder = tmp_path / "north" / "dicom"
    folder.mkdir(parents=True)
    for number, (name, values) in enumerate(SCANS.items()):
        tags = Dataset()
        tags.SOPClassUID = SecondaryCaptureImageStorage
        names = ("PatientID", "StudyInstanceUID", "AccessionNumber", "SeriesInstanceUID")
        for tag, value in zip((*names, "SOPInstanceUID"), values, strict=True):
            setattr(tags, tag, value)
        tags.Modality = "DX"
        tags.Rows = tags.Columns = 16
        tags.SamplesPerPixel, tags.PhotometricInterpretation = 1, "MONOCHROME2"
        tags.BitsAllocated = tags.BitsStored = 8
        tags.HighBit, tags.PixelRepresentation = 7, 0
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16))
        tags.PixelData = pixels.astype(np.uint8).tobytes()
        tags.file_meta = FileMetaDataset()
        tags.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        tags.save_as(folder / name, enforce_file_format=True)
    return pack(folder, tmp_path / "packed", settings=SMALL)


def joined(archive: Archive, text: str, **settings: object) -> Archive:
    table = archive.path.parent / "north" / "labels.csv"
    table.write_text(text)
    chosen = {**SMALL.model_dump(), "root": archive.path, **settings}
    return open_archive(table, settings=PackSettings.model_validate(chosen))


def labels_of(archive: Archive) -> dict[str, str | None]:
    paths = read_paths(archive.path)
    return dict(zip((paths[name] for name in archive.scan_ids), archive.labels("y"), strict=True))


@pytest.mark.parametrize(
    ("text", "expected", "said"),
    [
        ("AccessionNumber,y\nA1,1\nA3,0\n", "1 1 None 0", "3 of 4 scans have a row; a label of a"),
        ("Accession Number,PatientID,y\nA2,7,1\n", "None None 1 None", "1 of 4 scans have a row;"),
        ("StudyInstanceUID,y\n1.1,1\n1.2,0\n1.3,2\n", "1 1 0 2", "label of a study is that of all"),
        ("SeriesInstanceUID,y\n1.1.1,1\n1.2.1,0\n", "1 1 0 None", "3 of 4 scans have a row\n"),
        ("SOPInstanceUID,y\n1.1.1.2,1\n1.3.1.1 ,0\n", "None 1 None 0", "2 of 4 scans have a row\n"),
        ("patient_id,y\n7,1\n8,0\n", "1 1 1 0", "a label of a patient is that of all its scans"),
        ("path,y\nd.dcm,1\na.dcm,0\n", "0 None None 1", "2 of 4 scans have a row\n"),
    ],
)
def test_labels_are_joined_by_what_the_archive_keeps(
    archive: Archive, capsys: pytest.CaptureFixture[str], text: str, expected: str, said: str
) -> None:
    capsys.readouterr()
    found = joined(archive, text)
    assert " ".join(str(label) for label in labels_of(found).values()) == expected
    assert list(labels_of(found)) == list(SCANS)
    assert said in capsys.readouterr().out
    assert found.content_hash != archive.content_hash
    assert (found.gather(np.arange(4)).pixels == archive.gather(np.arange(4)).pixels).all()


def test_values_that_the_archive_does_not_hold_are_counted(
    archive: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    joined(archive, "AccessionNumber,y\nA1,1\nB9,0\n")
    assert "1 of 2 values of 'AccessionNumber' are not in" in capsys.readouterr().err
    with pytest.raises(ScanlearnError, match="none of the 1 values of 'AccessionNumber' is in"):
        joined(archive, "AccessionNumber,y\nB9,0\n")
    with pytest.raises(ScanlearnError, match="give the issuer= that it was packed with"):
        joined(archive, "patient_id,y\n7,0\n", issuer="south")


def test_table_without_any_such_column_is_refused(archive: Archive) -> None:
    with pytest.raises(ScanlearnError, match=r"labels can be joined.*StudyInstanceUID"):
        joined(archive, "number,y\n7,0\n")


def test_archive_keeps_no_identifier_in_the_clear(archive: Archive) -> None:
    text = b"".join(file.read_bytes() for file in archive.path.rglob("*") if file.is_file())
    assert not any(value.encode() in text for value in ("1.1.1.1", "1.3.1", "A1", "A3"))


def test_rows_of_a_study_that_contradict_each_other_are_an_error(archive: Archive) -> None:
    table = archive.path.parent / "t.csv"
    table.write_text("AccessionNumber,y\nA1,1\nA2,0\nA1,0\n")
    settings = SMALL.model_copy(update={"root": archive.path})
    with pytest.raises(ScanlearnError, match=r"t\.csv rows 2 and 4: 'y' of scan A1 is '1' and '0'"):
        open_archive(table, settings=settings, single=["y"])


def test_a_folder_is_packed_although_the_root_of_tables_is_an_archive(
    archive: Archive, tmp_path: Path
) -> None:
    settings = SMALL.model_copy(update={"root": archive.path})
    opened = open_archive(tmp_path / "north" / "dicom", settings=settings, cache=tmp_path / "c")
    assert len(opened) == len(SCANS)
    assert opened.path != archive.path
