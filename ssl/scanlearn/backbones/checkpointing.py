"""Gradient checkpointing: activations are computed again in the backward pass, not kept."""

from __future__ import annotations

from scanlearn.backbones.build import Backbone
from scanlearn.backbones.parts import has_batch_norm
from scanlearn.core import ScanlearnError


def checkpoint_gradients(backbone: Backbone) -> None:
    """Makes a backbone keep less in memory at the cost of a second forward pass.

    Loss and gradients stay as they are. In a network with BatchNorm the running statistics would
    not: the second pass would count every batch twice.

    Args:
        backbone: Changed in place; its weights and its export stay as they are.

    Raises:
        ScanlearnError: timm has no checkpointing for this network, or it holds BatchNorm.

    Source:
        Chen, Xu, Zhang and Guestrin, Training Deep Nets with Sublinear Memory Cost
        (arXiv 1604.06174); timm's ``set_grad_checkpointing``.
    """
    if has_batch_norm(backbone):
        raise ScanlearnError(
            f"grad_checkpointing: '{backbone.name}' holds BatchNorm, whose running statistics "
            "would count every batch twice; set it to false, or take a network without BatchNorm, "
            "such as a ViT, Swin or ConvNeXt."
        )
    try:
        backbone.network.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError) as error:  # timm's two ways to say that it has none
        raise ScanlearnError(
            f"grad_checkpointing: timm has none for '{backbone.name}'; set it to false."
        ) from error
