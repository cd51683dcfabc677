"""What is done to one file on its way into an archive; runs in worker processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

from scanlearn.archive.layout import ScanTally, tally_scan
from scanlearn.packing.canvas import Treatment, place, shrink_picture
from scanlearn.packing.headers import Survey
from scanlearn.packing.manifest import Manifest
from scanlearn.packing.parallel import ordered_map
from scanlearn.readers.limits import limited
from scanlearn.readers.readers import read_frames
from scanlearn.readers.scan import Frame, Pixels, ReadSettings, Shrink, Undecodable
from scanlearn.readers.values import Box

# From rows of a manifest to pieces of work: a file may give several scans.


_MAX_CHUNK_BYTES = 4 * 2**20


_MOST_AT_ONCE = 64


# Path, patient and labels.
ManifestRow = tuple[str | None, str | None, dict[str, str | None]]


def pieces(found: Survey, plan: Plan) -> Iterator[tuple[int, range, int]]:
    """Yields row, frames and all frames of its file for each piece of work, in order."""
    size = _frames_per_job(plan)
    for row, num_frames in enumerate(found.num_frames):
        for start in range(0, num_frames, size):
            yield row, range(start, min(start + size, num_frames)), num_frames


def tasks(
    manifest: Manifest, found: Survey, plan: Plan
) -> Iterator[tuple[Job | Refused, ManifestRow]]:
    """Yields each piece of work with the row of the manifest that it belongs to."""
    is_repeated = _is_repeated(manifest)
    by_row = groupby(pieces(found, plan), key=lambda piece: piece[0])
    for number, (row, (_, of_row)) in enumerate(zip(manifest.rows(), by_row, strict=True)):
        path, patient, _ = row
        refused = None
        if path is None:
            refused = Refused("the table gives no path")
        elif path in manifest.refused:
            refused = Refused(manifest.refused[path])
        elif patient is None:
            refused = Refused("the table gives no patient")
        elif is_repeated[number]:
            refused = Refused("an earlier row of the table has the same path")
        if refused is not None:
            yield refused, row
            continue
        for _, frames, num_frames in of_row:
            yield Job(manifest.root / str(path), frames, num_frames), row


def _is_repeated(manifest: Manifest) -> Bool[np.ndarray, " n"]:
    """Returns of each row whether an earlier one has the same path, ``[n]``.

    Arrow numbers paths as they first appear; a set of a million of them would take 200 MB.
    """
    paths = manifest.table.column("path").combine_chunks()
    numbers = paths.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
    seen_before = np.maximum.accumulate(numbers)
    repeated: Bool[np.ndarray, " n"] = np.append(False, numbers[1:] <= seen_before[:-1])
    return repeated


def _scan_bytes(plan: Plan) -> int:
    return plan.channels * plan.canvas[0] * plan.canvas[1] * plan.dtype.itemsize


def scan_id(file: str, frame: int | None) -> str:
    """Returns a file's name, and for one of several scans of it the number, as ``3fa9...#3``."""
    return file if frame is None else f"{file}#{frame}"


def frames_per_chunk(plan: Plan) -> int:
    """Returns how many scans a process is given at a time: 64, at most 4 MiB of packed ones."""
    return min(_MOST_AT_ONCE, _frames_per_job(plan))


def bytes_per_chunk(plan: Plan) -> int:
    """Returns what memory the largest piece of work takes when it is done."""
    mask_bytes = plan.canvas[0] * plan.canvas[1] if plan.treatment.has_mask else 0
    # Arrays begin at multiples of 64 bytes.
    return _frames_per_job(plan) * (_scan_bytes(plan) + mask_bytes + 2 * 64)


def num_scans(job: Job | Refused) -> int:
    """Returns how many scans a piece of work may give."""
    return len(job.frames) if isinstance(job, Job) else 1


def _frames_per_job(plan: Plan) -> int:
    return max(1, _MAX_CHUNK_BYTES // _scan_bytes(plan))


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
    read = replace(
        settings, at_least=max(canvas), gray=channels == 1, shrink=_shrink(canvas, treatment)
    )
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
                _placed(plan, job, frame) for frame in read_frames(job.path, job.frames, plan.read)
            ]
    except Undecodable as error:
        return (Refused(str(error)),)
    reasons = {outcome.reason if isinstance(outcome, Refused) else None for outcome in outcomes}
    if len(reasons) == 1 and None not in reasons:
        return (Refused(str(reasons.pop())),)
    return tuple(outcomes)


def _shrink(canvas: tuple[int, int], treatment: Treatment) -> Shrink | None:
    if treatment.field_of_view != "none":
        return None  # It is cut out first.
    return partial(shrink_picture, canvas=canvas, how=treatment.fit)


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
