"""A backbone in the format of another library, tried there before it is said to be done."""

from __future__ import annotations

import copy
import hashlib
import importlib
import io
import logging
import re
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from scanlearn.backbones import weights
from scanlearn.backbones.backbone import Backbone, patch_projection, weights_hash
from scanlearn.backbones.card import Card
from scanlearn.backbones.consumer import (
    FOLDER,
    WEIGHTS,
    Loading,
    loading_of,
    plain_loading,
    registering,
)
from scanlearn.backbones.model_card import MODEL_CARD, Facts, model_card
from scanlearn.backbones.settings import FormatName
from scanlearn.backbones.weights import (
    CARD,
    load_backbone,
    read_card,
    write_card,
    write_tensors,
    write_weights,
)
from scanlearn.errors import ScanlearnError
from scanlearn.files import disk_errors
from scanlearn.locks import publish_once

_SMP = "segmentation_models_pytorch"
ONNX = "model.onnx"
_LOAD_FILE = f'load_file("{FOLDER}/{WEIGHTS}")'
_IMPORT = "from safetensors.torch import load_file\n"
# What one file of ONNX can hold.
_LARGEST_ONNX = 2**31 - 2**20
# Of them timm, torchvision, MONAI and segmentation_models_pytorch have the same layers.
_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
_WIDE = ("resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2")
_DENSENETS = ("densenet121", "densenet169", "densenet201")


@dataclass(frozen=True)
class Format:
    """What a library takes.

    Args:
        packages: What is imported to write and to try it.
        write: Writes the weights into a folder, for views of a size, and returns how the library
            loads them; raises a ScanlearnError where it has no such network.
    """

    packages: tuple[str, ...]
    write: Callable[[Backbone, Path, int], Loading]


@dataclass(frozen=True)
class Exported:
    """An export that its consumer has loaded.

    Args:
        difference: The largest of a feature between the backbone and the consumer, relative to the
            largest feature; None where the folder held this very export.
    """

    folder: Path
    loading: Loading
    difference: float | None


def export_format(
    backbone: Backbone,
    card: Card,
    folder: Path,
    name: FormatName = "timm",
    *,
    facts: Facts | None = None,
) -> Exported:
    """Writes a backbone for another library, with its card, and has that library load it.

    The folder appears only when the library, alone in a process of its own, has returned equal
    features. It must not exist yet, unless it holds this very export.

    Args:
        facts: What the Markdown card says beside what the card holds.

    Raises:
        ScanlearnError: A package is missing, the library has no such network, its features
            differ, or the folder holds something else.
    """
    row = FORMATS[name]
    missing = [package for package in row.packages if find_spec(package) is None]
    if missing:
        raise ScanlearnError(
            f"format={name} needs {' and '.join(missing)}, not installed here: install "
            "scanlearn[export], as in pip install 'scanlearn[export]'"
        )
    card = card.model_copy(update={"weights_hash": weights_hash(backbone), "consumer": name})

    def make(aside: Path) -> Exported:
        with disk_errors(folder.parent):
            loading = row.write(backbone, aside, card.size)
            own = card.model_copy(update={"load": loading.call})
            if name == "timm":
                write_weights(backbone, aside, own)
            else:
                own = own.model_copy(update={"files": hashes(aside)})
                write_card(aside, own)
            text = model_card(own, loading, facts or Facts())
            (aside / MODEL_CARD).write_text(text, encoding="utf-8")
        difference = weights.check_reload(aside, backbone, card.size, loading)
        return Exported(folder, loading, difference)

    return publish_once(folder, make, lambda: _same(folder, card, backbone))


def hashes(folder: Path) -> dict[str, str]:
    """Returns the sha256 of every file of a folder but its cards, by name."""
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.iterdir())
        if file.name not in (CARD, MODEL_CARD)
    }


def check_files(folder: Path) -> None:
    """Checks that an export in any format holds what its card says.

    Raises:
        ScanlearnError: A file is missing or changed.
    """
    card = read_card(folder)
    if card.consumer == "timm":
        load_backbone(folder)
        return
    found = hashes(folder)
    for name, digest in card.files.items():
        if name not in found:
            raise ScanlearnError(f"{folder / name}: the file is missing; export the backbone again")
        if found[name] != digest:
            raise ScanlearnError(
                f"{folder / name}: its hash is not the one in {CARD}; export the backbone again"
            )


def _same(folder: Path, card: Card, backbone: Backbone) -> Exported:
    """Returns the folder if it holds this very export, intact."""
    if (folder / CARD).is_file():
        earlier = read_card(folder)
        varying = {"load": card.load, "files": card.files, "versions": card.versions}
        if earlier.model_copy(update=varying) == card:
            check_files(folder)
            loading = Loading(card.consumer, earlier.load, before=registering(backbone.name))
            return Exported(folder, loading, None)
    raise ScanlearnError(
        f"{folder}: already holds something else; choose another folder or move it away"
    )


def _refusal(backbone: Backbone, library: str, known: str) -> ScanlearnError:
    return ScanlearnError(
        f"{library} has no network with the layers of timm's '{backbone.name}' (it has {known}); "
        "take format=timm, safetensors or onnx"
    )


def _write_timm(backbone: Backbone, _folder: Path, _size: int) -> Loading:
    # Its files are written with the card, from which its configuration is made.
    return loading_of(backbone)


