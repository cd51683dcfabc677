from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scanlearn.archive.changes import changing, free_number, tidy
from scanlearn.archive.layout import Origin, PackedScan
from scanlearn.archive.reader import Archive
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.locks import BusyError


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    with ArchiveWriter(tmp_path / "a", shape=(1, 2, 2), dtype=np.uint8) as writer:
        writer.add(PackedScan(np.zeros((1, 2, 2), np.uint8)), Origin("s", "p"))
        return writer.close()


def test_one_process_changes_an_archive_at_a_time(archive: Archive) -> None:
    with changing(archive.path), pytest.raises(BusyError, match="has been at work on it since"):
        changing(archive.path).__enter__()
    with changing(archive.path) as found:
        assert found.info == archive.info
    assert not list(archive.path.glob(".*"))


def test_what_no_archive_names_is_tidied_away(archive: Archive) -> None:
    named = {file.name for file in archive.path.rglob("*")}
    (archive.path / "shards/00007.arrow").touch()
    (archive.path / "manifest.3.parquet").touch()
    (archive.path / "mine.txt").touch()
    assert free_number(archive.path) == 8
    tidy(archive)
    assert {file.name for file in archive.path.rglob("*")} == {*named, "mine.txt"}
