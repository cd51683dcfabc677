"""A volume becomes slices, all of them with one value range."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from scanlearn.readers.scan import Frame, ReadSettings, Scan
from scanlearn.readers.values import foreground_from, foreground_range, percentile_range


def slices(
    volume: Scan,
    frames: range,
    settings: ReadSettings,
    *,
    as_stack: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]] = lambda pixels: pixels,
    first: int = 0,
    notes: tuple[str, ...] = (),
) -> Iterator[Frame]:
    """Yields slices of a volume.

    They share the .5 and 99.5 percentiles of the volume, or those of its foreground. Nearly empty
    slices are left out: foreground is what lies more than a twentieth of the range above the
    lowest value of it. With ``neighbours`` a slice and those before and after it make three
    channels; the first and the last slice stand in for those that are missing.

    Args:
        volume: Pixels of three axes in any order, and the spacing of a slice.
        frames: Which slices of the file, from 0.
        as_stack: Returns a view of the pixels as ``[n h w]``, one row a slice.
        first: Number in the file of the volume's first slice, from 0.
        notes: What of the volume was changed, in words.
    """
    low, high = percentile_range(volume.pixels)
    in_foreground = settings.shows == "foreground"
    shown = foreground_range(volume.pixels) if in_foreground else (low, high)
    stack = as_stack(volume.pixels)
    reach = (-1, 0, 1) if settings.neighbours else (0,)
    for index in range(max(frames.start, first), min(frames.stop, first + len(stack))):
        near = np.clip([index - first + step for step in reach], 0, len(stack) - 1)
        # `take` would copy the whole volume for every slice of it.
        pixels = np.ascontiguousarray(stack[near])
        middle = pixels[len(reach) // 2]
        if (middle > foreground_from(low, high)).mean() >= settings.empty_below:
            yield Frame(index + 1, Scan(pixels, volume.spacing_mm, shown, volume.units), notes)
