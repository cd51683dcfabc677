from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from scanlearn.config.settings import Settings
from scanlearn.errors import ScanlearnError
from scanlearn.training.folder import MetricsCsv, open_run


class Method(Settings):
    name: str = "simclr"
    temperature: float = 0.1


class Config(Settings):
    seed: int = 1
    method: Method = Method()
    output: str = "a"
    steps: int | None = None


CONFIG = Config()
IGNORED = frozenset({"output"})


def test_a_new_run_holds_its_configuration(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", CONFIG)
    assert "temperature: 0.1" in (run.path / "config.yaml").read_text()
    assert run.checkpoint.parent.is_dir()


def test_the_same_run_is_opened_again(tmp_path: Path) -> None:
    first = open_run(tmp_path / "run", CONFIG, ignored=IGNORED)
    again = open_run(tmp_path / "run", Config(output="b"), ignored=IGNORED)
    assert again == first
    assert "output: a" in (again.path / "config.yaml").read_text()


def test_a_different_run_is_refused_naming_the_keys(tmp_path: Path) -> None:
    open_run(tmp_path / "run", CONFIG)
    other = Config(seed=2, method=Method(temperature=0.2))
    with pytest.raises(ScanlearnError) as caught:
        open_run(tmp_path / "run", other)
    text = str(caught.value)
    assert "method.temperature was 0.1, is 0.2" in text
    assert "seed was 1, is 2" in text
    assert "another output folder" in text


def test_of_a_run_that_kept_no_step_the_settings_may_change(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", CONFIG)
    run.provenance.touch()
    open_run(tmp_path / "run", Config(seed=2))
    assert "seed: 2" in (run.path / "config.yaml").read_text()
    assert not run.provenance.exists()
    # A file of that name which no run has written is somebody's own.
    with pytest.raises(ScanlearnError, match="seed was 2, is 1"):
        open_run(tmp_path / "run", CONFIG)
    run.provenance.touch()
    run.checkpoint.touch()
    with pytest.raises(ScanlearnError, match="seed was 2, is 1"):
        open_run(tmp_path / "run", CONFIG)


def test_a_key_that_is_new_or_gone_counts_as_different(tmp_path: Path) -> None:
    open_run(tmp_path / "run", CONFIG)
    with pytest.raises(ScanlearnError, match="steps was None, is 5"):
        open_run(tmp_path / "run", Config(steps=5))


def test_a_key_that_an_earlier_version_did_not_know_counts_as_its_default(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", CONFIG)
    earlier = (run.path / "config.yaml").read_text().replace("steps: null\n", "")
    assert "steps" not in earlier
    (run.path / "config.yaml").write_text(earlier)
    open_run(tmp_path / "run", CONFIG)
    with pytest.raises(ScanlearnError, match="steps was None, is 5"):
        open_run(tmp_path / "run", Config(steps=5))


def test_a_configuration_of_gone_keys_is_another_one(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", CONFIG)
    (run.path / "config.yaml").write_text((run.path / "config.yaml").read_text() + "gone: 3\n")
    with pytest.raises(ScanlearnError, match="gone was 3, is None"):
        open_run(tmp_path / "run", CONFIG)


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ScanlearnError, match="not the folder of a run"):
        open_run(tmp_path, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_start_killed_before_its_first_file_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / ".config.yaml.77.part").write_text("see")
    assert (open_run(tmp_path, CONFIG).path / "config.yaml").is_file()


def test_half_files_of_a_killed_start_are_swept_away(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", CONFIG)
    torn = [run.path / ".result.json.7.part", run.checkpoint.parent / ".last.ckpt.7.part"]
    for path in torn:
        path.write_text("half")
    run.checkpoint.write_text("whole")
    open_run(tmp_path / "run", CONFIG)
    assert not any(path.exists() for path in torn)
    assert run.checkpoint.is_file()


def test_rows_are_appended_under_their_header(tmp_path: Path) -> None:
    metrics = MetricsCsv(tmp_path / "m.csv", ("step", "loss"), after=0)
    metrics.append({"step": 1, "loss": 0.25})
    metrics.append({"loss": 1e-9, "step": 2})
    assert (tmp_path / "m.csv").read_text() == "step,loss\n1,0.25\n2,1e-09\n"


def test_a_resumed_run_drops_later_rows_and_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("step,loss\n2,0.5\n4,0.4\n6,0.3\n8,0.")
    metrics = MetricsCsv(path, ("step", "loss"), after=4)
    metrics.append({"step": 6, "loss": 0.3})
    assert path.read_text() == "step,loss\n2,0.5\n4,0.4\n6,0.3\n"


def test_a_full_disk_stops_a_row_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = MetricsCsv(tmp_path / "m.csv", ("step",), after=0)

    def full(descriptor: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ScanlearnError, match=r"m\.csv: the disk is full"):
        metrics.append({"step": 1})
