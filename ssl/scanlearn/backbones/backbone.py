"""Backbones made by timm, with weights that depend on a seed and on nothing else."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from scanlearn.backbones.settings import BackboneConfig as BackboneConfig
from scanlearn.backbones.settings import check_architecture
from scanlearn.errors import ScanlearnError


class Backbone(nn.Module):
    """A timm network without its classifier: a view in, one feature vector out.

    Args:
        network: The timm network, built with ``num_classes=0``; with a classifier, its class
            scores take the place of the features.
        model_args: What timm needs beside name and channels to build the same network again.
    """

    def __init__(
        self, network: nn.Module, *, name: str, channels: int, model_args: dict[str, Any]
    ) -> None:
        super().__init__()
        self.network = network
        self.name = name
        self.channels = channels
        self.model_args = dict(model_args)
        self.num_classes = int(getattr(network, "num_classes", 0) or 0)
        # Where timm puts a layer between pooling and classifier, that layer's width counts.
        width = getattr(network, "head_hidden_size", None) or getattr(network, "num_features", None)
        if not (self.num_classes or width):
            raise ScanlearnError(
                f"backbone.name: '{name}' does not say how long its feature vector is; set "
                "num_features in its __init__"
            )
        self.num_features = int(self.num_classes or width or 0)

    def forward(self, views: Float[Tensor, "b c s s"]) -> Float[Tensor, "b d"]:
        """Returns the pooled features of standardised views."""
        features: Tensor = self.network(views)
        return features

    @property
    def is_convolutional(self) -> bool:
        """Whether convolutions do the work: such a network is faster in channels_last memory.

        A transformer has one spatial convolution, its patch projection; two make a network
        convolutional.
        """
        spatial = (
            module
            for module in self.network.modules()
            if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1
        )
        return sum(1 for _ in spatial) > 1


def timm_facts(network: nn.Module) -> dict[str, Any]:
    """Returns what timm says of a network, ``pretrained_cfg``; nothing of a user's own."""
    return dict(getattr(network, "pretrained_cfg", None) or {})


@contextmanager
def seeded_weights(seed: int, *names: str) -> Iterator[None]:
    """Initialises every weight made inside from ``seed`` and ``names``, such as ``"backbone"``.

    timm, lightly and torch draw initial weights from torch's global CPU generator and offer no
    other, so it is seeded for the block and put back. Different names give independent weights.
    """
    digest = hashlib.sha256("/".join((str(seed), *names)).encode()).digest()
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it would also reseed every GPU, which is not put back.
        torch.default_generator.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        yield


def build_backbone(
    config: BackboneConfig,
    channels: int,
    seed: int,
    *,
    size: int | None = None,
    drop_path: float = 0.0,
) -> Backbone:
    """Builds a backbone with random weights that depend on ``seed`` and the configuration alone.

    Args:
        config: Which backbone, `untrained`; `start.load_start` loads its initial weights.
        channels: Channels of the archive's scans.
        seed: Arms that share it start from the same weights.
        size: Side of a view in pixels. Networks with a position table (ViT and kin) are built
            for it and still take other sizes by interpolation; others ignore it.
        drop_path: Stochastic depth of a transformer where the configuration leaves it open.

    Raises:
        ScanlearnError: If timm has no such architecture, the name asks for pretrained weights,
            the channels differ from the archive's, or the network cannot take the view size.
    """
    assert config.weights is None, "build config.untrained, then load_start"
    check_architecture(config.name, "backbone.name")
    if config.channels is not None and config.channels != channels:
        raise ScanlearnError(
            f"backbone.channels is {config.channels}, but the archive's scans have {channels}; "
            f"leave it null or pack the scans with pack.channels={config.channels}"
        )
    rate = config.drop_path
    if rate is None:
        rate = drop_path if drop_path and is_transformer(config.name) else 0.0
    with seeded_weights(seed, "backbone", config.name):
        network, model_args = _create(config.name, channels, rate, size)
    registered_in(config.name)  # Refused before it has trained, not at its export.
    backbone = Backbone(network, name=config.name, channels=channels, model_args=model_args)
    if size is not None:
        check_views(backbone, size)
    return backbone


