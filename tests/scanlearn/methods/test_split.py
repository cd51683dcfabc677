from __future__ import annotations

import copy

import pytest
import torch
from lightly.models.batchnorm import get_norm_layer
from torch import Tensor, nn

from scanlearn.backbones.build import Backbone, BackboneConfig, build_backbone
from scanlearn.methods.split import in_groups


def _backbone(name: str = "test_resnet") -> Backbone:
    return build_backbone(BackboneConfig(name=name), 1, 0, size=32).train()


def _views(scans: int) -> Tensor:
    return torch.randn(scans, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def _with_lightlys_norm(backbone: Backbone, groups: int) -> Backbone:
    """The same network with each BatchNorm replaced by lightly's."""
    found = copy.deepcopy(backbone)
    for module in list(found.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, nn.BatchNorm2d):
                split = get_norm_layer(layer.num_features, groups)
                split.load_state_dict(dict(layer.named_parameters()), strict=False)
                setattr(module, name, split)
    return found


@pytest.mark.parametrize("groups", [2, 4])
def test_groups_give_the_features_and_gradients_of_lightlys_split_norm(groups: int) -> None:
    ours = _backbone()
    theirs = _with_lightlys_norm(ours, groups).train()
    # lightly deals the scans out one by one, as cards to players.
    dealt = torch.arange(8).view(-1, groups).T.flatten()
    mine, other = in_groups(ours, _views(8)[dealt], groups), theirs(_views(8))[dealt]
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
    mine.square().sum().backward()
    other.square().sum().backward()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-4)


def test_one_group_is_the_network_itself() -> None:
    torch.testing.assert_close(in_groups(_backbone(), _views(6), 1), _backbone()(_views(6)))


def test_a_group_depends_on_its_own_scans_alone() -> None:
    views = _views(8)
    changed = torch.cat((views[:4], views[4:] * 3))
    before, after = (in_groups(_backbone(), given, 2) for given in (views, changed))
    assert torch.equal(before[:4], after[:4])
    assert not torch.allclose(before[4:], after[4:])


def test_groups_need_not_divide_the_batch() -> None:
    assert in_groups(_backbone(), _views(7), 3).shape[0] == 7


def test_running_statistics_move_as_far_as_without_groups() -> None:
    norm = nn.BatchNorm2d(1)
    network = nn.Sequential(norm, nn.Flatten())
    network.num_features = 16  # type: ignore[assignment]
    backbone = Backbone(network, name="one norm", channels=1, model_args={})
    # The same scan in every group: all groups have the same statistics.
    views = torch.full((8, 1, 4, 4), 2.0)
    in_groups(backbone.train(), views, 4)
    assert float(norm.running_mean) == pytest.approx(0.1 * 2.0)  # type: ignore[arg-type]
    assert norm.momentum == 0.1
