"""The arms of a comparison: what each is, and grids of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    model_validator,
)

from scanlearn.backbones.settings import BackboneConfig
from scanlearn.config.settings import Settings
from scanlearn.methods import MethodConfig
from scanlearn.training.settings import (
    SCALE_HELP,
)
from scanlearn.views.scale import MAX_SCALE, Scale

MethodName = Literal["simclr", "mocov2", "mocov3", "dino"]
_Dialled = Annotated[float, Field(ge=0, le=MAX_SCALE)]
_Share = Annotated[float, Field(gt=0, le=1)]


class ArmConfig(Settings):
    """One arm of the comparison."""

    kind: Literal["pretrained", "random", "scratch", "backbone"] = Field(
        default="pretrained",
        description="pretrained; random: untrained, as the others started; scratch: trained on "
        "the labels alone, by learners that train a network; or backbone: given, not trained here",
    )
    scale: Scale | None = Field(default=None, description=f"of a pretrained arm: {SCALE_HELP}")
    method: MethodName | MethodConfig | None = Field(
        default=None,
        description="of a pretrained arm: a method's name, or its settings; null is "
        "pretrain.method. Arms of one method and share are matched",
    )
    share: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="of a pretrained arm: share of the unlabeled patients that it is trained on; "
        "a smaller share lies within a larger one. null is all",
    )
    backbone: str | BackboneConfig | None = Field(
        default=None,
        description="of kind backbone: a timm name with pretrained weights, hf-hub:OWNER/NAME, an "
        "exported folder or a run; for a weight file as {name: resnet50, weights: FILE}",
    )
    size: int | None = Field(
        default=None,
        ge=8,
        description="of kind backbone: side of a view in pixels; null is the backbone's own",
    )
    canvas: int | None = Field(
        default=None,
        ge=8,
        description="of kind backbone: shorter side at which the labeled scans are packed again "
        "for it, in the channels that it was trained on; null shows it those of the others",
    )

    @model_validator(mode="after")
    def _check(self) -> ArmConfig:
        of_kind = {
            "pretrained": ("scale", "method", "share"),
            "backbone": ("backbone", "size", "canvas"),
        }
        for kind, keys in of_kind.items():
            given = [key for key in keys if getattr(self, key) is not None]
            if self.kind != kind and given:
                raise ValueError(
                    f"a {self.kind} arm has no {given[0]}; leave {given[0]} out, or make it kind: "
                    f"{kind}"
                )
        if self.kind == "pretrained" and self.scale is None:
            raise ValueError("a pretrained arm needs a scale, such as scale: 0.5")
        if self.kind == "backbone" and self.backbone is None:
            raise ValueError(
                "a backbone arm needs a backbone, such as backbone: resnet50.a1_in1k or a folder"
            )
        if isinstance(self.backbone, BackboneConfig) and self.backbone.weights is None:
            raise ValueError(
                "backbone.weights is null, so that its weights would be random; give a weight "
                "file, or take kind: random"
            )
        return self

    def dial(self) -> Scale:
        """The scale of a pretrained arm."""
        assert self.scale is not None, "only pretrained arms have a dial"
        return self.scale

    @property
    def backbone_name(self) -> str:
        """What a given backbone is called, without the user's folders."""
        if isinstance(self.backbone, BackboneConfig):
            return self.backbone.in_words
        path = self.backbone_path
        return str(self.backbone) if path is None else path.absolute().name

    @property
    def backbone_path(self) -> Path | None:
        """Where on the user's disk a given backbone is; None where timm fetches it."""
        if isinstance(self.backbone, BackboneConfig):
            return self.backbone.weights_path
        path = Path(str(self.backbone).removeprefix("local-dir:")).expanduser()
        return path if self.backbone is not None and path.exists() else None


class GridConfig(Settings):
    """Arms for every combination of some values; a key that is left out is not part of the grid."""

    methods: tuple[MethodName, ...] = Field(default=(), description="methods by name")
    scales: tuple[_Dialled, ...] = Field(
        default=(), description="augmentation scales, 0 to 1.5; weak (0.5) where none are given"
    )
    crops: tuple[_Dialled, ...] = Field(default=(), description="sub-dial crop, beside the scale")
    photometrics: tuple[_Dialled, ...] = Field(
        default=(), description="sub-dial photometric, beside the scale"
    )
    shares: tuple[_Share, ...] = Field(default=(), description="shares of the unlabeled patients")

    @model_validator(mode="after")
    def _not_empty(self) -> GridConfig:
        if not any(getattr(self, key) for key in GridConfig.model_fields):
            raise ValueError(f"names no values; give one of {', '.join(GridConfig.model_fields)}")
        return self

    def arms(self) -> dict[str, dict[str, Any]]:
        """The arms by name, such as ``s0.5``, ``simclr-0.5`` or ``crop1-photo0.5-share0.25``."""
        alone = "" if self.methods else "s"
        axes = (
            [(name, name) for name in self.methods],
            [(f"{alone}{value:g}", value) for value in self.scales],
            [(f"crop{value:g}", value) for value in self.crops],
            [(f"photo{value:g}", value) for value in self.photometrics],
            [(f"share{value:g}", value) for value in self.shares],
        )
        nothing: list[tuple[str, Any]] = [("", None)]
        arms: dict[str, dict[str, Any]] = {}
        for picked in product(*(axis or nothing for axis in axes)):
            (_, method), (_, scale), (_, crop), (_, photometric), (_, share) = picked
            base = Scale.WEAK.crop if scale is None else scale
            levers = {"crop": crop, "photometric": photometric}
            moved = {lever: value for lever, value in levers.items() if value is not None}
            shared = dict.fromkeys(("crop", "geometry", "photometric"), base)
            arm = {"scale": {**shared, **moved} if moved else base, "method": method}
            name = "-".join(part for part, _ in picked if part)
            arms[name] = {**arm, "share": None if share == 1 else share}
        return arms


@dataclass(frozen=True)
class Group:
    """What arms share that are matched in all but the dial: their method and their patients.

    Args:
        title: Its name; empty for ``pretrain.method`` on all patients.
        share: Of the unlabeled patients.
    """

    title: str
    method: MethodConfig
    share: float = 1.0
