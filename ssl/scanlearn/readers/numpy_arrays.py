"""NumPy's .npy files: a picture, a stack of pictures or a volume."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.readers.medmnist import read_array_header
from scanlearn.readers.nifti import MAX_VOLUME_BYTES
from scanlearn.readers.scan import (
    MAX_FRAMES,
    MAX_PIXELS,
    Frame,
    Header,
    Reader,
    ReadSettings,
    Scan,
    Undecodable,
    Units,
    open_regular,
    refusing,
)
from scanlearn.readers.values import (
    padding_in,
    percentile_range,
    stored_depth,
    within_hounsfield,
)
from scanlearn.readers.volumes import as_volume


def _header(path: Path, _settings: ReadSettings, _start: bytes) -> Header:
    with refusing(path):
        stack, _ = _open(path)
        num_frames, num_channels, *size = stack.shape
        bits = 8 * stack.dtype.itemsize
        return Header(num_channels == 3, bits > 8, num_frames, size=(size[0], size[1]), bits=bits)


def _frames(path: Path, frames: range, settings: ReadSettings) -> Iterator[Frame]:
    """Yields pictures, or the slices of a volume along its first axis.

    8-bit pictures and colour are shown from 0 to the end of their dtype, other pictures between
    their .5 and 99.5 percentiles, and volumes as those of NIfTI are.
    """
    with refusing(path):
        stack, is_volume = _open(path)
        if settings.neighbours and not is_volume:
            raise Undecodable("is not a volume ([n h w]), but neighbours=true needs one")
        volume = as_volume(*_stored(stack[:, 0], settings), settings) if is_volume else None
    if volume is not None:
        yield from volume.slices(frames, settings)
        return
    for index in frames:
        with refusing(path):
            scan, notes = _stored(stack[index], settings)
            if len(scan.pixels) == 3 or stack.dtype == np.uint8:
                scan = Scan(scan.pixels)
            elif settings.shows == "file":
                limits = percentile_range(scan.pixels, scan.padding)
                scan = replace(scan, value_range=limits)
        yield Frame(index + 1, scan, notes)


def _open(path: Path) -> tuple[np.ndarray[Any, Any], bool]:
    """Returns an array as ``[n c h w]`` on disk, and whether it is a volume of n slices."""
    with open_regular(path) as file:
        shape, _, dtype = read_array_header(file, path.stat().st_size)
    is_volume = len(shape) == 3 and shape[0] not in (1, 3) and shape[2] > 4
    # Channels come first or last; where both may be meant, nobody can tell.
    is_last = len(shape) > 2 and shape[-1] in (1, 3)
    is_picture = len(shape) == 2 or (len(shape) in (3, 4) and (shape[-3] in (1, 3)) != is_last)
    if 0 in shape or not (is_volume or is_picture):
        raise Undecodable(
            f"has shape {shape}; save pictures as [h w], [h w 3] or [3 h w], stacks of them as"
            " [n h w 1], [n h w 3], [n 1 h w] or [n 3 h w], and volumes as [n h w]"
        )
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    stack = array[:, None] if is_volume else array[(None,) * (4 - len(shape))]
    stack = np.moveaxis(stack, -1, 1) if is_last else stack
    is_large = stack[0, 0].size > MAX_PIXELS or len(stack) > MAX_FRAMES
    if is_large or (is_volume and stack.nbytes > MAX_VOLUME_BYTES):
        raise Undecodable(f"claims shape {shape} of {dtype}, more than any scan has")
    if dtype.kind not in "iuf" or (stack.shape[1] == 3 and dtype.str[1:] not in ("u1", "u2")):
        raise Undecodable(f"holds {dtype}; save gray as numbers, colour as uint8 or uint16")
    return stack, is_volume


def _stored(values: np.ndarray[Any, Any], settings: ReadSettings) -> tuple[Scan, tuple[str, ...]]:
    """Returns pixels of the same shape with what they measure, and what was changed, in words."""
    if not np.isfinite(values).all():
        raise Undecodable("holds NaN or infinite values; replace them before saving")
    padding = padding_in(values)
    bounds = within_hounsfield() if settings.shows == "nothing" else None
    stored = stored_depth(values, padding, bounds)
    units = Units(1 / stored.scale, -stored.offset / stored.scale)
    return Scan(stored.pixels, units=units, padding=padding), stored.notes


READER = Reader(
    kind="NumPy array",
    suffixes=(".npy",),
    has_volumes=True,
    matches=lambda start: start.startswith(b"\x93NUMPY"),
    header=_header,
    frames=_frames,
)
