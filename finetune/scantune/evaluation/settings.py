"""Settings of scoring a backbone: those `evaluate` and `compare` share, and those of `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Required, Self, TypedDict

from pydantic import BeforeValidator, Field, model_validator

from scanlearn.backbones.settings import check_architecture, check_backbone
from scanlearn.config.settings import Settings
from scanlearn.errors import ScanlearnError, did_you_mean
from scanlearn.packing.sources import check_source
from scanlearn.tables.settings import TableSettings
from scanlearn.views.extra_settings import build_extras
from scanlearn.views.modality import AnyModality
from scantune.labels.table import check_columns
from scantune.learners.settings import DEFAULT, TuneConfig
from scantune.learners.table import LEARNERS, LEARNERS_HELP, AugmentedName
from scantune.splits import Budget

# The reference that every backbone must beat.
THUMBNAIL: Final = "thumbnail"
# Begins the name of an untrained network.
RANDOM = "random:"
UNTRAINED: Final = "untrained"
ReferenceName = Literal["thumbnail", "untrained"]


def _as_written(values: Any) -> Any:
    """Takes the numbers of a list, such as grades, for texts."""
    if not isinstance(values, list | tuple):
        return values
    return [str(value) if type(value) in (int, float) else value for value in values]


class ScoringSettings(Settings):
    """Learners, label budgets, folds, and what the label columns hold."""

    learners: tuple[AugmentedName, ...] = Field(
        default=("knn", "linear"), min_length=1, description=LEARNERS_HELP
    )
    budgets: tuple[Budget, ...] = Field(
        default=("all",),
        min_length=1,
        description="Label budgets: numbers of labeled scans to train on, in whole patients, or "
        "all.",
    )
    folds: int = Field(
        default=5,
        ge=2,
        description="Cross-validation folds over patients; not used with split_column or test.",
    )
    label_seeds: int = Field(
        default=3, ge=1, description="Repetitions, each with other folds and other subsets."
    )
    test: str | Path | None = Field(
        default=None,
        description="External test set of other patients: an archive, a folder or a table; all "
        "labels train. null tests on folds of the labels.",
    )
    classes: Annotated[tuple[str, ...] | None, BeforeValidator(_as_written)] = Field(
        default=None,
        description="All values allowed in the label column, in order; of listed findings, those "
        "to score. null uses every value in the column.",
    )
    ordinal: bool = Field(
        default=False,
        description="Whether the classes are grades, in numeric order or in that of classes; adds "
        "quadratic kappa.",
    )
    multilabel: bool | None = Field(
        default=None,
        description="Whether the label column lists several findings, as A|B, A;B or ['A', 'B'], "
        "or in a row for each; null detects lists.",
    )
    split_column: str | None = Field(
        default=None,
        description="Column with train and test (val trains too), used in place of folds.",
    )
    synthetic_column: str | None = Field(
        default=None,
        description="Column that marks synthetic scans (1, true, yes): they train, are never "
        "tested, and no budget counts them.",
    )
    tune: TuneConfig = Field(
        default=DEFAULT, description="How learners train that do so step by step."
    )

    @property
    def frozen_learners(self) -> tuple[str, ...]:
        """Learners on frozen features, the only ones that the thumbnail can be scored with."""
        return tuple(name for name in self.learners if not LEARNERS[name].needs_network)

    @property
    def network_learners(self) -> tuple[str, ...]:
        """Learners that train a network, minutes per fit."""
        return tuple(name for name in self.learners if LEARNERS[name].needs_network)

    @property
    def trained_on_views(self) -> tuple[str, ...]:
        """Learners whose training scans are augmented."""
        return tuple(name for name in self.learners if LEARNERS[name].is_on_views)

    @property
    def views_in_words(self) -> str:
        """How the learners' training scans are augmented, each way once."""
        told = [self.tune.of(name).views_in_words for name in self.trained_on_views]
        return "; ".join(dict.fromkeys(told))

    def under(self, modality: AnyModality | None) -> Self:
        """Returns these settings for a backbone that was pretrained under a modality.

        Raises:
            ScanlearnError: Operations of ``tune`` cannot be used under it.
        """
        tunes = [self.tune.of(name) for name in self.trained_on_views]
        if all(tune.augment == "none" for tune in tunes):
            return self
        # Whatever the default: some learner's own name says that its scans are augmented.
        tune = self.tune.model_copy(update={"augment": "basic"}).under(modality)
        tune = tune.model_copy(update={"augment": self.tune.augment})
        return self.model_copy(update={"tune": tune})

    def frozen(self) -> Self:
        """Returns these settings for what has no network: the thumbnail."""
        return self.only(self.frozen_learners)

    def only(self, learners: Sequence[str]) -> Self:
        """Returns these settings for some of the learners, without what none of them reads."""
        unread = self.tune.without_effect(learners)
        tune = self.tune.model_copy(update={name: getattr(DEFAULT, name) for name in unread})
        return self.model_copy(update={"learners": tuple(learners), "tune": tune})


