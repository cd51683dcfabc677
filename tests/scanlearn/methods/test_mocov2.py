from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from lightly.loss import NTXentLoss
from lightly.models.batchnorm import get_norm_layer
from lightly.models.modules import MoCoProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from torch import Tensor, nn

from scanlearn.backbones.backbone import Backbone, BackboneConfig, build_backbone, weights_hash
from scanlearn.core import Views
from scanlearn.methods.mocov2 import in_groups

Make = Callable[..., Any]
Losses = Callable[..., list[float]]


def _slow_info_nce(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> float:
    """Equation 1 of the MoCo paper, query by query."""

    def unit(v: list[float]) -> list[float]:
        length = math.hypot(*v)
        return [x / length for x in v]

    def dot(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    losses = []
    for query, key in zip(q.tolist(), k.tolist(), strict=True):
        scores = [dot(unit(query), unit(key))]
        scores += [dot(unit(query), negative) for negative in queue.tolist()]
        scaled = [math.exp(score / temperature) for score in scores]
        losses.append(-math.log(scaled[0] / sum(scaled)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.2, 0.07])
def test_loss_equals_a_slow_loop_from_the_paper(
    make: Make, sights: Any, at: Any, temperature: float
) -> None:
    method = make("mocov2", temperature=temperature, batch_norm_groups=1)
    queue = method.contrast.memory_bank.bank.clone()
    views = sights()
    with torch.no_grad():
        q = method.head(method.backbone(views.global_views[0])).double()
        k = method.keys(views.global_views[1]).double()
    found = float(method.loss(views, at()).total.detach())
    assert found == pytest.approx(
        _slow_info_nce(q, k, queue.double(), temperature), rel=1e-5, abs=1e-7
    )


def test_the_keys_of_a_step_replace_the_oldest_ones(make: Make, sights: Any, at: Any) -> None:
    method = make("mocov2", queue_size=24, batch_norm_groups=1)
    bank = method.contrast.memory_bank
    noise = bank.bank.clone()
    for step in range(4):
        before = bank.bank.clone()
        keys = nn.functional.normalize(method.keys(sights(step).global_views[1]), dim=1)
        method.loss(sights(step), at(step))
        place = slice(8 * (step % 3), 8 * (step % 3) + 8)
        torch.testing.assert_close(bank.bank[place], keys)
        kept = torch.ones(24, dtype=torch.bool)
        kept[place] = False
        assert torch.equal(bank.bank[kept], before[kept])
    assert not torch.isclose(bank.bank, noise).any(1).all()


def test_the_queue_is_part_of_the_state(make: Make, sights: Any, at: Any) -> None:
    method, other = make("mocov2"), make("mocov2")
    method.loss(sights(), at())
    assert weights_hash(other) != weights_hash(method)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.contrast.memory_bank.bank, method.contrast.memory_bank.bank)
    assert int(other.contrast.memory_bank.bank_ptr) == 8


def test_no_gradient_reaches_the_teacher(make: Make, sights: Any, at: Any) -> None:
    method = make("mocov2")
    method.loss(sights(), at()).total.backward()
    teachers = [*method.teacher.parameters(), *method.teacher_head.parameters()]
    assert all(p.grad is None for p in teachers)
    assert all(p.grad is not None for p in method.backbone.parameters())
    taught = {id(p) for group in method.parameter_groups(0.1) for p in group["params"]}
    assert not taught & {id(p) for p in teachers}


def test_keys_are_made_in_other_groups_than_queries(make: Make, sights: Any) -> None:
    method = make("mocov2", batch_norm_groups=2)
    method.teacher.train()
    views = sights().global_views[0]
    torch.manual_seed(0)
    first = method.keys(views)
    torch.manual_seed(1)
    # Other companions, other statistics; each key is still that of its own scan.
    second = method.keys(views)
    assert not torch.allclose(first, second)
    alike = nn.functional.normalize(first, dim=1) @ nn.functional.normalize(second, dim=1).T
    own = alike.diagonal().mean()
    assert own > (alike.sum() - alike.diagonal().sum()) / 56 + 0.1


def test_shuffled_keys_come_back_in_order_where_no_statistics_tie_them(
    make: Make, sights: Any
) -> None:
    method = make("mocov2", network="test_vit", batch_norm_groups=2)
    views = sights().global_views[0]
    expected = method.teacher_head(method.teacher(views))
    torch.testing.assert_close(method.keys(views), expected)


@pytest.mark.parametrize("network", ["test_resnet", "test_vit"])
def test_five_steps_equal_a_plain_script_from_the_parts_of_lightly(
    make: Make, sights: Any, at: Any, network: str
) -> None:
    method = make("mocov2", network=network, queue_size=24, batch_norm_groups=1)
    ours = torch.optim.SGD(
        method.parameter_groups(1e-4, decays_everything=True), lr=0.03, momentum=0.9
    )

    backbone = timm.create_model(network, in_chans=1, num_classes=0, **method.backbone.model_args)
    backbone.load_state_dict(method.backbone.network.state_dict())
    head = MoCoProjectionHead(backbone.num_features, backbone.num_features, 128)
    head.load_state_dict(method.head.state_dict())
    momentum_backbone, momentum_head = copy.deepcopy(backbone), copy.deepcopy(head)
    deactivate_requires_grad(momentum_backbone)
    deactivate_requires_grad(momentum_head)
    criterion = NTXentLoss(temperature=0.2, memory_bank_size=(24, 128))
    criterion.memory_bank.bank = method.contrast.memory_bank.bank.clone()
    parameters = [*backbone.parameters(), *head.parameters()]
    theirs = torch.optim.SGD(parameters, lr=0.03, momentum=0.9, weight_decay=1e-4)

    for step in range(5):
        views = sights(step)
        ours.zero_grad()
        loss = method.loss(views, at(step)).total
        loss.backward()

        theirs.zero_grad()
        update_momentum(backbone, momentum_backbone, 1 - 20 / 40)
        update_momentum(head, momentum_head, 1 - 20 / 40)
        query = head(backbone(views.global_views[0]))
        with torch.no_grad():
            key = momentum_head(momentum_backbone(views.global_views[1]))
        plain = criterion(query, key)
        plain.backward()

        torch.testing.assert_close(loss, plain, rtol=1e-5, atol=1e-6)
        trained = [*method.backbone.parameters(), *method.head.parameters()]
        for mine, other in zip(trained, parameters, strict=True):
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-6)
        ours.step()
        theirs.step()
        method.after_step(at(step))


