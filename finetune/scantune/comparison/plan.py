"""The plan of a comparison: what is the same in every arm, and the dial, which is not."""

from __future__ import annotations

import math
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from scanlearn.backbones.backbone import BackboneConfig
from scanlearn.config.settings import Settings
from scanlearn.methods import MethodConfig, SimCLRConfig
from scanlearn.packing.settings import PackSettings
from scanlearn.training.settings import (
    LOCAL_SIZE_HELP,
    OPERATIONS_HELP,
    SCALE_BLUR_HELP,
    LoggingConfig,
    PretrainConfig,
    ViewsConfig,
    WatchConfig,
)
from scanlearn.views.adjusting import Operations
from scanlearn.views.generator import LOCAL_SHARE
from scanlearn.views.recipes import Recipe, find_recipe, no_effect_in_words
from scanlearn.views.scale import Scale
from scantune.comparison.results import Budget

# The blocks of a plan that every arm shares: training, packing and scoring.


class StudyViews(Settings):
    """What all arms' views share."""

    recipe: str | None = Field(
        default=None,
        description="the recipe whose strength the dial sets; null is the method's own",
    )
    size: int = Field(default=64, ge=8, description="side of a view in pixels")
    local_size: int | None = Field(default=None, ge=8, description=LOCAL_SIZE_HELP)
    operations: Operations = Field(default={}, description=OPERATIONS_HELP)
    scale_blur: bool = Field(default=True, description=SCALE_BLUR_HELP)

    @field_validator("recipe")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None:
            find_recipe(value)
        return value

    def build_recipe(self, of_method: str = "simclr") -> Recipe:
        """Returns the recipe of every arm, with its operations adjusted.

        Args:
            of_method: The recipe published with the method, taken where none is named.
        """
        return find_recipe(self.recipe or of_method).adjusted(self.operations)

    def at(self, scale: float | str | dict[str, float | str]) -> ViewsConfig:
        """Returns the views of an arm with that scale."""
        return ViewsConfig(**dict(self), scale=scale)


class StudyPretraining(Settings):
    """How every arm is trained: all of a pretraining run but its scans, its seed and its dial."""

    backbone: BackboneConfig = Field(default=BackboneConfig(), description="the network")
    method: MethodConfig = Field(default=SimCLRConfig(), description="the method and its recipe")
    views: StudyViews = Field(default=StudyViews(), description="what all arms' views share")
    batch_size: int = Field(default=128, ge=2, description="scans in a step")
    accumulate: int = Field(
        default=1,
        ge=1,
        description="parts of a batch taken one after another before the optimiser steps: memory "
        "as for batch_size / accumulate; a scan's negatives, and BatchNorm, see their part only",
    )
    epochs: float = Field(default=100.0, gt=0, description="passes over the unlabeled scans")
    steps: int | None = Field(default=None, ge=1, description="optimiser steps, instead of epochs")
    device: Literal["auto", "cpu", "gpu"] = Field(
        default="auto", description="auto takes a CUDA GPU where there is one"
    )
    devices: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default=1,
        description="processes on this machine, one for each GPU, that train an arm together; "
        "auto takes all visible GPUs, and one process on a CPU",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto takes bf16 where the hardware is fast with it"
    )
    channels_last: bool | Literal["auto"] = Field(
        default="auto", description="memory layout; auto takes it for convolutional backbones"
    )
    grad_checkpointing: bool = Field(
        default=False,
        description="compute activations again instead of keeping them: less memory, more time, "
        "the same gradients; for networks without BatchNorm",
    )
    checkpoint_minutes: float = Field(
        default=10.0, ge=0, description="minutes between checkpoints; 0 saves after every step"
    )
    checkpoint_steps: int | None = Field(
        default=None, ge=1, description="steps between checkpoints, beside the minutes"
    )
    logging: LoggingConfig = Field(default=LoggingConfig(), description="rows of figures")
    watch: WatchConfig = Field(
        default=WatchConfig(), description="what is judged of each arm's backbone while it trains"
    )
    progress: bool = Field(default=True, description="a bar while stderr is a terminal")

    @field_validator("views")
    @classmethod
    def _adjustable(cls, value: StudyViews, info: ValidationInfo) -> StudyViews:
        if "method" in info.data:
            value.build_recipe(info.data["method"].recipe)
        return value

    def build_recipe(self) -> Recipe:
        """Returns the recipe of every arm, with its operations adjusted."""
        return self.views.build_recipe(self.method.recipe)

    @field_validator("epochs")
    @classmethod
    def _finite(cls, value: float) -> float:
        if not math.isfinite(value):
            raise ValueError("epochs must be finite")
        return value


class StudyPacking(Settings):
    """How both sets of scans are packed; unused with packed archives."""

    canvas: int | None = Field(
        default=None,
        ge=8,
        description="side of the packed canvas in pixels; null is just large enough that no "
        "arm's smallest crop is enlarged: view size / sqrt(smallest crop area)",
    )
    channels: Literal["auto", 1, 3] = Field(
        default="auto", description="auto keeps colour where the unlabeled scans have it"
    )
    intensity: Literal["full", "percentile"] = Field(
        default="full", description="full stored range, or percentiles .5 to 99.5 of each scan"
    )
    workers: int = Field(default=0, ge=0, description="processes that decode; 0 is one per core")


