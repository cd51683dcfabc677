from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch

from scanlearn.backbones.build import BackboneConfig, build_backbone
from scanlearn.backbones.precision import preferred_precision
from scanlearn.core import ScanlearnError
from scanlearn.scans.archive import Archive
from scanlearn.training.choices import Choices, choose, training_device
from scanlearn.training.settings import PretrainConfig

Configure = Callable[..., PretrainConfig]


def _choose(config: PretrainConfig, archive: Archive) -> Choices:
    return choose(config, archive, build_backbone(BackboneConfig(name="test_resnet"), 1, 0))


def test_what_is_left_open_is_chosen_by_what_the_machine_does_fast(
    configure: Configure, archive: Archive
) -> None:
    chosen = _choose(configure(precision="auto", device="cpu"), archive)
    assert chosen.precision == preferred_precision("cpu")
    assert chosen.memory_format == torch.channels_last


def test_what_is_given_is_kept(configure: Configure, archive: Archive) -> None:
    chosen = _choose(configure(precision="bf16", channels_last=False), archive)
    assert chosen.precision == "bf16"
    assert chosen.memory_format == torch.contiguous_format


def test_choices_survive_being_recorded(configure: Configure, archive: Archive) -> None:
    chosen = _choose(configure(), archive)
    assert Choices.from_plain(json.loads(json.dumps(chosen.plain()))) == chosen


def test_a_batch_larger_than_the_archive_is_refused(configure: Configure, archive: Archive) -> None:
    with pytest.raises(ScanlearnError, match="batch_size is 21, but the archive holds 20 scans"):
        _choose(configure(batch_size=21), archive)


def test_the_cpu_is_taken_where_it_is_asked_for() -> None:
    assert training_device("cpu") == torch.device("cpu")
    assert training_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
