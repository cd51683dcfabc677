"""Which backbone to build, and what it starts from."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from scanlearn.config.settings import Settings


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
