"""The backbone folder: what passes from pretraining to evaluation and to anyone's timm.

A folder holds ``model.safetensors``, timm's ``config.json`` and our ``card.json``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from safetensors import SafetensorError
from torch import nn

from scanlearn.backbones.backbone import (
    Backbone,
    create_network,
    seeded_weights,
    tensors_hash,
    timm_facts,
    weights_hash,
)
from scanlearn.backbones.card import Card, ModelArguments, spread
from scanlearn.backbones.consumer import WEIGHTS, Loading, consumer_features, loading_of
from scanlearn.backbones.fitting import check_numbers, load_adapted
from scanlearn.backbones.settings import check_architecture, check_backbone
from scanlearn.config.calls import checked
from scanlearn.config.loading import check_settings
from scanlearn.errors import ScanlearnError
from scanlearn.files import disk_errors
from scanlearn.locks import publish_once

CONFIG = "config.json"
CARD = "card.json"
_LARGEST_JSON = 2**24
_ELSEWHERE = ("url", "file", "hf_hub_id", "hf_hub_filename", "state_dict", "custom_load")
# Threads and convolution kernels may order sums differently; other weights differ by far more.
RELATIVE_TOLERANCE = 1e-4


def export_backbone(backbone: Backbone, folder: str | Path, card: Card) -> Path:
    """Writes a backbone folder and proves that timm alone loads it.

    The folder appears only when it is complete and timm, alone in a process of its own, has
    returned equal features from it. It must not exist yet, unless it holds these very weights and
    card.

    Raises:
        ScanlearnError: If the folder holds something else, or timm's features differ.
    """
    folder = Path(folder)
    if card.weights_hash != weights_hash(backbone):
        raise ScanlearnError(
            "the card's weights_hash is not that of the backbone; make the card with Card.of after "
            "the last step"
        )

    def make(aside: Path) -> Path:
        with disk_errors(folder.parent):
            write_weights(backbone, aside, card)
        check_reload(aside, backbone, card.size)
        return folder

    return publish_once(folder, make, lambda: _same_export(folder, card))


def write_weights(backbone: Backbone, folder: Path, card: Card) -> None:
    """Writes weights, timm's configuration and card into a folder that nobody looks at yet."""
    write_tensors(folder, backbone.network.state_dict())
    _write_json(folder / CONFIG, timm_config(backbone.network, card))
    write_card(folder, card)


