from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.tables.manifest import read_manifest

MakeScans = Callable[..., Path]


def write_table(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_folder_lists_every_image_in_order_and_leaves_hidden_files_out(tmp_path: Path) -> None:
    names = ("b/2.PNG", "a/10.jpg", "a/9.jpeg", ".hidden/x.png", "a/._9.jpg", "a/notes.txt")
    manifest = read_manifest(make(tmp_path, *names))
    assert manifest.table["path"].to_pylist() == ["a/10.jpg", "a/9.jpeg", "b/2.PNG"]
    assert manifest.ignored == ((".txt", 1),)


def test_folder_does_not_know_patients_so_each_scan_is_its_own(make_scans: MakeScans) -> None:
    manifest = read_manifest(make_scans(3))
    assert not manifest.patients_known
    assert manifest.table["patient"] == manifest.table["path"]


def test_table_in_a_folder_is_not_read_unasked(make_scans: MakeScans) -> None:
    folder = make_scans(3)
    write_table(folder / "manifest.csv", "path,patient_id\nscan000.png,p1\n")
    assert len(read_manifest(folder)) == 3


def test_names_with_spaces_unicode_and_newlines_are_kept(tmp_path: Path) -> None:
    names = ["a b.png", "line\nbreak.png", 'Über,"x".png', "眼.png"]
    assert read_manifest(make(tmp_path, *names)).table["path"].to_pylist() == sorted(names)


def test_name_that_is_not_utf8_is_set_aside_not_fatal(make_scans: MakeScans) -> None:
    folder = make_scans(1)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).touch()
    manifest = read_manifest(folder)
    assert manifest.table["path"].to_pylist() == ["\\xff.png (escaped)", "scan000.png"]
    assert list(manifest.refused) == ["\\xff.png (escaped)"]
    assert manifest.file("\\xff.png (escaped)") == folder
    assert manifest.file("scan000.png") == folder / "scan000.png"


def test_zip_gives_the_paths_that_its_folder_has(make_scans: MakeScans, tmp_path: Path) -> None:
    folder = make_scans(3)
    archive = Path(shutil.make_archive(str(tmp_path / "a"), "zip", folder))
    manifest = read_manifest(archive)
    assert manifest.table == read_manifest(folder).table
    assert manifest.root == archive
    before = manifest.content_hash()
    os.utime(archive, ns=(1, 1))
    assert manifest.content_hash() != before


def test_npz_gives_its_labels_and_splits(tmp_path: Path) -> None:
    images = np.zeros((2, 8, 8), np.uint8)
    np.savez(tmp_path / "m.npz", test_images=images, test_labels=np.array([[1], [0]]))
    manifest = read_manifest(tmp_path / "m.npz")
    assert list(manifest.rows()) == [
        ("test/0000000", "test/0000000", {"label": "1", "split": "test"}),
        ("test/0000001", "test/0000001", {"label": "0", "split": "test"}),
    ]
    assert not manifest.patients_known


def test_table_may_name_members_of_an_archive(make_scans: MakeScans, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "a"), "tar", make_scans(2))
    table = write_table(tmp_path / "t.csv", "path\na.tar/scan001.png\n")
    manifest = read_manifest(table)
    assert manifest.root == tmp_path
    assert manifest.table["path"].to_pylist() == ["a.tar/scan001.png"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tar.gz", b"", r"compressed tar.*; unpack it, or give a \.tar"),
        ("a.TGZ", b"", r"compressed tar.*; unpack it, or give a \.tar"),
        ("a.docx", b"", "neither a folder of scans nor a table"),
        ("a.xls", b"", r"neither a folder .*save it as \.xlsx or CSV"),
        ("a.xlsx", b"", r"it is not an Excel file: save it as \.xlsx"),
        ("a.xlsx", b"\xd0\xcf\x11\xe0", "is an old or encrypted Excel file"),
        ("t.csv", b"", "no column called"),
        ("t.csv", b"path\n", "no row"),
        ("t.csv", b"path,y,y\na,1,2\n", "'y' appears twice"),
        ("t.csv", b"path,y\na.png,1\nb.png,1,2\n", "row 3 has 3 values for 2 columns"),
        ("t.csv", b"a,b\n1,2\n", r"with path_column: a, b"),
        ("t.csv", b"path\ngone.png\n", r"none of its first 1 paths .*'gone\.png'.*root"),
        ("t.csv", b"path\n\xff\xfe\n", "cannot be read as a table"),
        ("t.csv", b'path\n"open\n', "cannot be read as a table"),
        ("t.parquet", b"PAR1 not really", "cannot be read as a table"),
        ("nowhere", None, "no such file or folder"),
    ],
)
def test_broken_table_is_one_clear_sentence(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ScanlearnError, match=message):
        read_manifest(tmp_path / name)


