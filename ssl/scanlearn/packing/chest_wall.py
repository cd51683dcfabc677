"""Mammograms: at which side the chest wall is, and all of them brought to one side."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from scanlearn.readers.scan import Scan
from scanlearn.readers.values import foreground_from, percentile_range

Side = Literal["left", "right"]

MIRRORED = "mirrored, so that the chest wall is at the side asked for"
_BY_PIXELS = "the tissue lies at the other side than the laterality says; the tissue counts"
_UNKNOWN = "no laterality and as much tissue in both halves: left as stored"
# A half with so many times the tissue of the other holds the chest wall, whatever a tag says.
_CLEARLY = 1.5


def with_wall_at(side: Side, scan: Scan) -> tuple[Scan, tuple[str, ...]]:
    """Returns a mammogram whose chest wall is at a side of the picture, and what was done or odd.

    A left breast has its chest wall at the left, by the convention of DICOM and of the files that
    are published. Where one half clearly holds more tissue that one counts all the same: a set
    that was made to face one way still names its right breasts right.
    """
    by_tag: Side | None = {"L": "left", "R": "right"}.get(scan.laterality or "")  # type: ignore[assignment]
    left, right = _tissue(scan)
    seen: Side | None = None if left == right else "left" if left > right else "right"
    is_clear = max(left, right) > _CLEARLY * min(left, right)
    wall = seen if is_clear or by_tag is None else by_tag
    notes: tuple[str, ...] = ()
    if wall is None:
        notes = (_UNKNOWN,)
    elif by_tag is not None and wall != by_tag:
        notes = (_BY_PIXELS,)
    if wall in (None, side):
        return scan, notes
    padding = None if scan.padding is None else scan.padding[..., ::-1]
    pixels = np.ascontiguousarray(scan.pixels[..., ::-1])
    return replace(scan, pixels=pixels, padding=padding), (MIRRORED, *notes)


def _tissue(scan: Scan) -> tuple[int, int]:
    """Returns how many pixels of the left and of the right half are brighter than air."""
    is_tissue = scan.pixels > foreground_from(*percentile_range(scan.pixels, scan.padding))
    if scan.padding is not None:
        is_tissue &= ~scan.padding
    half = scan.pixels.shape[-1] // 2
    left, right = is_tissue[..., :half], is_tissue[..., -half:] if half else is_tissue[..., :0]
    return int(np.count_nonzero(left)), int(np.count_nonzero(right))
