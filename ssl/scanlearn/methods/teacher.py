"""Teachers: networks that follow another one slowly and learn from no gradient."""

from __future__ import annotations

import copy

from torch import nn

from scanlearn.backbones.backbone import Backbone, drop_no_path
from scanlearn.core import Progress
from scanlearn.methods.sizing import start_momentum


def teacher_of(backbone: Backbone) -> Backbone:
    """Returns a copy of a backbone as its teacher: without gradients and without drop path."""
    teacher = copy.deepcopy(backbone).requires_grad_(False)
    drop_no_path(teacher)
    return teacher


def momentum_at(at: Progress, *, start: float, end: float) -> float:
    """The share of itself that a teacher keeps at a step.

    Half a cosine from ``start``, which a short run lowers, to ``end``; constant where they are
    equal in the recipe, but for the lowering.

    Source:
        BYOL (arXiv 2006.07733), section 3.3, as used by MoCo v3 and DINO.
    """
    from lightly.utils.scheduler import cosine_schedule

    lowered = start_momentum(start, at.total_steps)
    if start == end:
        return lowered
    return float(cosine_schedule(at.step, at.total_steps, lowered, end))


def follow(teachers: tuple[nn.Module, ...], students: tuple[nn.Module, ...], keep: float) -> None:
    """Moves teachers towards their students: ``teacher = keep * teacher + (1 - keep) * student``.

    Buffers, such as the running statistics of BatchNorm, are the teacher's own.
    """
    from lightly.models.utils import update_momentum

    for teacher, student in zip(teachers, students, strict=True):
        update_momentum(student, teacher, keep)