def test_empty_folder_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.doc").touch()
    with pytest.raises(ScanlearnError, match=r"no scans \(found: 1 \.doc\)"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("path_name", ["path", "Filename", "image", "Image Index"])
@pytest.mark.parametrize(
    "patient_name",
    ["patient_id", "Patient ID", "PatientID", "subject_id", "subject", "Pat. ID", "pat_id"],
)
def test_table_columns_are_found_by_their_usual_names(
    make_scans: MakeScans, path_name: str, patient_name: str
) -> None:
    folder = make_scans(2)
    text = f"{patient_name},{path_name}\np1,scan000.png\np2,scan001.png\n"
    manifest = read_manifest(write_table(folder / "t.csv", text))
    assert manifest.patients_known
    assert list(manifest.rows()) == [("scan000.png", "p1", {}), ("scan001.png", "p2", {})]


def test_labels_keep_their_raw_strings_and_blanks_are_null(make_scans: MakeScans) -> None:
    folder = make_scans(3)
    rows = "scan000.png,007,1.0,a|b\nscan001.png,7,,  \nscan002.png,7,NA,0\n"
    table = write_table(folder / "t.csv", "path,patient,grade,other\n" + rows)
    manifest = read_manifest(table)
    assert manifest.table["patient"].to_pylist() == ["007", "7", "7"]
    assert manifest.table["grade"].to_pylist() == ["1.0", None, "NA"]
    assert manifest.table["other"].to_pylist() == ["a|b", None, "0"]


@pytest.mark.parametrize("start", ["\ufeff", ""])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_dialects_are_read(make_scans: MakeScans, start: str, delimiter: str) -> None:
    folder = make_scans(1)
    text = f'{start}path,patient,say\n"scan000.png",p,"x"\n'.replace(",", delimiter)
    manifest = read_manifest(write_table(folder / "t.csv", text))
    assert list(manifest.rows()) == [("scan000.png", "p", {"say": "x"})]


def test_parquet_gives_the_same_manifest_as_csv(make_scans: MakeScans) -> None:
    folder = make_scans(2)
    text = "path,patient,grade\nscan000.png,1,0\nscan001.png,2,\n"
    columns = {
        "path": ["scan000.png", "scan001.png"],
        "patient": [1, 2],
        "grade": [0.0, float("nan")],
        "image_bytes": [b"x", b"y"],
    }
    pq.write_table(pa.table(columns), folder / "t.parquet")
    from_csv = read_manifest(write_table(folder / "t.csv", text))
    assert read_manifest(folder / "t.parquet").table == from_csv.table


def test_paths_may_start_from_the_images_folder(make_scans: MakeScans, tmp_path: Path) -> None:
    folder = make_scans(2, "images")
    manifest = read_manifest(write_table(tmp_path / "t.csv", "path\nscan000.png\n"))
    assert manifest.root == folder
    assert not manifest.patients_known


def test_bare_names_are_found_in_nested_folders(make_scans: MakeScans, tmp_path: Path) -> None:
    (tmp_path / "images_001").mkdir()
    make_scans(2, "images_001/images")
    manifest = read_manifest(write_table(tmp_path / "t.csv", "path\nscan001.png\ngone.png\n"))
    assert manifest.table["path"].to_pylist() == ["images_001/images/scan001.png", "gone.png"]


def test_root_says_where_paths_start(make_scans: MakeScans, tmp_path: Path) -> None:
    folder = make_scans(2)
    table = write_table(tmp_path / "t.csv", "path\nscan000.png\n")
    assert read_manifest(table, root=folder).root == folder


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path_column": "pth"}, r"no column 'pth' for path_column \(did you mean 'path'"),
        ({"patient_column": "case"}, r"no column 'case' .*path, caze"),
    ],
)
def test_missing_column_lists_columns_and_the_nearest_spelling(
    make_scans: MakeScans, settings: dict[str, str], message: str
) -> None:
    table = write_table(make_scans(1) / "t.csv", "path,caze\nscan000.png,1\n")
    with pytest.raises(ScanlearnError, match=message):
        read_manifest(table, **settings)


