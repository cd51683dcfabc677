"""A volume becomes slices, all of them with one value range."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scanlearn.readers.scan import Frame, ReadSettings, Scan
from scanlearn.readers.values import (
    darkened,
    foreground_from,
    foreground_range,
    from_zero,
    percentile_range,
)


@dataclass(frozen=True)
class Volume:
    """A volume that is ready to be sliced: pixels of three axes, and what all slices share."""

    scan: Scan
    foreground_from: float
    notes: tuple[str, ...]

    def slices(
        self,
        frames: range,
        settings: ReadSettings,
        *,
        as_stack: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]] = lambda pixels: pixels,
        first: int = 0,
    ) -> Iterator[Frame]:
        """Yields slices; with ``neighbours`` those before and after one are channels too.

        Nearly empty slices are left out. The first and the last slice stand in for neighbours that
        are missing.

        Args:
            frames: Which slices of the file, from 0.
            as_stack: Returns a view of the pixels as ``[n h w]``, one row a slice.
            first: Number in the file of the volume's first slice, from 0.
        """
        stack = as_stack(self.scan.pixels)
        of_padding = None if self.scan.padding is None else as_stack(self.scan.padding)
        reach = (-1, 0, 1) if settings.neighbours else (0,)
        for index in range(max(frames.start, first), min(frames.stop, first + len(stack))):
            near = np.clip([index - first + step for step in reach], 0, len(stack) - 1)
            # `take` would copy the whole volume for every slice of it.
            pixels = np.ascontiguousarray(stack[near])
            is_foreground = pixels[len(reach) // 2] > self.foreground_from
            if is_foreground.mean() >= settings.empty_below:
                padding = None if of_padding is None else np.ascontiguousarray(of_padding[near])
                scan = replace(self.scan, pixels=pixels, padding=padding)
                yield Frame(index + 1, scan, self.notes)


def as_volume(scan: Scan, notes: tuple[str, ...], settings: ReadSettings) -> Volume:
    """Returns a volume whose 0 and 1 are its .5 and 99.5 percentiles, or those of its foreground.

    Foreground is what lies more than a twentieth of the range above its lower end. Padding counts
    for neither, and is dark.

    Args:
        scan: Pixels of three axes in any order, and the spacing of a slice.
    """
    scan = darkened(scan)
    padding = scan.padding
    in_foreground = settings.shows == "foreground"
    if in_foreground:
        scan, more = from_zero(scan)
        notes = (*notes, *more)
    low, high = percentile_range(scan.pixels, padding)
    limits = foreground_range(scan.pixels, padding) if in_foreground else (low, high)
    return Volume(replace(scan, value_range=limits), foreground_from(low, high), notes)
