"""DINO: a student that sees small parts of a scan predicts what its teacher sees in the whole.

Caron, Touvron, Misra, Jegou, Mairal, Bojanowski, Joulin, "Emerging Properties in Self-Supervised
Vision Transformers", ICCV 2021 (arXiv 2104.14294), with the authors' released code.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanlearn.backbones.backbone import Backbone, seeded_weights
from scanlearn.console import quiet
from scanlearn.core import Losses, Progress, ViewPlan, Views
from scanlearn.methods.base import Method
from scanlearn.methods.settings import DINOConfig
from scanlearn.methods.sizing import warmup_steps
from scanlearn.methods.teacher import follow, momentum_at, teacher_of


def build(settings: DINOConfig, backbone: Backbone, seed: int) -> DINO:
    """Returns the method; the weights of its heads depend on ``seed`` alone."""
    from lightly.loss import DINOLoss
    from lightly.models.modules import DINOProjectionHead

    assert settings.num_prototypes is not None, "resolved"
    heads: list[nn.Module] = []
    # Made twice: a weight-normalised layer cannot be copied.
    for _ in ("student", "teacher"):
        with seeded_weights(seed, "dino", "head"), quiet():
            heads.append(
                DINOProjectionHead(
                    backbone.num_features,
                    settings.head_hidden,
                    settings.head_bottleneck,
                    settings.num_prototypes,
                    norm_last_layer=settings.norm_last_layer,
                )
            )
    criterion = DINOLoss(
        settings.num_prototypes,
        student_temp=settings.student_temperature,
        center_momentum=settings.center_momentum,
    )
    student, teacher = heads
    return DINO(backbone, student, teacher, criterion, settings)


class DINO(Method):
    """DINO's networks and loss.

    Args:
        criterion: lightly's DINOLoss, which keeps the centre.
        settings: Temperatures, momentum, freezing and clipping.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: Any,
        teacher_head: nn.Module,
        criterion: nn.Module,
        settings: DINOConfig,
    ) -> None:
        super().__init__(backbone, ViewPlan(2, settings.local_views))
        self.head = head
        self.teacher = teacher_of(backbone)
        self.teacher_head = teacher_head.requires_grad_(False)
        self.criterion = criterion
        self._settings = settings

    @property
    def exported(self) -> Backbone:
        """The teacher, which the paper evaluates."""
        return self.teacher

    def loss(self, views: Views, at: Progress) -> Losses:
        """Returns the mean cross-entropy of every view of the student to the other global views.

        Views of one size pass the networks as one batch, as in the released code. The loss is
        computed in fp32 even where the networks run in bf16.
        """
        features = [self.backbone(torch.cat(views.global_views))]
        if views.local_views:
            features.append(self.backbone(torch.cat(views.local_views)))
        student = self.head(torch.cat(features)).float()
        with torch.no_grad():
            seen = self.teacher(torch.cat(views.global_views))
            teacher = self.teacher_head(seen).float()
        scans = len(views.ids)
        temperature = self.teacher_temperature(at)
        with torch.autocast(student.device.type, enabled=False):
            center = self.criterion.get_buffer("center").squeeze(0)
            entropy = entropy_of((teacher - center) / temperature)
            total: Tensor = self.criterion(
                list(teacher.split(scans)),
                list(student.split(scans)),
                teacher_temp=temperature,
            )
        return Losses(
            total=total,
            terms={"cross_entropy": total.detach()},
            embeddings=seen[:scans].detach().float(),
            chance=math.log(student.shape[1]),
            judged=entropy,
        )

    def teacher_temperature(self, at: Progress) -> float:
        """The teacher's temperature at a step: a straight line, then constant."""
        first, last = (
            self._settings.start_teacher_temperature,
            self._settings.teacher_temperature,
        )
        steps = warmup_steps(self._settings.teacher_temperature_epochs, at)
        return last if at.step >= steps else first + (last - first) * at.step / steps

    def after_backward(self, at: Progress) -> None:
        """Clips each parameter's gradient by its length; keeps the last layer still at first."""
        longest = self._settings.clip_gradient
        if longest is not None:
            clip_each([p.grad for p in self.parameters() if p.grad is not None], longest)
        if at.step < warmup_steps(self._settings.freeze_last_layer_epochs, at):
            for parameter in self.head.last_layer.parameters():
                parameter.grad = None

    def after_step(self, at: Progress) -> None:
        """Moves the teacher towards the student."""
        keep = momentum_at(at, start=self._settings.teacher_momentum, end=1.0)
        follow((self.teacher, self.teacher_head), (self.backbone, self.head), keep)


@torch.no_grad()
def entropy_of(logits: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """Returns the mean entropy, in nats, of the answers with these logits.

    Of a teacher that answers alike for all outputs, whatever it sees, it is log k: there is nothing
    to learn from it. The loss does not tell: it is the entropy plus what the student gets wrong,
    and stays above log k.

    Source: DINO, section 5.3, where the entropy of the target tells both kinds of collapse.
    """
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1).mean()


@torch.no_grad()
def clip_each(gradients: list[Tensor], longest: float) -> None:
    """Shortens, in place, each gradient longer than ``longest`` to that length.

    Source: DINO, released code, ``clip_gradients``: each parameter by itself, where torch's
    ``clip_grad_norm_`` and lightly's example clip all of them together.
    """
    lengths: list[Float[Tensor, ""]] = list(torch._foreach_norm(gradients))
    shares = [(longest / (length + 1e-6)).clamp(max=1.0) for length in lengths]
    torch._foreach_mul_(gradients, shares)