def test_nih_findings_become_columns_of_zero_and_one(make_scans: MakeScans) -> None:
    folder = make_scans(3)
    text = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,\n"
        "scan000.png,Edema|Mass,0,1,\nscan001.png,No Finding,1,1,\nscan002.png,,0,2,\n"
    )
    manifest = read_manifest(write_table(folder / "Data_Entry_2017.csv", text))
    assert manifest.label_columns == (
        "Finding Labels", "Follow-up #", "Edema", "Mass", "No Finding",
    )  # fmt: skip
    assert manifest.table["Edema"].to_pylist() == ["1", "0", None]
    assert manifest.table["No Finding"].to_pylist() == ["0", "1", None]
    assert manifest.table["patient"].to_pylist() == ["1", "1", "2"]


def test_hash_follows_rows_and_files_but_not_the_place(
    make_scans: MakeScans, tmp_path: Path
) -> None:
    folder = make_scans(2)
    first = read_manifest(folder).content_hash()
    assert read_manifest(folder).content_hash() == first
    moved = folder.rename(tmp_path / "elsewhere")
    assert read_manifest(moved).content_hash() == first
    os.utime(moved / "scan000.png", ns=(1, 1))
    assert read_manifest(moved).content_hash() != first


def test_real_nih_table_has_682_patients(real_data: Path) -> None:
    manifest = read_manifest(real_data / "nih1000" / "Data_Entry_2017.csv")
    assert len(manifest) == 1000
    assert len(set(manifest.table["patient"].to_pylist())) == 682
    assert manifest.table["Pneumonia"].to_pylist().count("1") == 500
    assert manifest.table["No Finding"].to_pylist().count("1") == 500


def test_real_kermany_table_has_3344_patients(real_data: Path) -> None:
    manifest = read_manifest(real_data / "kermany_cxr" / "manifest.csv")
    assert len(manifest) == 5840
    assert len(set(manifest.table["patient"].to_pylist())) == 3344
    assert manifest.label_columns == ("orig_split", "pneumonia", "subtype")


def test_first_folder_below_a_source_is_a_label_where_asked_for(tmp_path: Path) -> None:
    make(tmp_path, "normal/a/1.png", "normal/2.png", "virus/1.png")
    assert read_manifest(tmp_path).label_columns == ()
    manifest = read_manifest(tmp_path, folder_labels=True)
    assert manifest.label_columns == ("folder",)
    assert manifest.table["folder"].to_pylist() == ["normal", "normal", "virus"]


