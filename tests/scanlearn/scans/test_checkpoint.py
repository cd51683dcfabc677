from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scanlearn.scans.checkpoint import Checkpoint, drop_checkpoint, read_checkpoint

HEADER = {"source_hash": "a", "shape": [1, 2, 2]}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    (tmp_path / "s0").write_bytes(b"12345")
    (tmp_path / "list").write_bytes(b"123")
    shards = [{"file": "s0", "bytes": 5, "scans": 2}]
    found = Checkpoint(HEADER, shards, {"list": 2}, {"n": 1}, {"num_done": 7})
    found.write(tmp_path)
    return found


def test_checkpoint_is_read_back(tmp_path: Path, checkpoint: Checkpoint) -> None:
    assert read_checkpoint(tmp_path, HEADER) == checkpoint
    assert checkpoint.counts == [2]


def test_later_checkpoint_takes_the_place_of_the_one_before(
    tmp_path: Path, checkpoint: Checkpoint
) -> None:
    replace(checkpoint, state={"num_done": 9}).write(tmp_path)
    found = read_checkpoint(tmp_path, HEADER)
    assert found is not None
    assert found.state == {"num_done": 9}


def test_checkpoint_of_another_archive_is_none(tmp_path: Path, checkpoint: Checkpoint) -> None:
    assert read_checkpoint(tmp_path, checkpoint.header | {"source_hash": "b"}) is None


@pytest.mark.usefixtures("checkpoint")
@pytest.mark.parametrize(("file", "content"), [("s0", b"1234"), ("list", b"1")])
def test_checkpoint_whose_files_are_cut_short_is_none(
    tmp_path: Path, file: str, content: bytes
) -> None:
    (tmp_path / file).write_bytes(content)
    assert read_checkpoint(tmp_path, HEADER) is None


@pytest.mark.usefixtures("checkpoint")
def test_folder_without_a_checkpoint_or_with_a_broken_one_has_none(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.json").write_text("{")
    assert read_checkpoint(tmp_path, HEADER) is None
    drop_checkpoint(tmp_path)
    assert read_checkpoint(tmp_path, HEADER) is None
