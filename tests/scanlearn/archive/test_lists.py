from __future__ import annotations

import stat
from pathlib import Path

from scanlearn.archive.lists import ListWriter, read_list, read_paths, rewrite_list


def test_list_that_is_gone_on_with_loses_what_came_after(tmp_path: Path) -> None:
    columns = ("scan_id", "path")
    first = ListWriter(tmp_path / "paths.csv", columns)
    first.add("a", 'new\nline,"quoted"')
    reached = first.num_bytes()
    first.add("b", "lost")
    first.close()
    second = ListWriter(tmp_path / "paths.csv", columns, keep_bytes=reached)
    second.add("c", "kept")
    second.close()
    assert read_paths(tmp_path) == {"a": 'new\nline,"quoted"', "c": "kept"}


def test_new_list_replaces_an_old_one_and_may_be_the_owners_alone(tmp_path: Path) -> None:
    (tmp_path / "paths.csv").write_text("old")
    (tmp_path / "paths.csv").unlink()
    ListWriter(tmp_path / "paths.csv", ("scan_id", "path"), owner_only=True).close()
    assert stat.S_IMODE((tmp_path / "paths.csv").stat().st_mode) == 0o600
    assert (tmp_path / "paths.csv").read_text() == "scan_id,path\n"


def test_list_is_rewritten_without_some_files_and_with_more_lines(tmp_path: Path) -> None:
    path = tmp_path / "rejected.csv"
    path.write_text('scan_id,reason\na#1,x\nb,"two\nlines"\na,z\n')
    assert rewrite_list(path, {"a"}, [["c", 'say "no"']]) == 2
    assert list(read_list(path)) == [["b", "two\nlines"], ["c", 'say "no"']]
    assert [file.name for file in tmp_path.iterdir()] == ["rejected.csv"]


def test_list_of_paths_stays_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "paths.csv"
    path.write_text("scan_id,path\na,x\n")
    rewrite_list(path, ())
    assert path.stat().st_mode & 0o077 == 0


def test_no_path_is_a_formula_for_a_spreadsheet_and_all_are_read_back(tmp_path: Path) -> None:
    names = ["=1+1.png", "-1.png", "'=x.png", "@a.png", "a.png", "-5"]
    writer = ListWriter(tmp_path / "paths.csv", ("scan_id", "path"))
    for number, name in enumerate(names[:-1]):
        writer.add(str(number), name)
    writer.close()
    rewrite_list(tmp_path / "paths.csv", {"4"}, [("5", names[5]), ("6", "+b.png")])
    text = (tmp_path / "paths.csv").read_text()
    assert "0,'=1+1.png" in text
    assert "6,'+b.png" in text
    assert list(read_paths(tmp_path).values()) == [*names[:4], "-5", "+b.png"]