@lru_cache
def is_transformer(name: str) -> bool:
    """Whether an architecture works on patches; told without making its weights.

    The rule by which recipes, optimisers and stochastic depth are chosen: a network with a patch
    projection (ViT, DeiT, BEiT, Swin, a ViT on a convolutional stem) counts as a transformer,
    every other as convolutional (ResNet, ConvNeXt, EfficientNet, CoAtNet, MaxViT).
    """
    import timm

    with torch.device("meta"):
        return patch_projection(timm.create_model(name, num_classes=0)) is not None


def _create(
    name: str, channels: int, drop_path: float, size: int | None
) -> tuple[nn.Module, dict[str, Any]]:
    """Makes the network and returns it with the arguments that shape its weights."""
    import timm

    shared: dict[str, Any] = {"pretrained": False, "num_classes": 0, "in_chans": channels}
    if drop_path > 0:
        shared["drop_path_rate"] = drop_path
    fixed = timm.get_pretrained_cfg(name)
    tries: list[dict[str, Any]] = [{}]
    if fixed is not None and fixed.fixed_input_size:
        side = {} if size is None else {"img_size": size}
        # Swin and its like have no dynamic size; they are built for one.
        tries = [{**side, "dynamic_img_size": True}, side]
    state = torch.default_generator.get_state()
    for position, model_args in enumerate(tries):
        torch.default_generator.set_state(state)
        try:
            return timm.create_model(name, **shared, **model_args), model_args
        except TypeError as error:
            if "drop_path_rate" in str(error):
                raise ScanlearnError(
                    f"backbone.drop_path: '{name}' has no stochastic depth; set it to 0"
                ) from error
            if position == len(tries) - 1:
                raise ScanlearnError(
                    f"backbone.name: '{name}' cannot be built ({error}); its function takes what "
                    "timm's take: pretrained, num_classes, in_chans and **kwargs"
                ) from error
        except (AssertionError, ValueError, RuntimeError) as error:
            raise ScanlearnError(
                f"backbone.name: timm cannot build '{name}' for {channels} channels and views "
                f"of {size} pixels ({error}); choose another architecture or view size"
            ) from error
    raise AssertionError("the last try returns or raises")


