"""Which backbone to build, and what it starts from, checked without torch and timm."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import Field

from scanlearn.config.settings import Settings
from scanlearn.errors import ScanlearnError, did_you_mean
from scanlearn.files import check_exists, nearest_name

# Rows of `formats.FORMATS`.
FormatName = Literal["timm", "torchvision", "safetensors", "onnx", "monai", "smp"]


class BackboneConfig(Settings):
    """Which backbone to build."""

    name: str = Field(
        default="resnet18",
        description="timm architecture, such as resnet18, resnet50, convnext_tiny or "
        "vit_small_patch16_224; with weights=pretrained also with a tag (resnet50.a1_in1k)",
    )
    weights: str | None = Field(
        default=None,
        min_length=1,
        description="initial weights: null (random, from the seed), pretrained (timm's own), "
        "hf-hub:OWNER/NAME, a weight file (in the names of timm, torchvision, transformers, DINOv2 "
        "or a masked autoencoder) or an exported backbone",
    )
    channels: int | None = Field(
        default=None, ge=1, description="input channels; null takes the archive's"
    )
    drop_path: float | None = Field(
        default=None,
        ge=0.0,
        lt=1.0,
        description="stochastic depth: the share of residual branches dropped in training; "
        "null uses the method's value for a transformer and 0 for other networks",
    )

    @property
    def untrained(self) -> BackboneConfig:
        """The same network from random weights."""
        plain = self.name.split(".")[0]
        return self.model_copy(update={"name": plain, "weights": None})

    @property
    def weights_path(self) -> Path | None:
        """The user's file or folder it starts from; None where it starts from none."""
        if self.weights in (None, "pretrained") or self.weights.startswith("hf-hub:"):
            return None
        return Path(self.weights.removeprefix("local-dir:")).expanduser()

    @property
    def in_words(self) -> str:
        """The network and what it starts from, without the user's folders."""
        if self.weights is None:
            return self.name
        return f"{self.name} from {self.weights_path.name if self.weights_path else self.weights}"

    def check_start(self) -> None:
        """Refuses a network or a file that does not exist, before anything heavy is imported.

        Raises:
            ScanlearnError: There is no such architecture, or nothing at the path of the weights.
        """
        if self.weights is None:
            check_architecture(self.name, "backbone.name")
        elif self.weights == "pretrained":
            _check_pretrained(self.name, "backbone.name")
        elif self.weights_path is not None:
            check_exists(self.weights_path, "backbone.weights: ")


def check_architecture(name: str, where: str) -> None:
    """Makes sure that ``name`` is a timm architecture without a weight tag.

    Raises:
        ScanlearnError: If it is not; the sentence starts with ``where`` and offers the nearest
            spellings.
    """
    known = _architectures()
    plain = name.split(".")[0]
    if plain not in known.all:
        hint = did_you_mean(name, known.listed)
        raise ScanlearnError(
            f"{where}: timm has no architecture '{name}'{hint}; timm.list_models() lists them"
        )
    if plain != name:
        raise ScanlearnError(
            f"{where}: '{name}' names pretrained weights, but these would be random; write "
            f"'{plain}', with backbone.weights=pretrained for timm's weights"
        )


def check_backbone(source: str | Path) -> None:
    """Refuses a backbone to load that does not exist: a folder, or a name that timm knows.

    Raises:
        ScanlearnError: There is neither.
    """
    text = str(source).removeprefix("local-dir:")
    folder = Path(text).expanduser()
    if folder.is_dir() or text.startswith("hf-hub:"):
        return
    if folder.is_file():
        raise ScanlearnError(
            f"{text}: is a file, and a backbone is a folder that scanlearn has written; pretrain "
            "begins from a weight file with backbone.weights=FILE"
        )
    if isinstance(source, Path) or str(source).startswith(("local-dir:", ".", "/", "~")):
        raise ScanlearnError(f"{text}: no such backbone folder{nearest_name(folder)}")
    if os.sep in text:
        raise ScanlearnError(
            f"{text}: no such backbone folder{nearest_name(folder)}; for the Hugging Face hub "
            f"write hf-hub:{text}"
        )
    beside = nearest_name(folder)
    where = f"backbone '{text}' is no folder{beside}" if beside else f"backbone '{text}'"
    _check_pretrained(text, where)


def _check_pretrained(name: str, where: str) -> None:
    """Makes sure that ``name`` is a timm architecture, and that it has weights of a given tag."""
    plain, _, tag = name.partition(".")
    check_architecture(plain, where)
    tags = _architectures().tags.get(plain, ())
    # Of an architecture that a program has registered, or whose tags timm makes, none are known.
    if tag and tags and tag not in tags:
        raise ScanlearnError(
            f"{where}: timm has no weights '{tag}' of {plain}{did_you_mean(tag, tags)}; it has "
            f"{', '.join(tags)}"
        )


@dataclass(frozen=True)
class _Architectures:
    """Names that timm lists, and with them those of earlier releases, which it still takes.

    Args:
        tags: By architecture, the names of its weights, as far as timm's files spell them out.
    """

    listed: frozenset[str]
    all: frozenset[str]
    tags: Mapping[str, tuple[str, ...]]


def _architectures() -> _Architectures:
    """Returns the names that timm knows: by its registry, where it is imported already.

    There, a program may have registered models of its own.
    """
    if "timm" not in sys.modules:
        return _read_from_source()
    models = import_module("timm.models")
    listed = frozenset(models.list_models())
    written = _read_from_source()
    return _Architectures(listed, listed | written.all, written.tags)


@lru_cache(maxsize=1)
def _read_from_source() -> _Architectures:
    """Returns the names of the installed timm, read from its files.

    To import timm takes 5 s, and a misspelt name should be told at once; this takes a tenth.
    """
    spec = find_spec("timm")
    assert spec is not None and spec.submodule_search_locations, "timm is a dependency"  # noqa: PT018
    listed: set[str] = set()
    former: set[str] = set()
    tags: dict[str, tuple[str, ...]] = {}
    for file in (Path(spec.submodule_search_locations[0]) / "models").glob("*.py"):
        text = file.read_text(encoding="utf-8")
        listed.update(re.findall(r"^@register_model\s+def (\w+)\(", text, re.MULTILINE))
        for block in re.findall(r"register_model_deprecations\(\w+, \{(.*?)\}", text, re.DOTALL):
            former.update(re.findall(r"""['"](\w+)['"]\s*:""", block))
        for name, tag in re.findall(r"""^\s+['"](\w+)\.(\w+)['"]\s*:""", text, re.MULTILINE):
            tags[name] = (*tags.get(name, ()), tag)
    return _Architectures(frozenset(listed), frozenset(listed | former), tags)
