"""Settings of packing."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from scanlearn.cluster import ClusterConfig, Launcher
from scanlearn.packing.canvas import FieldOfView, Fit, Intensity, Preprocess
from scanlearn.packing.chest_wall import Side
from scanlearn.packing.windows import Window, edges, read_window
from scanlearn.readers.dicom_tags import NO_PICTURE_MODALITIES
from scanlearn.readers.scan import Plane, ReadSettings
from scanlearn.tables.settings import TABLE_SETTINGS, TableSettings

# Which files of a source are taken, by patterns.
FILTERS = ("keep", "drop")
# Settings of the source: how it is read and which files are taken. All others change pixels.
SOURCE_SETTINGS = frozenset(
    {
        *TABLE_SETTINGS,
        *("follow_links", "open_containers", "folder_labels"),
        *("allow_columns", *FILTERS, "summary", "workers", "wait"),
    }
)
# Of a phantom, which is drawn and not packed: other scans can only be packed by the defaults.
_DRAWN = frozenset({"phantom", "note"})


def pixel_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those of an archive's settings that change pixels; of a phantom none."""
    apart = SOURCE_SETTINGS | _DRAWN
    return {key: value for key, value in settings.items() if key not in apart}


def _as_patterns(value: Any) -> Any:
    """Takes one pattern for a list of one, and numbers as they are written."""
    patterns = value if isinstance(value, list | tuple) else [value]
    return [str(each) if type(each) in (int, float) else each for each in patterns]


Patterns = Annotated[tuple[str, ...], BeforeValidator(_as_patterns), Field(min_length=1)]


