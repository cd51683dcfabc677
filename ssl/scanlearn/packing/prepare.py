"""From rows of a manifest to packed scans: the plan, its pieces of work, and what a worker does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

from scanlearn.archive.identity import names_nobody
from scanlearn.archive.layout import PackedScan
from scanlearn.packing.canvas import Preprocess, place, shrink_picture
from scanlearn.packing.headers import HeaderScan
from scanlearn.packing.parallel import ordered_map
from scanlearn.readers.limits import limited
from scanlearn.readers.readers import read_frames
from scanlearn.readers.scan import Frame, ReadSettings, Undecodable
from scanlearn.tables.manifest import Manifest, ManifestRow

_MAX_ITEM_BYTES = 4 * 2**20
_MOST_AT_ONCE = 64
# Colour files are often gray scans saved as RGB: a pixel whose channels differ by more than JPEG
# noise is coloured, and a scan with one in a thousand of them is too.
_COLOUR_SPREAD = 12 / 255
_COLOUR_SHARE = 0.001
_PROBE_SIDE = 256
# Cameras and detectors of 12 bits store 16, and are then shown at a sixteenth of their brightness.
DARK = "no value above a sixteenth of 16 bits"
NOT_DARK = "values above a sixteenth of 16 bits"
_SIXTEENTH = 2**12 - 1


@dataclass(frozen=True)
class PackPlan:
    """What every scan is brought to."""

    canvas: tuple[int, int]
    channels: Literal[1, 3]
    dtype: np.dtype[Any]
    preprocess: Preprocess = field(default_factory=Preprocess)
    read: ReadSettings = field(default_factory=ReadSettings)

    @property
    def scan_bytes(self) -> int:
        """Bytes of the pixels of a packed scan."""
        return self.channels * self.canvas[0] * self.canvas[1] * self.dtype.itemsize

    @property
    def frames_per_item(self) -> int:
        """Scans of a file that are one piece of work: at most 4 MiB of packed ones."""
        return max(1, _MAX_ITEM_BYTES // self.scan_bytes)

    @property
    def frames_per_chunk(self) -> int:
        """Scans that a process is given at a time: 64, at most 4 MiB of packed ones."""
        return min(_MOST_AT_ONCE, self.frames_per_item)

    @property
    def bytes_per_chunk(self) -> int:
        """Memory that the largest piece of work takes when it is done."""
        mask_bytes = self.canvas[0] * self.canvas[1] if self.preprocess.has_mask else 0
        # Arrays begin at multiples of 64 bytes.
        return self.frames_per_item * (self.scan_bytes + mask_bytes + 2 * 64)


@dataclass(frozen=True)
class WorkItem:
    """Some frames of one file, counted from 0, and how many it has."""

    path: Path
    frames: range = range(1)
    of: int = 1


@dataclass(frozen=True)
class Prepared:
    """A scan ready to be written.

    Args:
        page: Number of the scan in its file, from 1; None where the file holds one.
        issuer: Who gave the patient that number, where the file says so.
        examined: Modality and body part of a DICOM file, such as "CR CHEST".
    """

    scan: PackedScan
    notes: tuple[str, ...] = ()
    page: int | None = None
    patient: str | None = None
    series: str | None = None
    issuer: str | None = None
    identifiers: tuple[tuple[str, str], ...] = ()
    examined: str = ""


@dataclass(frozen=True)
class Refused:
    """A file, or one page of it, set aside."""

    reason: str
    page: int | None = None


Outcome = Prepared | Refused


def make_plan(
    headers: HeaderScan,
    *,
    canvas: tuple[int, int],
    channels: Literal[1, 3, "auto"],
    preprocess: Preprocess | None = None,
    settings: ReadSettings | None = None,
    workers: int = 1,
) -> PackPlan:
    """Returns what scans are brought to; dtype and "auto" channels come from all file headers.

    Args:
        channels: 1, 3, or "auto": 3 where a sample of the files that store colour shows some, and
            where windows or neighbouring slices fill them.
    """
    settings, preprocess = settings or ReadSettings(), preprocess or Preprocess()
    if len(preprocess.windows) > 1 or settings.neighbours:
        channels = 3
    elif channels == "auto":
        is_gray = bool(preprocess.windows) or not any_has_colour(headers, settings, workers)
        channels = 1 if is_gray else 3
    shrink = None  # A field of view is cut out first.
    if not preprocess.has_mask:
        shrink = partial(shrink_picture, canvas=canvas, how=preprocess.fit)
    read = replace(settings, at_least=max(canvas), gray=channels == 1, shrink=shrink)
    return PackPlan(canvas, channels, preprocess.dtype(headers.is_deep), preprocess, read)


def any_has_colour(headers: HeaderScan, settings: ReadSettings, workers: int) -> bool:
    """Returns whether a sample of the files that store colour shows some."""
    paths, probe = headers.colour, partial(_has_colour, settings)
    if workers == 1 or not paths:
        return any(map(probe, paths))
    with closing(ordered_map(probe, paths, workers=workers, crashed=False)) as answers:
        return any(answers)


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


def pieces(headers: HeaderScan, plan: PackPlan) -> Iterator[tuple[int, range, int]]:
    """Yields row, frames and all frames of its file for each piece of work, in order."""
    size = plan.frames_per_item
    for row, num_frames in enumerate(headers.num_frames):
        for start in range(0, num_frames, size):
            yield row, range(start, min(start + size, num_frames)), num_frames


def work_items(
    manifest: Manifest, headers: HeaderScan, plan: PackPlan, rows: range | None = None
) -> Iterator[tuple[WorkItem | Refused, ManifestRow]]:
    """Yields each piece of work of some rows, or of all, with the manifest's row it belongs to."""
    is_repeated = _is_repeated(manifest)
    by_row = groupby(pieces(headers, plan), key=lambda piece: piece[0])
    for number, (row, (_, of_row)) in enumerate(zip(manifest.rows(), by_row, strict=True)):
        if rows is not None and number not in rows:
            continue
        path, patient, _ = row
        reason = None
        if path is None:
            reason = "the table gives no path"
        elif path in manifest.refused:
            reason = manifest.refused[path]
        elif patient is None:
            reason = "the table gives no patient"
        elif manifest.patients_known and names_nobody(patient):
            reason = f"the table gives no patient (it says {patient.strip()!r})"
        elif is_repeated[number]:
            reason = "an earlier row of the table has the same path"
        if reason is not None:
            yield Refused(reason), row
            continue
        for _, frames, num_frames in of_row:
            yield WorkItem(manifest.root / str(path), frames, num_frames), row


