"""The blocks of a plan that every arm shares: training, packing and scoring."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from scanlearn.backbones.build import BackboneConfig
from scanlearn.methods import MethodConfig, SimCLRConfig
from scanlearn.training.settings import (
    LOCAL_SIZE_HELP,
    OPERATIONS_HELP,
    SCALE_BLUR_HELP,
    LoggingConfig,
    ViewsConfig,
)
from scanlearn.training.watching import WatchConfig
from scanlearn.views.adjusting import Operations
from scanlearn.views.recipes import Recipe, find_recipe
from scantune.study.results import Budget


class Block(BaseModel):
    """A frozen block of a plan; a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StudyViews(Block):
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


class StudyPretraining(Block):
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


class StudyPacking(Block):
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


class Columns(Block):
    """Columns of a table of scans."""

    path: str | None = Field(default=None, description="column of file names; null finds it")
    patient: str | None = Field(default=None, description="column of patients; null finds it")


class EvaluationConfig(Block):
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
