"""What is done to one file on its way into an archive; runs in worker processes."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scanlearn.scans.decode import Frame, Undecodable
from scanlearn.scans.files import ReadSettings, read_frames, read_header
from scanlearn.scans.intensity import Box, fit_to_canvas, value_range
from scanlearn.scans.shards import Pixels

# Colour files are often gray scans saved as RGB. Some are decoded to see; a pixel whose channels
# differ by more than JPEG noise is coloured, and a scan with one in a thousand of them is too.
_COLOUR_PROBES = 32
_COLOUR_SPREAD = 12 / 255
_COLOUR_SHARE = 0.001
_PROBE_SIDE = 256


@dataclass(frozen=True)
class Plan:
    """What every scan is brought to."""

    canvas: tuple[int, int]
    channels: Literal[1, 3]
    dtype: np.dtype[Any]
    intensity: Literal["full", "percentile"]
    read: ReadSettings = field(default_factory=ReadSettings)


@dataclass(frozen=True)
class Survey:
    """What the headers of all files say.

    Args:
        num_frames: Scans that each file may give, in their order; 1 where it cannot be read.
        is_deep: Whether any holds more than 8 bits.
        colour: A sample of the files that store colour, in their order.
        has_patients: Whether every file that can be read names its patient.
        has_series: Whether any names its series.
    """

    num_frames: array[int]
    is_deep: bool
    colour: tuple[Path, ...]
    has_patients: bool
    has_series: bool


@dataclass(frozen=True)
class Job:
    """Some frames of one file.

    Args:
        path: The file.
        frames: Which frames, from 0.
        of: Frames of the whole file.
    """

    path: Path
    frames: range = range(1)
    of: int = 1


@dataclass(frozen=True)
class Prepared:
    """A scan ready to be written.

    Args:
        pixels: ``[c h w]``, on the canvas.
        valid_box: Top, left, bottom, right.
        spacing_mm: Height and width of a canvas pixel; None where unknown.
        value_range: Stored values that mean 0 and 1.
        notes: What of the file was left out, in words.
        frame: Number of the scan in its file, from 1; None where the file holds one.
        patient: Patient that the file names.
        series: Series that the file names.
    """

    pixels: Pixels
    valid_box: Box
    spacing_mm: tuple[float, float] | None
    value_range: tuple[float, float]
    notes: tuple[str, ...]
    frame: int | None = None
    patient: str | None = None
    series: str | None = None


@dataclass(frozen=True)
class Refused:
    """A file, or one frame of it, set aside."""

    reason: str
    frame: int | None = None


Outcome = Prepared | Refused


def survey(paths: Iterable[Path], settings: ReadSettings) -> Survey:
    """Reads the headers of all files; what cannot be read is set aside when it is decoded."""
    counts = array("I")
    colour: list[Path] = []
    is_deep, has_patients, has_series = False, True, False
    for path in paths:
        try:
            header = read_header(path, settings)
        except Undecodable:
            counts.append(1)
            continue
        counts.append(header.num_frames)
        is_deep = is_deep or header.is_deep
        has_patients = has_patients and header.has_patient
        has_series = has_series or header.has_series
        if header.is_colour:
            colour.append(path)
    step = max(1, len(colour) // _COLOUR_PROBES)
    return Survey(counts, is_deep, tuple(colour[::step]), has_patients, has_series)


def make_plan(
    found: Survey,
    *,
    canvas: tuple[int, int],
    channels: Literal[1, 3, "auto"],
    intensity: Literal["full", "percentile"],
    settings: ReadSettings | None = None,
) -> Plan:
    """Returns what scans are brought to; dtype and "auto" channels come from all file headers.

    Args:
        found: What the headers say.
        canvas: Rows and columns.
        channels: 1, 3, or "auto": 3 where a sample of the files that store colour shows some.
        intensity: "full" or "percentile".
        settings: What of a file is read; None for the defaults.
    """
    settings = settings or ReadSettings()
    if channels == "auto":
        channels = 3 if any(_has_colour(path, settings) for path in found.colour) else 1
    dtype = np.dtype(np.uint16 if found.is_deep else np.uint8)
    read = replace(settings, at_least=max(canvas), gray=channels == 1)
    return Plan(canvas, channels, dtype, intensity, read)


def _has_colour(path: Path, settings: ReadSettings) -> bool:
    probe = replace(settings, at_least=_PROBE_SIDE)
    try:
        scans = [frame.scan for frame in read_frames(path, range(1), probe)]
    except Undecodable:
        return False
    if not scans or isinstance(scans[0], Undecodable):
        return False
    pixels = scans[0].pixels
    spread = pixels.max(axis=0) - pixels.min(axis=0)
    return bool((spread > _COLOUR_SPREAD * np.iinfo(pixels.dtype).max).mean() > _COLOUR_SHARE)


def prepare(plan: Plan, job: Job | Refused) -> tuple[Outcome, ...]:
    """Decodes some frames of a file and brings them to the canvas; runs in a worker process.

    Returns:
        What becomes of each frame; fewer than asked for where slices are empty, and a single
        refusal where none can be read.
    """
    if isinstance(job, Refused):
        return (job,)
    try:
        outcomes = [
            _placed(plan, job, frame) for frame in read_frames(job.path, job.frames, plan.read)
        ]
    except Undecodable as error:
        return (Refused(str(error)),)
    reasons = {outcome.reason if isinstance(outcome, Refused) else None for outcome in outcomes}
    if len(reasons) == 1 and None not in reasons:
        return (Refused(str(reasons.pop())),)
    return tuple(outcomes)


def _placed(plan: Plan, job: Job, frame: Frame) -> Outcome:
    """Brings one scan to the canvas."""
    number = frame.number if job.of > 1 else None
    scan = frame.scan
    if isinstance(scan, Undecodable):
        return Refused(str(scan), number)
    if scan.pixels.dtype.itemsize > plan.dtype.itemsize:
        return Refused("has more bits than its header said; it changed while it was packed", number)
    pixels, box, spacing_mm = fit_to_canvas(scan, plan.canvas, plan.channels)
    # The range belongs to the scan's own depth: 8-bit scans among 16-bit ones keep 0 to 255.
    stored = scan.value_range if plan.intensity == "full" else None
    return Prepared(
        pixels.astype(plan.dtype, copy=False),
        box,
        spacing_mm,
        stored or value_range(pixels, plan.intensity, box),
        frame.notes,
        number,
        frame.patient,
        frame.series,
    )
