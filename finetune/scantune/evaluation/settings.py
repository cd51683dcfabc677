"""How a backbone is scored: the settings that `evaluate` and `compare` share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from scanlearn.config.settings import Settings
from scantune.learners.settings import DEFAULT, TuneConfig
from scantune.learners.table import LEARNERS_HELP, LearnerName
from scantune.splits import Budget


def _as_written(values: Any) -> Any:
    """Takes the numbers of a list, such as grades, for texts."""
    if not isinstance(values, list | tuple):
        return values
    return [str(value) if type(value) in (int, float) else value for value in values]


class ScoringSettings(Settings):
    """Learners, label budgets, folds, and what the label columns hold."""

    learners: tuple[LearnerName, ...] = Field(
        default=("knn", "linear"),
        min_length=1,
        description=LEARNERS_HELP,
    )
    budgets: tuple[Budget, ...] = Field(
        default=("all",), min_length=1, description="Labeled training scans: counts, or all."
    )
    folds: int = Field(default=5, ge=2, description="Patient folds; unused with a split column.")
    label_seeds: int = Field(
        default=3, ge=1, description="Repetitions with other folds and subsets."
    )
    test: str | None = Field(
        default=None,
        description="Scans of other patients to test on, likewise; null tests on labels.",
    )
    classes: Annotated[tuple[str, ...] | None, BeforeValidator(_as_written)] = Field(
        default=None,
        description="All values of the label column, in order; null takes those found.",
    )
    ordinal: bool = Field(
        default=False,
        description="Whether classes are grades, in numeric order or that of classes.",
    )
    multilabel: bool | None = Field(
        default=None,
        description="Whether the column lists findings; null: where some value holds |.",
    )
    split_column: str | None = Field(
        default=None, description="Column of train and test, instead of folds."
    )
    synthetic_column: str | None = Field(
        default=None, description="Column that marks scans to train on and never to test."
    )
    tune: TuneConfig = Field(default=DEFAULT, description="How learners train that do so by steps.")