def check_views(backbone: Backbone, size: int, what: str = "views.size") -> None:
    """Refuses a view size the network cannot take, before a run has begun.

    Args:
        what: The setting that has that size, for the message.

    Raises:
        ScanlearnError: It cannot.
    """
    side = patch_side(backbone)
    if size % side:
        lower = max(side, size // side * side)
        raise ScanlearnError(
            f"{what} is {size}, but the patches of '{backbone.name}' are {side} pixels wide: "
            f"take a multiple of {side}, such as {lower} or {lower + side}"
        )
    backbone.eval()
    try:
        with torch.no_grad():
            features = backbone(torch.zeros(2, backbone.channels, size, size))
    except (AssertionError, ValueError, RuntimeError) as error:
        raise ScanlearnError(
            f"{what} is {size}, and '{backbone.name}' cannot take {backbone.channels}-channel "
            f"views of that size ({error}); choose another size or architecture"
        ) from error
    finally:
        backbone.train()
    assert features.shape == (2, backbone.num_features), backbone.name


def registered_in(name: str) -> str | None:
    """Returns the module in which a user has made a network known to timm; None for timm's own.

    Raises:
        ScanlearnError: A session without a file, which no other process can repeat.
    """
    import timm

    module = str(timm.models.model_entrypoint(name).__module__)
    if module == "__main__" and getattr(sys.modules[module], "__file__", None) is None:
        raise ScanlearnError(
            f"backbone.name: '{name}' is registered in a session without a file, and an export is "
            "tried in a process of its own; register it in a file, and import that"
        )
    return None if module.partition(".")[0] == "timm" else module


def create_network(
    name: str, channels: int, model_args: dict[str, Any], num_classes: int = 0
) -> nn.Module:
    """Makes the timm network of an export, its weights noise, without drop path."""
    import timm

    with seeded_weights(0, "to be replaced"):
        network: nn.Module = timm.create_model(
            name, pretrained=False, num_classes=num_classes, in_chans=channels, **model_args
        )
    return network


def weights_hash(module: nn.Module) -> str:
    """Returns the sha256 of all weights and buffers: their names, types, shapes and bytes.

    A `Backbone` is hashed under timm's own names, so that the hash of a backbone in memory and of
    the same one loaded from a folder are equal. Device and memory format do not matter.
    """
    return tensors_hash((module.network if isinstance(module, Backbone) else module).state_dict())


def tensors_hash(tensors: dict[str, Tensor]) -> str:
    """Returns the sha256 of named tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def patch_projection(network: nn.Module) -> nn.Module | None:
    """The layer that turns patches into tokens; None for a network that is no transformer.

    Here and below, a network is timm's or a backbone around it.
    """
    embed = getattr(getattr(network, "network", network), "patch_embed", None)
    projection = getattr(embed, "proj", None)
    return projection if isinstance(projection, nn.Module) else None


def patch_side(network: nn.Module) -> int:
    """Side of a patch in pixels; 1 for a network without patches."""
    embed = getattr(getattr(network, "network", network), "patch_embed", None)
    size = getattr(embed, "patch_size", None)
    return 1 if size is None else int(size[0] if isinstance(size, tuple | list) else size)


# Sides of a local and a global view in DINO.
_LOCAL_SHARE = 96 / 224


def local_side(network: nn.Module, size: int) -> int:
    """Side of a local view: the multiple of the patch nearest to 96 / 224 of a global view's.

    Source: DINO's views of 96 beside those of 224 pixels.
    """
    patch = patch_side(network)
    return max(1, round(_LOCAL_SHARE * size / patch)) * patch


def has_batch_norm(module: nn.Module) -> bool:
    """Whether any layer normalises over the batch."""
    return any(isinstance(layer, _BatchNorm) for layer in module.modules())


def hold_statistics(network: nn.Module) -> None:
    """Has batch normalisation of a training network use the statistics it has, and keep them."""
    for layer in network.modules():
        if isinstance(layer, _BatchNorm):
            layer.eval()


def drop_no_path(network: nn.Module) -> None:
    """Switches the stochastic depth of a network off."""
    from timm.layers.drop import DropPath

    for layer in network.modules():
        if isinstance(layer, DropPath):
            layer.drop_prob = 0.0


def checkpoint_gradients(backbone: Backbone) -> None:
    """Makes a backbone, in place, keep less in memory at the cost of a second forward pass.

    Activations are computed again in the backward pass. Loss and gradients stay as they are. In a
    network with BatchNorm the running statistics would not: the second pass would count every
    batch twice.

    Raises:
        ScanlearnError: timm has no checkpointing for this network, or it has BatchNorm.

    Source: Chen, Xu, Zhang and Guestrin, Training Deep Nets with Sublinear Memory Cost
    (arXiv 1604.06174); timm's ``set_grad_checkpointing``.
    """
    if has_batch_norm(backbone):
        raise ScanlearnError(
            f"grad_checkpointing: '{backbone.name}' has BatchNorm, whose running statistics would "
            "count every batch twice; set it to false, or use a network without BatchNorm, such as "
            "a ViT, Swin or ConvNeXt."
        )
    try:
        backbone.network.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError) as error:  # timm's two ways to say that it has none
        raise ScanlearnError(
            f"grad_checkpointing: timm does not support it for '{backbone.name}'; set it to false."
        ) from error
