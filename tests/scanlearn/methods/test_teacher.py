from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from scanlearn.backbones.backbone import BackboneConfig, build_backbone, weights_hash
from scanlearn.core import Progress
from scanlearn.methods.sizing import momentum_in_words
from scanlearn.methods.teacher import follow, momentum_at, teacher_of


def test_a_teacher_begins_as_its_student_without_gradients() -> None:
    student = build_backbone(BackboneConfig(name="test_vit"), 1, 0, size=32)
    teacher = teacher_of(student)
    assert weights_hash(teacher) == weights_hash(student)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())


def test_a_teacher_drops_no_path() -> None:
    config = BackboneConfig(name="test_vit", drop_path=0.9)
    student = build_backbone(config, 1, 0, size=32).train()
    teacher = teacher_of(student).train()
    views = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    assert not torch.equal(student(views), student(views))
    assert torch.equal(teacher(views), teacher(views))


def test_following_a_student_at_rest_has_its_closed_form() -> None:
    teacher, student = nn.Linear(3, 2), nn.Linear(3, 2)
    start = [p.detach().clone() for p in teacher.parameters()]
    for _ in range(7):
        follow((teacher,), (student,), 0.9)
    for found, first, goal in zip(teacher.parameters(), start, student.parameters(), strict=True):
        expected = 0.9**7 * first + (1 - 0.9**7) * goal.detach()
        torch.testing.assert_close(found.detach(), expected)


def test_buffers_stay_the_teachers_own() -> None:
    teacher, student = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    student.running_mean.fill_(5.0)  # type: ignore[union-attr]
    follow((teacher,), (student,), 0.5)
    assert teacher.running_mean.tolist() == [0.0, 0.0]  # type: ignore[union-attr]


def test_the_momentum_rises_by_half_a_cosine() -> None:
    steps = 10_001
    for step in (0, 2500, 5000, 10_000):
        expected = 1 - (1 - 0.99) * (math.cos(math.pi * step / (steps - 1)) + 1) / 2
        found = momentum_at(Progress(step, steps, 10), start=0.99, end=1.0)
        assert found == pytest.approx(expected)


def test_a_constant_momentum_stays_constant_even_where_a_short_run_lowers_it() -> None:
    for steps, expected in ((100_000, 0.999), (400, 0.95)):
        found = {momentum_at(Progress(s, steps, 10), start=0.999, end=0.999) for s in (0, 99, 399)}
        assert found == {expected}


def test_a_lowered_momentum_is_explained_and_a_published_one_is_not() -> None:
    (reason,) = momentum_in_words(0.9995, 547)
    assert "0.9634" in reason
    assert "76%" in reason
    assert momentum_in_words(0.99, 2000) == ()
