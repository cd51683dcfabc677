"""The Markdown card of an export, ``README.md``, as the Hugging Face hub shows it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scanlearn.backbones.card import Card
from scanlearn.backbones.consumer import Loading

MODEL_CARD = "README.md"
_LIMITS = (
    "These are features, not a diagnosis: nothing here was approved as a medical device.",
    "They were learned from one archive. On scans of other devices, sites, ages or diseases they "
    "may be worth less; score them on labeled scans of your own before you rely on them.",
    "Weights can remember scans. Before you publish them, ask whoever is responsible for the "
    "archive whether that is allowed.",
)


@dataclass(frozen=True)
class Facts:
    """What a Markdown card says beside what is in ``card.json``.

    Args:
        license: As the hub spells it, such as ``cc-by-nc-4.0``; None where none was given.
        metrics: Of the training, by name.
    """

    license: str | None = None
    metrics: Mapping[str, str] = field(default_factory=dict)


def model_card(card: Card, loading: Loading, facts: Facts) -> str:
    """Returns the text; it holds no path, no patient, no name of a machine and no date."""
    library = {"onnx": "onnx", "smp": "segmentation-models-pytorch"}.get(card.consumer, "timm")
    head = {
        "license": facts.license or "unknown",
        "library_name": library,
        "pipeline_tag": "image-feature-extraction",
        "tags": ["medical-imaging", "self-supervised-learning", "scanlearn", card.architecture],
    }
    front = "".join(f"{key}: {json.dumps(value)}\n" for key, value in head.items())
    lines = "\n".join(filter(None, (_import_of(loading), loading.lines)))
    parts = [
        f"---\n{front}---\n",
        f"# {card.architecture}, {card.method or 'not pretrained'}\n",
        f"A {card.architecture} that turns a scan into {card.num_features:,} features, pretrained "
        "without labels by scanlearn.\n",
        f"## Load it\n\n```python\n{lines}\n```\n\n{_hint(card, loading)}\n",
        f"## Show it a scan\n\n{_table(_view(card))}\n\n{_SHOWING}\n",
        *([_SHOWING_TIMM] if "pretrained=True" in loading.lines else []),
        f"## Where it comes from\n\n{_table(_origin(card))}\n",
    ]
    if facts.metrics:
        parts.append(f"## How the training went\n\n{_table(facts.metrics)}\n")
    limits = [*([card.evidence_note] if card.evidence_note else []), *_LIMITS]
    if facts.license is None:
        limits.append("No licence was given: ask its makers before you use it.")
    parts.append("## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits) + "\n")
    return "\n".join(parts)


_SHOWING = """\
With scanlearn, a file as the training showed it, window and all:

```python
from scanlearn import load_preprocessing

views = load_preprocessing("FOLDER")("scan.dcm")[None]
```"""
_SHOWING_TIMM = """\
With timm alone, for a picture whose values are already those of the table:

```python
from timm.data import create_transform, resolve_model_data_config

transform = create_transform(**resolve_model_data_config(model), is_training=False)
```
"""


def _import_of(loading: Loading) -> str:
    module = loading.before.rpartition("\nimport ")[2] if "\nimport " in loading.before else ""
    named = "" if module.startswith("runpy") else module
    return f"import {named}  # makes the network known to timm" if named else ""


def _hint(card: Card, loading: Loading) -> str:
    if "pretrained=True" in loading.lines:
        return "Without `pretrained=True` timm returns random weights in silence."
    if card.consumer == "onnx":
        return f"Its input `views` is `[batch, {card.channels}, {card.size}, {card.size}]`."
    return "The weights are loaded strictly: a layer that does not fit is an error."


def _view(card: Card) -> dict[str, str]:
    channels = f"{card.channels}"
    if card.trained_channels:
        channels += f", folded from {card.trained_channels}: give each the same picture"
    told = {
        "size": f"{card.size} x {card.size} pixels",
        "channels": channels,
        "mean, on the unit range": ", ".join(f"{value:.6g}" for value in card.mean),
        "std, on the unit range": ", ".join(f"{value:.6g}" for value in card.std),
        "aspect": "kept; what is beside the scan is 0 on the unit range"
        if card.framing == "pad"
        else "not kept: the scan is squeezed into the square",
    }
    if card.packing:
        told |= {
            "window": _text(card.packing.get("window") or "none"),
            "intensity": _text(card.packing.get("intensity", "full")),
            "all settings of `scanlearn pack`": _text(card.packing),
        }
    return told


def _origin(card: Card) -> dict[str, str]:
    told: dict[str, Any] = {
        "method": card.method,
        "recipe of the views": card.recipe,
        "modality": card.modality,
        "augmentation scale": card.scale,
        "own operations": list(card.extras),
        "steps": f"{card.steps:,}",
        "epochs": f"{card.epochs:.4g}",
        "seed": card.seed,
        "began from": card.start.in_words if card.start else "random weights",
        "scans": None if card.scans is None else f"{card.scans:,}",
        "patients": None if card.patients is None else f"{card.patients:,}",
        "archive (hash of its content)": card.archive_hash,
        "weights (hash)": card.weights_hash,
        "made with": ", ".join(f"{name} {number}" for name, number in card.versions.items()),
    }
    return {name: _text(value) for name, value in told.items() if value not in (None, [], "")}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _table(rows: Mapping[str, str]) -> str:
    cells = [("", ""), ("---", "---"), *rows.items()]
    # A bar would end a cell, and a line break the table.
    return "\n".join(
        f"| {name} | {' '.join(value.split()).replace('|', chr(92) + '|')} |"
        for name, value in cells
    )
