"""How other libraries name and cut the layers of a network, and what timm makes of that itself."""

from __future__ import annotations

import contextlib
import io
import math
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Entry:
    """A tensor under a network's name, and what it is called in the file: several where joined."""

    tensor: Tensor
    written: tuple[str, ...]


Entries = dict[str, Entry]
Spelling = Callable[[Entries], Entries | None]

_TORCHVISION = r"encoder\.layers\.encoder_layer_(\d+)\."
# On disk, in the memory of the library's newer versions, and in those of DINOv3.
_TRANSFORMERS = r"(?:encoder\.layer|layers|layer|model\.layer)\.(\d+)\."
_RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"class_token", "cls_token"),
        (r"encoder\.pos_embedding", "pos_embed"),
        (r"conv_proj\.(\w+)", r"patch_embed.proj.\1"),
        (r"encoder\.ln\.(\w+)", r"norm.\1"),
        (_TORCHVISION + r"ln_([12])\.(\w+)", r"blocks.\1.norm\2.\3"),
        (_TORCHVISION + r"self_attention\.in_proj_(\w+)", r"blocks.\1.attn.qkv.\2"),
        (_TORCHVISION + r"self_attention\.out_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
        # The released files name the layers of the MLP, the library's modules number them.
        (_TORCHVISION + r"mlp\.(?:0|linear_1)\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
        (_TORCHVISION + r"mlp\.(?:3|linear_2)\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
        # DINOv2 in chunks: the second number counts through all of them.
        (r"blocks\.\d+\.(\d+)\.(.+)", r"blocks.\1.\2"),
        # DeiT III
        (r"blocks\.(\d+)\.gamma_([12])", r"blocks.\1.ls\2.gamma"),
        (r"embeddings\.(cls_token|mask_token|register_tokens)", r"\1"),
        (r"embeddings\.distillation_token", "dist_token"),
        (r"embeddings\.position_embeddings", "pos_embed"),
        (r"embeddings\.patch_embeddings\.(?:projection\.)?(\w+)", r"patch_embed.proj.\1"),
        (r"layernorm\.(\w+)", r"norm.\1"),
        (_TRANSFORMERS + r"(?:norm1|layernorm_before)\.(\w+)", r"blocks.\1.norm1.\2"),
        (_TRANSFORMERS + r"(?:norm2|layernorm_after)\.(\w+)", r"blocks.\1.norm2.\2"),
        (
            _TRANSFORMERS + r"attention\.(?:attention\.)?([qkv])(?:uery|ey|alue|_proj)\.(\w+)",
            r"blocks.\1.attn.\2.\3",
        ),
        (
            _TRANSFORMERS + r"attention\.(?:output\.dense|o_proj)\.(\w+)",
            r"blocks.\1.attn.proj.\2",
        ),
        (_TRANSFORMERS + r"layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
        (
            _TRANSFORMERS + r"(?:intermediate\.dense|mlp\.fc1|mlp\.up_proj)\.(\w+)",
            r"blocks.\1.mlp.fc1.\2",
        ),
        (
            _TRANSFORMERS + r"(?:output\.dense|mlp\.fc2|mlp\.down_proj)\.(\w+)",
            r"blocks.\1.mlp.fc2.\2",
        ),
        (_TRANSFORMERS + r"mlp\.weights_in\.(\w+)", r"blocks.\1.mlp.w12.\2"),
        (_TRANSFORMERS + r"mlp\.weights_out\.(\w+)", r"blocks.\1.mlp.w3.\2"),
    )
)
_RESNET_CHILDREN = {
    "0": "conv1",
    "1": "bn1",
    "9": "fc",
    **{str(number): f"layer{number - 3}" for number in (4, 5, 6, 7)},
}
_DENSENET_CHILDREN = {"0": "features", "1": "classifier"}
# What timm calls the function that reads an architecture's foreign files.
_FILTERS = ("checkpoint_filter_fn", "_filter_torchvision_pretrained")
# Buffers within the layers that timm computes itself.
_COMPUTED = re.compile(r".*\b(bias_mask|attn_mask|relative_position_index|relative_coords_table)")


def spellings(network: nn.Module) -> tuple[Spelling, ...]:
    """The ways to read a file's names, the names as they are written first.

    Each way takes a table of entries and returns another, or None where it does not apply.

    Source: torchvision, ``models/vision_transformer.py``, names of modules; RadImageNet (Mei et
    al., Radiology: AI 2022), released weights: ``nn.Sequential`` over the children of torchvision's
    ResNet-50 and DenseNet-121; transformers, models ``vit``, ``vit_mae``, ``dinov2``,
    ``dinov2_with_registers`` and ``dinov3_vit``; facebookresearch/dinov2, names of chunked blocks.
    """
    plain: tuple[Spelling, ...] = (
        lambda entries: entries,
        _of_other_libraries,
        _numbered(_RESNET_CHILDREN),
        _numbered(_DENSENET_CHILDREN),
    )
    convert = _timms_filter(network)
    if convert is None:
        return plain
    return (*plain, *(_chained(first, convert) for first in plain))


def _chained(first: Spelling, second: Spelling) -> Spelling:
    def both(entries: Entries) -> Entries | None:
        between = first(entries)
        return None if between is None else second(between)

    return both


def _renamed(entries: Entries, names: Callable[[str], str]) -> Entries | None:
    """The entries under other names; None where two would share one or none changes."""
    renamed = {names(name): entry for name, entry in entries.items()}
    return renamed if len(renamed) == len(entries) and renamed.keys() != entries.keys() else None


def _numbered(children: Mapping[str, str]) -> Spelling:
    def rename_first(name: str) -> str:
        first, dot, rest = name.partition(".")
        return children.get(first, first) + dot + rest

    return lambda entries: _renamed(entries, rename_first)


def _of_other_libraries(entries: Entries) -> Entries | None:
    renamed = _renamed(entries, _by_rules)
    if renamed is None:
        return None
    if "embeddings.patch_embeddings.weight" in entries and "register_tokens" in renamed:
        # The name under which timm knows DINOv3, whose own library calls them so.
        renamed["storage_tokens"] = renamed.pop("register_tokens")
    return _joined(renamed)


def _by_rules(name: str) -> str:
    for pattern, replacement in _RULES:
        if pattern.fullmatch(name):
            return pattern.sub(replacement, name)
    return name


def _joined(entries: Entries) -> Entries:
    """Joins query, key and value into timm's one layer; a key's bias that is not there is zero."""
    out = dict(entries)
    for name in entries:
        match = re.fullmatch(r"(.+\.attn\.)q\.(weight|bias)", name)
        if match is None:
            continue
        attention, kind = match.groups()
        parts = {part: entries.get(f"{attention}{part}.{kind}") for part in "qkv"}
        query, key, value = parts.values()
        if query is None or value is None or (key is None and kind == "weight"):
            continue
        tensors = (query.tensor, torch.zeros_like(query.tensor), value.tensor)
        written = (*query.written, *value.written)
        if key is not None:
            tensors = (query.tensor, key.tensor, value.tensor)
            written = (*query.written, *key.written, *value.written)
        if len({(tensor.dtype, tensor.shape) for tensor in tensors}) == 1 and query.tensor.ndim:
            for part in "qkv":
                out.pop(f"{attention}{part}.{kind}", None)
            out[f"{attention}qkv.{kind}"] = Entry(torch.cat(tensors), written)
    return out


def _timms_filter(network: nn.Module) -> Spelling | None:
    """What timm itself does with files of other libraries; None where it has nothing for them."""
    module = sys.modules.get(type(network).__module__)
    convert = next((getattr(module, name) for name in _FILTERS if hasattr(module, name)), None)
    if convert is None:
        return None
    takes_network = convert.__code__.co_argcount > 1

    def through_timm(entries: Entries) -> Entries | None:
        tensors = {name: entry.tensor for name, entry in entries.items()}
        if "register_tokens" in tensors:
            # By its mask token timm tells DINOv2, and not every release keeps it.
            tensors.setdefault("mask_token", torch.zeros(1))
        try:
            # A function of timm prints what it catches, and its interpolation warns of itself.
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                out = convert(dict(tensors), network) if takes_network else convert(dict(tensors))
        except Exception:  # Made for files of one kind, it raises errors of all classes on others.
            return None
        return _traced(network, entries, out)

    return through_timm


def _traced(network: nn.Module, entries: Entries, out: Mapping[str, Tensor]) -> Entries:
    """Entries of what timm made of a file, and of the layers that it dropped in silence."""
    by_address = {entry.tensor.data_ptr(): entry for entry in entries.values()}
    traced: Entries = {}
    for name, tensor in out.items():
        # Its own name may be another's in the file: timm counts the stages of an old Swin anew.
        same = entries.get(name)
        is_same = same is not None and same.tensor.data_ptr() == tensor.data_ptr()
        source = same if is_same else by_address.get(tensor.data_ptr(), same)
        if source is None:
            traced[name] = Entry(tensor, ())
        else:
            keeps = source.tensor.shape == tensor.shape or _may_be_resampled(name, network, source)
            traced[name] = Entry(tensor if keeps else source.tensor, source.written)
    used = {name for entry in traced.values() for name in entry.written}
    dropped = {name: entry for name, entry in entries.items() if not used & set(entry.written)}
    parts = {name.split(".")[0] for name in entries.keys() - dropped.keys()}
    for name, entry in dropped.items():
        # timm leaves out a bias that its network has no place for, whatever it is.
        if name.split(".")[0] in parts and not _COMPUTED.match(name) and entry.tensor.any():
            traced.setdefault(name, entry)
    return traced


def _may_be_resampled(name: str, network: nn.Module, source: Entry) -> bool:
    """Whether a tensor may come out of timm in another shape than it had in the file.

    timm would also resample the patches of another network, and positions on any number of tokens.
    """
    if name.endswith("patch_embed.proj.weight"):
        return source.tensor.ndim < 4
    if name != "pos_embed" or source.tensor.ndim != 3:
        return True
    # With registers, timm takes the class token's position out of the table.
    is_apart = getattr(network, "no_embed_class", False)
    tokens = (0, 1) if is_apart else (int(getattr(network, "num_prefix_tokens", 1)),)
    patches = [source.tensor.shape[1] - count for count in tokens]
    return any(count > 0 and math.isqrt(count) ** 2 == count for count in patches)
