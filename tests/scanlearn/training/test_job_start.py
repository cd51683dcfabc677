from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from torch import Tensor

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import BackboneConfig, build_backbone, weights_hash
from scanlearn.backbones.weights import load_backbone
from scanlearn.errors import ScanlearnError
from scanlearn.training.pretrain import pretrain
from scanlearn.training.run import Run
from scanlearn.training.settings import PretrainConfig

Configure = Callable[..., PretrainConfig]


def _saved(path: Path, seed: int = 9) -> Path:
    network = build_backbone(BackboneConfig(name="test_resnet"), 1, seed).network
    safetensors.torch.save_file(network.state_dict(), path)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return _saved(tmp_path / "start.safetensors")


def _backbone(file: Path) -> dict[str, str]:
    return {"name": "test_resnet", "weights": str(file)}


def test_a_run_begins_from_the_weights_it_is_given(
    configure: Configure, archive: Archive, file: Path
) -> None:
    run = Run.of(configure(backbone=_backbone(file)), archive)
    given: dict[str, Tensor] = safetensors.torch.load_file(file)
    own = run.method.exported.network.state_dict()
    assert all(bool((own[name] == tensor).all()) for name, tensor in given.items())
    record = json.loads(run.folder.provenance.read_text())["start"]
    assert record["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert record["weights_hash"] == weights_hash(run.method.exported)
    assert f"begins from {file.name} (sha256 {record['sha256'][:12]})" in run.start_line(0)
    assert f"test_resnet from {file.name}" in run.start_line(0)


def test_a_card_says_what_the_run_began_from(configure: Configure, file: Path) -> None:
    result = pretrain(configure(backbone=_backbone(file), steps=1))
    card = load_backbone(result.backbone)[1]
    assert card.start is not None
    assert (card.start.kind, card.start.source) == ("file", file.name)
    again = pretrain(
        configure(
            backbone=_backbone(result.folder), steps=1, output=str(result.folder.parent / "next")
        )
    )
    start = load_backbone(again.backbone)[1].start
    assert start is not None
    assert start.origin == card


def test_without_start_weights_nothing_is_claimed(configure: Configure, archive: Archive) -> None:
    run = Run.of(configure(), archive)
    assert run.start is None
    assert json.loads(run.folder.provenance.read_text())["start"] is None
    assert "begins from" not in run.start_line(0)


def test_a_resumed_run_needs_no_start_weights_and_ends_bit_equal(
    configure: Configure, killed_at: Callable[[int], Any], tmp_path: Path, file: Path
) -> None:
    whole = pretrain(configure(backbone=_backbone(file), output=str(tmp_path / "whole")))
    config = configure(backbone=_backbone(file), checkpoint_steps=1)
    with killed_at(3):
        pretrain(config)
    file.unlink()
    resumed = pretrain(config)
    assert resumed.final_hash == whole.final_hash
    assert resumed.initial_hash == whole.initial_hash
    cards = [load_backbone(result.backbone)[1] for result in (whole, resumed)]
    assert cards[0].start == cards[1].start is not None


def test_a_finished_run_needs_no_start_weights(configure: Configure, file: Path) -> None:
    config = configure(backbone=_backbone(file), steps=1)
    result = pretrain(config)
    file.unlink()
    assert pretrain(config) == result


def test_other_start_weights_are_another_run(
    configure: Configure, archive: Archive, tmp_path: Path, file: Path
) -> None:
    Run.of(configure(backbone=_backbone(file)), archive).folder.backbone.mkdir()
    other = _saved(tmp_path / "other.safetensors")
    with pytest.raises(ScanlearnError, match=r"different run \(backbone\.weights was"):
        Run.of(configure(backbone=_backbone(other)), archive)


def test_a_start_file_exchanged_before_the_first_checkpoint_is_refused(
    configure: Configure, archive: Archive, file: Path
) -> None:
    config = configure(backbone=_backbone(file))
    Run.of(config, archive)
    assert Run.of(config, archive).start is not None
    _saved(file, seed=10)
    with pytest.raises(ScanlearnError, match=r"was started from start\.safetensors"):
        Run.of(config, archive)
