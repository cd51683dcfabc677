"""The plan of a comparison: what is the same in every arm, and the dial, which is not."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from scanlearn.config.settings import Settings
from scanlearn.errors import did_you_mean
from scanlearn.packing.settings import PackSettings
from scanlearn.packing.sources import check_source
from scanlearn.tables.settings import ExcelSheet, PatientPattern, Root, Sep
from scanlearn.training.settings import (
    SCALE_HELP,
    WAIT_HELP,
    PretrainConfig,
    TrainingSettings,
)
from scanlearn.views.extra_settings import build_extras
from scanlearn.views.modality import AUTO
from scanlearn.views.recipes import no_effect_in_words
from scanlearn.views.scale import Scale
from scanlearn.views.settings import LOCAL_SHARE
from scantune.evaluation.settings import THUMBNAIL, ScoringSettings
from scantune.labels.labeled_set import target_title
from scantune.learners.table import LearnerName
from scantune.splits import Budget

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")


class ComparePacking(PackSettings):
    """How both sets of scans are packed; unused with packed archives."""

    canvas: PositiveInt | tuple[PositiveInt, PositiveInt] | None = Field(  # type: ignore[assignment]
        default=None,
        description="Side of the canvas in pixels, or [height, width]; null is just large enough "
        "that no arm's smallest crop is enlarged: the shorter side of a scan is view size x "
        "sqrt(largest crop aspect / smallest crop area), or its own if that is smaller.",
    )


class Columns(Settings):
    """How one of the tables of scans is read, where it is not as pack says."""

    path: str | None = Field(default=None, description="column with the file names; null finds it")
    patient: str | None = Field(default=None, description="column with the patients; null finds it")
    patient_pattern: PatientPattern = None
    root: Root = None
    sep: Sep = None
    sheet: ExcelSheet = None


def _help(name: str) -> str | None:
    return ScoringSettings.model_fields[name].description


class EvaluationConfig(ScoringSettings):
    """How backbones are scored."""

    learners: tuple[LearnerName, ...] = Field(
        default=("linear", "knn"), min_length=1, description=_help("learners")
    )
    budgets: tuple[Budget, ...] = Field(
        default=(50, 100, "all"), min_length=1, description=_help("budgets")
    )
    replicates: int = Field(
        default=2000, ge=200, description="Bootstrap samples of patients behind each interval."
    )

    @field_validator("budgets")
    @classmethod
    def _counts(cls, value: tuple[Budget, ...]) -> tuple[Budget, ...]:
        if any(isinstance(budget, int) and budget < 2 for budget in value):
            raise ValueError("a label budget is 2 scans or more, or all")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> EvaluationConfig:
        unread = self.tune.without_effect(self.learners)
        if unread:
            raise ValueError(
                f"tune.{unread[0]} has no effect on the learners {', '.join(self.learners)}; leave "
                "it out, or add a learner that reads it"
            )
        if self.test is not None and self.split_column is not None:
            raise ValueError(
                "test and split_column both say which scans are tested; leave one of them out"
            )
        return self


class ArmConfig(Settings):
    """One arm of the comparison."""

    kind: Literal["pretrained", "random"] = Field(
        default="pretrained",
        description="pretrained, or random: untrained, as the others started",
    )
    scale: Scale | None = Field(default=None, description=f"of a pretrained arm: {SCALE_HELP}")

    @model_validator(mode="after")
    def _check(self) -> ArmConfig:
        if self.kind == "random" and self.scale is not None:
            raise ValueError("a random arm is not trained and has no scale; leave scale out")
        if self.kind == "pretrained" and self.scale is None:
            raise ValueError("a pretrained arm needs a scale, such as scale: 0.5")
        return self

    def dial(self) -> Scale:
        """The scale of a pretrained arm."""
        assert self.scale is not None, "only pretrained arms have a dial"
        return self.scale


class PrimaryConfig(Settings):
    """The one comparison named in advance; all others are corrected for their number."""

    task: str | None = Field(default=None, description="null is the first task")
    learner: LearnerName = Field(default="linear", description="one of evaluation.learners")
    budget: Budget | None = Field(default=None, description="null is the largest")
    better: str = Field(default="weak", description="arm that is expected to be better")
    than: str = Field(default="strong", description="arm that it is compared with")


def _default_arms() -> dict[str, ArmConfig]:
    return {
        "random": ArmConfig(kind="random"),
        "identity": ArmConfig(scale=Scale.IDENTITY),
        "weak": ArmConfig(scale=Scale.WEAK),
        "strong": ArmConfig(scale=Scale.STRONG),
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
        description="labeled scans: likewise, with label columns",
        examples=["labels.csv"],
    )
    tasks: tuple[str | tuple[str, ...], ...] = Field(
        min_length=1,
        description="what to score: each a label column, or a list of columns of one finding each",
        examples=[["diagnosis"]],
    )
    output: str = Field(
        description="output folder; run the same command again to continue a stopped comparison",
        examples=["runs/compare"],
    )
    arms: dict[str, ArmConfig] = Field(
        default_factory=_default_arms, min_length=2, description="arms to compare, by name"
    )
    seeds: tuple[int, ...] = Field(
        default=(0, 1, 2),
        min_length=1,
        description="pretraining seeds; each arm is trained once per seed. Fewer than three "
        "support no claim about the scale, and one says nothing beyond its networks",
    )
    pretrain: TrainingSettings = Field(
        default=TrainingSettings(), description="training settings, the same for every arm"
    )
    pack: ComparePacking = Field(
        default=ComparePacking(),
        description="how both sets of scans are packed; unused with packed archives",
    )
    unlabeled_columns: Columns = Field(
        default=Columns(), description="columns of the unlabeled table"
    )
    label_columns: Columns = Field(default=Columns(), description="columns of the labeled tables")
    evaluation: EvaluationConfig = Field(
        default=EvaluationConfig(),
        description="how backbones are scored; the report compares AUROC",
    )
    primary: PrimaryConfig = Field(
        default=PrimaryConfig(), description="the primary comparison, named in advance"
    )
    leaks: Literal["refuse", "drop", "warn"] = Field(
        default="refuse",
        description="if test patients or identical test scans are among the training scans: "
        "refuse to start, drop these and near-duplicates of test scans from the unlabeled scans, "
        "or warn and report it",
    )
    margin: float = Field(
        default=0.01, gt=0, lt=0.5, description="smallest AUROC difference that matters"
    )
    wait: bool = Field(default=False, description=WAIT_HELP)

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
        for key, values in (("seeds", self.seeds), ("tasks", self.task_names)):
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
        idle = self.pretrain.without_effect(dials)
        if idle:
            raise ValueError(f"pretrain.views.{no_effect_in_words(idle)}")
        self._check_primary()
        self.scoring  # noqa: B018  operations of tune may not fit the modality
        return self

    @property
    def scoring(self) -> EvaluationConfig:
        """How backbones are scored: those of all arms are tuned under the arms' modality."""
        return self.evaluation.under(self.pretrain.views.modality)

    def under(self, by_tags: str | None) -> CompareConfig:
        """Returns the plan with the modality that the runs took for ``auto``, if they took one.

        Raises:
            ScanlearnError: Operations of ``tune`` cannot be used under it.
        """
        views = self.pretrain.views
        if views.modality != AUTO or by_tags is None:
            return self
        views = views.model_copy(update={"modality": by_tags})
        pretrain = self.pretrain.model_copy(update={"views": views})
        changed = self.model_copy(update={"pretrain": pretrain})
        changed.scoring  # noqa: B018  operations of tune may not fit the modality
        return changed

    def check_inputs(self) -> None:
        """Refuses misspelt paths and names, before torch is imported and scans are packed.

        Raises:
            ScanlearnError: Scans, the network or a file that it starts from do not exist.
        """
        check_source(self.unlabeled, "unlabeled: ")
        check_source(self.labels, "labels: ")
        if self.evaluation.test is not None:
            check_source(self.evaluation.test, "evaluation.test: ")
        self.pretrain.check_start()
        build_extras(self.evaluation.tune.extras, num_views=1)

    def _check_primary(self) -> None:
        primary, evaluation = self.primary, self.evaluation
        for key, name in (("better", primary.better), ("than", primary.than)):
            if name not in self.arms:
                raise ValueError(
                    f"primary.{key} is '{name}', which is no arm{did_you_mean(name, self.arms)}; "
                    f"the arms are {', '.join(self.arms)}"
                )
        if primary.better == primary.than:
            raise ValueError(f"primary compares {primary.better} with itself; name two arms")
        names = self.task_names
        if primary.task is not None and primary.task not in names:
            raise ValueError(
                f"primary.task is '{primary.task}', which is no task"
                f"{did_you_mean(primary.task, names)}; the tasks are {'; '.join(names)}"
            )
        if primary.learner not in evaluation.learners:
            raise ValueError(
                f"primary.learner is '{primary.learner}', which is not in evaluation.learners; "
                f"choose from {', '.join(evaluation.learners)}"
            )
        if primary.budget is not None and primary.budget not in evaluation.budgets:
            raise ValueError(
                f"primary.budget is {primary.budget}, which is not in evaluation.budgets; choose "
                f"from {', '.join(str(budget) for budget in evaluation.budgets)}"
            )

    @property
    def task_names(self) -> tuple[str, ...]:
        """What the tasks are called: by their columns."""
        return tuple(target_title(task) for task in self.tasks)

    @property
    def primary_task(self) -> str:
        """Task of the primary comparison."""
        return self.primary.task or self.task_names[0]

    @property
    def primary_budget(self) -> Budget:
        """Label budget of the primary comparison: as given, else the largest."""
        if self.primary.budget is not None:
            return self.primary.budget
        budgets = self.evaluation.budgets
        return "all" if "all" in budgets else max(b for b in budgets if isinstance(b, int))

    def canvas(self) -> int | tuple[int, int]:
        """The canvas as given, else the shorter side that any arm's smallest crop needs of a scan.

        Local views count at their own size, whether or not the method asks for them. The narrowest
        of the smallest crops counts: its shorter side is sqrt(area / aspect) of the scan's.

        A longer side of scans that are not square is added when their headers are read.

        Source: docs/dial.md, Canvas.
        """
        return self._canvas(narrow=True) if self.pack.canvas is None else self.pack.canvas

    def square_crops_canvas(self) -> int:
        """The canvas that releases before this one chose, which went by the area of crops alone."""
        return self._canvas(narrow=False)

    def _canvas(self, *, narrow: bool) -> int:
        recipe, size = self.pretrain.build_recipe(), self.pretrain.views.size
        local_size = self.pretrain.views.local_size or round(LOCAL_SHARE * size)
        most = max(
            (local_size if kind == "local" else size)
            * math.sqrt((math.exp(view.log_aspect) if narrow else 1.0) / view.crop_min)
            for arm in self.arms.values()
            if arm.kind == "pretrained"
            for kind, view in zip(recipe.kinds, recipe.at(arm.dial()).views, strict=True)
        )
        # The hair keeps rounding in the square root from adding a row.
        return math.ceil(most - 1e-6)

    @property
    def named_columns(self) -> tuple[str, ...]:
        """Columns of the labels that the plan names."""
        targets = (
            name for task in self.tasks for name in ([task] if isinstance(task, str) else task)
        )
        marks = (self.evaluation.split_column, self.evaluation.synthetic_column)
        return (*targets, *(name for name in marks if name is not None))

    def pack_settings(self, columns: Columns, channels: Literal["auto", 1, 3]) -> PackSettings:
        """How one of the two sets of scans is packed."""
        own = columns.model_dump(exclude_none=True)
        own = {f"{key}_column" if key in ("path", "patient") else key: own[key] for key in own}
        shared = dict(self.pack)
        if {"patient_column", "patient_pattern"} & own.keys():
            shared |= {"patient_column": None, "patient_pattern": None}
        return PackSettings(**{**shared, "canvas": self.canvas(), "channels": channels, **own})

    def run_config(
        self, arm: str, seed: int, folder: Path, leave_out: Path | None = None
    ) -> PretrainConfig:
        """The pretraining run of one arm at one seed: the same for all arms but the scale.

        Args:
            leave_out: File with ids of scans that are not trained on.
        """
        return PretrainConfig(
            **{**dict(self.pretrain), "views": self.pretrain.views.at(self.arms[arm].dial())},
            archive=self.unlabeled,
            leave_out=None if leave_out is None else str(leave_out),
            output=str(folder),
            pack=self.pack_settings(self.unlabeled_columns, self.pack.channels),
            seed=seed,
        )
