"""The configuration of a pretraining run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, ValidationInfo, field_validator, model_validator

from scanlearn.backbones.settings import BackboneConfig
from scanlearn.config.settings import Settings
from scanlearn.console import warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.methods import MethodConfig, SimCLRConfig
from scanlearn.packing.settings import PackSettings
from scanlearn.packing.sources import check_source
from scanlearn.views.adjusting import Operations
from scanlearn.views.extra_settings import Extras, build_extras
from scanlearn.views.modality import AUTO, NAMES, Modality
from scanlearn.views.of_archive import TAG_ROWS
from scanlearn.views.recipes import RECIPES, Recipe, find_recipe, no_effect_in_words
from scanlearn.views.scale import Scale

WAIT_HELP = (
    "whether to wait for another process that is at work in output; if not, the command ends with "
    "exit code 3"
)
SCALE_HELP = (
    "augmentation scale: 0 (identity) to 1.5, or identity, weak (.5), strong (1); or one value for "
    "each of crop, geometry, photometric and acquisition"
)


class WatchConfig(Settings):
    """What is evaluated while a network trains; it does not change the result."""

    panel_epochs: int | None = Field(
        default=None,
        ge=1,
        description="epochs between two rows of the label-free panel in panel.csv; null for none",
    )
    probe_epochs: int | None = Field(
        default=None, ge=1, description="epochs between two AUROCs of the labeled probe"
    )
    probe: str | None = Field(
        default=None,
        description="labeled scans outside the archive: a table or an archive. Not the test set: "
        "what is chosen by this AUROC has seen these labels",
    )
    probe_label: str | None = Field(default=None, description="label column of the probe")

    @model_validator(mode="after")
    def _whole(self) -> WatchConfig:
        needed = ("probe", "probe_label", "probe_epochs")
        missing = [name for name in needed if getattr(self, name) is None]
        if 0 < len(missing) < len(needed):
            raise ValueError(
                "a labeled probe needs probe, probe_label and probe_epochs; give "
                f"{' and '.join(missing)} too"
            )
        return self

    @property
    def is_on(self) -> bool:
        """Whether anything is evaluated."""
        return self.panel_epochs is not None or self.probe_epochs is not None


# These change where a run is and what is seen of it, not what comes out; the archive's content is
# compared by its hash.
PRESENTATION = frozenset(
    {
        "archive",
        "leave_out",
        "output",
        "pack.summary",
        "pack.workers",
        "pack.wait",
        "device",
        # The batch and its views are the same however many processes share them.
        "devices",
        "nodes",
        "grad_checkpointing",
        "checkpoint_minutes",
        "checkpoint_steps",
        "logging",
        "progress",
        "watch",
        "wait",
    }
)


class SharedViews(Settings):
    """How views are made, but for the dial: what all arms of a comparison share."""

    recipe: str | None = Field(
        default=None,
        description="recipe of augmentations; null is the method's own for this kind of network; "
        f"or {', '.join(RECIPES)}",
    )
    size: int = Field(default=64, ge=8, description="side of a view in pixels")
    local_size: int | None = Field(
        default=None,
        ge=8,
        description="side of a local view, for methods that have them; null is the multiple of a "
        "transformer's patch nearest to 96 / 224 of size",
    )
    modality: Modality = Field(
        default=AUTO,
        description="kind of scan, whose policy changes the recipe so that views stay plausible: "
        f"{NAMES}; auto is the one that the DICOM tags of all scans name, else the recipe alone, "
        "and the start of a run says which; null is the recipe alone; "
        "or one of your own, as {name: thyroid, like: ultrasound, operations: {...}}",
    )
    operations: Operations = Field(
        default={},
        description="operations switched off or set by hand, such as solarize: off or "
        "rotation_deg: [7, 15] (weak, strong); scanlearn explain RECIPE lists them",
    )
    extras: Extras = ()
    scale_blur: bool = Field(
        default=True, description="scale the blur with the view size; its sigma is stated at 224 px"
    )

    @field_validator("recipe")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None:
            find_recipe(value)
        return value

    def build_recipe(
        self,
        of_method: str = "simclr",
        by_tags: str | None = None,
        left_out: Collection[str] = (),
    ) -> Recipe:
        """Returns the recipe under the modality's policy, with its operations adjusted.

        Args:
            by_tags: The modality that ``auto`` stands for; None for the recipe alone.
            left_out: Operations of the policy that the scans do not allow.
        """
        recipe = find_recipe(self.recipe or of_method)
        modality = by_tags if self.modality == AUTO else self.modality
        return recipe.under(modality, left_out).adjusted(self.operations)

    def at(self, scale: Scale) -> ViewsConfig:
        """Returns these views at one setting of the dial."""
        return ViewsConfig(**dict(self), scale=scale)


class _Dial(Settings):
    scale: Scale = Field(default=Scale.WEAK, description=SCALE_HELP)


class ViewsConfig(SharedViews, _Dial):
    """How views are made."""


class LoggingConfig(Settings):
    """How often metrics are logged, and whether wandb gets them too."""

    every_steps: int | None = Field(
        default=None,
        ge=1,
        description="steps between two rows of metrics.csv; null makes about 1,000 rows",
    )
    wandb: Literal["off", "offline", "online"] = Field(
        default="off", description="off, offline (a folder inside the run) or online"
    )
    project: str = Field(default="scanlearn", description="wandb project")
    group: str | None = Field(
        default=None,
        description="wandb group of the run; null is none, and in a study the study's title",
    )
    name: str | None = Field(
        default=None,
        description="what wandb calls the run; null is its id, and in a study its arm and seed",
    )

    def row_every(self, total_steps: int) -> int:
        """Returns the steps between two rows of metrics."""
        return self.every_steps or max(1, total_steps // 1000)


class TrainingSettings(Settings):
    """How a network is trained: all of a pretraining run but its scans, its seed and its dial."""

    backbone: BackboneConfig = Field(default=BackboneConfig(), description="the network")
    method: MethodConfig = Field(default=SimCLRConfig(), description="the method and its settings")
    views: SharedViews = Field(default=SharedViews(), description="the augmented views")
    batch_size: int = Field(
        default=128, ge=2, description="scans per step, over all devices and nodes"
    )
    accumulate: int = Field(
        default=1,
        ge=1,
        description="gradient accumulation: parts of a batch before each optimiser step; memory "
        "as for batch_size / accumulate; negatives and BatchNorm see their own part only",
    )
    epochs: float = Field(
        default=100.0, gt=0, allow_inf_nan=False, description="passes over the scans"
    )
    steps: int | None = Field(default=None, ge=1, description="optimiser steps, instead of epochs")
    device: Literal["auto", "cpu", "gpu"] = Field(
        default="auto", description="auto uses a CUDA GPU if there is one"
    )
    devices: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default=1,
        description="processes per machine, one for each GPU, which share batch_size; auto uses "
        "all visible GPUs, or one process on a CPU",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto uses bf16 where the hardware is fast at it"
    )
    threads: PositiveInt | Literal["auto"] = Field(
        default="auto",
        description="threads of a run on a CPU; auto leaves other processes the cores that they "
        "use when it starts",
    )
    channels_last: bool | Literal["auto"] = Field(
        default="auto", description="memory layout; auto uses it for convolutional backbones"
    )
    grad_checkpointing: bool = Field(
        default=False,
        description="gradient checkpointing: recompute activations instead of keeping them; less "
        "memory, more time, the same gradients; for networks without BatchNorm",
    )
    checkpoint_minutes: float = Field(
        default=10.0, ge=0, description="minutes between checkpoints; 0 saves after every step"
    )
    checkpoint_steps: int | None = Field(
        default=None, ge=1, description="steps between checkpoints, in addition to the minutes"
    )
    logging: LoggingConfig = Field(default=LoggingConfig(), description="metrics and wandb")
    watch: WatchConfig = Field(
        default=WatchConfig(), description="evaluation of the backbone while it trains"
    )
    progress: bool = Field(default=True, description="show a progress bar on a terminal")

    @field_validator("views")
    @classmethod
    def _adjustable(cls, value: SharedViews, info: ValidationInfo) -> SharedViews:
        if "method" in info.data:
            # Which of them it will be depends on the network, and timm takes seconds to tell.
            _build_first(value, info.data["method"].recipes)
        return value

    @property
    def recipe(self) -> str:
        """The recipe of the views: as given, else the method's own for this kind of network."""
        return self.views.recipe or self.method.recipe_for(self.backbone.untrained.name)

    def build_recipe(self, by_tags: str | None = None, left_out: Collection[str] = ()) -> Recipe:
        """Returns the recipe of the views; see `SharedViews.build_recipe`."""
        return self.views.build_recipe(self.recipe, by_tags, left_out)

    def without_effect(self, scales: Sequence[Scale]) -> dict[str, str]:
        """Returns what was set by hand to no effect at these scales, whatever the network."""
        return _build_first(self.views, self.method.recipes).without_effect(scales)

    def unfit(self) -> str | None:
        """Returns why operations set by hand cannot be used under modalities that tags may name.

        Known before scans are packed, which may take hours; the tags are known after. None where
        they can.
        """
        if self.views.modality != AUTO or not self.views.operations:
            return None
        whys: dict[str, str] = {}
        for name in dict.fromkeys(row.policy for row in TAG_ROWS):
            try:
                _build_first(self.views, self.method.recipes, name)
            except ScanlearnError as error:
                whys[name] = str(error)
        if not whys:
            return None
        return (
            f"views.modality is auto, and should the DICOM tags name {', '.join(whys)}, nothing is "
            f"trained: views.{next(iter(whys.values()))}"
        )

    def check_start(self) -> None:
        """Refuses a network, weights, extras or a probe that do not exist; see `check_inputs`."""
        unfit = self.unfit()
        if unfit:
            warn_user(unfit)
        self.backbone.check_start()
        build_extras(self.views.extras)
        if self.watch.probe is not None:
            check_source(self.watch.probe, "watch.probe: ")

    def total_steps(self, steps_per_epoch: int) -> int:
        """Returns the optimiser steps of the run, at least one."""
        return self.steps or max(1, round(self.epochs * steps_per_epoch))