def _is_repeated(manifest: Manifest) -> Bool[np.ndarray, " n"]:
    """Returns of each row whether an earlier one has the same path, ``[n]``.

    Arrow numbers paths as they first appear; a set of a million of them would take 200 MB.
    """
    paths = manifest.table.column("path").combine_chunks()
    numbers = paths.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
    seen_before = np.maximum.accumulate(numbers)
    repeated: Bool[np.ndarray, " n"] = np.append(False, numbers[1:] <= seen_before[:-1])
    return repeated


def num_scans(item: WorkItem | Refused) -> int:
    """Returns how many scans a piece of work may give."""
    return len(item.frames) if isinstance(item, WorkItem) else 1


def scan_name(file: str, page: int | None) -> str:
    """Returns a file's name, and for one of several scans of it the number, as ``3fa9...#3``."""
    return file if page is None else f"{file}#{page}"


def prepare(plan: PackPlan, item: WorkItem | Refused) -> tuple[Outcome, ...]:
    """Decodes some frames of a file and brings them to the canvas; runs in a worker process.

    Returns:
        What becomes of each frame; fewer than asked for where slices are empty, and a single
        refusal where none can be read.
    """
    if isinstance(item, Refused):
        return (item,)
    try:
        with limited():
            outcomes = [
                _packed(plan, item, frame)
                for frame in read_frames(item.path, item.frames, plan.read)
            ]
    except Undecodable as error:
        return (Refused(str(error)),)
    reasons = {outcome.reason if isinstance(outcome, Refused) else None for outcome in outcomes}
    if len(reasons) == 1 and None not in reasons:
        return (Refused(str(reasons.pop())),)
    return tuple(outcomes)


def _packed(plan: PackPlan, item: WorkItem, frame: Frame) -> Outcome:
    """Brings one scan to the canvas."""
    page = frame.number if item.of > 1 else None
    if isinstance(frame.scan, Undecodable):
        return Refused(str(frame.scan), page)
    try:
        scan, notes = place(frame.scan, plan.canvas, plan.channels, plan.preprocess)
    except Undecodable as error:
        return Refused(str(error), page)
    if scan.pixels.dtype.itemsize > plan.dtype.itemsize:
        return Refused("has more bits than its header said; it changed while it was packed", page)
    scan = replace(scan, pixels=scan.pixels.astype(plan.dtype, copy=False))
    _ = scan.sums  # Made here, in one of many processes; they travel with the scan.
    notes = (*frame.notes, *notes)
    is_deep = frame.scan.pixels.dtype.itemsize == 2
    if is_deep and frame.scan.value_range is None and plan.preprocess.shows_full_range:
        notes = (*notes, DARK if frame.scan.pixels.max() <= _SIXTEENTH else NOT_DARK)
    identity = (frame.patient, frame.series, frame.issuer, frame.identifiers)
    return Prepared(scan, notes, page, *identity, frame.examined)
