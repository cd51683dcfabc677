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
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from scanlearn.backbones.backbone import Backbone, seeded_weights
from scanlearn.core import Losses, Progress, ViewPlan, Views
from scanlearn.methods.base import Method
from scanlearn.methods.settings import MoCoV2Config
from scanlearn.methods.teacher import follow, momentum_at, teacher_of


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


def build(settings: MoCoV2Config, backbone: Backbone, seed: int) -> MoCoV2:
    """Returns the method; the weights of head and queue depend on ``seed`` alone."""
    # Takes seconds, and a configuration is read without it.
    from lightly.loss import NTXentLoss
    from lightly.models.modules import MoCoProjectionHead

    with seeded_weights(seed, "mocov2", "head"):
        head = MoCoProjectionHead(backbone.num_features, settings.head_hidden, settings.head_dim)
    with seeded_weights(seed, "mocov2", "queue"):
        contrast = NTXentLoss(
            temperature=settings.temperature,
            memory_bank_size=(settings.queue_size, settings.head_dim),
            gather_distributed=torch.distributed.is_available(),
        )
    assert settings.batch_norm_groups is not None, "resolved"
    return MoCoV2(
        backbone,
        head,
        contrast,
        teacher_momentum=settings.teacher_momentum,
        groups=settings.batch_norm_groups,
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
