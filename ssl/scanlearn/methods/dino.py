"""DINO: a student that sees small parts of a scan predicts what its teacher sees in the whole.

Caron, Touvron, Misra, Jegou, Mairal, Bojanowski, Joulin, "Emerging Properties in Self-Supervised
Vision Transformers", ICCV 2021 (arXiv 2104.14294), with the authors' released code.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from scanlearn.backbones.backbone import Backbone, seeded_weights
from scanlearn.core import Losses, Progress, ViewPlan, Views
from scanlearn.methods.base import Method, MethodSettings, RunFacts
from scanlearn.methods.sizing import num_prototypes, warmup_steps
from scanlearn.methods.teacher import follow, momentum_at, momentum_in_words, teacher_of


class DINOConfig(MethodSettings):
    """DINO and the recipe it is trained with.

    Source:
        The released code's plain run: a head of 3 layers of 2,048 with a bottleneck of 256, 65,536
        outputs, student temperature .1, teacher temperature .04, centre momentum .9, teacher
        momentum .996 to 1, AdamW with rate 5e-4 x batch / 256 down to 1e-6, weight decay .04 to
        .4, 10 warm-up epochs, gradients clipped at 3, last layer frozen for an epoch, drop path
        .1, 8 local views. Its improved run raises the teacher temperature to .07 over 30 epochs
        and sets norm_last_layer to false. Fewer outputs for small archives are ours.
    """

    recipe: ClassVar[str] = "dino"
    drop_path: ClassVar[float] = 0.1

    name: Literal["dino"] = Field(default="dino", description="DINO")
    end_learning_rate: float = Field(
        default=1e-6, ge=0, description="learning rate at the end of the cosine"
    )
    local_views: int = Field(default=8, ge=0, description="small views of each scan")
    student_temperature: float = Field(
        default=0.1, gt=0, description="temperature of the student's softmax"
    )
    teacher_temperature: float = Field(
        default=0.04, gt=0, description="temperature of the teacher's softmax"
    )
    start_teacher_temperature: float = Field(
        default=0.04, gt=0, description="temperature of the teacher's softmax before its warm-up"
    )
    teacher_temperature_epochs: float = Field(
        default=30.0,
        ge=0,
        description="linear warm-up of the teacher temperature; at most a tenth of the steps",
    )
    center_momentum: float = Field(
        default=0.9,
        ge=0,
        lt=1,
        description="momentum of the centre: the share that it keeps in a step",
    )
    teacher_momentum: float = Field(
        default=0.996,
        ge=0,
        le=1,
        description="momentum of the teacher at the start, then a cosine up to 1; lower "
        "in a short run",
    )
    num_prototypes: int | None = Field(
        default=None,
        ge=2,
        description="outputs of the head; null is the power of two nearest to an eighth of the "
        "archive, from 1,024 to 65,536",
    )
    head_hidden: int = Field(default=2048, ge=1, description="width of the head's hidden layers")
    head_bottleneck: int = Field(default=256, ge=1, description="width before its last layer")
    norm_last_layer: bool = Field(
        default=True, description="keep the weights of the last layer at norm 1, for stability"
    )
    freeze_last_layer_epochs: float = Field(
        default=1.0,
        ge=0,
        description="epochs during which the last layer is frozen; at most a tenth of the steps",
    )
    clip_gradient: float | None = Field(
        default=3.0,
        gt=0,
        description="gradient clipping: largest norm per parameter; null for no clipping",
    )

    @property
    def num_local_views(self) -> int:
        """Small views of each scan that the method asks for."""
        return self.local_views

    def resolved(
        self,
        facts: RunFacts,
        backbone: Backbone,  # noqa: ARG002
    ) -> tuple[Self, tuple[str, ...]]:
        """Fills in the published recipe, its outputs for the archive."""
        filled = self.filled(
            optimiser="adamw",
            learning_rate=5e-4 * facts.batch_size / 256,
            weight_decay=0.04,
            end_weight_decay=0.4 if self.weight_decay is None else None,
            warmup_epochs=10.0,
            num_prototypes=num_prototypes(facts.num_scans),
        )
        chosen = []
        if self.num_prototypes is None:
            chosen.append(
                f"{filled.num_prototypes:,} outputs: the power of two nearest to an eighth of "
                f"{facts.num_scans:,} scans, at least 1,024 (published for 1.3 million images: "
                "65,536)"
            )
        frozen = warmup_steps(self.freeze_last_layer_epochs, facts.start)
        if frozen < round(self.freeze_last_layer_epochs * facts.steps_per_epoch):
            chosen.append(
                f"last layer frozen for {frozen:,} steps: a tenth of the run, since "
                f"{self.freeze_last_layer_epochs:g} epochs would be more"
            )
        return filled, (*chosen, *momentum_in_words(self.teacher_momentum, facts.total_steps))

    def build(self, backbone: Backbone, seed: int) -> DINO:
        """Returns the method; the weights of its heads depend on ``seed`` alone."""
        from lightly.loss import DINOLoss
        from lightly.models.modules import DINOProjectionHead

        assert self.num_prototypes is not None, "resolved"
        heads: list[nn.Module] = []
        # Made twice: a weight-normalised layer cannot be copied.
        for _ in ("student", "teacher"):
            with seeded_weights(seed, "dino", "head"), warnings.catch_warnings():
                # lightly's own use of a torch name that torch has renamed.
                warnings.filterwarnings("ignore", message="`torch.nn.utils.weight_norm` is depr")
                heads.append(
                    DINOProjectionHead(
                        backbone.num_features,
                        self.head_hidden,
                        self.head_bottleneck,
                        self.num_prototypes,
                        norm_last_layer=self.norm_last_layer,
                    )
                )
        criterion = DINOLoss(
            self.num_prototypes,
            student_temp=self.student_temperature,
            center_momentum=self.center_momentum,
        )
        student, teacher = heads
        return DINO(backbone, student, teacher, criterion, self)


class DINO(Method):
    """DINO's networks and loss.

    Args:
        criterion: lightly's DINOLoss, which keeps the centre.
        settings: Temperatures, momentum, freezing and clipping.
    """

    # The teacher grows sharper as the student learns: on chest X-rays the loss ended 6 % above
    # chance while the features' AUROC rose from .78 to .85.
    must_fall_below_chance: ClassVar[bool] = False

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
        with torch.autocast(student.device.type, enabled=False):
            total: Tensor = self.criterion(
                list(teacher.split(scans)),
                list(student.split(scans)),
                teacher_temp=self.teacher_temperature(at),
            )
        return Losses(
            total=total,
            terms={"cross_entropy": total.detach()},
            embeddings=seen[:scans].detach().float(),
            chance=math.log(student.shape[1]),
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
def clip_each(gradients: list[Tensor], longest: float) -> None:
    """Shortens, in place, each gradient longer than ``longest`` to that length.

    Source: DINO, released code, ``clip_gradients``: each parameter by itself, where torch's
    ``clip_grad_norm_`` and lightly's example clip all of them together.
    """
    lengths: list[Float[Tensor, ""]] = list(torch._foreach_norm(gradients))
    shares = [(longest / (length + 1e-6)).clamp(max=1.0) for length in lengths]
    torch._foreach_mul_(gradients, shares)
