"""How scans are packed, as a person sets it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PositiveInt,
    model_validator,
)

from scanlearn.config.settings import Settings
from scanlearn.packing.canvas import FieldOfView, Fit, Intensity, Preprocess
from scanlearn.packing.windows import Window, edges, read_window
from scanlearn.readers.scan import Axis, ReadSettings


def _as_patterns(given: Any) -> Any:
    """Takes one pattern for a list of one, and numbers as they are written."""
    listed = given if isinstance(given, list | tuple) else [given]
    return [str(one) if type(one) in (int, float) else one for one in listed]


# How a source is read and which files of it are taken; everything else is done to pixels.
OF_THE_SOURCE = frozenset(
    {
        *("path_column", "patient_column", "follow_links", "open_containers", "folder_labels"),
        *("keep", "drop", "issuer", "summary", "workers"),
    }
)


def pixel_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those of an archive's settings by which scans of any source are packed alike."""
    return {key: value for key, value in settings.items() if key not in OF_THE_SOURCE}


Patterns = Annotated[tuple[str, ...], BeforeValidator(_as_patterns), Field(min_length=1)]


class PackSettings(Settings):
    """How scans are packed."""

    canvas: PositiveInt | tuple[PositiveInt, PositiveInt] = Field(
        default=256,
        description="Side of the canvas in pixels, or [height, width]; scans are never enlarged.",
    )
    channels: Literal[1, 3, "auto"] = Field(
        default="auto",
        description="1 (colour becomes luma), 3 (gray is repeated), or auto: 3 where scans have"
        " colour.",
    )
    fit: Fit = Field(
        default="pad",
        description="How a scan of another aspect fits: pad (all of it, the rest 0) or crop (its"
        " middle fills the canvas, where it is large enough).",
    )
    intensity: Intensity = Field(
        default="full",
        description="What becomes 0 and 1: full (the range of 8 or 16 bits; of DICOM its window, of"
        " volumes and of DICOM without one percentiles), percentile (each scan's .5 and 99.5) or"
        " foreground (those of its foreground, for MRI: of a whole volume where there is one).",
    )
    window: Annotated[
        Window | tuple[Window, Window, Window] | None, BeforeValidator(read_window)
    ] = Field(
        default=None,
        description="For CT, what becomes 0 and 1: lung, mediastinum, brain, subdural, bone,"
        " abdomen, liver or [width, level] in HU, all HU kept in 16 bits; three in a list are drawn"
        " into three channels of 8.",
    )
    field_of_view: FieldOfView = Field(
        default="none",
        description="fundus crops photographs to their lit disc and keeps it as a mask.",
    )
    neighbours: bool = Field(
        default=False,
        description="Whether the slices before and after fill the channels of a volume's slice.",
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
    keep: dict[str, Patterns] = Field(
        default={},
        description="Patterns by DICOM keyword or column of a table, such as Modality: [CR, DX];"
        " files that match none of a line's are left out, and those without such a value.",
    )
    drop: dict[str, Patterns] = Field(
        default={},
        description="Patterns, such as SeriesDescription: ['*scout*']; files that match any are"
        " left out, those without such a value stay. Case does not count.",
    )
    path_column: str | None = Field(
        default=None, description="Column of a table with the paths; null finds a usual name."
    )
    patient_column: str | None = Field(
        default=None, description="Column of a table with the patients; null finds a usual name."
    )
    follow_links: bool = Field(
        default=False,
        description="Whether links that lead out of the source's folder are followed; they are set"
        " aside if not.",
    )
    open_containers: bool = Field(
        default=False,
        description="Whether zip, tar and npz files inside a folder are opened too; what was"
        " unpacked beside them would be packed twice.",
    )
    folder_labels: bool = Field(
        default=False,
        description="Whether the first folder below a source becomes a label column, folder, for"
        " scans that lie in a folder per class; off, since folders are often named after patients.",
    )
    issuer: str | None = Field(
        default=None,
        description="Who gave the patients their numbers, where files do not say: equal numbers of"
        " two issuers are two people. null is the name of the source's folder.",
    )
    summary: bool = Field(
        default=True,
        description="Whether a contact sheet and a one-page summary are written into the archive.",
    )
    workers: int = Field(
        default=0, ge=0, description="Processes that decode; 0 takes one for each core."
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> PackSettings:
        is_triple = len(self.preprocess().windows) > 1
        if self.window is not None and self.intensity != "full":
            raise ValueError(
                f"a window says what becomes 0 and 1, and intensity={self.intensity} does too; give"
                " one of them"
            )
        if self.window is not None and self.field_of_view != "none":
            raise ValueError(
                f"a window is for CT and field_of_view={self.field_of_view} for photographs; give"
                " one of them"
            )
        if is_triple and self.neighbours:
            raise ValueError(
                "three windows and neighbours both fill the three channels; give one of them"
            )
        if (is_triple or self.neighbours) and self.channels == 1:
            filled = "three windows" if is_triple else "neighbours"
            raise ValueError(f"{filled} fill three channels, but channels=1; leave it at auto")
        return self

    def preprocess(self) -> Preprocess:
        """Returns what is done to the pixels of every scan."""
        given = self.window
        several = given if isinstance(given, tuple) and len(given) == 3 else (given,)
        return Preprocess(
            intensity=self.intensity,
            fit=self.fit,
            field_of_view=self.field_of_view,
            windows=tuple(edges(one) for one in several if one is not None),
        )

    def reading(self) -> ReadSettings:
        """Returns what of each file is read."""
        shows: Literal["file", "foreground", "nothing"] = "file"
        if self.window is not None:
            shows = "nothing"
        elif self.intensity == "foreground":
            shows = "foreground"
        return ReadSettings(
            axis=self.axis,
            empty_below=self.empty_below,
            shows=shows,
            neighbours=self.neighbours,
        )

    def fingerprint(self) -> dict[str, Any]:
        """Returns the settings that the packed bytes depend on."""
        # Archives from before there was this one are as if it were off.
        absent = set() if self.folder_labels else {"folder_labels"}
        return self.model_dump(mode="json", exclude={"workers", "issuer", "summary", *absent})