def test_folders_in_a_zip_are_labels_too(make_scans: MakeScans, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.move(make_scans(2, name="mild"), source / "mild")
    shutil.move(make_scans(1, name="severe"), source / "severe")
    packed = Path(shutil.make_archive(str(tmp_path / "all"), "zip", source))
    manifest = read_manifest(packed, folder_labels=True)
    assert manifest.table["folder"].to_pylist() == ["mild", "mild", "severe"]


def test_scan_outside_any_folder_has_no_folder_label(tmp_path: Path) -> None:
    make(tmp_path, "mild/1.png", "2.png", "3.png")
    with pytest.raises(ScanlearnError, match=r"2 of 3 scans lie directly in it, first 2\.png"):
        read_manifest(tmp_path, folder_labels=True)


def test_table_has_labels_of_its_own(make_scans: MakeScans) -> None:
    table = write_table(make_scans(1) / "t.csv", "path,y\nscan000.png,1\n")
    with pytest.raises(ScanlearnError, match="has labels of its own"):
        read_manifest(table, folder_labels=True)


CHEXPERT = [f"CheXpert-v1.0-small/valid/patient0000{n}/study1/view1.jpg" for n in (1, 1, 2)]


def test_patient_is_what_a_pattern_finds_in_the_path(tmp_path: Path) -> None:
    names = [path.replace("view1", f"view{n}") for n, path in enumerate(CHEXPERT)]
    make(tmp_path, *names)
    table = tmp_path / "CheXpert-v1.0-small" / "valid.csv"
    write_table(table, "\n".join(["Path,patient", *(f"{name},x" for name in names)]) + "\n")
    for source in (table, tmp_path):
        manifest = read_manifest(source, patient_pattern=r"patient(\d+)")
        assert manifest.table["patient"].to_pylist() == ["00001", "00001", "00002"]
        assert manifest.patients_known


def test_path_without_a_patient_is_named(tmp_path: Path) -> None:
    make(tmp_path, "patient1/a.png", "other/b.png", "patient/c.png")
    with pytest.raises(ScanlearnError, match=r"finds no patient in the path 'other/b\.png'"):
        read_manifest(tmp_path, patient_pattern=r"patient(\d*)")
    with pytest.raises(ScanlearnError, match=r"finds no patient in the path 'patient/c\.png'"):
        read_manifest(tmp_path, patient_pattern=r"(?:patient|other)/?([b\d]*)")


@pytest.mark.skipif(os.name != "posix", reason="processor time is limited on POSIX systems")
def test_pattern_that_tries_too_many_ways_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanlearn.readers.limits.MAX_SECONDS", 0.2)
    make(tmp_path, "a" * 60 + ".png")
    with pytest.raises(ScanlearnError, match=r"takes more than 0\.2 seconds .*one repetition"):
        read_manifest(tmp_path, patient_pattern="((?:a+)+)b")


@pytest.mark.parametrize(
    ("header", "row", "columns"),
    [
        ("id_code,diagnosis", "x1,2", {"path_column": "id_code"}),  # APTOS 2019
        ("image,level", "x1,0", {}),  # EyePACS
        ("image_name,patient_id,target", "x1,IP_1,0", {}),  # ISIC 2020
        ("patientId,x,y,width,height,Target", "x1,,,,,0", {"path_column": "patientId"}),  # RSNA
        ("image_id,class_name,class_id,rad_id", "x1,No finding,14,R1", {}),  # VinDr-CXR
        ("image_id,patient_id,camera,DR_ICDR", "x1,1,Canon CR,0", {}),  # BRSET
        ("dicom_id,subject_id,study_id,split", "x1,1,5,train", {"path_column": "dicom_id"}),
        ("Image name;Retinopathy grade;Risk of macular edema ", "x1.jpg;3;1", {}),  # MESSIDOR
        ("ID,Patient Age,Left-Fundus,N,D", "1,69,x1.jpg,0,1", {"path_column": "Left-Fundus"}),
        ("Path,Sex,Frontal/Lateral,AP/PA,Edema", "set/images/x1.jpg,Male,Frontal,AP,-1.0", {}),
        (
            "Image Index,Finding Labels,Patient ID,OriginalImage[Width,Height]",
            "x1.jpg,Cardiomegaly|Emphysema,1,2748,2894",
            {},
        ),
    ],
)
def test_tables_of_public_sets_are_read_as_they_are(
    tmp_path: Path, header: str, row: str, columns: dict[str, str]
) -> None:
    make(tmp_path, "set/images/x1.jpg")
    table = write_table(tmp_path / "set" / "t.csv", f"{header}\n{row}\n")
    manifest = read_manifest(table, **columns)
    assert [manifest.file(scan.path).name for scan in manifest.rows()] == ["x1.jpg"]
    assert manifest.file(next(manifest.rows()).path).is_file()
