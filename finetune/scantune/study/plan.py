"""The plan of a comparison: what is the same in every arm, and the dial, which is not."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from scanlearn.backbones.settings import BackboneConfig
from scanlearn.cluster import ClusterConfig, Launcher
from scanlearn.config.settings import Settings
from scanlearn.errors import ScanlearnError, did_you_mean
from scanlearn.methods import MethodConfig
from scanlearn.packing.settings import PackSettings
from scanlearn.packing.sources import check_source
from scanlearn.tables.settings import (
    ExcelSheet,
    PathColumn,
    PatientColumn,
    PatientPattern,
    Root,
    Sep,
)
from scanlearn.training.settings import (
    PretrainConfig,
    TrainingSettings,
)
from scanlearn.views.extra_settings import build_extras
from scanlearn.views.modality import AUTO
from scanlearn.views.recipes import Recipe, no_effect_in_words
from scanlearn.views.scale import Scale
from scanlearn.views.settings import LOCAL_SHARE
from scantune.evaluation.settings import THUMBNAIL, ScoringSettings, check_backbone_name
from scantune.labels.labeled_set import target_title
from scantune.labels.table import check_columns
from scantune.learners.table import PRIMARY_LEARNER, AugmentedName
from scantune.splits import Budget
from scantune.statistics.looks import FIRST, look_level, planned_looks
from scantune.study.arm_settings import ArmConfig, GridConfig, Group

# Of seeds=auto.
_MOST_SEEDS = 8
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

    path_column: PathColumn = None
    patient_column: PatientColumn = None
    patient_pattern: PatientPattern = None
    root: Root = None
    sep: Sep = None
    sheet: ExcelSheet = None

    @model_validator(mode="before")
    @classmethod
    def _as_once_called(cls, values: Any) -> Any:
        """Takes the names that the columns had in studies of earlier versions."""
        if not isinstance(values, Mapping):
            return values
        names = {"path": "path_column", "patient": "patient_column"}
        return {names.get(key, key): value for key, value in values.items()}


_WAIT_HELP = (
    "whether to wait for another command that is at work on the study with another plan; if not, "
    "this one ends with exit code 3"
)


def _help(name: str) -> str | None:
    return ScoringSettings.model_fields[name].description


class EvaluationConfig(ScoringSettings):
    """How backbones are scored."""

    learners: tuple[AugmentedName, ...] = Field(
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


class PrimaryConfig(Settings):
    """The one comparison named in advance; all others are corrected for their number."""

    task: str | None = Field(default=None, description="null is the first task")
    learner: AugmentedName = Field(
        default=PRIMARY_LEARNER, description="one of evaluation.learners"
    )
    budget: Budget | None = Field(default=None, description="null is the largest")
    better: str = Field(default="weak", description="arm that is expected to be better")
    than: str = Field(default="strong", description="arm that it is compared with")


def _first_seeds(count: int) -> tuple[int, ...]:
    return tuple(range(count))


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
    target: str | None = Field(
        default=None, description="one label column to score, in place of tasks"
    )
    output: str = Field(
        description="output folder; run the same command again to continue a stopped comparison",
        examples=["runs/compare"],
    )
    arms: dict[str, ArmConfig] = Field(
        default_factory=_default_arms, min_length=2, description="arms to compare, by name"
    )
    grid: GridConfig | None = Field(
        default=None,
        description="further arms, one for each combination of methods, scales, crops, "
        "photometrics and shares; where arms is not given, these alone",
    )
    seeds: tuple[int, ...] = Field(
        default=(0, 1, 2),
        min_length=1,
        description="pretraining seeds, or auto; each arm is trained once per seed. Fewer than "
        "three support no claim about the scale, and one says nothing beyond its networks",
    )
    max_seeds: int | None = Field(
        default=None,
        ge=4,
        le=100,
        description="with seeds: auto, the most of them: 3, then 5, 8 and so on are trained until "
        "the primary comparison is settled, each look tested at a level that keeps the error over "
        "all looks; null there is 8",
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
    label_free: bool = Field(
        default=True,
        description="whether trained networks are also measured without labels, all on the same "
        "views, and these measures set against AUROC in the report",
    )
    margin: float = Field(
        default=0.01, gt=0, lt=0.5, description="smallest AUROC difference that matters"
    )
    wait: bool = Field(default=False, description=_WAIT_HELP)
    jobs: PositiveInt = Field(
        default=1,
        description="processes that share the study and the cores of this machine; the same "
        "command started elsewhere shares it too",
    )
    launcher: Launcher | None = Field(
        default=None,
        description="slurm submits jobs as tasks of an array, each a command that shares the "
        "study; local starts them here the same way, to try. Both need the extra slurm",
    )
    cluster: ClusterConfig = Field(
        default=ClusterConfig(), description="what each task of slurm is given"
    )

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, data: Any) -> Any:
        """Takes ``target`` for the one task, and the arms of ``grid`` among the others."""
        if not isinstance(data, Mapping):
            return data
        target, grid = data.get("target"), data.get("grid")
        if data.get("seeds") == "auto":
            most = data.get("max_seeds") or _MOST_SEEDS
            data = {**data, "seeds": tuple(range(FIRST)), "max_seeds": most}
        if isinstance(target, str):
            data = {**data, "tasks": (target,), "target": None}
        try:
            made = {} if grid is None else GridConfig.model_validate(grid).arms()
        except ValidationError:
            # It is told when the field is read; the arms that it would have added are not missed.
            return {key: value for key, value in data.items() if key != "arms"}
        if made:
            arms = data.get("arms") or {}
            twice = [name for name in made if name in arms]
            if twice:
                raise ValueError(f"grid makes an arm '{twice[0]}', which arms names too")
            data = {**data, "arms": {**arms, **made}, "grid": None}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> CompareConfig:
        for name, arm in self.arms.items():
            if not _NAME.fullmatch(name) or name == THUMBNAIL:
                raise ValueError(
                    f"'{name}' cannot name an arm; take up to 40 letters, digits, '-', '_' and "
                    f"'.', and not {THUMBNAIL}, which is the reference"
                )
            if not self.learners_of(name):
                raise ValueError(
                    f"arm '{name}' is {arm.kind}, which only learners that train a network can "
                    "score: add finetune, lpft, batchnorm or scratch to evaluation.learners"
                )
        if not self.trained:
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
        if self.max_seeds is not None and self.seeds not in map(_first_seeds, self.looks):
            raise ValueError(
                f"max_seeds={self.max_seeds} is for seeds=auto, which begins with {FIRST} of them; "
                "give seeds=auto, or leave max_seeds out"
            )
        if any(seed < 0 for seed in self.seeds):
            raise ValueError("seeds are 0 or more")
        idle = self._idle()
        if idle:
            raise ValueError(f"pretrain.views.{no_effect_in_words(idle)}")
        self._check_primary()
        self.scoring  # noqa: B018  operations of tune may not fit the modality
        return self

    def _idle(self) -> dict[str, str]:
        """What was set by hand to no effect in any group; see `Recipe.without_effect`."""
        idle: dict[str, str] | None = None
        for group in self.groups:
            dials = [arm.dial() for name, arm in self.trained.items() if self.group(name) == group]
            training = self.pretrain.model_copy(update={"method": group.method})
            found = training.without_effect(dials)
            idle = found if idle is None else {k: v for k, v in idle.items() if k in found}
        return idle or {}

    @property
    def trained(self) -> dict[str, ArmConfig]:
        """The arms that are pretrained, by name."""
        return {name: arm for name, arm in self.arms.items() if arm.kind == "pretrained"}

    def group(self, arm: str) -> Group:
        """The method and the share of patients of a pretrained arm."""
        settings = self.arms[arm]
        method, share = settings.method, settings.share or 1.0
        if method is None or method == self.pretrain.method.name:
            method = self.pretrain.method
        elif isinstance(method, str):
            method = TypeAdapter[MethodConfig](MethodConfig).validate_python({"name": method})
        parts = []
        if method != self.pretrain.method:
            own = method.model_dump(exclude_defaults=True)
            told = ", ".join(f"{key} {value}" for key, value in own.items() if key != "name")
            parts.append(f"{method.name} ({told})" if told else method.name)
        if share < 1:
            parts.append(f"{100 * share:.3g} % of the patients")
        return Group(", ".join(parts), method, share)

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of arms that are matched, in the order of the arms."""
        return tuple(dict.fromkeys(self.group(name) for name in self.trained))

    def training_of(self, arm: str) -> TrainingSettings:
        """The training settings of a pretrained arm, by its own method."""
        return self.pretrain.model_copy(update={"method": self.group(arm).method})

    def recipe_of(self, arm: str, left_out: Collection[str] = ()) -> Recipe:
        """The recipe of a pretrained arm's views; see `SharedViews.build_recipe`."""
        return self.training_of(arm).build_recipe(left_out=left_out)

    def learners_of(self, arm: str) -> tuple[str, ...]:
        """The learners that score an arm, or the thumbnail."""
        if arm == THUMBNAIL:
            return self.evaluation.frozen_learners
        if self.arms[arm].kind == "scratch":
            return self.evaluation.trained_on_views
        return self.evaluation.learners

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of seeds at which is looked; one, that of the seeds, where none is planned."""
        return (len(self.seeds),) if self.max_seeds is None else planned_looks(self.max_seeds)

    @property
    def alpha(self) -> float:
        """Level of a comparison, at which the error over all looks is .05."""
        return look_level(self.looks)

    def at_look(self, num_seeds: int) -> CompareConfig:
        """Returns the plan with the seeds of one of its looks."""
        return self.model_copy(update={"seeds": _first_seeds(num_seeds)})

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
            ScanlearnError: Scans, a label column, the network or a file that it starts from do not
                exist.
        """
        check_source(self.unlabeled, "unlabeled: ")
        check_source(self.labels, "labels: ")
        if self.evaluation.test is not None:
            check_source(self.evaluation.test, "evaluation.test: ")
        packing = self.pack_settings(self.label_columns, self.pack.channels)
        check_columns(self.labels, self.named_columns, packing)
        self.pretrain.check_start()
        for name, arm in self.arms.items():
            try:
                if isinstance(arm.backbone, BackboneConfig):
                    arm.backbone.check_start()
                elif arm.backbone is not None:
                    check_backbone_name(arm.backbone)
            except ScanlearnError as error:
                raise ScanlearnError(f"arms.{name}: {error}") from None
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
        for name in (primary.better, primary.than):
            if primary.learner not in self.learners_of(name):
                raise ValueError(
                    f"primary.learner is '{primary.learner}', which does not train a network, and "
                    f"arm '{name}' is {self.arms[name].kind}; choose from "
                    f"{', '.join(self.learners_of(name))}"
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
        size = self.pretrain.views.size
        local_size = self.pretrain.views.local_size or round(LOCAL_SHARE * size)
        most = 0.0
        for name, arm in self.trained.items():
            recipe = self.recipe_of(name)
            for kind, view in zip(recipe.kinds, recipe.at(arm.dial()).views, strict=True):
                aspect = math.exp(view.log_aspect) if narrow else 1.0
                side = local_size if kind == "local" else size
                most = max(most, side * math.sqrt(aspect / view.crop_min))
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
        shared = dict(self.pack)
        if {"patient_column", "patient_pattern"} & own.keys():
            shared |= {"patient_column": None, "patient_pattern": None}
        return PackSettings(**{**shared, "canvas": self.canvas(), "channels": channels, **own})

    def run_config(
        self, arm: str, seed: int, folder: Path, leave_out: Path | None = None
    ) -> PretrainConfig:
        """The pretraining run of one arm at one seed: the same for all of a group but the scale.

        Args:
            leave_out: File with ids of scans that are not trained on.
        """
        return PretrainConfig(
            **{
                **dict(self.training_of(arm)),
                "views": self.pretrain.views.at(self.arms[arm].dial()),
            },
            archive=self.unlabeled,
            leave_out=None if leave_out is None else str(leave_out),
            output=str(folder),
            pack=self.pack_settings(self.unlabeled_columns, self.pack.channels),
            seed=seed,
        )
