"""MoCo v3: each view's query finds the other view's key among the keys of the batch.

Chen, Xie, He, "An Empirical Study of Training Self-Supervised Vision Transformers", ICCV 2021
(arXiv 2104.02057), with the authors' released code.
"""

from __future__ import annotations

import copy
import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanlearn.backbones.backbone import Backbone, patch_projection, seeded_weights
from scanlearn.core import Losses, Progress, ViewPlan, Views
from scanlearn.methods.base import Method
from scanlearn.methods.settings import MoCoV3Config
from scanlearn.methods.teacher import follow, momentum_at, teacher_of


def build(settings: MoCoV3Config, backbone: Backbone, seed: int) -> MoCoV3:
    """Returns the method; the weights of its heads depend on ``seed`` alone."""
    is_transformer = patch_projection(backbone) is not None
    assert settings.head_layers is not None and settings.temperature is not None, "resolved"  # noqa: PT018
    with seeded_weights(seed, "mocov3", "projector"):
        projector = _mlp(settings, backbone.num_features, settings.head_layers, ends_in_norm=True)
    with seeded_weights(seed, "mocov3", "predictor"):
        predictor = _mlp(settings, settings.head_dim, 2, ends_in_norm=is_transformer)
    if settings.freeze_patches:
        freeze_patches(backbone)
    return MoCoV3(
        backbone,
        projector,
        predictor,
        temperature=settings.temperature,
        teacher_momentum=settings.teacher_momentum,
    )


def _mlp(settings: MoCoV3Config, width: int, layers: int, *, ends_in_norm: bool) -> nn.Module:
    """Layers without biases; the last BatchNorm has neither scale nor shift."""
    from lightly.models.modules.heads import ProjectionHead

    def norm(features: int, *, is_last: bool) -> nn.Module | None:
        wanted = settings.head_batch_norm and (ends_in_norm or not is_last)
        return nn.BatchNorm1d(features, affine=not is_last) if wanted else None

    widths = [width, *[settings.head_hidden] * (layers - 1), settings.head_dim]
    blocks: list[tuple[int, int, nn.Module | None, nn.Module | None, bool]] = []
    for before, after in itertools.pairwise(widths):
        is_last = len(blocks) == layers - 1
        active = None if is_last else nn.ReLU(inplace=True)
        blocks.append((before, after, norm(after, is_last=is_last), active, False))
    head: nn.Module = ProjectionHead(blocks)
    return head


def freeze_patches(backbone: Backbone) -> None:
    """Freezes the patch projection of a transformer, which else makes its training unstable.

    Source: arXiv 2104.02057, section 4.1.
    """
    projection = patch_projection(backbone)
    if projection is not None:
        projection.requires_grad_(False)


class MoCoV3(Method):
    """MoCo v3's networks and loss.

    Args:
        backbone: Of the encoder f_q, the part that is kept.
        predictor: Its prediction head, which the key encoder lacks.
        temperature: tau.
    """

    def __init__(
        self,
        backbone: Backbone,
        projector: nn.Module,
        predictor: nn.Module,
        *,
        temperature: float,
        teacher_momentum: float,
    ) -> None:
        super().__init__(backbone, ViewPlan(global_views=2))
        self.projector = projector
        self.predictor = predictor
        self.teacher = teacher_of(backbone)
        self.teacher_projector = copy.deepcopy(projector).requires_grad_(False)
        self._temperature = temperature
        self._teacher_momentum = teacher_momentum

    def loss(self, views: Views, at: Progress) -> Losses:  # noqa: ARG002
        """Returns ctr(q1, k2) + ctr(q2, k1) (algorithm 1).

        The views pass the networks one after the other, as in the paper: BatchNorm sees each
        alone. The loss is computed in fp32 even where the networks run in bf16.
        """
        queries = [self.queries(view) for view in views.global_views]
        keys = [self.keys(view) for view in views.global_views]
        with torch.autocast(queries[0].device.type, enabled=False):
            terms = [
                contrast(q, k, self._temperature)
                for q, k in zip(queries, reversed(keys), strict=True)
            ]
        total = terms[0] + terms[1]
        candidates = len(queries[0]) * _world_size()
        return Losses(
            total=total,
            terms={"contrast": total.detach()},
            embeddings=queries[0].detach(),
            chance=4 * self._temperature * math.log(candidates),
        )

    def queries(self, views: Float[Tensor, "b c s s"]) -> Float[Tensor, "b d"]:
        """Returns q, not yet normalised."""
        q: Tensor = self.predictor(self.projector(self.backbone(views)))
        return q.float()

    @torch.no_grad()
    def keys(self, views: Float[Tensor, "b c s s"]) -> Float[Tensor, "b d"]:
        """Returns k, not yet normalised."""
        k: Tensor = self.teacher_projector(self.teacher(views))
        return k.float()

    def after_step(self, at: Progress) -> None:
        """Moves the key encoder towards the query encoder."""
        keep = momentum_at(at, start=self._teacher_momentum, end=1.0)
        follow((self.teacher, self.teacher_projector), (self.backbone, self.projector), keep)


def contrast(
    q: Float[Tensor, "b d"], k: Float[Tensor, "b d"], temperature: float
) -> Float[Tensor, ""]:
    """The contrastive loss of queries whose keys are those of the same row.

    ``2 tau x cross-entropy`` over the keys of all processes; no gradient reaches a key.

    Source: arXiv 2104.02057, algorithm 1, ``ctr``; lightly has no such loss.
    """
    from lightly.utils.dist import rank

    q, k = nn.functional.normalize(q, dim=1), nn.functional.normalize(k.detach(), dim=1)
    logits = q @ _gathered(k).T / temperature
    labels = torch.arange(len(q), device=q.device) + len(q) * rank()
    return 2 * temperature * nn.functional.cross_entropy(logits, labels)


def _gathered(k: Float[Tensor, "b d"]) -> Float[Tensor, "n d"]:
    """The keys of all processes, in the order of their ranks."""
    from lightly.models.utils import concat_all_gather

    keys: Tensor = concat_all_gather(k) if _world_size() > 1 else k
    return keys


def _world_size() -> int:
    from lightly.utils.dist import world_size

    return int(world_size())
