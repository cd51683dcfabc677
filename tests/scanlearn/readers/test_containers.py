from __future__ import annotations

import io
import shutil
import struct
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings
from scanlearn.readers import containers
from scanlearn.readers.containers import (
    as_file,
    as_text,
    head,
    is_there,
    member_of,
    open_container,
    stamp,
)
from scanlearn.readers.readers import read_frames
from scanlearn.readers.scan import ReadSettings, Undecodable

Write = Callable[[Path, dict[str, bytes]], Path]


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def content(path: Path, name: str) -> bytes:
    return b"".join(open_container(path).chunks(name))


@pytest.fixture(params=[write_zip, write_tar], ids=["zip", "tar"])
def write(request: pytest.FixtureRequest) -> Write:
    written: Write = request.param
    return lambda path, members: written(
        path.with_suffix(".zip" if written is write_zip else ".tar"), members
    )


def test_members_are_read_in_any_order_and_large_ones_in_pieces(
    tmp_path: Path, write: Write
) -> None:
    members = {"b/2.png": b"two", "a/1.png": bytes(range(256)) * 4096, "empty.png": b""}
    path = write(tmp_path / "a", members)
    assert set(open_container(path).members) == set(members)
    for name in ("a/1.png", "empty.png", "b/2.png", "a/1.png"):
        assert content(path, name) == members[name]
    assert len(list(open_container(path).chunks("a/1.png"))) == 4


def test_archive_that_changed_is_opened_anew(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path / "a", {"1.png": b"old"})
    assert content(path, "1.png") == b"old"
    write(tmp_path / "a", {"1.png": b"newer", "2.png": b"x" * 20_000})
    assert content(path, "1.png") == b"newer"


def test_member_that_is_not_there_is_refused(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path / "a", {"1.png": b"x"})
    with pytest.raises(Undecodable, match="not found"):
        content(path, "2.png")


@pytest.mark.parametrize(
    "name", ["../1.png", "a/../../1.png", "/etc/1.png", "C:\\1.png", "..\\1.png", "\\1.png"]
)
def test_names_that_lead_out_are_set_aside(tmp_path: Path, write: Write, name: str) -> None:
    found = open_container(write(tmp_path / "a", {name: b"x", "good.png": b"x"}))
    assert list(found.members) == ["good.png"]
    ((_, reason),) = found.refused
    assert "outside its archive" in reason


def test_hidden_members_and_folders_are_left_out(tmp_path: Path, write: Write) -> None:
    members = {"__MACOSX/._1.png": b"x", ".git/1.png": b"x", "./a//1.png": b"x"}
    found = open_container(write(tmp_path / "a", members))
    assert list(found.members) == ["a/1.png"]
    assert not found.refused


@pytest.mark.parametrize("name", ["b.zip", "b.TAR", "b.npz", "b.tar.gz", "b\n.7z"])
def test_archives_inside_are_set_aside(tmp_path: Path, write: Write, name: str) -> None:
    found = open_container(write(tmp_path / "a", {name: b"x", "b.nii.gz": b"x"}))
    assert list(found.members) == ["b.nii.gz"]
    assert found.refused == [(name, "is an archive inside an archive; unpack the outer one")]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_two_members_of_one_path_the_first_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name, text in (("1.png", "first"), ("./1.png", "second"), ("1.png", "third")):
            file.writestr(name, text)
    found = open_container(tmp_path / "a.zip")
    assert content(tmp_path / "a.zip", "1.png") == b"first"
    assert [reason for _, reason in found.refused] == [
        "has the path of an earlier member of its archive"
    ] * 2


