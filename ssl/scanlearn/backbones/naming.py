"""From the names in a weight file to those of a timm network."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from typing import Any

import torch
from torch import Tensor, nn

from scanlearn.backbones.spellings import Entries, Entry, spellings
from scanlearn.errors import ScanlearnError

# Where training scripts put the table of weights; an average over steps is the better network.
_NESTED = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "ema", "teacher"),
    *("state_dict", "model_state_dict", "model_state", "model", "target_encoder", "student"),
    *("module", "network", "net", "encoder", "backbone", "params", "weights"),
)
# First parts of names that belong to classifiers, projections and masked training.
_HEADS = frozenset(
    {
        *("fc", "head", "heads", "head_dist", "classifier", "last_linear", "logits", "pooler"),
        *("projection", "projector", "projection_head", "predictor", "prototypes", "mask_token"),
        *("dino_head", "ibot_head", "lm_head", "proj_head", "online_classifier", "criterion"),
        *("queue", "queue_ptr", "n_averaged"),
    }
)
_ARE_HEADS = re.compile(r"decoder(_|\.|$)")
# Of two networks that fit, the average over steps or the teacher is taken, but the query of a
# contrastive pair, whose key is an average too.
_FIRST = frozenset({"ema", "teacher"})
_LAST = frozenset({"student", "momentum", "k", "key", "target"})
_FEW = 3
# Dicts within dicts, down to the table of weights.
_DEEPEST = 8


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
            ``teacher``, ``model_ema`` or the like.

    Raises:
        ScanlearnError: If there is none.
    """
    *_, (_, table) = _path_to_table(content)
    if not isinstance(table, Mapping) or not _has_tensors(table):
        values = table.values() if isinstance(table, Mapping) else ()
        if any("_modules" in getattr(value, "__dict__", {}) for value in (table, *values)):
            raise ScanlearnError(
                f"{where}: holds a whole network as Python objects, whose code is never run; save "
                "the network's state_dict() and give that file"
            )
        arrays = ", but numpy arrays" if any("numpy" in repr(value) for value in values) else ""
        raise ScanlearnError(
            f"{where}: no table of tensors{arrays}, neither at the top level nor under a key such "
            "as state_dict, model or teacher; save the network's state_dict() and give that file"
        )
    others = [str(name) for name, value in table.items() if not _is_plain(value)]
    if others:
        raise ScanlearnError(
            f"{where}: {name_few(others)} among the weights {'is' if len(others) == 1 else 'are'} "
            "not a tensor of plain numbers; save the network's state_dict() and give that file"
        )
    return {str(name): tensor for name, tensor in table.items()}


def _is_plain(value: object) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not value.is_quantized
        and not value.is_meta
    )


def beside_table(content: object) -> tuple[str, ...]:
    """Names of what else with tensors a training script saved: an optimiser, a second network."""
    return tuple(
        str(name)
        for key, outer in _path_to_table(content)
        if key is not None and isinstance(outer, Mapping)
        for name, value in outer.items()
        if name != key and _has_tensors_within(value)
    )


def _path_to_table(content: object) -> Iterator[tuple[str | None, object]]:
    """Every dict on the way to the table of weights, and the key that is taken in it."""
    table: Any = content
    for _ in range(_DEEPEST):
        if not isinstance(table, Mapping):
            break
        inner = [
            key
            for key, value in table.items()
            if isinstance(value, Mapping) and _has_tensors_within(value)
        ]
        known = [key for key in _NESTED if key in inner]
        # A lone tensor beside the table may be a script's best accuracy.
        if not known and (len(inner) != 1 or _has_tensors(table)):
            break
        key = (known or inner)[0]
        yield key, table
        table = table[key]
    yield None, table


def _has_tensors(table: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in table.values())


def _has_tensors_within(value: object) -> bool:
    """Whether there is a tensor at any depth of dicts and lists, which may hold themselves."""
    seen: set[int] = set()
    inside = [value]
    while inside:
        value = inside.pop()
        if isinstance(value, Tensor):
            return True
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            inside.extend(value.values())
        elif isinstance(value, list | tuple):
            inside.extend(value)
    return False


