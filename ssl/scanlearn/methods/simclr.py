"""SimCLR: the two views of a scan are told from the views of all other scans in the batch.

Chen, Kornblith, Norouzi, Hinton, "A Simple Framework for Contrastive Learning of Visual
Representations", ICML 2020 (arXiv 2002.05709), with the authors' released code.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanlearn.backbones.backbone import Backbone, seeded_weights
from scanlearn.core import Losses, Progress, ViewPlan, Views
from scanlearn.methods.base import Method
from scanlearn.methods.settings import SimCLRConfig


def build(settings: SimCLRConfig, backbone: Backbone, seed: int) -> SimCLR:
    """Returns the method around ``backbone``; the head's weights depend on ``seed`` alone."""
    # Takes seconds, and a configuration is read without it.
    from lightly.models.modules import SimCLRProjectionHead

    with seeded_weights(seed, "simclr", "head"):
        head = SimCLRProjectionHead(
            input_dim=backbone.num_features,
            hidden_dim=settings.head_hidden,
            output_dim=settings.head_dim,
            num_layers=settings.head_layers,
            batch_norm=settings.head_batch_norm,
        )
    return SimCLR(backbone, head, temperature=settings.temperature)


class SimCLR(Method):
    """SimCLR's networks and loss.

    Args:
        temperature: tau.
    """

    def __init__(self, backbone: Backbone, head: nn.Module, *, temperature: float) -> None:
        from lightly.loss import NTXentLoss

        super().__init__(backbone, ViewPlan(global_views=2))
        self.head = head
        # Gathers over ranks as soon as there are several, so that every rank sees all negatives.
        self.contrast = NTXentLoss(
            temperature=temperature, gather_distributed=torch.distributed.is_available()
        )

    def loss(self, views: Views, at: Progress) -> Losses:  # noqa: ARG002
        """Returns the mean NT-Xent loss over both views of every scan (equation 1).

        Both views pass through the networks as one batch, as in the released code: BatchNorm
        sees them together and cannot tell one from the other by its statistics. lightly's
        examples pass them one after the other.

        The loss is computed in fp32 even where the networks run in bf16: similarities divided by
        a small temperature need the digits.
        """
        from lightly.utils.dist import world_size

        first, second = views.global_views
        z0, z1 = self.project(torch.cat((first, second))).float().chunk(2)
        with torch.autocast(z0.device.type, enabled=False):
            total: Tensor = self.contrast(z0, z1)
        return Losses(
            total=total,
            terms={"nt_xent": total.detach()},
            embeddings=z0.detach(),
            chance=math.log(2 * len(z0) * world_size() - 1),
        )

    def project(self, views: Float[Tensor, "b c s s"]) -> Float[Tensor, "b d"]:
        """Returns z = g(f(x)), not yet normalised."""
        z: Tensor = self.head(self.backbone(views))
        return z
