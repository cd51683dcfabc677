"""Parts of timm's networks that methods and view sizes depend on."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

# Sides of a local and a global view in DINO.
_LOCAL_SHARE = 96 / 224


def patch_projection(network: nn.Module) -> nn.Module | None:
    """The layer that turns patches into tokens; None for a network that is no transformer.

    Args:
        network: timm's network, or a backbone around it.
    """
    embed = getattr(getattr(network, "network", network), "patch_embed", None)
    projection = getattr(embed, "proj", None)
    return projection if isinstance(projection, nn.Module) else None


def patch_side(network: nn.Module) -> int:
    """Side of a patch in pixels; 1 for a network without patches.

    Args:
        network: timm's network, or a backbone around it.
    """
    embed = getattr(getattr(network, "network", network), "patch_embed", None)
    size = getattr(embed, "patch_size", None)
    return 1 if size is None else int(size[0] if isinstance(size, tuple | list) else size)


def has_batch_norm(module: nn.Module) -> bool:
    """Whether any layer normalises over the batch."""
    return any(isinstance(layer, _BatchNorm) for layer in module.modules())


def hold_statistics(network: nn.Module) -> None:
    """Has batch normalisation of a training network use the statistics it has, and keep them."""
    for layer in network.modules():
        if isinstance(layer, _BatchNorm):
            layer.eval()


def local_side(network: nn.Module, size: int) -> int:
    """Side of a local view in pixels: the multiple of the patch nearest to 96 / 224 of ``size``.

    Args:
        network: timm's network, or a backbone around it.
        size: Side of a global view in pixels.

    Source: DINO's views of 96 beside those of 224 pixels.
    """
    patch = patch_side(network)
    return max(1, round(_LOCAL_SHARE * size / patch)) * patch


def drop_no_path(network: nn.Module) -> None:
    """Switches the stochastic depth of a network off."""
    from timm.layers.drop import DropPath

    for layer in network.modules():
        if isinstance(layer, DropPath):
            layer.drop_prob = 0.0
