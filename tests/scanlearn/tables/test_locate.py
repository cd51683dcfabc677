from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.tables.manifest import read_manifest

MakeFiles = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> MakeFiles:
    """Makes empty files below a folder called ``set`` and returns it."""

    def write(*names: str) -> Path:
        for name in names:
            (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / name).touch()
        return tmp_path / "set"

    return write


def found(folder: Path, *cells: str, root: Path | None = None) -> list[str | None]:
    """Returns which files the paths of a table in ``folder`` mean."""
    quoted = "".join(f'"{cell}",1\n' for cell in cells)
    (folder / "t.csv").write_text(f"path,y\n{quoted}", "utf-8")
    paths: list[str | None] = (
        read_manifest(folder / "t.csv", root=root).table.column("path").to_pylist()
    )
    return paths


@pytest.mark.parametrize(
    ("cell", "file"),
    [
        ("img\\0.png", "img/0.png"),
        (".\\img\\0.png", "img/0.png"),
        ("img/sub\\0.png", "img/sub/0.png"),
        (" img/0.png ", "img/0.png"),
        ("img//0.png", "img//0.png"),
        ("set/img/0.png", "img/0.png"),
        ("set\\img\\0.png", "img/0.png"),
        ("D:\\data\\set\\img\\0.png", "img/0.png"),
        ("/home/me/set/img/0.png", "img/0.png"),
        ("img/0.PNG", "img/0.png"),
        ("IMG/0.png", "img/0.png"),
        ("img/0", "img/0.png"),
        ("0", "img/0.png"),
        ("0", "0.nii.gz"),
        ("img/ä.png", "img/ä.png"),
    ],
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_path_means_the_file_it_can_only_mean(
    make: MakeFiles, cell: str, file: str, form: str
) -> None:
    written = unicodedata.normalize("NFC" if form == "NFC" else "NFD", file)
    folder = make(written.replace("//", "/"))
    assert found(folder, cell) == [written]


def test_name_that_holds_a_backslash_or_a_blank_is_taken_as_it_is(make: MakeFiles) -> None:
    names = ["img\\0.png", " a.png", "b .png"]
    assert found(make("img/0.png", "a.png", *names), *names) == names


def test_paths_that_begin_with_the_folder_of_the_table_are_its_own(
    make: MakeFiles, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make("valid/patient1/view1.jpg")
    cell = "set/valid/patient1/view1.jpg"
    assert found(folder, cell) == ["valid/patient1/view1.jpg"]
    assert found(folder, cell, root=folder.parent) == [cell]
    monkeypatch.chdir(folder.parent)
    assert found(folder, cell, root=Path()) == [cell]
    assert capsys.readouterr() == ("", "")


def test_names_without_ending_are_the_files_of_that_stem_and_their_folder_is_told(
    make: MakeFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make("train_images/000a1.png", "train_images/001b2.png", "train_images/000a1.txt")
    assert found(folder, "001b2", "000a1", "gone") == [
        *("train_images/001b2.png", "train_images/000a1.png", "gone")
    ]
    said = capsys.readouterr()
    assert "t.csv: 2 of its paths were found further below" in said.out
    assert "in train_images (2)" in said.out
    assert said.err == ""
    assert found(folder, "000a1", root=folder / "train_images") == ["000a1.png"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("files", "cell"),
    [
        (("a/1.png", "b/1.png"), "1"),
        (("a/1.png", "b/1.png"), "1.png"),
        (("1.png", "1.jpg"), "1"),
        (("x/a/1.png", "y/a/1.png"), "a/1.png"),
        (("A/1.png", "a/1.PNG"), "a/1.png"),
    ],
)
def test_path_that_fits_two_files_is_an_error_that_names_both(
    make: MakeFiles, files: tuple[str, str], cell: str
) -> None:
    folder = make(*files)
    with pytest.raises(ScanlearnError, match=r"fits 2 files below .*give root=FOLDER") as error:
        found(folder, cell)
    assert all(file in str(error.value) for file in files)


def test_nearest_of_files_of_one_name_is_meant(make: MakeFiles) -> None:
    folder = make("files/p1/s1/x.dcm", "files/p1/s2/x.dcm")
    assert found(folder, "p1/s2/x") == ["files/p1/s2/x.dcm"]


def test_scans_of_another_folder_than_the_one_named_are_never_taken_silently(
    make: MakeFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make("test/1.png", "test/2.png")
    assert found(folder, "train/1.png", "train/2.png") == ["test/1.png", "test/2.png"]
    said = capsys.readouterr().err
    assert "Warning: t.csv: 2 of its paths name a folder that is not there" in said
    assert "test (2) (the first, 'train/1.png', is test/1.png)" in said


@pytest.mark.parametrize("also", ["train/0.png", "here.png"])
def test_scans_of_another_folder_are_not_taken_where_the_one_named_is_there(
    make: MakeFiles, also: str
) -> None:
    folder = make("test/1.png", also)
    assert found(folder, "train/1.png", also) == ["train/1.png", also]


def test_nothing_found_is_an_error_that_names_settings_that_there_are(make: MakeFiles) -> None:
    folder = make("a.png")
    with pytest.raises(ScanlearnError, match=r"'b\.png'\); give root=FOLDER.*pack\.root"):
        found(folder, "b.png")
    with pytest.raises(ScanlearnError, match="is no folder; root is"):
        found(folder, "a.png", root=folder / "gone")