def rename(tensors: Mapping[str, Tensor], network: nn.Module, where: str = "the file") -> Renamed:
    """Puts the tensors of a file under the names of a network.

    Of all wrappers the file has (``module.encoder_q.`` and the like) and all ways to name layers
    (see `spellings`), those are taken that meet most of the network's weights.

    Raises:
        ScanlearnError: If two different networks in the file fit alike.

    Source: MoCo and MoCo v3, released code, names in the checkpoint.
    """
    expected: Mapping[str, Tensor] = network.state_dict()
    readings = [
        _Reading(prefix, entries, _fit(entries, expected))
        for prefix in _prefixes(tensors, len(expected))
        for entries in _spelled(tensors, prefix, network)
    ]
    best = min(readings, key=lambda reading: (*(-count for count in reading.fit), reading.rank))
    _check_alone(best, readings, expected, where)
    kept = {
        name: entry
        for name, entry in best.entries.items()
        if name in expected or not _is_head(name)
    }
    used = {name for entry in kept.values() for name in entry.written}
    return Renamed(
        tensors={name: entry.tensor for name, entry in kept.items()},
        written={name: " + ".join(entry.written) or name for name, entry in kept.items()},
        left_out=tuple(name for name in tensors if name not in used),
    )


@dataclass(frozen=True)
class _Reading:
    """One way to read a file.

    Args:
        fit: How many of the network's weights it meets in name and shape, and in name.
    """

    prefix: str
    entries: Entries
    fit: tuple[int, int]

    @property
    def rank(self) -> int:
        words = set(re.split(r"[._]", self.prefix))
        return 0 if words & _FIRST else 2 if words & _LAST else 1


def _fit(entries: Entries, expected: Mapping[str, Tensor]) -> tuple[int, int]:
    met = entries.keys() & expected.keys()
    return sum(entries[name].tensor.shape == expected[name].shape for name in met), len(met)


def _prefixes(names: Mapping[str, Tensor], num_expected: int) -> list[str]:
    """Every wrapper in the file that holds enough for the network, none first."""
    counts = Counter(
        prefix for name in names for prefix in accumulate(re.findall(r"[^.]*\.", name))
    )
    return ["", *(prefix for prefix, count in counts.items() if 3 * count >= num_expected)]


def _spelled(tensors: Mapping[str, Tensor], prefix: str, network: nn.Module) -> Iterator[Entries]:
    inside = {
        name.removeprefix(prefix): Entry(tensor, (name,))
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    for spell in spellings(network):
        entries = spell(inside)
        if entries is not None:
            yield entries


def _check_alone(
    best: _Reading, readings: Sequence[_Reading], expected: Mapping[str, Tensor], where: str
) -> None:
    """Refuses a file in which another network fits as well, unless it holds the same weights."""
    for other in readings:
        if other.fit != best.fit or other.rank != best.rank or other.prefix == best.prefix:
            continue
        met = best.entries.keys() & expected.keys()
        if len(met) < len(expected) // 2 or other.entries.keys() & expected.keys() != met:
            continue
        pairs = [(best.entries[name].tensor, other.entries[name].tensor) for name in met]
        if not all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs):
            raise ScanlearnError(
                f"{where} holds two networks that fit, {best.prefix}* and {other.prefix}*; save "
                "the state_dict() of the one you mean and give that file"
            )


def _is_head(name: str) -> bool:
    return name.split(".")[0] in _HEADS or _ARE_HEADS.match(name) is not None


def name_groups(names: Sequence[str]) -> str:
    """The first three groups of names, such as ``decoder_* (8)``, and how many more there are."""
    if len(names) <= _FEW:
        return name_few(names)
    columns = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, columns)]
    wrapper = "".join(f"{part}." for part in shared)
    groups: dict[str, list[str]] = {}
    for name in names:
        rest = name.removeprefix(wrapper)
        group = "decoder_*" if rest.startswith("decoder_") else rest.partition(".")[0] + ".*"
        groups.setdefault(wrapper + group, []).append(name)
    return name_few(
        [
            inside[0] if len(inside) == 1 else f"{group} ({len(inside)})"
            for group, inside in groups.items()
        ]
    )


def name_few(names: Sequence[str]) -> str:
    """The first three names and how many more there are."""
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return ", ".join(names[:_FEW]) + more
