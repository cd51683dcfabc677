"""Loading weights strictly into a network of other channels or other views."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from scanlearn.backbones.backbone import Backbone, timm_facts
from scanlearn.backbones.naming import Renamed, name_few
from scanlearn.errors import ScanlearnError, did_you_mean

# Files of old torch versions lack this counter, which no forward pass reads.
_COUNTER = "num_batches_tracked"


def load_adapted(
    network: nn.Module, tensors: dict[str, Tensor], *, trained_on: int, channels: int
) -> None:
    """Loads weights strictly into a network that may take another number of channels.

    timm would go on with a random first convolution where it cannot adapt the trained one; here
    that is an error.

    Args:
        network: Built for ``channels``, those of the scans to come.
        trained_on: Channels of the scans the weights were trained on.

    Raises:
        ScanlearnError: If the first convolution cannot be adapted.
        RuntimeError: If a weight is missing, unexpected or of another shape.
    """
    from timm.models import adapt_input_conv

    if channels != trained_on:
        tensors = dict(tensors)
        first = _first_convolutions(network)
        if not first:
            raise ScanlearnError(
                f"timm names no first layer of this backbone, trained on {trained_on} channels, so "
                f"it cannot be adapted to {channels}; give {trained_on}-channel scans"
            )
        for key in first:
            try:
                tensors[key] = adapt_input_conv(channels, tensors[key], base_chans=trained_on)
            except (NotImplementedError, KeyError) as error:
                raise ScanlearnError(
                    f"the first layer of this backbone, trained on {trained_on} channels, cannot "
                    f"be adapted to {channels}; pack the scans with {trained_on} channels"
                ) from error
    network.load_state_dict(tensors, strict=True)


def check_numbers(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    where: str,
    written: Mapping[str, str] | None = None,
) -> None:
    """Refuses weights that are no finite floating-point numbers.

    torch copies whole numbers, such as a quantised network's, without their scale and in silence;
    and a network with one NaN answers NaN.

    Args:
        network: The one they are for; where it counts, whole numbers are right.
        written: What the tensors are called in their file, where that is another name.

    Raises:
        ScanlearnError: Naming the first of them.
    """
    weights = network.state_dict()
    for name, tensor in tensors.items():
        written_as = (written or {}).get(name, name)
        if name not in weights or not weights[name].is_floating_point():
            continue
        if not tensor.is_floating_point():
            raise ScanlearnError(
                f"{where}: {written_as} holds {str(tensor.dtype).removeprefix('torch.')}, and "
                "weights are floating-point numbers; save them as they were before quantisation"
            )
        # In the network's own format, which a number of 64 bits may exceed.
        bad = int((~torch.isfinite(tensor.float())).sum())
        if bad:
            raise ScanlearnError(
                f"{where}: {bad:,} of the {tensor.numel():,} values of {written_as} are not finite "
                "(nan or inf), so the training behind them failed; give another file"
            )


def is_pooled_otherwise(backbone: Backbone, renamed: Renamed) -> bool:
    """Whether weights are those of a ViT that averages its patches, and the backbone's is not.

    MAE's fine-tuned networks, such as RETFound's, normalise the average of all patches
    (``fc_norm``) where others normalise every token (``norm``): the same numbers in the other's
    place would be another network.
    """
    return (
        isinstance(backbone.network, VisionTransformer)
        and backbone.network.global_pool == "token"
        and "fc_norm.weight" in renamed.tensors
        and "norm.weight" not in renamed.tensors
    )


def average_patches(backbone: Backbone) -> None:
    """Turns a ViT, in place, into what timm builds with ``global_pool="avg"``."""
    network: Any = backbone.network
    network.norm, network.fc_norm = network.fc_norm, network.norm
    network.global_pool = "avg"
    backbone.model_args["global_pool"] = "avg"


def resampled(
    backbone: Backbone, renamed: Renamed, tensors: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """Says which position tables were interpolated to the grid of the network."""
    notes = []
    weights = backbone.network.state_dict()
    for name, written in renamed.written.items():
        if written not in tensors or name not in weights:
            continue
        if name == "pos_embed" and tensors[written].ndim == weights[name].ndim == 3:
            # A class token and a few others hardly count in a square.
            theirs, ours = (
                math.isqrt(table.shape[1]) for table in (tensors[written], weights[name])
            )
            if theirs != ours:
                notes.append(
                    f"{written} resampled from {theirs} x {theirs} to {ours} x {ours} patches"
                )
        elif name.endswith("bias_table") and tensors[written].shape != weights[name].shape:
            notes.append(f"{written} resampled")
    return tuple(notes)


def load_fitted(backbone: Backbone, renamed: Renamed, where: str) -> None:
    """Loads weights, all or none, into a backbone that may have other channels and other views.

    Raises:
        ScanlearnError: If a weight is missing, unexpected or of another shape.
    """
    expected = backbone.network.state_dict()
    counters = {name: tensor for name, tensor in expected.items() if name.endswith(_COUNTER)}
    tensors = {**counters, **renamed.tensors}
    _resample_positions(backbone.network, tensors)
    trained_on = _trained_on(backbone, tensors)
    # By the channels it was trained on, a first convolution may differ.
    ignored = _first_convolutions(backbone.network) if trained_on != backbone.channels else ()
    misshapen = [
        f"{renamed.written[name]} ({_shape(tensors[name])}, not {_shape(expected[name])})"
        for name in expected.keys() & tensors.keys()
        if _comparable(expected[name], name in ignored)
        != _comparable(tensors[name], name in ignored)
    ]
    missing = [name for name in expected if name not in tensors]
    unexpected = [renamed.written[name] for name in tensors if name not in expected]
    if missing or unexpected or misshapen:
        problems = (
            _listed("missing", missing, (*unexpected, *renamed.left_out)),
            _listed("unexpected", unexpected, missing),
            _listed("of another shape", sorted(misshapen), ()),
        )
        raise ScanlearnError(
            f"{where} does not hold the weights of '{backbone.name}': "
            f"{'; '.join(filter(None, problems))}; name its architecture as backbone.name, or "
            "give another file"
        )
    check_numbers(backbone.network, renamed.tensors, where, renamed.written)
    load_adapted(backbone.network, tensors, trained_on=trained_on, channels=backbone.channels)


def _resample_positions(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Interpolates a position table of another square grid to the network's."""
    from timm.layers.pos_embed import resample_abs_pos_embed

    ours, theirs = network.state_dict().get("pos_embed"), tensors.get("pos_embed")
    if ours is None or theirs is None or ours.shape == theirs.shape:
        return
    if ours.ndim != 3 or theirs.ndim != 3 or ours.shape[2] != theirs.shape[2]:
        return
    has_patches_only = getattr(network, "no_embed_class", False)
    prefix = 0 if has_patches_only else int(getattr(network, "num_prefix_tokens", 0))
    side, their_side = (math.isqrt(max(0, table.shape[1] - prefix)) for table in (ours, theirs))
    if (
        side**2 + prefix == ours.shape[1]
        and their_side > 0
        and their_side**2 + prefix == theirs.shape[1]
    ):
        tensors["pos_embed"] = resample_abs_pos_embed(
            theirs, [side, side], num_prefix_tokens=prefix
        )


