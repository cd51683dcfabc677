"""Parameter groups of fine-tuning: layers near the input learn more slowly."""

from __future__ import annotations

import math
from typing import Any

from scanlearn.backbones.build import Backbone

# Steps of the decay from a ViT-B's classifier to its patch projection.
_STEPS = 13


def layer_groups(
    network: Backbone, *, learning_rate: float, weight_decay: float, layer_decay: float
) -> list[dict[str, Any]]:
    """Returns the optimiser's groups of the parameters that are trained.

    A group's ``lr`` is the learning rate times ``layer_decay`` for every layer between it and the
    classifier, which has the whole rate. A convolutional network of many thin layers has no more
    decay from end to end than a ViT-B: by timm's count a densenet121 has 119 steps, and its first
    layers would never move. Biases, scales and shifts have no weight decay.

    Args:
        network: With its classifier.
        learning_rate: Of the classifier.
        weight_decay: Of matrices and kernels.
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
