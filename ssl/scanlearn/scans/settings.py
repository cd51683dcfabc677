"""How scans are packed, as a person sets it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from scanlearn.scans.nifti import Axis


class PackSettings(BaseModel):
    """How scans are packed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    canvas: PositiveInt | tuple[PositiveInt, PositiveInt] = Field(
        default=256,
        description="Side of the canvas in pixels, or [height, width]; scans are never enlarged.",
    )
    channels: Literal[1, 3, "auto"] = Field(
        default="auto",
        description="1 (colour becomes luma), 3 (gray is repeated), or auto: 3 where scans have"
        " colour.",
    )
    intensity: Literal["full", "percentile"] = Field(
        default="full",
        description="What becomes 0 and 1: the full range of 8 or 16 bits (of DICOM its window, of"
        " volumes and of DICOM without one percentiles), or each scan's .5 and 99.5 percentiles.",
    )
    axis: Axis = Field(
        default="axial", description="What the slices of a volume are perpendicular to."
    )
    empty_below: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        description="Slices of a volume with a smaller share of foreground are left out.",
    )
    path_column: str | None = Field(
        default=None, description="Column of a table with the paths; null finds a usual name."
    )
    patient_column: str | None = Field(
        default=None, description="Column of a table with the patients; null finds a usual name."
    )
    workers: int = Field(
        default=0, ge=0, description="Processes that decode; 0 takes one for each core."
    )

    def fingerprint(self) -> dict[str, Any]:
        """Returns the settings that the packed bytes depend on."""
        return self.model_dump(mode="json", exclude={"workers"})
