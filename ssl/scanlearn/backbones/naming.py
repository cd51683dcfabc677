"""From the names in a weight file to those of a timm network."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from scanlearn.errors import ScanlearnError

# Where training scripts put the table of weights; of two networks, a teacher is the better one.
_NESTED = ("state_dict", "model", "teacher", "student")
# What wraps a backbone: DistributedDataParallel, Lightning modules, MoCo, MoCo v3, DINO.
_WRAPPERS = (
    *("module.", "model.", "network.", "backbone.", "encoder.", "encoder_q.", "base_encoder."),
    *("teacher.", "student."),
)
# First parts of names that belong to classifiers, projections and masked training.
_HEADS = frozenset(
    {
        *("fc", "head", "heads", "head_dist", "classifier", "last_linear", "logits"),
        *("projection", "projector", "projection_head", "predictor", "prototypes", "mask_token"),
    }
)
_RESNET_CHILDREN = {
    "0": "conv1",
    "1": "bn1",
    "9": "fc",
    **{str(number): f"layer{number - 3}" for number in (4, 5, 6, 7)},
}
_DENSENET_CHILDREN = {"0": "features", "1": "classifier"}
_LAYER = r"encoder\.layers\.encoder_layer_(\d+)\."
_TORCHVISION_VIT = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"class_token", "cls_token"),
        (r"encoder\.pos_embedding", "pos_embed"),
        (r"conv_proj\.(\w+)", r"patch_embed.proj.\1"),
        (r"encoder\.ln\.(\w+)", r"norm.\1"),
        (_LAYER + r"ln_([12])\.(\w+)", r"blocks.\1.norm\2.\3"),
        (_LAYER + r"self_attention\.in_proj_(\w+)", r"blocks.\1.attn.qkv.\2"),
        (_LAYER + r"self_attention\.out_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
        # The released files name the layers of the MLP, the library's modules number them.
        (_LAYER + r"mlp\.(?:0|linear_1)\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
        (_LAYER + r"mlp\.(?:3|linear_2)\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
    )
)


@dataclass(frozen=True)
class Renamed:
    """The tensors of a file under a network's names.

    Args:
        tensors: By the network's names, as far as they are known; without what is left out.
        written: What each of them is called in the file.
        left_out: Names in the file of what is no part of a backbone: its classifier, its
            projection, and what lies beside the backbone.
    """

    tensors: dict[str, Tensor]
    written: dict[str, str]
    left_out: tuple[str, ...]


def table_of(content: object, where: str) -> dict[str, Tensor]:
    """Finds the table of weights in what a training script saved.

    Args:
        content: A table of tensors, or a dict that holds one under ``state_dict``, ``model``,
            ``teacher`` or ``student``.

    Raises:
        ScanlearnError: If there is none.
    """
    table: Any = content
    while isinstance(table, Mapping) and not any(isinstance(v, Tensor) for v in table.values()):
        table = next((table[key] for key in _NESTED if key in table), None)
    if not isinstance(table, Mapping):
        raise ScanlearnError(
            f"{where}: no table of tensors, neither at the top level nor under "
            f"{', '.join(_NESTED)}; save the network's state_dict() and give that file"
        )
    others = [str(name) for name, value in table.items() if not isinstance(value, Tensor)]
    if others:
        raise ScanlearnError(
            f"{where}: {name_few(others)} among the weights {'is' if len(others) == 1 else 'are'} "
            "not a tensor; save the network's state_dict() and give that file"
        )
    return {str(name): tensor for name, tensor in table.items()}


def rename(tensors: Mapping[str, Tensor], wanted: AbstractSet[str]) -> Renamed:
    """Puts the tensors of a file under the names of a network.

    Of all wrappers the file has (``module.encoder_q.`` and the like) and all ways to name layers
    (timm's and torchvision's, numbered children), those are taken that meet most of the network's
    names.

    Source: torchvision, ``models/vision_transformer.py``, names of modules; RadImageNet (Mei et
    al., Radiology: AI 2022), released weights: ``nn.Sequential`` over the children of torchvision's
    ResNet-50 and DenseNet-121, named ``backbone``; MoCo and MoCo v3, released code, names in the
    checkpoint.
    """
    best, most = {name: name for name in tensors}, -1
    for wrapper in _wrappers(tensors):
        inside = [name for name in tensors if name.startswith(wrapper)]
        for spell in _SPELLINGS:
            names = {spell(name.removeprefix(wrapper)): name for name in inside}
            met = len(wanted & names.keys())
            if met > most and len(names) == len(inside):
                best, most = names, met
    kept = {
        name: written
        for name, written in best.items()
        if name in wanted or name.split(".")[0] not in _HEADS
    }
    written = set(kept.values())
    return Renamed(
        tensors={name: tensors[written] for name, written in kept.items()},
        written=kept,
        left_out=tuple(name for name in tensors if name not in written),
    )


def _wrappers(names: Mapping[str, Tensor], prefix: str = "") -> Iterator[str]:
    """Every chain of wrappers in the file, none first and a teacher before a student."""
    yield prefix
    for wrapper in _WRAPPERS:
        if any(name.startswith(prefix + wrapper) for name in names):
            yield from _wrappers(names, prefix + wrapper)


def _numbered(children: Mapping[str, str]) -> Callable[[str], str]:
    def rename_first(name: str) -> str:
        first, dot, rest = name.partition(".")
        return children.get(first, first) + dot + rest

    return rename_first


def _torchvision_vit(name: str) -> str:
    for pattern, replacement in _TORCHVISION_VIT:
        if pattern.fullmatch(name):
            return pattern.sub(replacement, name)
    return name


# The first leaves every name as it is written.
_SPELLINGS = (
    _numbered({}),
    _torchvision_vit,
    _numbered(_RESNET_CHILDREN),
    _numbered(_DENSENET_CHILDREN),
)


def name_few(names: Sequence[str]) -> str:
    """The first three names and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
