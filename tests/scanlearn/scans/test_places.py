from __future__ import annotations

import io
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from scanlearn.scans.decode import Undecodable
from scanlearn.scans.files import ReadSettings, read_frames
from scanlearn.scans.pack import pack
from scanlearn.scans.places import as_file, head, inside, is_there, stamp
from scanlearn.scans.settings import PackSettings


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "a.ZIP", "w") as file:
        file.writestr("x/1.png", b"content")
    return tmp_path / "a.ZIP"


def test_path_leads_into_an_archive_and_no_folder_of_such_a_name(
    tmp_path: Path, archive: Path
) -> None:
    assert inside(archive / "x/1.png") == (archive, "x/1.png")
    assert inside(archive) is None
    assert inside(tmp_path / "b.png") is None
    (tmp_path / "c.zip").mkdir()
    assert inside(tmp_path / "c.zip" / "1.png") is None


def test_member_is_there_and_has_the_stamp_of_its_archive(archive: Path) -> None:
    assert is_there(archive / "x/1.png")
    assert not is_there(archive / "x/2.png")
    assert stamp(archive / "x/1.png") == stamp(archive) is not None


@pytest.mark.parametrize("name", ["gone.png", "n\0ul.png", "long" * 2000])
def test_what_is_not_there_has_no_stamp(tmp_path: Path, name: str) -> None:
    assert stamp(tmp_path / name) is None
    assert not is_there(tmp_path / name)


def test_head_is_the_first_bytes_of_file_and_member(tmp_path: Path, archive: Path) -> None:
    (tmp_path / "f").write_bytes(b"content")
    assert head(archive / "x/1.png", 3) == head(tmp_path / "f", 3) == b"con"
    assert head(tmp_path / "gone", 3) == b""


def test_file_is_read_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "f.png").touch()
    with as_file(tmp_path / "f.png", (".png",)) as file:
        assert file == tmp_path / "f.png"


def test_member_is_read_from_a_copy_that_bears_none_of_its_name_and_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("Doe, J\n.PNG", b"content")
    with as_file(tmp_path / "a.zip" / "Doe, J\n.PNG", (".png",)) as copied:
        assert copied.name == "scan.png"
        assert copied.read_bytes() == b"content"
        assert copied.parent.stat().st_mode & 0o077 == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has files in memory")
def test_member_whose_ending_does_not_count_never_reaches_the_disk(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with as_file(archive / "x/1.png", ()) as copied:
        assert copied.is_file()
        assert copied.stat().st_size == 7
        assert copied.read_bytes() == copied.read_bytes() == b"content"
    assert not copied.exists()


def test_damaged_member_leaves_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("1.png", b"content")
    raw = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(raw.replace(b"content", b"CONTENT"))
    with (
        pytest.raises(Undecodable, match="damaged in its archive"),
        as_file(tmp_path / "a.zip" / "1.png", (".png",)),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archive_packs_to_what_its_folder_packs_to(
    make_scans: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    folder = make_scans(5)
    (folder / "bad.png").write_text("no image")
    settings = PackSettings(canvas=32, workers=1, issuer="here")
    plain = pack(folder, tmp_path / "plain", settings=settings)
    inside_of = shutil.make_archive(str(tmp_path / "a"), kind, folder)
    packed = pack(inside_of, tmp_path / "packed", settings=settings)
    assert packed.content_hash == plain.content_hash
    assert packed.scan_ids.tolist() == plain.scan_ids.tolist()
    for name in ("rejected.csv", "paths.csv"):
        assert (packed.path / name).read_bytes() == (plain.path / name).read_bytes()


def test_header_of_a_pair_is_read_with_its_voxels(tmp_path: Path) -> None:
    voxels = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    pair = nibabel.Nifti1Pair(voxels, np.eye(4))
    nibabel.save(pair, tmp_path / "v.hdr")
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for name in ("v.hdr", "v.img"):
            content = (tmp_path / name).read_bytes()
            member = tarfile.TarInfo(f"x/{name}")
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    frames = list(read_frames(tmp_path / "a.tar" / "x/v.hdr", range(5), ReadSettings()))
    assert [frame.number for frame in frames] == [1, 2, 3, 4, 5]
