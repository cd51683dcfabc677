from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from lightly.utils.scheduler import cosine_warmup_schedule

from scanlearn.backbones.backbone import BackboneConfig, build_backbone
from scanlearn.errors import ScanlearnError
from scanlearn.methods import RunFacts, SimCLRConfig
from scanlearn.training.optim import Schedule, build_optimiser, schedule_for


def test_the_warmup_is_a_straight_line_to_the_peak() -> None:
    schedule = Schedule(peak=2.0, warmup_steps=4, total_steps=20)
    assert [schedule.at(step) for step in range(5)] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])


def test_after_the_warmup_the_rate_is_half_a_cosine() -> None:
    schedule = Schedule(peak=2.0, warmup_steps=4, total_steps=20)
    for step in range(4, 20):
        expected = 2.0 * math.cos(math.pi / 2 * (step - 4) / 16) ** 2
        assert schedule.at(step) == pytest.approx(expected)


def test_the_rate_is_never_zero_and_falls_after_the_warmup() -> None:
    rates = [Schedule(1.0, 10, 100).at(step) for step in range(100)]
    assert min(rates) > 0
    assert all(a >= b for a, b in pairwise(rates[9:]))


def test_the_schedule_is_lightlys_but_for_its_last_step() -> None:
    # lightly's cosine reaches its end at the last step, ours at the step after it.
    schedule = Schedule(peak=0.8, warmup_steps=10, total_steps=1000)
    for step in range(0, 1000, 37):
        theirs = cosine_warmup_schedule(step, 1001, 0.8, 0.0, 10, 0.0)
        assert schedule.at(step) == pytest.approx(theirs, rel=1e-9, abs=1e-12)


def _schedule(**facts: int) -> Schedule:
    run = RunFacts(num_scans=2560, ranks=1, **facts)
    backbone = build_backbone(BackboneConfig(name="test_resnet"), 1, 0)
    return schedule_for(SimCLRConfig().resolved(run, backbone)[0], run)


def test_a_run_of_one_step_has_a_rate() -> None:
    schedule = _schedule(batch_size=4, total_steps=1, steps_per_epoch=1)
    assert schedule.at(0) == pytest.approx(0.15)


def test_the_published_warmup_is_kept_where_the_run_is_long() -> None:
    schedule = _schedule(batch_size=64, total_steps=4000, steps_per_epoch=40)
    assert schedule.warmup_steps == 400
    assert schedule.reason == "10 epochs"
    assert schedule.peak == pytest.approx(0.6)


def test_the_warmup_is_capped_at_a_tenth_of_the_steps_and_says_so() -> None:
    schedule = _schedule(batch_size=64, total_steps=1000, steps_per_epoch=40)
    assert schedule.warmup_steps == 100
    assert schedule.reason == "a tenth of the run, since 10 epochs would be 400"


def test_only_parameters_that_decay_are_scaled_by_lars() -> None:
    config = SimCLRConfig(optimiser="lars", learning_rate=0.1, weight_decay=1e-4, head_hidden=96)
    method = config.build(build_backbone(BackboneConfig(name="test_resnet"), 1, 0), 0)
    optimiser = build_optimiser(method, config)
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    for p in method.parameters():
        p.grad = torch.full_like(p, 0.5)
    optimiser.step()
    for name, p in method.named_parameters():
        step = before[name] - p.detach()
        if p.ndim <= 1:
            assert torch.allclose(step, torch.full_like(p, 0.05), atol=1e-6), name
        else:
            # The trust ratio of .001 makes the step's length a thousandth of the weights'.
            expected = 0.1 * 0.001 * before[name].norm()
            assert float(step.norm()) == pytest.approx(float(expected), rel=0.01), name


@pytest.mark.parametrize("name", ["weight_decay", "end_weight_decay"])
def test_lars_without_weight_decay_is_refused(name: str) -> None:
    run = RunFacts(num_scans=64, batch_size=8, ranks=1, total_steps=4, steps_per_epoch=2)
    config = SimCLRConfig.model_validate({name: 0.0})
    backbone = build_backbone(BackboneConfig(name="test_resnet"), 1, 0)
    with pytest.raises(ScanlearnError, match=rf"method\.{name} is 0"):
        schedule_for(config.resolved(run, backbone)[0], run)