class Columns(Settings):
    """Columns of a table of scans."""

    path: str | None = Field(default=None, description="column of file names; null finds it")
    patient: str | None = Field(default=None, description="column of patients; null finds it")


class EvaluationConfig(Settings):
    """How backbones are scored."""

    learners: tuple[Literal["linear", "knn"], ...] = Field(
        default=("linear", "knn"), min_length=1, description="linear (probe) and knn"
    )
    budgets: tuple[Budget, ...] = Field(
        default=(50, 100, "all"),
        min_length=1,
        description="labeled training scans: counts, reached in whole patients, or all",
    )
    folds: int = Field(default=5, ge=2, description="patient folds; unused with a split column")
    label_seeds: int = Field(default=3, ge=1, description="repetitions with other folds, subsets")
    split_column: str | None = Field(
        default=None, description="column that says train or test, instead of folds"
    )
    replicates: int = Field(
        default=2000, ge=200, description="patient resamples behind each interval"
    )

    @field_validator("budgets")
    @classmethod
    def _counts(cls, value: tuple[Budget, ...]) -> tuple[Budget, ...]:
        if any(isinstance(budget, int) and budget < 2 for budget in value):
            raise ValueError("a label budget is 2 scans or more, or all")
        return value


THUMBNAIL = "thumbnail"


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")


class ArmConfig(Settings):
    """One arm of the comparison."""

    kind: Literal["pretrained", "random"] = Field(
        default="pretrained", description="pretrained, or random: the network as the others began"
    )
    scale: float | str | dict[str, float | str] | None = Field(
        default=None,
        description="the dial of a pretrained arm: 0 (identity) to 1.5, or identity, weak (.5), "
        "strong (1); or one value for each of crop, geometry, photometric and acquisition",
    )

    @model_validator(mode="after")
    def _check(self) -> ArmConfig:
        if self.kind == "random" and self.scale is not None:
            raise ValueError("a random arm is not trained and has no scale; leave scale out")
        if self.kind == "pretrained":
            if self.scale is None:
                raise ValueError("a pretrained arm needs a scale, such as scale: 0.5")
            Scale.parse(self.scale)
        return self

    def dial(self) -> Scale:
        """The scale of a pretrained arm."""
        assert self.scale is not None, "only pretrained arms have a dial"
        return Scale.parse(self.scale)


class PrimaryConfig(Settings):
    """The one comparison named in advance; all others are corrected for their number."""

    task: str | None = Field(default=None, description="null is the first task")
    learner: Literal["linear", "knn"] = Field(default="linear", description="linear or knn")
    budget: Budget | None = Field(default=None, description="null is the largest")
    better: str = Field(default="weak", description="arm expected to be better")
    than: str = Field(default="strong", description="arm it is compared with")


def _default_arms() -> dict[str, ArmConfig]:
    return {
        "random": ArmConfig(kind="random"),
        "identity": ArmConfig(scale=0.0),
        "weak": ArmConfig(scale=0.5),
        "strong": ArmConfig(scale=1.0),
    }


