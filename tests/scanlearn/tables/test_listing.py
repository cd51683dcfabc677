from __future__ import annotations

import os
import socket
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.tables.listing import walk
from scanlearn.tables.manifest import Manifest, read_manifest


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def listed(manifest: Manifest) -> list[str]:
    return [str(row.path) for row in manifest.rows()]


def paths(folder: Path, **chosen: bool) -> list[str]:
    return listed(read_manifest(folder, **chosen))


def test_paths_are_in_order_whatever_the_folders(tmp_path: Path) -> None:
    names = ["b.png", "a/2.png", "a/10.png", "a.png", "ä/1.png", "眼.png", "a b.png"]
    assert paths(make(tmp_path, *names, ".h/1.png", "a/.2.png", "n.txt")) == sorted(names)


def test_link_out_of_the_folder_is_set_aside_with_the_setting_that_follows_it(
    tmp_path: Path,
) -> None:
    make(tmp_path, "out/1.png", "in/2.png", "in/a")
    for name, target in (("l.png", "out/1.png"), ("l", "out/1.png"), ("text.txt", "out/1.png")):
        (tmp_path / "in" / name).symlink_to(tmp_path / target)
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "up.png").symlink_to("../out/1.png")
    found = read_manifest(tmp_path / "in")
    assert listed(found) == ["2.png", "folder", "l", "l.png", "up.png"]
    assert set(found.refused) == {"folder", "l", "l.png", "up.png"}
    assert all("follow_links=true" in reason for reason in found.refused.values())
    followed = read_manifest(tmp_path / "in", follow_links=True)
    assert not followed.refused
    assert listed(followed) == ["2.png", "folder/1.png", "l.png", "up.png"]


def test_link_inside_the_folder_is_read_where_it_is_a_file(tmp_path: Path) -> None:
    make(tmp_path, "a/1.png")
    (tmp_path / "l.png").symlink_to("a/1.png")
    (tmp_path / "b").symlink_to("a")
    assert paths(tmp_path) == ["a/1.png", "l.png"]
    assert paths(tmp_path, follow_links=True) == ["a/1.png", "l.png"]


def test_folder_that_is_a_link_itself_is_its_own_tree(tmp_path: Path) -> None:
    make(tmp_path, "real/1.png")
    (tmp_path / "real" / "l.png").symlink_to(tmp_path / "real" / "1.png")
    (tmp_path / "source").symlink_to("real")
    assert not read_manifest(tmp_path / "source").refused


@pytest.mark.parametrize("follow_links", [False, True])
def test_loops_of_links_end(tmp_path: Path, follow_links: bool) -> None:
    make(tmp_path, "a/b/1.png")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "x.png").symlink_to("y.png")
    (tmp_path / "y.png").symlink_to("x.png")
    assert paths(tmp_path, follow_links=follow_links) == ["a/b/1.png", "x.png", "y.png"]


def test_many_links_between_folders_are_walked_once(tmp_path: Path) -> None:
    for name in range(30):
        make(tmp_path, f"{name}/1.png")
    for name in range(30):
        for other in range(30):
            (tmp_path / f"{name}" / f"to{other}").symlink_to(tmp_path / f"{other}")
    assert len(paths(tmp_path, follow_links=True)) == 30


def test_broken_link_is_listed_to_be_set_aside(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    assert paths(tmp_path) == ["gone.png"]


def test_names_that_are_not_utf8_are_set_aside_under_escapes(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path)
    for name in (b"\xff.png", b"a\xfc.zip", b"x.\xff"):
        Path(os.fsdecode(raw + b"/" + name)).touch()
    make(tmp_path, "\\xff.png")
    Path(os.fsdecode(raw + b"/d\xe9")).mkdir()
    Path(os.fsdecode(raw + b"/d\xe9/1.png")).touch()
    found = read_manifest(tmp_path)
    assert listed(found) == [
        *("\\xff.png", "\\xff.png (escaped)", "a\\xfc.zip (escaped)", "d\\xe9/1.png (escaped)")
    ]
    assert "\\xff.png" not in found.refused
    assert set(found.refused.values()) == {"has a name that is not UTF-8; rename it"}
    assert found.ignored == (("other endings", 1),)


def test_endings_that_are_shown_hold_no_markup(tmp_path: Path) -> None:
    make(tmp_path, "1.png", "a.<b>", "b.\x1b[31m", "c.txt", "d.averyverylongending")
    assert dict(read_manifest(tmp_path).ignored) == {"other endings": 3, ".txt": 1}


def test_pipes_and_sockets_are_listed_by_name_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.dcm")
    os.mkfifo(tmp_path / "pipe")
    here = Path.cwd()
    os.chdir(tmp_path)  # The address of a socket is short.
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("s.png")
    finally:
        os.chdir(here)
    found = read_manifest(tmp_path)
    assert listed(found) == ["a.dcm", "s.png"]
    assert found.ignored == (("no ending", 1),)


def test_archives_in_a_folder_are_counted_or_opened_on_request(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("x/2.png", b"x")
        file.writestr("../3.png", b"x")
        file.writestr("notes.txt", b"x")
    np.savez(tmp_path / "m.npz", val_images=np.zeros((2, 8, 8), np.uint8))
    (tmp_path / "broken.tar").write_text("no archive")
    make(tmp_path, "1.png")
    left_alone = read_manifest(tmp_path)
    assert listed(left_alone) == ["1.png"]
    assert dict(left_alone.ignored) == {".zip": 1, ".npz": 1, ".tar": 1}
    opened = read_manifest(tmp_path, open_containers=True)
    assert listed(opened) == [
        *("1.png", "a.zip/../3.png", "a.zip/x/2.png", "broken.tar"),
        *("m.npz/val/0000000", "m.npz/val/0000001"),
    ]
    assert set(opened.refused) == {"a.zip/../3.png", "broken.tar"}
    assert str(tmp_path) not in str(opened.refused)


def test_members_are_told_by_their_content_where_they_have_no_ending(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("scan", b"\x89PNG and so on")
        file.writestr("1.2.3", b"no scan")
    found = read_manifest(tmp_path / "a.zip")
    assert listed(found) == ["scan"]
    assert found.ignored == ((".3", 1),)


def test_archive_that_cannot_be_opened_or_holds_no_scan_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_text("no archive")
    with pytest.raises(ScanlearnError, match=r"a\.tar: is damaged or not an archive"):
        read_manifest(tmp_path / "a.tar")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a.txt", b"x")
    with pytest.raises(ScanlearnError, match=r"a\.zip: contains no scans \(found: 1 \.txt\)"):
        read_manifest(tmp_path / "a.zip")


def test_same_name_twice_in_an_archive_leaves_the_first_readable(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name in ("a.png", "./a.png", "/a.png"):
            file.writestr(name, b"x")
    found = read_manifest(tmp_path / "a.zip")
    assert listed(found) == ["a.png", "a.png (again)", "a.png (again) (again)"]
    assert "a.png" not in found.refused


def test_folder_that_cannot_be_listed_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ScanlearnError, match=r"cannot be listed .*make the folder readable"):
        list(walk(tmp_path / "gone"))


@pytest.mark.long
def test_a_hundred_thousand_files_in_one_folder_are_listed_in_seconds(tmp_path: Path) -> None:
    for number in range(100_000):
        os.close(os.open(tmp_path / f"{number:06d}.png", os.O_CREAT))
    start = time.monotonic()
    assert len(read_manifest(tmp_path)) == 100_000
    assert time.monotonic() - start < 20
