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


# Measured on a CPU with AMX: the weights' gradients were NaN in 59 of 60 repetitions at the first
# of these, and right at all others.
@pytest.mark.parametrize(
    ("stride", "side", "unset"), [(2, 1, True), (4, 3, True), (2, 2, False), (1, 1, False)]
)
def test_bf16_gradients_are_unset_where_a_stride_is_larger_than_the_input(
    stride: int, side: int, unset: bool
) -> None:
    layer = torch.nn.Conv2d(3, 8, 3, stride=stride, padding=1).train()
    assert precision.has_unset_gradients(layer, (3, side, side)) == unset
    assert layer.training
    assert layer.weight.device.type == "cpu"


@pytest.mark.parametrize(("side", "expected"), [(32, "bf16"), (14, "fp32")])
def test_tiny_views_train_in_fp32_on_a_cpu_with_amx(
    monkeypatch: pytest.MonkeyPatch, side: int, expected: str
) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset({"amx_tile", "amx_bf16"}))
    backbone = build_backbone(BackboneConfig(name="test_resnet"), 3, 0)
    assert precision.training_precision(backbone, (3, side, side), "cpu") == expected


def test_features_have_no_strides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset({"amx_tile", "amx_bf16"}))
    assert precision.training_precision(torch.nn.Linear(5, 2), (5,), "cpu") == "bf16"