class PackSettings(TableSettings):
    """How scans are packed."""

    canvas: PositiveInt | tuple[PositiveInt, PositiveInt] = Field(
        default=256,
        description="Side of the canvas in pixels, or [height, width]; scans are never enlarged.",
    )
    channels: Literal[1, 3, "auto"] = Field(
        default="auto",
        description="1 (colour becomes luma), 3 (gray is repeated), or auto: 3 if any scan has"
        " colour.",
    )
    fit: Fit = Field(
        default="pad",
        description="How a scan of another aspect ratio is fitted: pad (all of it is kept, the rest"
        " is 0) or crop (its middle fills the canvas, if it is large enough).",
    )
    intensity: Intensity = Field(
        default="full",
        description="Stored values that mean 0 and 1: full (the range of 8 or 16 bits; for DICOM"
        " its window; for volumes and DICOM without a window percentiles), percentile (the .5 and"
        " 99.5 percentiles of each scan) or foreground (those of its foreground, for MRI; of a"
        " whole volume if there is one).",
    )
    window: Annotated[
        Window | tuple[Window, Window, Window] | None, BeforeValidator(read_window)
    ] = Field(
        default=None,
        description="CT window that means 0 to 1: lung, mediastinum, brain, subdural, bone,"
        " abdomen, liver or [width, level] in HU. All HU are kept, in 16 bits; a list of three"
        " windows fills three channels of 8 bits.",
    )
    field_of_view: FieldOfView = Field(
        default="none",
        description="fundus crops photographs to the lit disc and stores the disc as a mask.",
    )
    chest_wall: Side | None = Field(
        default=None,
        description="For mammograms: left or right, the side of the picture that the chest wall is"
        " brought to, by mirroring the others. null leaves all as they are.",
    )
    neighbours: bool = Field(
        default=False,
        description="Whether the slices before and after a volume's slice fill its other channels.",
    )
    axis: Plane = Field(default="axial", description="Plane of the slices of a volume.")
    empty_below: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        description="Slices of a volume with a smaller share of foreground are left out, 0 to 1.",
    )
    keep: dict[str, Patterns] = Field(
        default={},
        description="Patterns by DICOM keyword or table column, such as Modality: [CR, DX]. Files"
        " that match none of a key's patterns, or have no such value, are left out.",
    )
    drop: dict[str, Patterns] = Field(
        default={},
        description="Patterns by DICOM keyword or table column, such as SeriesDescription:"
        " ['*scout*']. Files that match any of them are left out; files without such a value stay."
        " Case is ignored.",
    )
    allow_columns: tuple[str, ...] = Field(
        default=(),
        description="Table columns that are kept as labels although their names or values look as"
        " if they identified a person; such columns are left out otherwise.",
    )
    follow_links: bool = Field(
        default=False,
        description="Whether links that lead out of the source's folder are followed; if not, they"
        " are rejected.",
    )
    open_containers: bool = Field(
        default=False,
        description="Whether zip, tar and npz files inside a folder are opened too. Scans that were"
        " also unpacked beside them are then packed twice.",
    )
    folder_labels: bool = Field(
        default=False,
        description="Whether the first folder below the source becomes the label column folder, for"
        " scans sorted into a folder per class. Off by default: folders are often named after"
        " patients.",
    )
    summary: bool = Field(
        default=True,
        description="Whether a contact sheet and a one-page summary are written into the archive.",
    )
    workers: int = Field(default=0, ge=0, description="Processes that decode; 0 uses one per core.")
    wait: bool = Field(
        default=False,
        description="Whether to wait for another process that writes the same archive; if not, the"
        " command ends with exit code 3. For one in the cache it is always waited.",
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> PackSettings:
        is_triple = len(self.preprocess().windows) > 1
        if self.window is not None and self.intensity != "full":
            raise ValueError(
                f"window and intensity={self.intensity} both set what 0 and 1 mean; give one of"
                " them"
            )
        if self.window is not None and self.field_of_view != "none":
            raise ValueError(
                f"window is for CT and field_of_view={self.field_of_view} for photographs; give"
                " one of them"
            )
        if is_triple and self.neighbours:
            raise ValueError(
                "three windows and neighbours both fill the three channels; give one of them"
            )
        if (is_triple or self.neighbours) and self.channels == 1:
            filled = "three windows" if is_triple else "neighbours"
            raise ValueError(
                f"{filled} fill three channels, but channels=1 is given; leave channels at auto"
            )
        return self

    @classmethod
    def of_table(cls, table: TableSettings, **others: Any) -> PackSettings:
        """Returns settings that read a table so; all others are the defaults unless given."""
        return cls.model_validate({**others, **table.model_dump()})

    def preprocess(self) -> Preprocess:
        """Returns what is done to the pixels of every scan."""
        window = self.window
        windows = window if isinstance(window, tuple) and len(window) == 3 else (window,)
        return Preprocess(
            intensity=self.intensity,
            fit=self.fit,
            field_of_view=self.field_of_view,
            chest_wall=self.chest_wall,
            windows=tuple(edges(each) for each in windows if each is not None),
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
            pictures_only=not self._wants_all_objects(),
            neighbours=self.neighbours,
        )

    def _wants_all_objects(self) -> bool:
        """Returns whether masks, doses and reports are asked for: by modality or SOP class."""
        patterns = [pattern.upper() for pattern in self.keep.get("Modality", ())]
        named = any(fnmatchcase(name, of) for of in patterns for name in NO_PICTURE_MODALITIES)
        return named or "SOPClassUID" in self.keep

    def fingerprint(self) -> dict[str, Any]:
        """Returns the settings that the packed bytes depend on."""
        # Archives from before there were these are as if they were off. Which columns are labels
        # is told by the manifest.
        absent = {name for name in ("folder_labels", "chest_wall") if not getattr(self, name)}
        # What is read by them is in the hash of the source; a folder may name a person.
        of_table = {"allow_columns", "patient_pattern", "root", "sep", "sheet"}
        unwritten = {"workers", "issuer", "summary", "wait", *of_table, *absent}
        unwritten |= {"launcher", "parts", "cluster"}
        return self.model_dump(mode="json", exclude=unwritten)


class PackArraySettings(PackSettings):
    """How scans are packed, by one command or in parts by tasks of a cluster."""

    parts: PositiveInt = Field(
        default=1,
        description="Parts of about as many scans that are packed apart and then joined; commands"
        " with the same settings share them. The archive has the hash of one packed at once.",
    )
    launcher: Launcher | None = Field(
        default=None,
        description="slurm submits the parts as tasks of an array; local starts them here the same"
        " way, to try. Both need the extra slurm.",
    )
    cluster: ClusterConfig = Field(
        default=ClusterConfig(), description="What each task of slurm is given."
    )
