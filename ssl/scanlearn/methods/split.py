"""BatchNorm statistics per group of scans, as on several devices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from scanlearn.backbones.build import Backbone


def in_groups(
    backbone: Backbone, views: Float[Tensor, "b c s s"], groups: int
) -> Float[Tensor, "b d"]:
    """Returns features of views that pass a backbone in ``groups`` equal parts.

    Each part has BatchNorm statistics of its own; running statistics move as far in a batch as
    they would without groups. This works with any kind of BatchNorm, where lightly's
    SplitBatchNorm replaces one; both give the same features.

    Args:
        backbone: In training mode.
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
