"""MoCo v2: a query is told from a queue of keys that a slowly moving copy of the network made.

He, Fan, Wu, Xie, Girshick, "Momentum Contrast for Unsupervised Visual Representation Learning",
CVPR 2020 (arXiv 1911.05722), and Chen, Fan, Girshick, He, "Improved Baselines with Momentum
Contrastive Learning" (arXiv 2003.04297), with the authors' released code.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from scanlearn.backbones.backbone import Backbone, has_batch_norm, seeded_weights
from scanlearn.core import Losses, Progress, ViewPlan, Views
from scanlearn.methods.base import Method, MethodSettings, RunFacts
from scanlearn.methods.sizing import queue_size
from scanlearn.methods.teacher import follow, momentum_at, momentum_in_words, teacher_of

# Of the published eight GPUs, each with BatchNorm statistics of its own.
_PUBLISHED_GROUPS = 8
# Statistics of fewer scans than this are noise.
_SMALLEST_GROUP = 8


def in_groups(
    backbone: Backbone, views: Float[Tensor, "b c s s"], groups: int
) -> Float[Tensor, "b d"]:
    """Returns features of views that pass a backbone in ``groups`` equal parts.

    Each part has BatchNorm statistics of its own; running statistics move as far in a batch as
    they would without groups. This works with any kind of BatchNorm, where lightly's
    SplitBatchNorm replaces one; both give the same features.

    Args:
        views: ``b`` views.
        groups: How many parts; where it does not divide ``b``, some have one view more.
    """
    if groups == 1:
        return backbone(views)  # type: ignore[no-any-return]
    with _slowed(backbone, groups):
        return torch.cat([backbone(part) for part in views.tensor_split(groups)])


@contextmanager
def _slowed(backbone: Backbone, groups: int) -> Iterator[None]:
    """Lets running statistics move by the ``groups``-th part of what they do in a step."""
    layers = [
        (layer, layer.momentum)
        for layer in backbone.modules()
        if isinstance(layer, _BatchNorm) and layer.momentum is not None
    ]
    try:
        for layer, momentum in layers:
            layer.momentum = 1 - (1 - momentum) ** (1 / groups)
        yield
    finally:
        for layer, momentum in layers:
            layer.momentum = momentum


class MoCoV2Config(MethodSettings):
    """MoCo v2 and the recipe it is trained with.

    Source:
        The released code's command for v2: temperature .2, queue 65,536, momentum .999, SGD with
        rate .03 at batch 256 and momentum .9, weight decay 1e-4, cosine, a 2-layer head to 128.
        The shorter queue and the lower momentum of small archives are ours.
    """

    recipe: ClassVar[str] = "mocov2"
    decays_everything_with: ClassVar[frozenset[str]] = frozenset({"sgd"})

    name: Literal["mocov2"] = Field(default="mocov2", description="MoCo v2")
    temperature: float = Field(
        default=0.2, gt=0, description="temperature that divides the cosine similarities"
    )
    queue_size: int | None = Field(
        default=None,
        ge=1,
        description="keys kept as negatives; null is the largest power of two within half of "
        "the archive, at most 65,536",
    )
    teacher_momentum: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="momentum of the teacher: the share that it keeps in a step; lower in a short "
        "run",
    )
    batch_norm_groups: int | None = Field(
        default=None,
        ge=1,
        description="groups of scans in a process with separate BatchNorm statistics, so that a "
        "query cannot tell its key by them; null is 8 over all processes",
    )
    head_hidden: int | None = Field(
        default=None, ge=1, description="width of the hidden layer; null is the feature dimension"
    )
    head_dim: int = Field(default=128, ge=1, description="dimension of an embedding")

    def resolved(self, facts: RunFacts, backbone: Backbone) -> tuple[Self, tuple[str, ...]]:
        """Fills in the published recipe, its queue for the archive."""
        groups, why = _groups(facts, is_needed=has_batch_norm(backbone))
        filled = self.filled(
            optimiser="sgd",
            learning_rate=0.03 * facts.batch_size / 256,
            weight_decay=1e-4,
            warmup_epochs=0.0,
            head_hidden=backbone.num_features,
            queue_size=queue_size(facts.num_scans),
            batch_norm_groups=groups,
        )
        chosen = []
        if self.queue_size is None:
            chosen.append(
                f"a queue of {filled.queue_size:,} keys: the largest power of two within half of "
                f"{facts.num_scans:,} scans (published for 1.3 million images: 65,536)"
            )
        if self.batch_norm_groups is None:
            chosen.append(why)
        return filled, (*chosen, *momentum_in_words(self.teacher_momentum, facts.total_steps))

    def build(self, backbone: Backbone, seed: int) -> MoCoV2:
        """Returns the method; the weights of head and queue depend on ``seed`` alone."""
        # Takes seconds, and a configuration is read without it.
        from lightly.loss import NTXentLoss
        from lightly.models.modules import MoCoProjectionHead

        with seeded_weights(seed, "mocov2", "head"):
            head = MoCoProjectionHead(backbone.num_features, self.head_hidden, self.head_dim)
        with seeded_weights(seed, "mocov2", "queue"):
            contrast = NTXentLoss(
                temperature=self.temperature,
                memory_bank_size=(self.queue_size, self.head_dim),
                gather_distributed=torch.distributed.is_available(),
            )
        assert self.batch_norm_groups is not None, "resolved"
        return MoCoV2(
            backbone,
            head,
            contrast,
            teacher_momentum=self.teacher_momentum,
            groups=self.batch_norm_groups,
        )


def _groups(facts: RunFacts, *, is_needed: bool) -> tuple[int, str]:
    """BatchNorm groups of a process, and why."""
    if not is_needed:
        return 1, "no BatchNorm groups: the backbone has no BatchNorm"
    per_process = max(1, _PUBLISHED_GROUPS // facts.ranks)
    scans = facts.batch_size // (facts.ranks * facts.parts)
    groups = max(1, min(per_process, scans // _SMALLEST_GROUP))
    if groups * facts.ranks > 1:
        return groups, (
            f"BatchNorm in {groups * facts.ranks} shuffled groups of {scans // groups} scans, so "
            "that its statistics do not tell a query which key is its own"
        )
    return 1, (
        f"one BatchNorm group, since a batch of {scans} scans is too small for more: its "
        "statistics may tell a query which key is its own; use a larger batch_size, or a backbone "
        "without BatchNorm"
    )


class MoCoV2(Method):
    """MoCo v2's networks, queue and loss.

    Args:
        backbone: Of the query encoder f_q, the part that is kept.
        contrast: lightly's NTXentLoss with a memory bank.
        teacher_momentum: m, how much of itself the key encoder keeps in a step.
        groups: Parts of the batch with BatchNorm statistics of their own.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        contrast: Any,
        *,
        teacher_momentum: float,
        groups: int,
    ) -> None:
        super().__init__(backbone, ViewPlan(global_views=2))
        self.head = head
        self.teacher = teacher_of(backbone)
        self.teacher_head = copy.deepcopy(head).requires_grad_(False)
        self.contrast = contrast
        bank = contrast.memory_bank
        self._candidates = 1 + len(bank.bank)
        # lightly leaves the queue out of its state: a resumed run would begin with noise in it.
        for name in ("bank", "bank_ptr"):
            bank.register_buffer(name, getattr(bank, name), persistent=True)
        self._teacher_momentum = teacher_momentum
        self._groups = groups

    def loss(self, views: Views, at: Progress) -> Losses:  # noqa: ARG002
        """Returns the InfoNCE loss of queries against their keys and the queue (algorithm 1).

        It is computed in fp32 even where the networks run in bf16.
        """
        seen_by_query, seen_by_key = views.global_views
        q = self.head(in_groups(self.backbone, seen_by_query, self._groups)).float()
        k = self.keys(seen_by_key)
        with torch.autocast(q.device.type, enabled=False):
            total: Tensor = self.contrast(q, k)
        return Losses(
            total=total,
            terms={"info_nce": total.detach()},
            embeddings=q.detach(),
            chance=math.log(self._candidates),
        )

    @torch.no_grad()
    def keys(self, views: Float[Tensor, "b c s s"]) -> Float[Tensor, "b d"]:
        """Returns the keys of views; no BatchNorm group is the one of the same scans' queries.

        Source: arXiv 1911.05722, section 3.3, shuffling BN.
        """
        from lightly.models.utils import batch_shuffle, batch_unshuffle
        from lightly.utils.dist import world_size

        is_distributed = world_size() > 1
        if self._groups == 1 and not is_distributed:
            return self._encode(views)
        # From the global generator, which the training loop seeds at every step.
        shuffled, order = batch_shuffle(views, distributed=is_distributed)
        keys: Tensor = batch_unshuffle(self._encode(shuffled), order, distributed=is_distributed)
        return keys

    def _encode(self, views: Float[Tensor, "b c s s"]) -> Float[Tensor, "b d"]:
        keys: Tensor = self.teacher_head(in_groups(self.teacher, views, self._groups))
        return keys.float()

    def after_step(self, at: Progress) -> None:
        """Moves the key encoder towards the query encoder (equation 2)."""
        keep = momentum_at(at, start=self._teacher_momentum, end=self._teacher_momentum)
        follow((self.teacher, self.teacher_head), (self.backbone, self.head), keep)
