from __future__ import annotations

import pytest
import torch

from scanlearn.backbones import device as precision
from scanlearn.backbones.backbone import BackboneConfig, build_backbone


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"avx2"}, "fp32"),
        ({"avx2", "avx512_bf16"}, "fp32"),
        ({"amx_tile", "amx_int8"}, "fp32"),
        ({"amx_tile", "amx_bf16"}, "bf16"),
    ],
)
def test_a_cpu_runs_bf16_only_with_amx_tiles(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], expected: str
) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset(flags))
    assert precision.preferred_precision("cpu") == expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16")])
def test_a_gpu_runs_bf16_from_compute_capability_8(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert precision.preferred_precision("cuda:0") == expected


def test_another_device_runs_fp32() -> None:
    assert precision.preferred_precision("mps") == "fp32"


def test_without_linux_no_flags_are_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision.platform, "system", lambda: "Windows")
    assert precision.cpu_flags() == frozenset()


def test_convolutions_get_channels_last_and_transformers_do_not() -> None:
    convolutional = build_backbone(BackboneConfig(name="test_resnet"), 1, 0)
    transformer = build_backbone(BackboneConfig(name="test_vit"), 1, 0, size=64)
    assert precision.preferred_memory_format(convolutional) == torch.channels_last
    assert precision.preferred_memory_format(transformer) == torch.contiguous_format


def test_autocast_computes_in_what_was_asked() -> None:
    matrix = torch.ones(2, 2)
    with precision.autocast("cpu", "fp32"):
        assert (matrix @ matrix).dtype == torch.float32
    with precision.autocast("cpu", "bf16"):
        assert (matrix @ matrix).dtype == torch.bfloat16
