"""Class tokens of a transformer's last blocks, one after another, as features."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanlearn.backbones.build import Backbone


def with_last_tokens(backbone: Backbone, blocks: int) -> Backbone:
    """Returns a backbone whose features are the normalised class tokens of its last blocks.

    A network without a class token keeps its own pooled features: it is returned as it is.

    Args:
        backbone: Shares its weights with what is returned.
        blocks: How many, at most; 4 is DINO's for small networks.

    Source: DINO (arXiv 2104.14294), appendix F.2 and the released linear evaluation.
    """
    network: Any = backbone.network
    depth = len(getattr(network, "blocks", ()))
    if getattr(network, "cls_token", None) is None or not depth:
        return backbone
    taken = min(blocks, depth)
    return Backbone(
        _LastTokens(network, taken),
        name=f"{backbone.name}, class tokens of the last {taken} blocks",
        channels=backbone.channels,
        model_args=backbone.model_args,
    )


class _LastTokens(nn.Module):
    def __init__(self, network: nn.Module, blocks: int) -> None:
        super().__init__()
        self.network = network
        self.blocks = blocks
        self.num_features = blocks * int(network.embed_dim)  # type: ignore[arg-type]

    def forward(self, views: Float[Tensor, "b c s s"]) -> Float[Tensor, "b d"]:
        found = self.network.forward_intermediates(  # type: ignore[operator]
            views,
            indices=self.blocks,
            return_prefix_tokens=True,
            norm=True,
            intermediates_only=True,
        )
        return torch.cat([prefix[:, 0] for _, prefix in found], dim=1)
