from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from scanlearn.core import ScanlearnError
from scanlearn.scans.archive import ArchiveWriter
from scanlearn.scans.reader import Archive, is_archive


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with ArchiveWriter(tmp_path / "a", shape=(1, 2, 2), dtype=np.uint8) as writer:
        writer.add(np.zeros((1, 2, 2), np.uint8), scan_id="s", patient="p")
    return tmp_path / "a"


def test_folder_without_an_archive_is_one_clear_sentence(tmp_path: Path) -> None:
    assert not is_archive(tmp_path)
    with pytest.raises(ScanlearnError, match=r"is not an archive \(it holds no archive\.json\)"):
        Archive(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": "x"}', "no json"])
def test_description_that_is_none_is_one_clear_sentence(path: Path, text: str) -> None:
    (path / "archive.json").write_text(text)
    with pytest.raises(ScanlearnError, match="not the description of an archive"):
        Archive(path)


def test_archive_of_a_later_release_says_so(path: Path) -> None:
    info = json.loads((path / "archive.json").read_text())
    (path / "archive.json").write_text(json.dumps(info | {"format_version": 2}))
    with pytest.raises(ScanlearnError, match="has archive format 2, this release reads up to 1"):
        Archive(path)


@pytest.mark.parametrize("name", ["shards/00000.arrow", "manifest.parquet"])
def test_missing_or_cut_short_part_is_found_when_it_is_opened(path: Path, name: str) -> None:
    whole = (path / name).read_bytes()
    (path / name).write_bytes(whole[:-1])
    with pytest.raises(ScanlearnError, match="missing or cut short"):
        Archive(path)
    (path / name).unlink()
    with pytest.raises(ScanlearnError, match="missing or cut short"):
        Archive(path)
