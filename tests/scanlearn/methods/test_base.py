from __future__ import annotations

import torch
from torch import nn

from scanlearn.backbones.backbone import BackboneConfig, build_backbone
from scanlearn.core import Progress
from scanlearn.methods import SimCLR, SimCLRConfig


def _method(name: str = "test_resnet") -> SimCLR:
    backbone = build_backbone(BackboneConfig(name=name), 1, 0, size=32)
    return SimCLRConfig(head_hidden=backbone.num_features).build(backbone, 0)


def test_every_trained_parameter_is_in_one_group() -> None:
    for name in ("test_resnet", "test_vit"):
        method = _method(name)
        decayed, plain = method.parameter_groups(0.1)
        ids = [id(p) for p in (*decayed["params"], *plain["params"])]
        assert sorted(ids) == sorted(id(p) for p in method.parameters())


def test_biases_and_normalisation_do_not_decay() -> None:
    method = _method()
    decayed, plain = method.parameter_groups(0.1)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    norms = {
        id(p)
        for module in method.modules()
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
        for p in module.parameters()
    }
    biases = {id(p) for name, p in method.named_parameters() if name.endswith("bias")}
    assert {id(p) for p in plain["params"]} == norms | biases


def test_frozen_parameters_are_in_no_group() -> None:
    method = _method()
    method.backbone.requires_grad_(False)
    decayed, plain = method.parameter_groups(0.1)
    ids = {id(p) for p in (*decayed["params"], *plain["params"])}
    assert ids == {id(p) for p in method.head.parameters()}


def test_steps_without_hooks_change_nothing() -> None:
    method = _method()
    before = [p.clone() for p in method.parameters()]
    at = Progress(step=0, total_steps=2, steps_per_epoch=1)
    method.after_backward(at)
    method.after_step(at)
    assert all(torch.equal(a, b) for a, b in zip(before, method.parameters(), strict=True))


def test_the_backbone_is_what_is_exported() -> None:
    method = _method()
    assert method.exported is method.backbone