def _build_first(views: SharedViews, recipes: Sequence[str], by_tags: str | None = None) -> Recipe:
    """Returns the first recipe of a method that takes the operations set by hand.

    Raises:
        ScanlearnError: None does; the reason is that of the last.
    """
    for name in recipes[:-1]:
        with suppress(ScanlearnError):
            return views.build_recipe(name, by_tags)
    return views.build_recipe(recipes[-1], by_tags)


class _Where(Settings):
    """Apart, so that these head the printed settings."""

    archive: str = Field(
        description="scans to train on: a packed archive; or a folder, a CSV or Parquet table, or "
        "phantom:patients=300,seed=0, which are packed into a cache first",
        examples=["scans"],
    )
    leave_out: str | None = Field(
        default=None,
        description="file with ids of scans that are not trained on, one per line; null trains on "
        "all",
    )
    output: str = Field(
        description="run folder; the same command again resumes it", examples=["runs/simclr"]
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**63,
        description="seed of the initial weights, the scan order and the views",
    )


class PretrainConfig(TrainingSettings, _Where):
    """One pretraining run."""

    views: ViewsConfig = Field(default=ViewsConfig(), description="the augmented views")
    pack: PackSettings = Field(
        default=PackSettings(), description="how scans are packed; unused with a packed archive"
    )
    nodes: int = Field(
        default=1,
        ge=1,
        description="machines; start the command on each of them with srun or torchrun",
    )
    wait: bool = Field(default=False, description=WAIT_HELP)

    def check_inputs(self) -> None:
        """Refuses misspelt paths and names, before torch is imported and scans are packed.

        Raises:
            ScanlearnError: The scans, the network or a file that it starts from do not exist.
        """
        check_source(self.archive, "archive: ")
        self.check_start()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was set by hand to no effect at this scale.

        No error: another arm of a comparison, which shares the operations, may have the sub-dial.
        """
        idle = self.without_effect([self.views.scale])
        return (f"views.{no_effect_in_words(idle)}",) if idle else ()