class _Target(Settings):
    """What a labeled set is read for; apart, so that it heads the printed settings."""

    target: str | tuple[str, ...] = Field(
        description="The label column, or a list of columns with one finding each.",
        examples=["diagnosis"],
    )


class EvaluateConfig(ScoringSettings, TableSettings, _Target):
    """All settings of `evaluate`."""

    folder_labels: bool = Field(
        default=False,
        description="Use the first folder below labels as the class; the label column is folder.",
    )
    size: int | None = Field(
        default=None, ge=8, description="Side of a view in pixels; null is the backbone's own."
    )
    references: tuple[ReferenceName, ...] = Field(
        default=(THUMBNAIL, UNTRAINED),
        description="What is scored beside the backbone by the same frozen learners: the thumbnail "
        "and the untrained network of the same architecture; [] for nothing.",
    )
    keep: bool = Field(
        default=True,
        description="Fit the last learner on all labels and keep it in output, for predict.",
    )
    worst: int = Field(
        default=0,
        ge=0,
        le=500,
        description="Number of test scans with the most confident errors to draw into output; 0 "
        "writes no pixels.",
    )
    output: Path | None = Field(
        default=None,
        description="Folder for the page, tables and metrics; null prints the table alone.",
    )
    wait: bool = Field(
        default=False,
        description="Whether to wait for another process that is at work in output; if not, the "
        "command ends with exit code 3.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> EvaluateConfig:
        if self.worst and self.output is None:
            raise ValueError(f"worst={self.worst} draws scans into output; give output=FOLDER")
        return self


def check_inputs(backbone: str | Path, labels: str | Path, settings: EvaluateConfig) -> None:
    """Refuses misspelt paths and names, before torch is imported and scans are packed.

    Raises:
        ScanlearnError: There is no such backbone, or nothing at a path.
    """
    if str(backbone) != THUMBNAIL and folder_of(backbone) is None:
        if str(backbone).startswith(RANDOM):
            check_architecture(random_of(str(backbone))[0], f"backbone '{backbone}'")
        else:
            near = did_you_mean(str(backbone), [THUMBNAIL])
            if near and "/" not in str(backbone):
                raise ScanlearnError(f"backbone '{backbone}' is no folder{near}")
            check_backbone(backbone)
    check_source(labels)
    if settings.test is not None:
        check_source(settings.test, "test: ")
    targets = (settings.target,) if isinstance(settings.target, str) else settings.target
    marks = (settings.split_column, settings.synthetic_column)
    check_columns(str(labels), (*targets, *(mark for mark in marks if mark is not None)), settings)
    build_extras(settings.tune.extras, num_views=1)


def check_backbone_name(backbone: str) -> None:
    """Refuses what is no backbone with weights, before torch is imported.

    Raises:
        ScanlearnError: There is none of that name, or it is a reference without weights.
    """
    if backbone == THUMBNAIL or backbone.startswith(RANDOM):
        raise ScanlearnError(
            f"backbone '{backbone}' has no weights; give a timm name, hf-hub:OWNER/NAME, an "
            "exported folder or a run"
        )
    if folder_of(backbone) is None:
        check_backbone(backbone)


def random_of(backbone: str) -> tuple[str, int]:
    """Returns the architecture and the seed of ``random:NAME`` or ``random:NAME:SEED``."""
    name, _, seed = backbone.removeprefix(RANDOM).partition(":")
    if seed and not seed.isdecimal():
        raise ScanlearnError(f"{backbone}: '{seed}' is not a seed; write {RANDOM}{name}:0")
    return name, int(seed or 0)


def folder_of(backbone: str | Path) -> Path | None:
    """Returns the folder that holds the weights; None where the name is no folder on disk."""
    folder = Path(str(backbone).removeprefix("local-dir:")).expanduser()
    if not folder.is_dir():
        return None
    if (folder / "backbone").is_dir():
        return folder / "backbone"
    if (folder / "config.yaml").is_file() and not (folder / "card.json").is_file():
        raise ScanlearnError(
            f"{folder}: this run has no backbone yet; finish it with scanlearn pretrain"
        )
    return folder


class EvaluateOptions(TypedDict, total=False):
    """`EvaluateConfig` as keywords of a Python call, for editors and mypy; described there."""

    target: Required[str | Sequence[str]]
    learners: Sequence[str]
    budgets: Sequence[Budget]
    folds: int
    label_seeds: int
    test: str | Path | None
    classes: Sequence[str | float] | None
    ordinal: bool
    multilabel: bool | None
    split_column: str | None
    synthetic_column: str | None
    tune: TuneConfig
    path_column: str | None
    patient_column: str | None
    patient_pattern: str | None
    root: str | Path | None
    sep: str | None
    sheet: str | None
    issuer: str | None
    folder_labels: bool
    size: int | None
    references: Sequence[ReferenceName]
    keep: bool
    worst: int
    output: str | Path | None
    wait: bool
