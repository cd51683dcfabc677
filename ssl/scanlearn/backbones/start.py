"""The weights a run begins from: timm's own, a hub model's, a file's or an exported backbone's."""

from __future__ import annotations

import hashlib
import pickletools
import re
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import timm
import torch
from timm.models import load_model_config_from_hf
from torch import Tensor, nn

from scanlearn.backbones.backbone import Backbone, seeded_weights, weights_hash
from scanlearn.backbones.card import Card, StartWeights, spread
from scanlearn.backbones.consumer import WEIGHTS
from scanlearn.backbones.fitting import (
    average_patches,
    is_pooled_otherwise,
    load_fitted,
    resampled,
)
from scanlearn.backbones.naming import beside_table, name_few, rename, table_of
from scanlearn.backbones.settings import BackboneConfig, check_architecture
from scanlearn.backbones.weights import load_backbone
from scanlearn.errors import ScanlearnError, did_you_mean

_WHERE = "backbone.weights"
_HUB = "hf-hub:"
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar", ".ckpt")
# Modules of Python in which a pickle finds mere data; the rest of them has no place in a file.
_DATA_MODULES = frozenset(
    {"argparse", "collections", "datetime", "decimal", "enum", "pathlib", "types", "uuid"}
)
_DATA_TYPES = (
    *("bool", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object"),
    *("range", "set", "slice", "str", "tuple"),
)


@dataclass(frozen=True)
class _StartTensors:
    """Weights as they were given, under the names they came with."""

    kind: Literal["timm", "hub", "file", "backbone"]
    source: str
    tensors: Mapping[str, Tensor]
    sha256: str | None = None
    origin: Card | None = None
    beside: tuple[str, ...] = ()


def check_start(config: BackboneConfig, *, is_new: bool = True) -> None:
    """Refuses an architecture or a weight file that is not there, before scans are packed.

    Args:
        is_new: Whether the weights will be read: a run that goes on has its own.

    Raises:
        ScanlearnError: If either is not there.
    """
    check_architecture((config.untrained if config.weights else config).name, "backbone.name")
    if is_new and config.weights_path is not None and not config.weights_path.exists():
        raise _no_weights(str(config.weights))


def _no_weights(weights: str) -> ScanlearnError:
    hint = did_you_mean(weights, ["pretrained"], cutoff=0.7)
    return ScanlearnError(
        f"{_WHERE}: no file or folder {weights}{hint}; give pretrained, {_HUB}OWNER/NAME, a "
        f"weight file ({', '.join(_SUFFIXES)}) or an exported backbone"
    )


def standard_view(
    architecture: str, channels: int
) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Returns side, mean and std of the views that timm's own weights of an architecture take."""
    theirs = timm.get_pretrained_cfg(architecture)
    assert theirs is not None, "an architecture was checked to be one of timm's"
    mean, std = (spread(values, channels) for values in (theirs.mean, theirs.std))
    return theirs.input_size[-1], mean, std


def load_start(backbone: Backbone, config: BackboneConfig) -> StartWeights | None:
    """Puts the weights that ``backbone.weights`` names into a backbone, all of them or none.

    The first convolution is adapted to the channels of the backbone, built from
    ``config.untrained``, and a ViT's position table to its views; a classifier or projection that
    came with the weights is left out.

    Returns:
        What was loaded; None where the configuration asks for random weights.

    Raises:
        ScanlearnError: If the weights cannot be read or fetched, are no plain tensors, or are not
            those of this architecture. Nothing is ever left at random in their place.
    """
    if config.weights is None:
        return None
    _, _, tag = config.name.partition(".")
    if tag and config.weights != "pretrained":
        raise ScanlearnError(
            f"backbone.name: '{config.name}' names timm's own weights, but {_WHERE} is "
            f"{config.weights}; write '{backbone.name}', or {_WHERE}=pretrained"
        )
    start = _read_start(backbone, config)
    where = f"{_WHERE}: {start.source}"
    renamed = rename(start.tensors, backbone.network, where)
    averages_patches = is_pooled_otherwise(backbone, renamed)
    if averages_patches:
        average_patches(backbone)
    load_fitted(backbone, renamed, where)
    return StartWeights(
        kind=start.kind,
        source=start.source,
        sha256=start.sha256,
        weights_hash=weights_hash(backbone),
        left_out=(*renamed.left_out, *start.beside),
        notes=resampled(backbone, renamed, start.tensors),
        averages_patches=averages_patches,
        origin=start.origin,
    )


def _read_start(backbone: Backbone, config: BackboneConfig) -> _StartTensors:
    weights, path = str(config.weights), config.weights_path
    if path is None and weights.startswith(_HUB):
        return _StartTensors("hub", weights, _fetched(weights, backbone).state_dict())
    if path is None:
        return _from_timm(backbone, config.name)
    if path.is_dir():
        return _from_folder(backbone, path)
    if not path.is_file():
        raise _no_weights(weights)
    content = _read(path)
    tensors = table_of(content, f"{_WHERE}: {path}")
    beside = beside_table(content)
    return _StartTensors("file", path.name, tensors, sha256=_sha256(path), beside=beside)


def _from_timm(backbone: Backbone, name: str) -> _StartTensors:
    if not timm.is_model_pretrained(name):
        known = timm.list_pretrained(f"{backbone.name}.*")
        remedy = f"it has {name_few(known)}" if known else "give a weight file, or leave it null"
        raise ScanlearnError(f"{_WHERE}: timm has no pretrained weights '{name}'; {remedy}")
    network = _fetched(name, backbone)
    config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    return _StartTensors("timm", f"{backbone.name}.{config['tag']}", network.state_dict())


def _from_folder(backbone: Backbone, folder: Path) -> _StartTensors:
    """An exported backbone, or the one in a run folder."""
    if not (folder / "card.json").is_file() and (folder / "backbone").is_dir():
        folder = folder / "backbone"
    if not (folder / "card.json").is_file() and (folder / WEIGHTS).is_file():
        raise ScanlearnError(
            f"{_WHERE}: {folder} is no folder that scanlearn has written (it has no card.json); "
            f"give the file in it as {_WHERE}={folder / WEIGHTS}"
        )
    loaded, card = load_backbone(folder)
    if card.architecture != backbone.name:
        raise ScanlearnError(
            f"{_WHERE}: {folder} holds '{card.architecture}', but backbone.name is "
            f"'{backbone.name}'; name the same architecture"
        )
    # Every run calls its backbone alike: the run's own name tells them apart.
    parts = folder.resolve().parts[-2 if folder.name == "backbone" else -1 :]
    return _StartTensors(
        "backbone",
        "/".join(parts),
        loaded.network.state_dict(),
        sha256=_sha256(folder / WEIGHTS),
        origin=card,
    )


def _fetched(name: str, backbone: Backbone) -> nn.Module:
    """Has timm fetch a network of the backbone's form, from the hub or from its local cache."""
    try:
        if name.startswith(_HUB):
            try:
                _, architecture, _ = load_model_config_from_hf(name.removeprefix(_HUB))
            except KeyError as error:
                raise ScanlearnError(
                    f"{_WHERE}: {name} is there, but its config.json is not timm's (it lacks "
                    f"{error}); download its weight file and give it as {_WHERE}=FILE"
                ) from error
            if architecture != backbone.name:
                raise ScanlearnError(
                    f"{_WHERE}: {name} is a '{architecture}', but backbone.name is "
                    f"'{backbone.name}'; name the same architecture"
                )
        with seeded_weights(0, "to be replaced"):
            # With the classes and channels it was trained on, timm loads strictly; with others it
            # would go on with whatever is missing at random.
            network: nn.Module = timm.create_model(name, pretrained=True, **backbone.model_args)
    except ScanlearnError:
        raise
    except Exception as error:  # The hub's client raises errors of many unrelated classes.
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ScanlearnError(
            f"{_WHERE}: the weights of '{name}'{_on_the_hub(name)} could not be fetched and are "
            f"not in the local cache ({reason[0]}); download the file where there is a network and "
            f"give it as {_WHERE}=FILE"
        ) from error
    return network


def _on_the_hub(name: str) -> str:
    config = None if name.startswith(_HUB) else timm.get_pretrained_cfg(name)
    return f" ({_HUB}{config.hf_hub_id})" if config is not None and config.hf_hub_id else ""


def _read(path: Path) -> object:
    """Reads a file of tensors; what else it holds is plain values, never code."""
    if path.suffix not in _SUFFIXES:
        raise ScanlearnError(
            f"{_WHERE}: {path} ends in '{path.suffix}'; a weight file ends in one of "
            f"{', '.join(_SUFFIXES)}"
        )
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        # torch warns of kinds of files that it then refuses.
        with torch.serialization.safe_globals(_stand_ins(path)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of many unrelated classes here.
        # torch's own first lines advise to run the code.
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        first = str(error).strip().splitlines() or [type(error).__name__]
        reason = f"it names {named[1]}" if named else first[0][:120]
        raise ScanlearnError(
            f"{_WHERE}: {path} is not a complete file of tensors, or holds pickled objects, which "
            f"could run code and are never loaded ({reason}); download it again, or save "
            "only the tensors as .safetensors"
        ) from error


class _Inert:
    """Stands in for an object of any class beside the weights, whose code is never run."""

    stands_for = ""

    def __new__(cls, *args: object) -> Any:
        # torch fills attributes and items into nothing but a dict, also those of a defaultdict.
        is_filled = not args or (len(args) == 1 and isinstance(args[0], type))
        return OrderedDict() if is_filled else super().__new__(cls)

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __repr__(self) -> str:
        return self.stands_for


def _stand_ins(path: Path) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Something inert for every class that a file of tensors names, but for Python's own.

    Training scripts keep their options, metrics and paths beside the weights.
    """
    names = {
        name
        for name in _named_classes(path)
        if (module := name.split(".")[0]) in _DATA_MODULES or module not in sys.stdlib_module_names
    }
    names |= {f"builtins.{name}" for name in _DATA_TYPES}
    return [(type("_Inert", (_Inert,), {"stands_for": name}), name) for name in names]


def _named_classes(path: Path) -> set[str]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(names) != 1:
                raise ValueError("a zip archive that torch did not write")
            pickles, files = 1, archive.open(names[0])
    else:
        # Files of torch before 1.6: three short pickles, then the one with the weights.
        pickles, files = 4, path.open("rb")
    with files as file:
        return {
            str(argument).replace(" ", ".", 1)
            for _ in range(pickles)
            for opcode, argument, _ in pickletools.genops(file)
            if opcode.name == "GLOBAL"
        }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