def write_tensors(folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Writes named weights as ``model.safetensors``."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    safetensors.torch.save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def write_card(folder: Path, card: Card) -> None:
    """Writes ``card.json``."""
    _write_json(folder / CARD, card.model_dump(mode="json"))


def timm_config(network: nn.Module, card: Card) -> dict[str, Any]:
    """Returns the ``config.json`` from which timm builds and loads the exported network.

    ``classifier`` and ``first_conv`` stay as timm has them: by them it makes a new classifier for
    ``num_classes=k`` and adapts the first convolution for another ``in_chans``.
    """
    theirs = timm_facts(network)
    kept = ("first_conv", "classifier", "fixed_input_size")
    return {
        "architecture": card.architecture,
        "num_classes": card.num_classes,
        "num_features": card.num_features,
        "model_args": card.model_args,
        "pretrained_cfg": {
            **{name: theirs[name] for name in kept if name in theirs},
            "custom_load": False,
            "input_size": [card.channels, card.size, card.size],
            "pool_size": None,
            "interpolation": "bilinear",
            # Views show the whole scan: nothing is cropped away around the centre.
            "crop_pct": 1.0,
            "crop_mode": "border" if card.framing == "pad" else "squash",
            "mean": list(card.mean),
            "std": list(card.std),
            "num_classes": card.num_classes,
        },
    }


def _same_export(folder: Path, card: Card) -> Path:
    """Returns the folder if it holds this card's backbone, intact."""
    if (folder / CARD).is_file() and _load_folder(folder, None)[1] == card:
        return folder
    raise ScanlearnError(
        f"{folder}: already holds something else; choose another folder or move it away"
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@checked
def load_backbone(source: str | Path, channels: int | None = None) -> tuple[Backbone, Card]:
    """Loads a pretrained backbone strictly, or not at all.

    Args:
        source: A backbone folder; or ``hf-hub:OWNER/NAME`` or a timm name that has pretrained
            weights, which timm fetches.
        channels: Channels the views will have; None takes those it was trained on. Where they
            differ, timm adapts the first convolution.

    Returns:
        The backbone in evaluation mode, and its card.

    Raises:
        ScanlearnError: If a file is missing, cut short, changed or not what the card says, or the
            weights cannot be fetched. Another network is never returned in its place.
    """
    text = str(source).removeprefix("local-dir:")
    folder = Path(text).expanduser()
    if folder.is_dir():
        loaded, card = _load_folder(folder, channels)
        if card.num_classes:
            raise ScanlearnError(
                f"{folder}: is a network with a classifier of {card.num_classes} classes, which "
                "scantune predict uses; give a backbone's folder"
            )
        return loaded, card
    check_backbone(source)
    return _load_timm(text, channels)


def load_classifying(folder: Path) -> tuple[Backbone, Card]:
    """Loads a network with its classifier as strictly as `load_backbone` does a backbone."""
    return _load_folder(folder, None)


def _load_folder(folder: Path, channels: int | None) -> tuple[Backbone, Card]:
    card = read_card(folder)
    if card.consumer != "timm":
        raise ScanlearnError(
            f"{folder}: is an export for {card.consumer}; give the run's folder, or an export with "
            "format=timm"
        )
    check_architecture(card.architecture, f"{folder / CARD}: architecture")
    channels = channels or card.channels
    try:
        network = create_network(card.architecture, channels, card.model_args, card.num_classes)
    except Exception as error:  # timm raises errors of many classes for arguments that do not fit.
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ScanlearnError(
            f"{folder / CARD}: timm cannot build '{card.architecture}' with model_args "
            f"{card.model_args} for {channels} channels ({reason[0]}); export the backbone again"
        ) from error
    expected = json.loads(json.dumps(timm_config(network, card)))
    config = _read_json(folder / CONFIG)
    for key in ("architecture", "num_classes", "model_args"):
        if config.get(key) != expected[key]:
            raise ScanlearnError(
                f"{folder / CONFIG}: {key} is {config.get(key)!r}, but {CARD} says "
                f"{expected[key]!r}; export the backbone again"
            )
    theirs = config.get("pretrained_cfg")
    # timm would open these in place of the weights beside them, and their hash would say nothing.
    elsewhere = [key for key in _ELSEWHERE if isinstance(theirs, dict) and theirs.get(key)]
    if elsewhere:
        raise ScanlearnError(
            f"{folder / CONFIG}: pretrained_cfg.{elsewhere[0]} names other weights than "
            f"{WEIGHTS}; export the backbone again"
        )
    for key in ("mean", "std", "input_size"):
        told = theirs.get(key) if isinstance(theirs, dict) else None
        if told != expected["pretrained_cfg"][key]:
            raise ScanlearnError(
                f"{folder / CONFIG}: pretrained_cfg.{key} is {told!r}, but {CARD} says "
                f"{expected['pretrained_cfg'][key]!r}; export the backbone again"
            )
    tensors = _read_weights(folder / WEIGHTS, card)
    check_numbers(network, tensors, str(folder / WEIGHTS))
    try:
        load_adapted(network, tensors, trained_on=card.channels, channels=channels)
    except RuntimeError as error:
        raise ScanlearnError(
            f"{folder}: timm {timm.__version__} builds '{card.architecture}' with other layers "
            f"than timm {card.versions.get('timm')} did; install that version"
        ) from error
    backbone = Backbone(
        network, name=card.architecture, channels=channels, model_args=card.model_args
    )
    if backbone.num_features != card.num_features:
        raise ScanlearnError(
            f"{folder / CARD}: num_features is {card.num_features}, but '{card.architecture}' has "
            f"{backbone.num_features}; export the backbone again"
        )
    return backbone.eval(), card.adapted(channels)


def _read_weights(path: Path, card: Card) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise ScanlearnError(f"{path}: the file is missing; export the backbone again")
    try:
        tensors = safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ScanlearnError(
            f"{path}: is not a complete safetensors file ({error}); export the backbone again"
        ) from error
    if tensors_hash(tensors) != card.weights_hash:
        raise ScanlearnError(
            f"{path}: the weights do not match the hash in {CARD}; export the backbone again"
        )
    return tensors


def read_card(folder: Path) -> Card:
    """Returns the card of an export in any format, its values checked.

    Raises:
        ScanlearnError: There is none, or it holds what no card does.
    """
    path = folder / CARD
    content = _read_json(path)
    required = {name for name, field in Card.model_fields.items() if field.is_required()}
    if missing := sorted(required - content.keys()):
        raise ScanlearnError(f"{path}: lacks {', '.join(missing)}; export the backbone again")
    try:
        card = check_settings(Card, content, str(path))
        arguments = check_settings(ModelArguments, card.model_args, f"{path}: model_args")
    except ScanlearnError as error:
        raise ScanlearnError(f"{error}; export the backbone again") from error
    return card.model_copy(update={"model_args": arguments.model_dump(exclude_unset=True)})


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ScanlearnError(
            f"{path}: the file is missing; a backbone folder holds {WEIGHTS}, {CONFIG} and {CARD}"
        )
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError("it is far larger than any that is written")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ScanlearnError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise ScanlearnError(f"{path}: not a JSON object")
    return content


def _load_timm(name: str, channels: int | None) -> tuple[Backbone, Card]:
    network = _fetch(name)
    config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    trained_on, _, size = config["input_size"]
    channels = channels or trained_on
    if channels != trained_on:
        tensors = network.state_dict()
        with seeded_weights(0, "to be replaced"):
            network = timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels)
        load_adapted(network, tensors, trained_on=trained_on, channels=channels)
    backbone = Backbone(network, name=str(config["architecture"]), channels=channels, model_args={})
    check_numbers(network, network.state_dict(), name)
    mean, std = (spread(config[statistic], channels) for statistic in ("mean", "std"))
    card = Card.of(backbone, size=size, mean=mean, std=std, method="timm")
    call = f'timm.create_model("{name}", pretrained=True, num_classes=0)'
    return backbone.eval(), card.model_copy(update={"load": call})


def _fetch(name: str) -> nn.Module:
    try:
        with seeded_weights(0, "to be replaced"):
            network: nn.Module = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # The hub's client raises errors of many unrelated classes.
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ScanlearnError(
            f"backbone '{name}': its weights could not be fetched ({reason[0]}); give the folder "
            "of an exported backbone, or a name that timm can fetch from here"
        ) from error
    return network


def check_reload(
    folder: Path, backbone: Backbone, size: int, loading: Loading | None = None
) -> float:
    """Loads ``folder`` with its consumer in its own process and compares features on fixed views.

    Args:
        loading: How the consumer loads it; None for timm.

    Returns:
        The largest difference of a feature, relative to the largest feature.

    Raises:
        ScanlearnError: If the consumer cannot load it or its features differ.
    """
    loading = loading or loading_of(backbone)
    # Another number of views than what is traced is traced with, so that one fixed there is found.
    views = torch.randn(
        (3, backbone.channels, size, size), generator=torch.Generator().manual_seed(0)
    )
    theirs = consumer_features(folder, views, loading=loading)
    # A copy on the CPU in fp32: the backbone itself is left as it is.
    reference = copy.deepcopy(backbone).cpu().float().eval()
    reference.to(memory_format=torch.contiguous_format)
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        ours = _last_map(reference, views) if loading.is_last_map else reference(views)
    difference = torch.inf
    if theirs.shape == ours.shape:
        difference = float((theirs - ours).abs().max() / ours.abs().max().clamp_min(1e-30))
    if not difference <= RELATIVE_TOLERANCE:
        raise ScanlearnError(
            f"{loading.library} loaded the exported '{backbone.name}' but its features differ; "
            "nothing was exported"
        )
    return difference


def _last_map(backbone: Backbone, views: torch.Tensor) -> torch.Tensor:
    """Returns the averages of the last feature map, ``[b d]``."""
    maps = backbone.network.forward_intermediates(  # type: ignore[operator]
        views, indices=1, norm=False, intermediates_only=True
    )
    average: torch.Tensor = maps[-1].mean((2, 3))
    return average
