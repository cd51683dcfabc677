"""The plan of a search for the scale: what is tried, how long, and how many are kept."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from typing import Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from scanlearn.config.settings import Settings
from scanlearn.training.settings import WAIT_HELP, TrainingSettings
from scanlearn.views.modality import AUTO
from scanlearn.views.scale import MAX_SCALE, Scale
from scantune.labels.labeled_set import target_title
from scantune.learners.table import LearnerName
from scantune.splits import Budget
from scantune.study.arm_settings import ArmConfig
from scantune.study.plan import (
    Columns,
    CompareConfig,
    ComparePacking,
    EvaluationConfig,
    PrimaryConfig,
)

# What `apart` moves alone: small lesions suffer from crops, brightness from photometric changes.
LEVERS = ("crop", "photometric")


def _help(name: str) -> str | None:
    return CompareConfig.model_fields[name].description


class SearchScoring(EvaluationConfig):
    """How backbones are scored: by one learner on frozen features, with one label budget."""

    learners: tuple[LearnerName, ...] = Field(
        default=("linear",), min_length=1, max_length=1, description="the one that chooses"
    )
    budgets: tuple[Budget, ...] = Field(
        default=("all",),
        min_length=1,
        max_length=1,
        description="labeled scans that it learns from",
    )
    label_seeds: PositiveInt = Field(
        default=1, description="repetitions with other folds and subsets"
    )

    @model_validator(mode="after")
    def _frozen(self) -> SearchScoring:
        if self.network_learners:
            raise ValueError(
                f"{self.learners[0]} trains a network for every fit, which costs more than a "
                "search saves; choose linear, knn or ncm"
            )
        if self.test is not None:
            raise ValueError(
                "test names an external test set, which a search never looks at; leave it out, "
                "and compare the scale that is found by scantune compare"
            )
        return self


class SearchConfig(Settings):
    """A search for the augmentation scale, at a fraction of the cost of a grid."""

    title: str = Field(default="Which augmentation scale?", description=_help("title"))
    unlabeled: str = Field(description=_help("unlabeled"), examples=["scans"])
    labels: str = Field(description=_help("labels"), examples=["labels.csv"])
    target: str | tuple[str, ...] = Field(
        description="the label column, or a list of columns of one finding each",
        examples=["diagnosis"],
    )
    output: str = Field(
        description="output folder; run the same command again to continue a stopped search",
        examples=["runs/search"],
    )
    scales: tuple[float, ...] = Field(
        default=(0.0, 0.25, 0.5, 0.75, 1.0, 1.25),
        min_length=3,
        description="scales to search in, ascending",
    )
    rungs: tuple[float, ...] = Field(
        default=(0.1, 0.3, 1.0),
        min_length=2,
        description="shares of a run's steps after which networks are measured and the worst are "
        "left; a run that is kept goes on. The last is 1",
    )
    keep: tuple[PositiveInt, ...] = Field(
        default=(3, 2), description="scales that are kept after each rung but the last"
    )
    confirm: int = Field(
        default=1,
        ge=0,
        description="further pretraining seeds with which the choice and its closest rival are "
        "trained, where they are within one standard error, as far as max_cost allows; 0 for none",
    )
    max_cost: float = Field(
        default=0.2,
        gt=0,
        description="share of the grid's steps up to which one scale more than `keep` may go on, "
        "where a half of the patients wants another, and a choice is confirmed",
    )
    apart: bool = Field(
        default=False,
        description="at the end try crop and photometric apart: each at the scales beside the one "
        "that was chosen, the others as they are",
    )
    seed: int = Field(default=0, ge=0, description="pretraining seed")
    grid_seeds: PositiveInt = Field(
        default=3, description="seeds of the grid to which the cost is compared"
    )
    pretrain: TrainingSettings = Field(
        default=TrainingSettings(), description="training settings, the same for every scale"
    )
    pack: ComparePacking = Field(default=ComparePacking(), description=_help("pack"))
    unlabeled_columns: Columns = Field(default=Columns(), description=_help("unlabeled_columns"))
    label_columns: Columns = Field(default=Columns(), description=_help("label_columns"))
    evaluation: SearchScoring = Field(
        default=SearchScoring(), description="how backbones are scored"
    )
    leaks: Literal["refuse", "drop", "warn"] = Field(default="refuse", description=_help("leaks"))
    wait: bool = Field(default=False, description=WAIT_HELP)

    @field_validator("scales")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(after <= before for before, after in pairwise(value)):
            raise ValueError(f"scales ascend, and {', '.join(f'{s:g}' for s in value)} do not")
        if value[0] < 0 or value[-1] > MAX_SCALE:
            raise ValueError(f"a scale is 0 to {MAX_SCALE:g}")
        return value

    @field_validator("rungs")
    @classmethod
    def _ends_with_1(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(after <= before for before, after in pairwise((0.0, *value))) or value[-1] != 1:
            raise ValueError("rungs ascend from above 0 to 1, such as [0.1, 0.3, 1]")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> SearchConfig:
        if len(self.keep) != len(self.rungs) - 1:
            raise ValueError(
                f"keep has {len(self.keep)} numbers; {len(self.rungs)} rungs need "
                f"{len(self.rungs) - 1}, one after each but the last"
            )
        if any(after > before for before, after in pairwise((len(self.scales), *self.keep))):
            raise ValueError("keep never rises, and is at most the number of scales")
        if self.apart and self.pretrain.views.modality == AUTO:
            raise ValueError(
                "apart needs to know what one number moves: set pretrain.views.modality to a "
                "modality, or to null for the recipe alone"
            )
        self.study()
        return self

    @property
    def arms(self) -> dict[str, float]:
        """The scales by the names of their arms, ascending."""
        return {f"s{scale:g}": scale for scale in self.scales}

    def beside(self, arm: str) -> dict[str, Scale]:
        """Crop and photometric, each moved alone to the scales beside an arm's, by name."""
        chosen = self.arms[arm]
        place = self.scales.index(chosen)
        near = (*self.scales[max(0, place - 1) : place], *self.scales[place + 1 : place + 2])
        # One number may move `acquisition` too.
        dial = self.pretrain.build_recipe().dial(Scale.of(chosen))
        return {
            f"{arm}-{lever}{scale:g}": Scale(**{**asdict(dial), lever: scale})
            for lever in LEVERS
            for scale in near
        }

    @property
    def task(self) -> str:
        """What the task is called: by its columns."""
        return target_title(self.target)

    def study(self) -> CompareConfig:
        """The comparison whose arms are the scales; a search is the beginning of it."""
        first, second = list(self.arms)[:2]
        shared = {
            name: getattr(self, name)
            for name in (
                *("title", "unlabeled", "labels", "output", "pretrain", "pack", "leaks", "wait"),
                *("unlabeled_columns", "label_columns"),
            )
        }
        scales = {name: Scale.of(scale) for name, scale in self.arms.items()}
        if self.apart:
            # Which of these are trained is known at the end alone.
            scales |= {k: v for arm in self.arms for k, v in self.beside(arm).items()}
        scoring = self.evaluation.model_dump()
        return CompareConfig(
            **shared,
            tasks=(self.target,),
            arms={name: ArmConfig(scale=scale) for name, scale in scales.items()},
            seeds=(self.seed,),
            evaluation=EvaluationConfig(**scoring),
            primary=PrimaryConfig(learner=self.evaluation.learners[0], better=first, than=second),
        )

    def check_inputs(self) -> None:
        """Refuses misspelt paths and names, before torch is imported and scans are packed.

        Raises:
            ScanlearnError: Scans, the network or a file that it starts from do not exist.
        """
        self.study().check_inputs()
