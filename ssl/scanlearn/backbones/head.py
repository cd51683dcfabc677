"""A network with a classifier head, which fine-tuning trains; class tokens as features."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanlearn.backbones.backbone import Backbone, seeded_weights, timm_facts
from scanlearn.errors import ScanlearnError

# New classifiers begin near zero: the first loss is that of chance and moves the backbone little.
_HEAD_STD = 0.01
# Steps of the decay from a ViT-B's classifier to its patch projection.
_STEPS = 13


def build_classifying(
    backbone: Backbone,
    num_classes: int,
    seed: int,
    *,
    drop_path: float = 0.0,
    is_fresh: bool = False,
) -> Backbone:
    """Returns a copy of a backbone with timm's own classifier on it, in evaluation mode.

    Args:
        is_fresh: Whether all weights are new, drawn as timm draws them, and not the classifier's
            alone.

    Raises:
        ScanlearnError: If the network has no stochastic depth or takes no classifier.

    Source: a classifier that begins near zero is that of MAE's fine-tuning (arXiv 2111.06377,
    released code), there with a standard deviation of 2e-5.
    """
    import timm

    extra: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path > 0 else {}
    with seeded_weights(seed, "classifier", backbone.name):
        try:
            network: nn.Module = timm.create_model(
                backbone.name,
                pretrained=False,
                num_classes=num_classes,
                in_chans=backbone.channels,
                **backbone.model_args,
                **extra,
            )
        except TypeError as error:
            if "drop_path_rate" not in str(error):
                raise
            raise ScanlearnError(
                f"drop_path is {drop_path:g}, but '{backbone.name}' has no stochastic depth; set "
                "it to 0"
            ) from error
        if not is_fresh:
            _load_all_but_the_classifier(network, backbone)
    copy = Backbone(
        network, name=backbone.name, channels=backbone.channels, model_args=backbone.model_args
    )
    return copy.to(next(backbone.parameters()).device).eval()


def _load_all_but_the_classifier(network: nn.Module, backbone: Backbone) -> None:
    pretrained = backbone.network.state_dict()
    new = {name: tensor for name, tensor in network.state_dict().items() if name not in pretrained}
    for name, tensor in new.items():
        if name.endswith("weight") and tensor.ndim > 1:
            nn.init.normal_(tensor, std=_HEAD_STD)
        elif name.endswith("bias"):
            nn.init.zeros_(tensor)
    try:
        network.load_state_dict({**pretrained, **new}, strict=True)
    except RuntimeError as error:
        raise ScanlearnError(
            f"'{backbone.name}' has other layers with a classifier than without one; use another "
            "architecture, or a linear probe"
        ) from error
    named = set(classifier_names(Backbone(network, name="", channels=0, model_args={})))
    if not new or not set(new) <= named:
        raise ScanlearnError(
            f"timm names no classifier of '{backbone.name}' that can be trained; use another "
            "architecture, or a linear probe"
        )


def has_drop_path(backbone: Backbone) -> bool:
    """Whether timm builds this architecture with stochastic depth."""
    import timm

    try:
        with torch.device("meta"):
            timm.create_model(backbone.name, drop_path_rate=0.1, **backbone.model_args)
    except TypeError:
        return False
    return True


def set_classifier(
    network: Backbone, weights: Float[np.ndarray, "d k"], intercepts: Float[np.ndarray, " k"]
) -> None:
    """Puts the weights of a linear probe into a network's classifier.

    Raises:
        ScanlearnError: If its classifier is not one linear layer on the features.
    """
    layer = network.network.get_classifier()  # type: ignore[operator]
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, nn.Parameter) or weight.numel() != weights.size:
        raise ScanlearnError(
            f"the classifier of '{network.name}' is not one linear layer on its features, so a "
            "linear probe cannot replace it; use finetune instead of lpft"
        )
    with torch.no_grad():
        weight.copy_(torch.from_numpy(np.ascontiguousarray(weights.T)).reshape(weight.shape))
        layer.bias.copy_(torch.from_numpy(intercepts))


def classifier_names(network: Backbone) -> tuple[str, ...]:
    """Returns the names of the classifier's weights."""
    named = timm_facts(network.network).get("classifier") or ()
    parts = (named,) if isinstance(named, str) else tuple(named)
    return tuple(
        name
        for name, _ in network.network.named_parameters()
        if any(name.startswith(f"{part}.") for part in parts)
    )


def norm_names(network: Backbone) -> tuple[str, ...]:
    """Returns the names of the scales and shifts of normalisation layers."""
    return tuple(
        f"{name}.{parameter_name}" if name else parameter_name
        for name, module in network.network.named_modules()
        # timm's own layers of this kind share no class with torch's.
        if "Norm" in type(module).__name__
        for parameter_name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim == 1
    )


def layer_groups(
    network: Backbone, *, learning_rate: float, weight_decay: float, layer_decay: float
) -> list[dict[str, Any]]:
    """Returns the optimiser's groups of the parameters that are trained.

    A group's ``lr`` is the learning rate times ``layer_decay`` for every layer between it and the
    classifier, which has the whole rate. A convolutional network of many thin layers has no more
    decay from end to end than a ViT-B: by timm's count a densenet121 has 119 steps, and its first
    layers would never move. Biases, scales and shifts have no weight decay.

    Args:
        layer_decay: Share of the rate from one layer to the one before it; 1 is one rate for all.

    Source: BEiT (arXiv 2106.08254), appendix; ConvNeXt (arXiv 2201.03545), appendix A, for blocks
    taken together; the layers are timm's.
    """
    from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]

    timm_network: Any = network.network
    without: set[str] = getattr(timm_network, "no_weight_decay", set)()
    groups = param_groups_layer_decay(
        timm_network,
        weight_decay=weight_decay,
        no_weight_decay_list=without,
        # Only the number of steps is asked for; 1 would not tell it.
        layer_decay=0.5,
    )
    steps = [-math.log2(group["lr_scale"]) for group in groups]
    deepest = max(steps)
    shrink = _STEPS / deepest if network.is_convolutional and deepest > _STEPS else 1.0
    return [
        {
            "params": group["params"],
            "weight_decay": group["weight_decay"],
            "lr": learning_rate * layer_decay ** (taken * shrink),
        }
        for group, taken in zip(groups, steps, strict=True)
    ]


def with_last_tokens(backbone: Backbone, blocks: int) -> Backbone:
    """Returns a backbone whose features are the normalised class tokens of its last blocks.

    They share their weights. A network without a class token, or one whose weights average the
    patches, is returned as it is, with its own pooled features.

    Args:
        blocks: How many, at most; 4 is DINO's for small networks.

    Source: DINO (arXiv 2104.14294), appendix F.2 and the released linear evaluation.
    """
    network: Any = backbone.network
    depth = len(getattr(network, "blocks", ()))
    is_averaged = backbone.model_args.get("global_pool") == "avg"
    if getattr(network, "cls_token", None) is None or is_averaged or not depth:
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
        tokens = self.network.forward_intermediates(  # type: ignore[operator]
            views,
            indices=self.blocks,
            return_prefix_tokens=True,
            norm=True,
            intermediates_only=True,
        )
        return torch.cat([prefix[:, 0] for _, prefix in tokens], dim=1)