def test_links_pipes_and_devices_in_a_tar_are_set_aside(tmp_path: Path) -> None:
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE)
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for kind in kinds:
            member = tarfile.TarInfo(f"{kind.decode()}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            file.addfile(member)
    found = open_container(tmp_path / "a.tar")
    assert not found.members
    assert {reason for _, reason in found.refused} == {"is a link, pipe or device"}
    assert len(found.refused) == len(kinds)


def test_links_encrypted_and_oddly_compressed_members_of_a_zip_are_set_aside(
    tmp_path: Path,
) -> None:
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
        file.writestr("lzma.png", b"x", zipfile.ZIP_LZMA)
        file.writestr("secret.png", b"x")
    raw = bytearray((tmp_path / "a.zip").read_bytes())
    # The flags of the last member's entry in the list.
    raw[raw.rfind(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(raw)
    assert open_container(tmp_path / "a.zip").refused == [
        ("link.png", "is a link, pipe or device"),
        ("lzma.png", "is neither deflated nor stored"),
        ("secret.png", "is encrypted"),
    ]


def test_sparse_member_of_a_tar_is_set_aside(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a.png")
    member.type, member.size = tarfile.GNUTYPE_SPARSE, 512
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"77777777777\0"  # The size that it would unpack to: 8 GiB.
    header[148:156] = b"        "
    header[148:156] = f"{sum(header[:512]):06o}\0 ".encode()
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(512 * 3))
    assert open_container(tmp_path / "a.tar").refused == [("a.png", "is stored as a sparse file")]


def test_name_that_is_not_utf8_is_set_aside(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"\udcff.png": b"x"})
    assert open_container(path).refused == [("\\xff.png", "has a name that is not UTF-8")]


def test_member_that_claims_too_much_is_set_aside_unread(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "MAX_MEMBER_BYTES", 1000)
    found = open_container(write(tmp_path / "a", {"bomb.png": bytes(1001), "a.png": bytes(1000)}))
    assert list(found.members) == ["a.png"]
    assert found.refused == [("bomb.png", "claims 1,001 bytes, more than 1,000")]


def test_zip_that_unpacks_to_more_than_it_claims_is_damaged(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": bytes(10_000)})
    raw = bytearray(path.read_bytes())
    place = raw.rfind(b"PK\x01\x02") + 24
    raw[place : place + 4] = struct.pack("<I", 10)
    path.write_bytes(raw)
    with pytest.raises(Undecodable, match="damaged in its archive"):
        content(path, "a.png")


def test_damaged_member_is_refused_without_its_name(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"john_doe.png": b"scan " * 100, "b.png": b"good"})
    raw = bytearray(path.read_bytes())
    raw[45] ^= 255
    path.write_bytes(raw)
    with pytest.raises(Undecodable, match="damaged in its archive") as caught:
        content(path, "john_doe.png")
    assert "john" not in str(caught.value)
    assert content(path, "b.png") == b"good"


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": bytes(9999), "b.png": bytes(9999)})
    raw = bytearray(path.read_bytes())
    # Both entries of the list point to the first member.
    place = raw.rfind(b"PK\x01\x02") + 42
    raw[place : place + 4] = bytes(4)
    path.write_bytes(raw)
    with pytest.raises(Undecodable, match="overlap"):
        open_container(path)


def test_list_of_members_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_zip(tmp_path / "a.zip", {f"{n}.png": b"" for n in range(9)})
    monkeypatch.setattr(containers, "_MAX_DIRECTORY_BYTES", 300)
    with pytest.raises(Undecodable, match="list of members"):
        open_container(path)


def test_too_many_members_are_refused(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a", {f"{n}.png": b"" for n in range(9)})
    monkeypatch.setattr(containers, "MAX_MEMBERS", 8)
    with pytest.raises(Undecodable, match="more than 8 members"):
        open_container(path)


@pytest.mark.parametrize("raw", [b"", b"no archive", b"\0" * 100, b"PK\x05\x06" + bytes(7)])
def test_what_is_no_archive_is_refused(tmp_path: Path, raw: bytes) -> None:
    for name in ("a.zip", "a.tar"):
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(Undecodable, match="damaged or not an archive"):
            open_container(tmp_path / name)


def test_archive_cut_short_or_damaged_between_members_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.png": bytes(5000), "b.png": bytes(5000)})
    raw = path.read_bytes()
    path.write_bytes(raw[:9000])
    with pytest.raises(Undecodable, match="damaged or not an archive"):
        open_container(path)
    path.write_bytes(raw[: 512 + 5120] + b"damage" + raw[512 + 5120 + 6 :])
    with pytest.raises(Undecodable, match="is damaged at byte 5,632"):
        open_container(path)


def test_bytes_that_are_no_text_become_escapes() -> None:
    assert as_text("Müller\udcff\n.png") == "Müller\\xff\n.png"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "a.ZIP", "w") as file:
        file.writestr("x/1.png", b"content")
    return tmp_path / "a.ZIP"


def test_path_leads_into_an_archive_and_no_folder_of_such_a_name(
    tmp_path: Path, archive: Path
) -> None:
    assert member_of(archive / "x/1.png") == (archive, "x/1.png")
    assert member_of(archive) is None
    assert member_of(tmp_path / "b.png") is None
    (tmp_path / "c.zip").mkdir()
    assert member_of(tmp_path / "c.zip" / "1.png") is None


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
