"""What is done to one file on its way into an archive; runs in worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

from scanlearn.scans.deadline import limited
from scanlearn.scans.decode import Frame, Shrink, Undecodable
from scanlearn.scans.files import ReadSettings, read_frames
from scanlearn.scans.intensity import Box, shrink_picture
from scanlearn.scans.placing import Treatment, place
from scanlearn.scans.pool import ordered_map
from scanlearn.scans.shards import Pixels
from scanlearn.scans.survey import Survey
from scanlearn.scans.tally import ScanTally, tally_scan

# Colour files are often gray scans saved as RGB: a pixel whose channels differ by more than JPEG
# noise is coloured, and a scan with one in a thousand of them is too.
_COLOUR_SPREAD = 12 / 255
_COLOUR_SHARE = 0.001
_PROBE_SIDE = 256


@dataclass(frozen=True)
class Plan:
    """What every scan is brought to."""

    canvas: tuple[int, int]
    channels: Literal[1, 3]
    dtype: np.dtype[Any]
    treatment: Treatment = field(default_factory=Treatment)
    read: ReadSettings = field(default_factory=ReadSettings)


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
        issuer: Who gave the patient that number, where the file says so.
        mask: ``[h w]``, True inside the field of view; None for all of the valid box.
        tally: What was counted of it.
    """

    pixels: Pixels
    valid_box: Box
    spacing_mm: tuple[float, float] | None
    value_range: tuple[float, float]
    notes: tuple[str, ...]
    frame: int | None = None
    patient: str | None = None
    series: str | None = None
    issuer: str | None = None
    mask: Bool[np.ndarray, "h w"] | None = None
    tally: ScanTally | None = None


@dataclass(frozen=True)
class Refused:
    """A file, or one frame of it, set aside."""

    reason: str
    frame: int | None = None


Outcome = Prepared | Refused


def make_plan(
    found: Survey,
    *,
    canvas: tuple[int, int],
    channels: Literal[1, 3, "auto"],
    treatment: Treatment | None = None,
    settings: ReadSettings | None = None,
    workers: int = 1,
) -> Plan:
    """Returns what scans are brought to; dtype and "auto" channels come from all file headers.

    Args:
        found: What the headers say.
        canvas: Rows and columns.
        channels: 1, 3, or "auto": 3 where a sample of the files that store colour shows some, and
            where windows or neighbouring slices fill them.
        treatment: What is done to pixels; None for the defaults.
        settings: What of a file is read; None for the defaults.
        workers: Processes that decode the sample; with 1 this one does.
    """
    settings, treatment = settings or ReadSettings(), treatment or Treatment()
    if len(treatment.windows) > 1 or settings.neighbours:
        channels = 3
    elif channels == "auto":
        probes = () if treatment.windows else found.colour
        channels = 3 if _any_has_colour(settings, probes, workers) else 1
    read = replace(settings, at_least=max(canvas), gray=channels == 1)
    return Plan(canvas, channels, treatment.dtype(found.is_deep), treatment, read)


def _any_has_colour(settings: ReadSettings, paths: Sequence[Path], workers: int) -> bool:
    look = partial(_has_colour, settings)
    if workers == 1 or not paths:
        return any(map(look, paths))
    with closing(ordered_map(look, paths, workers=workers, crashed=False)) as found:
        return any(found)


def _has_colour(settings: ReadSettings, path: Path) -> bool:
    probe = replace(settings, at_least=_PROBE_SIDE)
    try:
        with limited():
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
        with limited():
            outcomes = [
                _placed(plan, job, frame)
                for frame in read_frames(job.path, job.frames, plan.read, shrink=_shrink(plan))
            ]
    except Undecodable as error:
        return (Refused(str(error)),)
    reasons = {outcome.reason if isinstance(outcome, Refused) else None for outcome in outcomes}
    if len(reasons) == 1 and None not in reasons:
        return (Refused(str(reasons.pop())),)
    return tuple(outcomes)


def _shrink(plan: Plan) -> Shrink | None:
    if plan.treatment.field_of_view != "none":
        return None  # It is cut out first.
    return partial(shrink_picture, canvas=plan.canvas, how=plan.treatment.fit)


def _placed(plan: Plan, job: Job, frame: Frame) -> Outcome:
    """Brings one scan to the canvas."""
    number = frame.number if job.of > 1 else None
    scan = frame.scan
    if isinstance(scan, Undecodable):
        return Refused(str(scan), number)
    try:
        placed = place(scan, plan.canvas, plan.channels, plan.treatment)
    except Undecodable as error:
        return Refused(str(error), number)
    if placed.pixels.dtype.itemsize > plan.dtype.itemsize:
        return Refused("has more bits than its header said; it changed while it was packed", number)
    pixels = placed.pixels.astype(plan.dtype, copy=False)
    where = (placed.valid_box, placed.value_range, placed.spacing_mm)
    return Prepared(
        pixels,
        placed.valid_box,
        placed.spacing_mm,
        placed.value_range,
        (*frame.notes, *placed.notes),
        number,
        frame.patient,
        frame.series,
        frame.issuer,
        placed.mask,
        tally_scan(pixels, *where, placed.mask if plan.treatment.has_mask else None),
    )
