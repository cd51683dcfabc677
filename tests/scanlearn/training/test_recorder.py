from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from scanlearn.errors import ScanlearnError
from scanlearn.training.checkpoint import AtomicCheckpoints, checkpoint_step
from scanlearn.training.recorder import LoggingSchedule


def test_rows_come_at_their_distance_and_at_the_end() -> None:
    schedule = LoggingSchedule(total_steps=10, log_steps=4, checkpoint_minutes=60)
    assert [step for step in range(1, 11) if schedule.logs(step)] == [4, 8, 10]


def test_checkpoints_come_by_step_by_time_and_at_the_end() -> None:
    schedule = LoggingSchedule(
        total_steps=10, log_steps=1, checkpoint_minutes=5, checkpoint_steps=4
    )
    assert [step for step in range(1, 11) if schedule.saves(step, 0)] == [4, 8, 10]
    assert schedule.saves(3, 5)
    assert not schedule.saves(3, 4.9)


def test_a_checkpoint_is_read_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    saved = {"global_step": 7, "weights": torch.arange(5.0), "trail": {"seconds": 1.5}}
    AtomicCheckpoints().save_checkpoint(saved, path)
    loaded = AtomicCheckpoints().load_checkpoint(path)
    assert torch.equal(loaded.pop("weights"), saved.pop("weights"))  # type: ignore[arg-type]
    assert loaded == saved
    assert checkpoint_step(path) == 7


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"global_step": 1, "evil": os.system}, path)
    with pytest.raises(ScanlearnError, match="cannot be read as a checkpoint"):
        checkpoint_step(path)


def test_without_a_checkpoint_a_run_begins_at_its_first_step(tmp_path: Path) -> None:
    assert checkpoint_step(tmp_path / "last.ckpt") == 0


def test_a_torn_checkpoint_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(ScanlearnError, match="delete it to restart this run"):
        checkpoint_step(path)
