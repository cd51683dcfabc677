"""NIfTI and MGH volumes to scans: slices along an axis, shown as DICOM viewers show them."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.readers.scan import (
    MAX_FRAMES,
    MAX_PIXELS,
    Frame,
    Header,
    Plane,
    Reader,
    ReadSettings,
    Scan,
    Undecodable,
    Units,
    open_regular,
    refusing,
)
from scanlearn.readers.values import inverted, padding_in, stored_depth, within_hounsfield
from scanlearn.readers.volumes import as_volume

MAX_VOXELS = 2**30
_AXES: tuple[Plane, ...] = ("sagittal", "coronal", "axial")
_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".mgh", ".mgz")
_NIFTI_1_SIZE, _NIFTI_2_BYTES = b"\x5c\x01\x00\x00", 540
_NIFTI_2_SIZES = (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")
# A volume is read whole: a few megabytes of gzip may claim many gigabytes.
MAX_VOLUME_BYTES = 2**30
# Notes before the voxels are read whole too: the longest that programs write are a few megabytes.
_MAX_EXTENSION_BYTES = 2**26
# Millimetres of the units that a header may name; most name none and mean millimetres.
_UNIT_MM = {"meter": 1000.0, "micron": 0.001}


@dataclass(frozen=True)
class _Volumes:
    """An opened file: its voxels as stored, and how they lie.

    Args:
        voxels: Proxy that reads ``[x y z t]`` from disk when it is indexed.
        order: Voxel axis that runs along each of left-right, back-front, foot-head.
        flips: Whether that axis runs the other way.
    """

    voxels: Any
    slope: float
    intercept: float
    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    spacing_mm: tuple[float, float, float]

    def num_slices(self, axis: int) -> int:
        """Slices of one volume."""
        return int(self.voxels.shape[self.order[axis]])


def _matches(start: bytes) -> bool:
    is_nifti_1 = start[344:348] in (b"n+1\0", b"ni1\0")
    return is_nifti_1 or (start[:4] in _NIFTI_2_SIZES and start[4:8] in (b"n+2\0", b"ni2\0"))


def _header(path: Path, settings: ReadSettings, _start: bytes) -> Header:
    with refusing(path):
        volumes = _open(path)
        along, down, across = _directions(settings.axis)
        num_volumes = int(np.prod(volumes.voxels.shape[3:]))  # 1 unless it is 4-D.
        num_frames = num_volumes * volumes.num_slices(along)
        if num_frames > MAX_FRAMES:
            raise Undecodable(f"claims {num_frames:,} slices, more than {MAX_FRAMES:,}")
        num_bytes = int(volumes.voxels.dtype.itemsize)
        return Header(
            is_colour=False,
            is_deep=num_bytes > 1,
            num_frames=num_frames,
            size=(volumes.num_slices(down), volumes.num_slices(across)),
            bits=8 * num_bytes,
        )


def _frames(path: Path, frames: range, settings: ReadSettings) -> Iterator[Frame]:
    """Yields slices of a volume, of a 4-D file volume after volume.

    Voxels are turned to the nearest anatomical axes, whatever order they are stored in. Axial
    slices run from foot to head and have the front at the top and the patient's right at the
    left; coronal and sagittal ones have the head at the top.
    """
    with refusing(path):
        volumes = _open(path)
    along, down, across = _directions(settings.axis)
    num_slices = volumes.num_slices(along)
    spacing = (volumes.spacing_mm[down], volumes.spacing_mm[across])
    usable = spacing if all(np.isfinite(mm) and mm > 0 for mm in spacing) else None
    for number in range(frames.start // num_slices, -(-frames.stop // num_slices)):
        with refusing(path):
            scan, notes = _volume(volumes, number, in_hounsfield=settings.shows == "nothing")
            volume = as_volume(replace(scan, spacing_mm=usable), notes, settings)
        yield from volume.slices(
            frames,
            settings,
            as_stack=lambda pixels: np.moveaxis(pixels, along, 0)[:, ::-1, ::-1].mT,
            first=number * num_slices,
        )


def _directions(axis: Plane) -> tuple[int, int, int]:
    """Returns which axis of a volume a slice is perpendicular to, and which run down and across."""
    along = _AXES.index(axis)
    down, across = (place for place in (2, 1, 0) if place != along)
    return along, down, across


def _open(path: Path) -> _Volumes:
    import nibabel
    from nibabel import arrayproxy
    from nibabel.spatialimages import HeaderDataError, ImageDataError, SpatialImage

    proxy: Any = arrayproxy.ArrayProxy

    try:
        image: Any = _load(path)
    except (nibabel.filebasedimages.ImageFileError, HeaderDataError, ImageDataError) as error:
        reason = str(error).replace(str(path), path.name).splitlines()[0][:200]
        raise Undecodable(f"is not a readable volume ({reason})") from error
    if not isinstance(image, SpatialImage) or len(image.shape) < 3:
        raise Undecodable(f"holds a {type(image).__name__} of shape {image.shape}, no 3-D volume")
    stored: Any = image.dataobj
    shape = tuple(int(size) for size in stored.shape)
    if min(shape) < 1 or int(np.prod(shape[:3], dtype=object)) > MAX_VOXELS:
        raise Undecodable(f"claims {shape} voxels (allowed: 1 to {MAX_VOXELS:,} in a volume)")
    if int(np.prod(shape[:3])) * stored.dtype.itemsize > MAX_VOLUME_BYTES:
        raise Undecodable(f"claims {shape} voxels of {stored.dtype}, more than 1 GiB in a volume")
    if max(shape[0] * shape[1], shape[1] * shape[2], shape[0] * shape[2]) > MAX_PIXELS:
        raise Undecodable(f"claims {shape} voxels, slices of more than {MAX_PIXELS:,} pixels")
    if stored.dtype.kind not in "iuf":
        raise Undecodable(f"holds voxels of type {stored.dtype}, which are not grayscale")
    slope = 1.0 if stored.slope is None else float(stored.slope)
    if slope == 0 or not np.isfinite(slope):
        raise Undecodable(f"has a scale slope of {slope}")
    # Without slope and intercept, which do not change what is brighter but would make all floats.
    voxels = proxy(stored.file_like, (shape, stored.dtype, stored.offset))
    intercept = 0.0 if stored.inter is None else float(stored.inter)
    return _Volumes(voxels, slope, intercept, *_orientation(image))


def _load(path: Path) -> Any:
    import nibabel

    _check_start(path)
    for other in second_files(path):
        try:
            open_regular(other).close()
        except Undecodable as error:
            raise Undecodable(f"has a {other.suffix} file beside it that {error}") from error
    if path.name.lower().endswith(_SUFFIXES):
        return nibabel.load(path)
    with open_regular(path) as file:
        is_nifti_2 = file.read(4) in _NIFTI_2_SIZES
    kind: Any = nibabel.Nifti2Image if is_nifti_2 else nibabel.Nifti1Image
    holder = nibabel.FileHolder(filename=str(path))
    return kind.from_file_map({"header": holder, "image": holder})


def second_files(path: Path) -> tuple[Path, ...]:
    """Returns the files that are opened with one: the voxels and the affine beside a header."""
    if path.suffix.lower() != ".hdr":
        return ()
    names = (ending for name in (".img", ".mat") for ending in (name, name.upper()))
    others = (path.with_suffix(ending) for ending in names)
    return tuple(other for other in others if os.path.lexists(other))


def _check_start(path: Path) -> None:
    """Refuses notes that would fill the memory, which nibabel reads before it knows the voxels.

    Source: NIfTI-1 header, ``vox_offset`` at byte 108; NIfTI-2, at byte 168.
    """
    with open_regular(path) as file:
        is_packed = file.peek(2)[:2] == b"\x1f\x8b"
        stream: Any = gzip.GzipFile(fileobj=file) if is_packed else file
        try:
            start = stream.read(_NIFTI_2_BYTES)
        except (OSError, EOFError, zlib.error):
            return  # Its reader says why.
        num_bytes = os.fstat(file.fileno()).st_size
    if path.suffix.lower() == ".hdr":
        offset = float(num_bytes)  # Its notes go to its end.
    elif start[:4] in _NIFTI_2_SIZES and len(start) == _NIFTI_2_BYTES:
        order = "<" if start[:4] == _NIFTI_2_SIZES[0] else ">"
        (offset,) = struct.unpack_from(f"{order}q", start, 168)
    elif start[344:347] == b"n+1":
        order = "<" if start[:4] == _NIFTI_1_SIZE else ">"
        (offset,) = struct.unpack_from(f"{order}f", start, 108)
    else:
        return
    if offset > _MAX_EXTENSION_BYTES:
        raise Undecodable(
            f"claims {offset:,.0f} bytes before its voxels, more than {_MAX_EXTENSION_BYTES:,}"
        )


def _orientation(
    image: Any,
) -> tuple[tuple[int, int, int], tuple[bool, bool, bool], tuple[float, float, float]]:
    from nibabel import orientations

    io_orientation: Any = orientations.io_orientation
    orientation = io_orientation(image.affine)
    if not np.isfinite(orientation).all():
        raise Undecodable("does not say how its axes are oriented")
    units = getattr(image.header, "get_xyzt_units", None)
    factor = _UNIT_MM.get(units()[0], 1.0) if units else 1.0
    zooms = [float(zoom) * factor for zoom in image.header.get_zooms()[:3]]
    order = [int(np.flatnonzero(orientation[:, 0] == place)[0]) for place in range(3)]
    flips = [bool(orientation[voxel_axis, 1] < 0) for voxel_axis in order]
    x, y, z = order
    return (x, y, z), (flips[0], flips[1], flips[2]), (zooms[x], zooms[y], zooms[z])


def _volume(volumes: _Volumes, number: int, *, in_hounsfield: bool) -> tuple[Scan, tuple[str, ...]]:
    """Returns ``[x y z]`` towards right, front and head, and what of it was changed, in words."""
    later = np.unravel_index(number, volumes.voxels.shape[3:], order="F")
    voxels = np.asarray(volumes.voxels[(..., *(int(place) for place in later))])
    turned = voxels.transpose(volumes.order)
    turned = turned[tuple(slice(None, None, -1 if flip else 1) for flip in volumes.flips)]
    padding = padding_in(turned)
    bounds = within_hounsfield(volumes.slope, volumes.intercept) if in_hounsfield else None
    stored = stored_depth(turned, padding, bounds)
    slope = volumes.slope / stored.scale
    units = Units(slope, volumes.intercept - slope * stored.offset)
    scan = Scan(stored.pixels, units=units, padding=padding)
    return (inverted(scan) if slope < 0 else scan), stored.notes


READER = Reader(
    kind="NIfTI",
    suffixes=_SUFFIXES,
    reads_suffix=True,
    has_volumes=True,
    matches=_matches,
    header=_header,
    frames=_frames,
    libraries=("nibabel",),
)
