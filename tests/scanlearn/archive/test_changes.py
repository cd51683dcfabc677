from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scanlearn.archive.changes import changing, free_number, read_list, rewrite_list, tidy
from scanlearn.archive.reader import Archive
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.errors import ScanlearnError


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    with ArchiveWriter(tmp_path / "a", shape=(1, 2, 2), dtype=np.uint8) as writer:
        writer.add(np.zeros((1, 2, 2), np.uint8), scan_id="s", patient="p")
        return writer.close()


def test_one_process_changes_an_archive_at_a_time(archive: Archive) -> None:
    with changing(archive.path), pytest.raises(ScanlearnError, match="another process is changing"):
        changing(archive.path).__enter__()
    with changing(archive.path) as found:
        assert found.info == archive.info


def test_what_no_archive_names_is_tidied_away(archive: Archive) -> None:
    named = {file.name for file in archive.path.rglob("*")}
    (archive.path / "shards/00007.arrow").touch()
    (archive.path / "manifest.3.parquet").touch()
    (archive.path / "mine.txt").touch()
    assert free_number(archive.path) == 8
    tidy(archive)
    assert {file.name for file in archive.path.rglob("*")} == {*named, "mine.txt"}


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
