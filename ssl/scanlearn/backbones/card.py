"""The card of a backbone: what it is and where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from scanlearn.backbones.backbone import Backbone, weights_hash
from scanlearn.backbones.consumer import TIMM, loading_of
from scanlearn.backbones.naming import name_groups
from scanlearn.backbones.settings import FormatName
from scanlearn.config.settings import Settings
from scanlearn.core import Framing

MOST_CHANNELS = 1_024
LARGEST_SIZE = 16_384
Finite = Annotated[float, Field(allow_inf_nan=False)]
Deviation = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class StartWeights(Settings):
    """What the backbone of a run began from, where that was not random weights."""

    kind: Literal["timm", "hub", "file", "backbone"] = Field(
        description="timm's own weights, a hub model, a weight file or an exported backbone"
    )
    source: str = Field(description="timm's or the hub's name; or the name of the file or folder")
    sha256: str | None = Field(
        default=None, description="of the weight file; null where timm fetched it"
    )
    weights_hash: str = Field(description="weights of the backbone as it began")
    left_out: tuple[str, ...] = Field(
        default=(), description="names in the file that are no part of the backbone"
    )
    notes: tuple[str, ...] = Field(
        default=(), description="what of the file was fitted to the network, such as resampled"
    )
    averages_patches: bool = Field(
        default=False,
        description="features are the average of a ViT's patches, as the weights were fine-tuned",
    )
    origin: Card | None = Field(
        default=None, description="card of an exported backbone: its archive and its own start"
    )

    @property
    def in_words(self) -> str:
        """What it is, for a person."""
        digest = f" (sha256 {self.sha256[:12]})" if self.sha256 else ""
        left_out = f", without its {name_groups(self.left_out)}" if self.left_out else ""
        pool = ", the average of its patches as features (fc_norm)" if self.averages_patches else ""
        notes = "".join(f", {note}" for note in self.notes)
        return f"{self.source}{digest}{left_out}{pool}{notes}"


class ModelArguments(Settings):
    """What timm needs beside name and channels to build an exported network again.

    timm is called with whatever a card holds here, and its ``checkpoint_path`` opens any file.
    """

    img_size: int | None = Field(default=None, ge=1, le=LARGEST_SIZE)
    dynamic_img_size: bool | None = None
    global_pool: Literal["avg"] | None = None


class Card(Settings):
    """What a backbone is and where it comes from; ``card.json`` of a backbone folder."""

    format: Literal[1] = Field(default=1, description="version of this card's layout")
    consumer: FormatName = Field(
        default="timm", description="whose names the weights beside this card have"
    )
    files: dict[str, str] = Field(
        default_factory=dict,
        description="sha256 of the files beside this card, where timm is not the consumer",
    )
    load: str = Field(
        default=TIMM.call,
        description="the whole call; without pretrained=True timm returns random weights in "
        "silence",
    )
    architecture: str = Field(description="timm architecture")
    model_args: dict[str, Any] = Field(
        default_factory=dict,
        description="further arguments timm builds the network with: img_size, dynamic_img_size "
        "or global_pool",
    )
    num_features: int = Field(ge=1, description="length of a feature vector, or of class scores")
    num_classes: int = Field(default=0, ge=0, description="classes of its classifier; 0 has none")
    channels: int = Field(ge=1, le=MOST_CHANNELS, description="channels of a view")
    trained_channels: int | None = Field(
        default=None,
        ge=1,
        le=MOST_CHANNELS,
        description="channels it was trained on, where its first layer was folded for others",
    )
    size: int = Field(
        ge=1, le=LARGEST_SIZE, description="side of the views it was trained on, in pixels"
    )
    mean: tuple[Finite, ...] = Field(description="per channel, of scans on the unit range")
    std: tuple[Deviation, ...] = Field(description="per channel, of scans on the unit range")
    framing: Framing = Field(
        default="squeeze",
        description="how views showed scans that are not square: pad keeps their aspect; squeeze, "
        "of cards without this line, did not",
    )
    packing: dict[str, Any] = Field(
        default_factory=dict,
        description="settings of pack that changed the pixels of its archive, such as window",
    )
    method: str | None = Field(default=None, description="method it was pretrained with")
    recipe: str | None = Field(default=None, description="recipe of the views")
    modality: str | None = Field(
        default=None, description="policy that changed the recipe, and what; null is none"
    )
    own_modality: dict[str, Any] | None = Field(
        default=None, description="that policy as it was given, where it is one of the user's own"
    )
    scale: dict[str, float] | None = Field(default=None, description="the dial, by sub-dial")
    extras: tuple[dict[str, Any], ...] = Field(
        default=(), description="transforms of other libraries in the views"
    )
    steps: int = Field(default=0, description="optimiser steps taken")
    epochs: float = Field(default=0.0, description="passes over the archive")
    seed: int | None = Field(default=None, description="seed of the run")
    archive_hash: str | None = Field(default=None, description="content of the archive")
    scans: int | None = Field(default=None, ge=0, description="scans in the archive")
    patients: int | None = Field(
        default=None, ge=0, description="patients in the archive; null where they are unknown"
    )
    initial_hash: str | None = Field(default=None, description="weights before the first step")
    start: StartWeights | None = Field(
        default=None, description="weights it began from; null is random ones, from the seed"
    )
    weights_hash: str = Field(description="weights in this folder")
    versions: dict[str, str] = Field(default_factory=dict, description="what it was made with")
    evidence_note: str | None = Field(
        default=None, description="what a reader must know before believing its results"
    )

    @model_validator(mode="after")
    def _one_statistic_per_channel(self) -> Card:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise ValueError(
                    f"{name} has {len(values)} numbers and channels is {self.channels}"
                )
        return self

    @property
    def views_modality(self) -> dict[str, Any] | str | None:
        """The policy under which it was pretrained, as `views.modality` takes it."""
        return self.own_modality or (self.modality.partition(":")[0] if self.modality else None)

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        *,
        size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        **origin: Any,
    ) -> Card:
        """Returns the card of a backbone as it is now; ``origin`` are further fields of it."""
        return cls(
            load=loading_of(backbone).call,
            architecture=backbone.name,
            model_args=backbone.model_args,
            num_features=backbone.num_features,
            num_classes=backbone.num_classes,
            channels=backbone.channels,
            size=size,
            mean=mean,
            std=std,
            framing="pad",
            weights_hash=weights_hash(backbone),
            versions={name: version(name) for name in ("scanlearn", "timm", "torch")},
            **origin,
        )

    def adapted(self, channels: int) -> Card:
        """Returns the card for views of ``channels`` channels.

        Where the number differs, the average of the means and of the stds serves every channel.
        """
        mean, std = (spread(values, channels) for values in (self.mean, self.std))
        trained = self.trained_channels or (self.channels if channels != self.channels else None)
        update = {"channels": channels, "mean": mean, "std": std, "trained_channels": trained}
        return self.model_copy(update=update)


def spread(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Returns a statistic for views of ``channels`` channels: as it is, or its average in each."""
    if len(values) == channels:
        return tuple(values)
    return (sum(values) / len(values),) * channels
