"""Settings of `difference`, apart from what computes, so that they are printed at once."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from pydantic import Field

from scanlearn.config.settings import Settings
from scantune.splits import Budget


class DifferenceConfig(Settings):
    """All settings of `difference`."""

    learner: str | None = Field(
        default=None,
        description="Learner of the primary comparison; null is linear, or the first that all "
        "outputs share if linear is none of these. A learner for one side alone is named behind "
        "its folder, as FOLDER:finetune.",
    )
    budget: Budget | None = Field(
        default=None, description="Label budget of the primary comparison; null is the largest."
    )
    grade: str | int | None = Field(
        default=None,
        description="Of grades: the primary comparison tells this grade or higher from lower ones; "
        "null is the mean over grades, each against the rest.",
    )
    margin: float = Field(
        default=0.01, gt=0, lt=0.5, description="Smallest AUROC difference that matters."
    )
    replicates: int = Field(
        default=2000, ge=200, description="Bootstrap samples of patients behind each interval."
    )
    output: Path | None = Field(
        default=None, description="Folder for page, tables and figures; null prints them alone."
    )


class DifferenceOptions(TypedDict, total=False):
    """`DifferenceConfig` as keywords of a Python call, for editors and mypy; described there."""

    learner: str | None
    budget: Budget | None
    grade: str | int | None
    margin: float
    replicates: int
    output: str | Path | None
