"""Embeddings beside the features that a backbone itself gives: class token, patches, their mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float32
from torch import Tensor

from scanlearn.backbones.backbone import Backbone
from scanlearn.backbones.device import Precision, autocast, preferred_memory_format
from scanlearn.errors import ScanlearnError
from scanlearn.features.extract import Place, in_evaluation

Pool = Literal["backbone", "class", "mean"]


@dataclass(frozen=True)
class Tokens:
    """What a network makes of the places of a view, before it pools them.

    Args:
        pooled: What the backbone gives: these are the features that everything else here uses.
        prefix: The class token first, if there is one, and registers.
        patches: Row by row from the upper left corner.
    """

    pooled: Float[Tensor, "b d"]
    prefix: Float[Tensor, "b p d"]
    patches: Float[Tensor, "b t d"]

    @classmethod
    def of(cls, backbone: Backbone, views: Float[Tensor, "b c s s"]) -> Tokens:
        """Passes views through a timm network once.

        Raises:
            ScanlearnError: The network gives no features of places.
        """
        network: Any = backbone.network
        try:
            features: Tensor = network.forward_features(views)
            pooled: Tensor = network.forward_head(features)
        except AttributeError as error:
            raise _no_patches(backbone) from error
        if features.ndim == 4:
            # timm's transformers in windows have the features last, all others second.
            is_last = getattr(network, "output_fmt", "NCHW") == "NHWC"
            grid = features if is_last else features.permute(0, 2, 3, 1)
            patches = grid.flatten(1, 2)
            return cls(pooled, patches[:, :0], patches)
        if features.ndim != 3:
            raise _no_patches(backbone)
        num_prefix = int(getattr(network, "num_prefix_tokens", 0))
        return cls(pooled, features[:, :num_prefix], features[:, num_prefix:])

    def embedding(self, pool: Pool, backbone: Backbone) -> Float[Tensor, "b d"]:
        """Returns one vector a scan.

        Raises:
            ScanlearnError: The class token is asked of a network without one.
        """
        if pool == "mean":
            return self.patches.mean(1)
        if pool == "backbone":
            return self.pooled
        if getattr(backbone.network, "cls_token", None) is None or not self.prefix.shape[1]:
            raise ScanlearnError(
                f"pool: '{backbone.name}' has no class token; take backbone (its own features) or "
                "mean (the average of its patches)"
            )
        return self.prefix[:, 0]


def tokens_of(
    backbone: Backbone,
    batches: Iterator[tuple[Place, Float[Tensor, "b c s s"]]],
    precision: Precision,
    pool: Pool,
) -> Iterator[tuple[Float32[np.ndarray, "b d"], Float32[np.ndarray, "b t d"]]]:
    """Yields embeddings and patches, batch by batch, in evaluation mode: nothing else is kept."""
    layout = preferred_memory_format(backbone)
    device = next(backbone.parameters()).device
    with in_evaluation(backbone), autocast(device, precision):
        for _, views in batches:
            tokens = Tokens.of(backbone, views.contiguous(memory_format=layout))
            embedding = tokens.embedding(pool, backbone)
            yield embedding.float().cpu().numpy(), tokens.patches.float().cpu().numpy()


def _no_patches(backbone: Backbone) -> ScanlearnError:
    return ScanlearnError(
        f"'{backbone.name}' gives no features of places in a view: take pool=backbone without "
        "patches"
    )
