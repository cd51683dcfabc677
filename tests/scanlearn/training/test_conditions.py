from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from scanlearn.archive.reader import Archive
from scanlearn.errors import ScanlearnError
from scanlearn.training import conditions
from scanlearn.training.conditions import read_record
from scanlearn.training.folder import RunFolder
from scanlearn.training.pretrain import PretrainResult, pretrain
from scanlearn.training.run import Run
from scanlearn.training.settings import PretrainConfig

Configure = Callable[..., PretrainConfig]
Killing = Callable[[int], AbstractContextManager[None]]


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def without(path: Path, key: str) -> None:
    found = json.loads(path.read_text())
    del found[key]
    path.write_text(json.dumps(found))


def test_a_run_records_all_that_it_was_trained_with(configure: Configure, archive: Archive) -> None:
    record = read_record(RunFolder(pretrain(configure(batch_size=64)).folder))
    assert (record.is_whole, record.problem) == (True, "")
    ids = "\n".join(f"{name}" for name in archive.scan_ids)
    told = {
        "precision": "fp32",
        "memory_format": "channels_last",
        "device": "cpu",
        "threads": str(torch.get_num_threads()),
        "processes": "1",
        # All scans of the archive, since it holds no 64.
        "batch_size": "20",
        "method.name": "simclr",
        "method.optimiser": "lars",
        "schedule.total_steps": "5",
        "views.size": "16",
        "views.recipe": "simclr",
        "backbone.start": "random",
        "versions.timm": timm.__version__,
        "archive.hash": archive.content_hash,
        "archive.scans": "20",
        "archive.left_out": "0",
        "archive.scan_ids": hashlib.sha256(ids.encode()).hexdigest(),
    }
    assert {key: record.values[key] for key in told} == told
    # Published for SimCLR: .075 x sqrt(batch).
    assert float(record.values["schedule.peak"]) == pytest.approx(0.075 * 20**0.5)


def test_scans_that_were_left_out_are_told(
    configure: Configure, archive: Archive, tmp_path: Path
) -> None:
    (tmp_path / "out.txt").write_text(f"{archive.scan_ids[3]}\n")
    result = pretrain(configure(leave_out=str(tmp_path / "out.txt"), steps=1))
    values = read_record(RunFolder(result.folder)).values
    assert (values["archive.scans"], values["archive.left_out"]) == ("19", "1")
    assert values["archive.hash"] != archive.content_hash


def test_a_run_that_goes_on_elsewhere_says_so(
    configure: Configure,
    killed_at: Killing,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = configure(checkpoint_steps=2)
    for machine, step in (("one", 3), ("two", 3)):
        monkeypatch.setattr(conditions, "processor_name", lambda _, name=machine: name)
        with killed_at(step):
            pretrain(config)
    assert "goes on from step 2 under other conditions" in capsys.readouterr().err
    # Step 3 was taken twice in vain: no checkpoint holds it.
    monkeypatch.setattr(conditions, "processor_name", lambda _: "three")
    values = read_record(RunFolder(pretrain(config).folder)).values
    assert values["processor"] == "one, from step 2 on three"
    assert values["threads"] == str(torch.get_num_threads())


def _changed_result(run: RunFolder, result: PretrainResult) -> None:
    change(run.result, order_hash=result.order_hash[::-1])


def _changed_starts(run: RunFolder, _: PretrainResult) -> None:
    starts = json.loads(run.provenance.read_text())["starts"]
    starts[0]["conditions"]["precision"] = "bf16"
    change(run.provenance, starts=starts)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (_changed_result, "was changed after the run"),
        (_changed_starts, "was changed after the run"),
        (lambda run, _: without(run.provenance, "starts"), "was changed after the run"),
        (lambda run, _: without(run.result, "record_sha256"), "was changed after the run"),
        (lambda run, _: run.provenance.unlink(), "provenance.json is missing"),
    ],
)
def test_a_record_that_was_changed_is_no_proof(
    configure: Configure, damage: Callable[[RunFolder, PretrainResult], None], problem: str
) -> None:
    result = pretrain(configure(steps=1))
    run = RunFolder(result.folder)
    damage(run, result)
    # The same command again does not make it up from the plan.
    pretrain(configure(steps=1))
    record = read_record(run)
    assert not record.is_whole
    assert problem in record.problem


def test_what_an_earlier_version_recorded_is_read(configure: Configure) -> None:
    run = RunFolder(pretrain(configure(steps=1)).folder)
    whole = read_record(run).values
    without(run.provenance, "starts")
    without(run.result, "record_sha256")
    record = read_record(run)
    assert not record.is_whole
    assert not record.problem
    assert {"precision", "memory_format", "versions.torch", "archive.hash"} <= set(record.values)
    assert {"device", "batch_size", "archive.scan_ids"}.isdisjoint(record.values)
    assert dict(record.values).items() <= dict(whole).items()


def test_what_was_lost_on_the_way_is_not_made_up(configure: Configure, killed_at: Killing) -> None:
    config = configure(checkpoint_steps=2)
    with killed_at(3):
        pretrain(config)
    run = RunFolder(Path(config.output))
    run.provenance.unlink()
    pretrain(config)
    record = read_record(run)
    assert not record.is_whole
    assert "precision" not in record.values


def test_a_run_begun_in_bf16_does_not_go_on_where_its_gradients_are_wrong(
    configure: Configure, archive: Archive
) -> None:
    config = configure(precision="auto", method={"name": "dino"}, views={"size": 32})
    run = Run.of(config, archive)
    record = json.loads(run.folder.provenance.read_text())
    change(run.folder.provenance, chosen=record["chosen"] | {"precision": "bf16"})
    with pytest.raises(ScanlearnError, match=r"precision: is bf16, .* 14 px"):
        Run.of(config, archive)


def test_a_run_begun_before_there_were_extras_goes_on_as_one_without(
    configure: Configure, killed_at: Killing
) -> None:
    config = configure(checkpoint_steps=2)
    with killed_at(3):
        pretrain(config)
    run = RunFolder(Path(config.output))
    record = json.loads(run.provenance.read_text())
    del record["starts"][0]["conditions"]["views.extras"]
    run.provenance.write_text(json.dumps(record))
    pretrain(config)
    found = read_record(run)
    assert (found.is_whole, found.values["views.extras"]) == (True, "none")
    assert [start["step"] for start in json.loads(run.provenance.read_text())["starts"]] == [0]