def _write_safetensors(backbone: Backbone, folder: Path, _size: int) -> Loading:
    write_tensors(folder, backbone.network.state_dict())
    return plain_loading(backbone)


def _write_torchvision(backbone: Backbone, folder: Path, _size: int) -> Loading:
    name, channels = backbone.name, backbone.channels
    if name not in (*_RESNETS, *_WIDE, *_DENSENETS):
        raise _refusal(backbone, "torchvision", ", ".join((*_RESNETS, *_WIDE, *_DENSENETS)))
    first, classifier = "conv1", "fc"
    if name in _DENSENETS:
        first, classifier = "features.conv0", "classifier"
    lines = f"import torch\nimport torchvision\n{_IMPORT}model = torchvision.models.{name}()\n"
    if channels != 3:
        lines += (
            f"model.{first} = torch.nn.Conv2d({channels}, 64, 7, stride=2, padding=3, bias=False)\n"
        )
    lines += f"model.{classifier} = torch.nn.Identity()\nmodel.load_state_dict({_LOAD_FILE})"
    write_tensors(folder, backbone.network.state_dict())
    return Loading("torchvision", lines)


def _write_monai(backbone: Backbone, folder: Path, _size: int) -> Loading:
    name, channels, tensors = backbone.name, backbone.channels, backbone.network.state_dict()
    shared = f"spatial_dims=2, {'in' if name in _DENSENETS else 'n_input'}_channels={channels}"
    if name in _RESNETS:
        lines = (
            f"from monai.networks.nets import {name}\n{_IMPORT}"
            f"model = {name}({shared}, conv1_t_stride=2, feed_forward=False, bias_downsample=False)"
        )
    elif name in _DENSENETS:
        number = name.removeprefix("densenet")
        lines = (
            f"import torch\nfrom monai.networks.nets import DenseNet{number}\n{_IMPORT}"
            f"model = DenseNet{number}({shared}, out_channels=1)\n"
            "model.class_layers.out = torch.nn.Identity()"
        )
        tensors = {
            re.sub(r"(denselayer\d+)\.", r"\1.layers.", key): value
            for key, value in tensors.items()
        }
    else:
        raise _refusal(backbone, "MONAI", ", ".join((*_RESNETS, *_DENSENETS)))
    write_tensors(folder, tensors)
    return Loading("monai", f"{lines}\nmodel.load_state_dict({_LOAD_FILE})")


def _write_smp(backbone: Backbone, folder: Path, _size: int) -> Loading:
    """Writes the encoder of a segmentation network: the library's own, or timm's within it."""
    # What its encoder of a DenseNet makes of the last map, timm's network does not.
    if patch_projection(backbone) is not None or backbone.name in _DENSENETS:
        raise _refusal(backbone, _SMP, "ResNets, and most of timm's convolutional networks")
    smp = importlib.import_module("segmentation_models_pytorch")
    tensors: dict[str, Tensor] = backbone.network.state_dict()
    name = backbone.name
    if name not in _RESNETS:
        name = f"tu-{name}"
    try:
        model = smp.Unet(name, encoder_weights=None, in_channels=backbone.channels)
    except Exception as error:  # timm and the library raise errors of many classes.
        raise _refusal(backbone, _SMP, f"none that it can build: {error}") from error
    # timm joins the names of outer layers by _ where a network is cut into feature maps.
    by_spelling = {key.replace(".", "_"): key for key in tensors}
    written = {
        key: by_spelling.get(key.removeprefix("model.").replace(".", "_"))
        for key in model.encoder.state_dict()
    }
    if len(by_spelling) < len(tensors) or None in written.values():
        raise _refusal(backbone, _SMP, "another encoder of that name")
    write_tensors(folder, {key: tensors[str(own)] for key, own in written.items()})
    return Loading(
        _SMP,
        f"import segmentation_models_pytorch as smp\n{_IMPORT}"
        f'model = smp.Unet("{name}", encoder_weights=None, in_channels={backbone.channels})\n'
        f"model.encoder.load_state_dict({_LOAD_FILE})",
        features="model.eval().encoder(views)[-1].mean((2, 3))",
        is_last_map=True,
        before=registering(backbone.name),
    )


def _write_onnx(backbone: Backbone, folder: Path, size: int) -> Loading:
    """Writes a graph of any number of views of the size that the backbone was trained on."""
    network = copy.deepcopy(backbone.network).cpu().float().eval()
    network.to(memory_format=torch.contiguous_format)
    num_bytes = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # The exporter's own, of its and of onnxscript's versions.
        torch.onnx.export(
            network,
            (torch.zeros(2, backbone.channels, size, size),),
            folder / ONNX,
            input_names=["views"],
            output_names=["features"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=num_bytes > _LARGEST_ONNX,
            dynamo=True,
            verbose=False,
        )
    return Loading(
        "onnxruntime",
        f'import onnxruntime\nmodel = onnxruntime.InferenceSession("{FOLDER}/{ONNX}")',
        features='torch.from_numpy(model.run(["features"], {"views": views.numpy()})[0])',
    )


FORMATS: dict[FormatName, Format] = {
    "timm": Format(("timm",), _write_timm),
    "torchvision": Format(("torchvision",), _write_torchvision),
    "safetensors": Format(("timm",), _write_safetensors),
    "onnx": Format(("onnx", "onnxscript", "onnxruntime"), _write_onnx),
    "monai": Format(("monai",), _write_monai),
    "smp": Format((_SMP,), _write_smp),
}