def seeded(step: int, views: Views) -> Views:
    """Views of a step, whose keys are shuffled alike in every run of it."""
    torch.manual_seed(step)
    return views


def test_loss_falls(make: Make, sights: Any, losses_of: Losses) -> None:
    method = make("mocov2", queue_size=16)
    optimiser = torch.optim.SGD(method.parameter_groups(1e-4), lr=0.03, momentum=0.9)
    losses = losses_of(method, optimiser, lambda step: seeded(step, sights(step % 4)), steps=40)
    # The first keys are told from noise, which is easy; by the fourth step the queue holds scans.
    assert sum(losses[-4:]) < 0.5 * sum(losses[2:6])


def test_the_published_recipe_is_the_default(resolved: Make) -> None:
    facts = {"num_scans": 1_281_167, "batch_size": 256, "total_steps": 1_000_000}
    config, reasons = resolved("mocov2", facts=facts)
    assert (config.temperature, config.queue_size, config.head_dim) == (0.2, 65_536, 128)
    assert (config.optimiser, config.learning_rate, config.momentum) == ("sgd", 0.03, 0.9)
    assert (config.weight_decay, config.warmup_epochs) == (1e-4, 0)
    assert (config.teacher_momentum, config.batch_norm_groups) == (0.999, 8)
    assert config.head_hidden == 96
    assert not any("momentum" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("network", "facts", "groups", "words"),
    [
        ("test_resnet", {"batch_size": 128}, 8, "8 shuffled groups of 16 scans"),
        ("test_resnet", {"batch_size": 32}, 4, "4 shuffled groups of 8 scans"),
        ("test_resnet", {"batch_size": 12}, 1, "may tell a query which key is its own"),
        ("test_resnet", {"batch_size": 256, "ranks": 4}, 2, "8 shuffled groups of 32 scans"),
        ("test_vit", {"batch_size": 128}, 1, "the backbone has no BatchNorm"),
    ],
)
def test_the_groups_follow_from_batch_and_backbone_and_are_said(
    resolved: Make, network: str, facts: dict[str, int], groups: int, words: str
) -> None:
    config, reasons = resolved("mocov2", network, facts)
    assert config.batch_norm_groups == groups
    assert any(words in reason for reason in reasons)


def test_a_small_archive_gets_a_short_queue_and_says_why(resolved: Make) -> None:
    config, reasons = resolved("mocov2", facts={"num_scans": 5856})
    assert config.queue_size == 2048
    assert any("2,048 keys" in reason and "5,856" in reason for reason in reasons)
    assert resolved("mocov2", queue_size=100)[0].queue_size == 100


# A change of mathematics changes these, in a commit of its own with the reason.
GOLDEN = (0.529244, 1.400606, 2.317302, 2.68027, 2.822034)


def test_five_steps_of_a_tiny_run_stay_golden(make: Make, sights: Any, losses_of: Losses) -> None:
    method = make("mocov2")
    optimiser = torch.optim.SGD(method.parameter_groups(1e-4), lr=0.02, momentum=0.9)
    found = losses_of(method, optimiser, lambda step: seeded(step, sights(step)))
    assert found == pytest.approx(GOLDEN, rel=1e-3)


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