def _first_convolutions(network: nn.Module) -> tuple[str, ...]:
    named = timm_facts(network).get("first_conv") or ()
    return tuple(f"{name}.weight" for name in ((named,) if isinstance(named, str) else named))


def _trained_on(backbone: Backbone, tensors: Mapping[str, Tensor]) -> int:
    """Channels the weights were trained on, by their first convolution."""
    expected = backbone.network.state_dict()
    for name in _first_convolutions(backbone.network):
        kernel = tensors.get(name)
        if kernel is not None and kernel.ndim == expected[name].ndim == 4:
            # A stem that folds pixels into channels has a multiple of them.
            channels, rest = divmod(kernel.shape[1] * backbone.channels, expected[name].shape[1])
            if channels and not rest:
                return int(channels)
    return backbone.channels


def _comparable(tensor: Tensor, is_adapted: bool) -> tuple[int, ...]:
    shape = tuple(tensor.shape)
    return (shape[0], -1, *shape[2:]) if is_adapted and len(shape) == 4 else shape


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"


def _listed(kind: str, names: Sequence[str], others: Sequence[str]) -> str:
    """The first names of a list, each with what it may be a spelling of."""
    if not names:
        return ""
    first = [f"{name}{did_you_mean(name, others)}" for name in names[:3]]
    return f"{len(names)} {kind}, such as {name_few([*first, *names[3:]])}"