class CompareConfig(Settings):
    """A comparison of augmentation scales: arms matched in everything but the dial."""

    title: str = Field(default="Weak or strong augmentation?", description="heading of the report")
    unlabeled: str = Field(
        description="scans to pretrain on: a packed archive, a folder, a CSV or Parquet table, "
        "or phantom:patients=300,seed=0",
        examples=["scans"],
    )
    labels: str = Field(
        description="labeled scans: likewise, with a column for each task",
        examples=["labels.csv"],
    )
    tasks: tuple[str, ...] = Field(
        min_length=1, description="label columns to score", examples=[["diagnosis"]]
    )
    output: str = Field(
        description="folder of the study; the same command again goes on where it was stopped",
        examples=["runs/compare"],
    )
    arms: dict[str, ArmConfig] = Field(
        default_factory=_default_arms, min_length=2, description="what is compared, by name"
    )
    seeds: tuple[int, ...] = Field(
        default=(0, 1),
        min_length=1,
        description="pretraining seeds; each arm is trained once with each. Three or more before "
        "any claim about the scale",
    )
    pretrain: StudyPretraining = Field(
        default=StudyPretraining(), description="the same for every arm"
    )
    pack: StudyPacking = Field(default=StudyPacking(), description="how scans are packed")
    unlabeled_columns: Columns = Field(default=Columns(), description="of the unlabeled table")
    label_columns: Columns = Field(default=Columns(), description="of the labeled table")
    evaluation: EvaluationConfig = Field(
        default=EvaluationConfig(), description="how backbones are scored"
    )
    primary: PrimaryConfig = Field(
        default=PrimaryConfig(), description="the comparison named in advance"
    )
    leaks: Literal["refuse", "warn"] = Field(
        default="refuse",
        description="where patients or equal pixels of test scans are among the scans that a "
        "network or a probe learns from: refuse to start, or warn and say so in the report",
    )
    margin: float = Field(
        default=0.01, gt=0, lt=0.5, description="AUROC differences below it do not matter"
    )

    @model_validator(mode="after")
    def _consistent(self) -> CompareConfig:
        for name in self.arms:
            if not _NAME.fullmatch(name) or name == THUMBNAIL:
                raise ValueError(
                    f"'{name}' cannot name an arm; take up to 40 letters, digits, '-', '_' and "
                    f"'.', and not {THUMBNAIL}, which is the reference"
                )
        if not any(arm.kind == "pretrained" for arm in self.arms.values()):
            raise ValueError("no arm is pretrained; give at least one a scale")
        for key, values in (("seeds", self.seeds), ("tasks", self.tasks)):
            if len(set(values)) < len(values):
                raise ValueError(f"{key} names one of them twice")
        untrained = [name for name, arm in self.arms.items() if arm.kind == "random"]
        if self.pretrain.backbone.weights is not None and "random" in untrained:
            raise ValueError(
                "the arms begin from pretrain.backbone.weights, so that arm 'random' would not be "
                "random; call it start, as in arms={start: {kind: random}, ...}"
            )
        if any(seed < 0 for seed in self.seeds):
            raise ValueError("seeds are 0 or more")
        dials = [arm.dial() for arm in self.arms.values() if arm.kind == "pretrained"]
        idle = self.pretrain.build_recipe().without_effect(dials)
        if idle:
            raise ValueError(f"pretrain.views.{no_effect_in_words(idle)}")
        self._check_primary()
        return self

    def _check_primary(self) -> None:
        primary, evaluation = self.primary, self.evaluation
        for key, name in (("better", primary.better), ("than", primary.than)):
            if name not in self.arms:
                raise ValueError(
                    f"primary.{key} is '{name}', which is no arm{_nearest(name, self.arms)}; "
                    f"the arms are {', '.join(self.arms)}"
                )
        if primary.better == primary.than:
            raise ValueError(f"primary compares {primary.better} with itself; name two arms")
        if primary.task is not None and primary.task not in self.tasks:
            raise ValueError(
                f"primary.task is '{primary.task}', which is no task"
                f"{_nearest(primary.task, self.tasks)}; the tasks are {', '.join(self.tasks)}"
            )
        if primary.learner not in evaluation.learners:
            raise ValueError(f"primary.learner {primary.learner} is not in evaluation.learners")
        if primary.budget is not None and primary.budget not in evaluation.budgets:
            raise ValueError(f"primary.budget {primary.budget} is not in evaluation.budgets")

    @property
    def primary_task(self) -> str:
        """Task of the primary comparison."""
        return self.primary.task or self.tasks[0]

    @property
    def primary_budget(self) -> Budget:
        """Label budget of the primary comparison: as given, else the largest."""
        if self.primary.budget is not None:
            return self.primary.budget
        budgets = self.evaluation.budgets
        return "all" if "all" in budgets else max(b for b in budgets if isinstance(b, int))

    def canvas(self) -> int:
        """Side of the canvas: as given, else large enough for the smallest crop of any arm.

        Local views count at their own size, whether or not the method asks for them.

        Source: docs/dial.md, canvas: view size / sqrt(smallest crop area).
        """
        if self.pack.canvas is not None:
            return self.pack.canvas
        recipe, size = self.pretrain.build_recipe(), self.pretrain.views.size
        local_size = self.pretrain.views.local_size or round(LOCAL_SHARE * size)
        most = max(
            (local_size if kind == "local" else size) / math.sqrt(view.crop_min)
            for arm in self.arms.values()
            if arm.kind == "pretrained"
            for kind, view in zip(recipe.kinds, recipe.at(arm.dial()).views, strict=True)
        )
        # The hair keeps rounding in the square root from adding a row.
        return math.ceil(most - 1e-6)

    def pack_settings(self, columns: Columns, channels: Literal["auto", 1, 3]) -> PackSettings:
        """How one of the two sets of scans is packed."""
        return PackSettings(
            canvas=self.canvas(),
            channels=channels,
            intensity=self.pack.intensity,
            path_column=columns.path,
            patient_column=columns.patient,
            workers=self.pack.workers,
        )

    def run_config(self, arm: str, seed: int, folder: Path) -> PretrainConfig:
        """The pretraining run of one arm at one seed: the same for all arms but the scale."""
        shared = dict(self.pretrain)
        scale = self.arms[arm].scale
        assert scale is not None, "only pretrained arms have a run"
        return PretrainConfig(
            **{**shared, "views": self.pretrain.views.at(scale)},
            archive=self.unlabeled,
            output=str(folder),
            pack=self.pack_settings(self.unlabeled_columns, self.pack.channels),
            seed=seed,
        )


def _nearest(given: str, known: object) -> str:
    close = get_close_matches(given, list(known), n=1)  # type: ignore[call-overload]
    return f" (did you mean '{close[0]}'?)" if close else ""
