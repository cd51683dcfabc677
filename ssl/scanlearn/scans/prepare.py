"""What is done to one scan on its way into an archive; runs in worker processes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scanlearn.scans.decode import Undecodable, decode, decode_with_notes, read_header
from scanlearn.scans.intensity import Box, fit_to_canvas, value_range
from scanlearn.scans.shards import Pixels

# Colour files are often gray scans saved as RGB. Some are decoded to see; a pixel whose channels
# differ by more than JPEG noise is coloured, and a scan with one in a thousand of them is too.
_COLOUR_PROBES = 32
_COLOUR_SPREAD = 12
_COLOUR_SHARE = 0.001
_PROBE_SIDE = 256


@dataclass(frozen=True)
class Plan:
    """What every scan is brought to."""

    canvas: tuple[int, int]
    channels: Literal[1, 3]
    dtype: np.dtype[Any]
    intensity: Literal["full", "percentile"]


@dataclass(frozen=True)
class Prepared:
    """A scan ready to be written."""

    pixels: Pixels
    valid_box: Box
    spacing_mm: tuple[float, float] | None
    value_range: tuple[float, float]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Refused:
    """A scan set aside."""

    reason: str


def make_plan(
    paths: Iterable[Path],
    *,
    canvas: tuple[int, int],
    channels: Literal[1, 3, "auto"],
    intensity: Literal["full", "percentile"],
) -> Plan:
    """Returns what scans are brought to; dtype and "auto" channels come from all file headers.

    Args:
        paths: The files.
        canvas: Rows and columns.
        channels: 1, 3, or "auto": 3 where a sample of the files that store colour shows some.
        intensity: "full" or "percentile".
    """
    colour: list[Path] = []
    is_deep = False
    for path in paths:
        try:
            header = read_header(path)
        except Undecodable:
            continue  # It will be set aside, with the reason, when it is decoded.
        is_deep = is_deep or header.is_deep
        if header.is_colour:
            colour.append(path)
    if channels == "auto":
        step = max(1, len(colour) // _COLOUR_PROBES)
        channels = 3 if any(_has_colour(path) for path in colour[::step]) else 1
    return Plan(canvas, channels, np.dtype(np.uint16 if is_deep else np.uint8), intensity)


def _has_colour(path: Path) -> bool:
    try:
        pixels = decode(path, at_least=_PROBE_SIDE).pixels
    except Undecodable:
        return False
    spread = pixels.max(axis=0) - pixels.min(axis=0)
    return bool((spread > _COLOUR_SPREAD).mean() > _COLOUR_SHARE)


def prepare(plan: Plan, job: Path | Refused) -> Prepared | Refused:
    """Decodes one scan and brings it to the canvas; runs in a worker process."""
    if isinstance(job, Refused):
        return job
    try:
        scan, notes = decode_with_notes(job, at_least=max(plan.canvas), gray=plan.channels == 1)
    except Undecodable as error:
        return Refused(str(error))
    if scan.pixels.dtype.itemsize > plan.dtype.itemsize:
        return Refused("has more bits than its header said; it changed while it was packed")
    pixels, box, spacing_mm = fit_to_canvas(scan, plan.canvas, plan.channels)
    # The range belongs to the scan's own depth: 8-bit scans among 16-bit ones keep 0 to 255.
    stored = value_range(pixels, plan.intensity, box)
    return Prepared(pixels.astype(plan.dtype, copy=False), box, spacing_mm, stored, notes)
