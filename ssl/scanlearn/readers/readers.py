"""What kind a source file is, and one way to read all kinds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from scanlearn.readers import dicom as dicom
from scanlearn.readers import medmnist as medmnist
from scanlearn.readers import nifti as nifti
from scanlearn.readers import pictures as decode
from scanlearn.readers.containers import as_file, head, inside
from scanlearn.readers.nifti import NIFTI_SUFFIXES, Axis
from scanlearn.readers.pictures import IMAGE_SUFFIXES, Shrink
from scanlearn.readers.scan import Frame, Header, Undecodable

Kind = Literal["image", "dicom", "nifti"]
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
SCAN_SUFFIXES = (*IMAGE_SUFFIXES, *_DICOM_SUFFIXES, *NIFTI_SUFFIXES)
# What reads a kind of file loads them at the first one, which takes up to a second.
_LIBRARIES_OF_IMAGES = ("PIL.JpegImagePlugin", "PIL.PngImagePlugin", "PIL.BmpImagePlugin")
_LIBRARIES_OF_DICOM = ("pydicom.pixels.processing", "pydicom.pixels.decoders")
_HEAD_BYTES = 352
# All that comes before the pixels of most pictures.
_HEADER_BYTES = 4096
_NO_VOLUME = "is no NIfTI volume, whose neighbouring slices could fill the channels"
_NIFTI_2_SIZES = (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")
_IMAGE_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM")


@dataclass(frozen=True)
class ReadSettings:
    """What of a file is read.

    Args:
        axis: What slices of a volume are perpendicular to.
        empty_below: Slices of a volume with a smaller share of foreground are left out.
        at_least: Side of the canvas that scans will be fitted to; a large JPEG may be decoded
            smaller. None decodes every pixel.
        gray: Whether colour pictures become luma as they are decoded.
        tags: DICOM keywords that headers are asked for.
        shows: What means 0 and 1: "file" for what a file says, else the percentiles of a volume;
            "foreground" for the percentiles of a volume's foreground; "nothing" where it is known.
            But for "file", windows and tables of DICOM files are left alone.
        neighbours: Whether neighbouring slices of a volume become channels.
    """

    axis: Axis = "axial"
    empty_below: float = 0.0
    at_least: int | None = None
    gray: bool = False
    tags: tuple[str, ...] = ()
    shows: Literal["file", "foreground", "nothing"] = "file"
    neighbours: bool = False


def may_be_scan(name: str) -> bool:
    """Returns whether a file with such a name can be a scan: its ending is one, or it has none.

    The names of DICOM files often are numbers with dots; what follows the last is no ending.
    """
    lowered = name.lower()
    suffix = PurePosixPath(lowered).suffix
    is_bare = not suffix or suffix[1:].isdigit()
    return lowered.endswith(SCAN_SUFFIXES) or (is_bare and lowered != "dicomdir")


def libraries(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the modules that reading files with such names will load, by their endings."""
    endings = {PurePosixPath(name.lower()).suffix for name in names}
    found: tuple[str, ...] = _LIBRARIES_OF_IMAGES
    if any(not ending or ending in _DICOM_SUFFIXES or ending[1:].isdigit() for ending in endings):
        found = (*found, *_LIBRARIES_OF_DICOM)
    if any(ending in (*NIFTI_SUFFIXES, ".gz") for ending in endings):
        found = (*found, "nibabel")
    return found


def is_scan(path: Path) -> bool:
    """Returns whether a file may be a scan: by its ending, or by its content if it has none.

    What may not be read may be one, and is set aside with that reason.
    """
    if path.name.lower().endswith(SCAN_SUFFIXES):
        return True
    try:
        return may_be_scan(path.name) and _by_content(head(path, _HEAD_BYTES)) is not None
    except (OSError, Undecodable):
        return True


def kind_of(path: Path, name: str | None = None) -> Kind:
    """Returns what reads a file: its content decides, its ending only where that is silent.

    Args:
        path: The file.
        name: Name with the ending; None for the file's own.
    """
    return _kind(_start(path, _HEAD_BYTES), path.name if name is None else name)


def _start(path: Path, num_bytes: int) -> bytes:
    try:
        return head(path, num_bytes)
    except OSError:
        return b""


def _kind(start: bytes, name: str) -> Kind:
    found = _by_content(start)
    if found is not None:
        return found
    lowered = name.lower()
    if lowered.endswith(_DICOM_SUFFIXES):
        return "dicom"
    return "nifti" if lowered.endswith(NIFTI_SUFFIXES) else "image"


def read_header(path: Path, settings: ReadSettings) -> Header:
    """Returns what a file says of itself before its pixels are decoded.

    A path may lead into a zip, tar or npz file, here and in `read_frames`.

    Raises:
        Undecodable: It is no scan, or claims absurd sizes.
    """
    row = _npz_row(path)
    if row is not None:
        return medmnist.read_header(*row)
    with as_file(path, NIFTI_SUFFIXES) as file:
        start = _start(file, _HEADER_BYTES)
        kind = _kind(start, path.name)
        if kind == "dicom":
            return dicom.read_header(file, settings.tags)
        if kind == "nifti":
            return nifti.read_header(file, axis=settings.axis)
        return decode.read_header(file, start)


def read_frames(
    path: Path, frames: range, settings: ReadSettings, *, shrink: Shrink | None = None
) -> Iterator[Frame]:
    """Yields the scans that some frames of a file give.

    Args:
        path: The file.
        frames: Which frames, from 0; a picture has one.
        settings: What of the file is read.
        shrink: Makes an 8-bit picture smaller before it becomes an array.

    Raises:
        Undecodable: The file cannot be read; the message says why.
    """
    row = _npz_row(path)
    if row is not None and settings.neighbours:
        raise Undecodable(_NO_VOLUME)
    if row is not None:
        yield from medmnist.read_frames(*row, frames, empty_below=settings.empty_below)
        return
    with as_file(path, NIFTI_SUFFIXES) as file:
        kind = kind_of(file, path.name)
        if kind == "nifti":
            yield from nifti.read_frames(
                file,
                frames,
                axis=settings.axis,
                empty_below=settings.empty_below,
                foreground=settings.shows == "foreground",
                neighbours=settings.neighbours,
            )
        elif settings.neighbours:
            raise Undecodable(_NO_VOLUME)
        elif kind == "dicom":
            yield from dicom.read_frames(file, frames, windowed=settings.shows == "file")
        else:
            scan, notes = decode.decode_with_notes(
                file, at_least=settings.at_least, gray=settings.gray, shrink=shrink
            )
            yield Frame(1, scan, notes)


def _npz_row(path: Path) -> tuple[Path, str] | None:
    place = inside(path)
    return place if place is not None and place[0].suffix.lower() == ".npz" else None


def _by_content(start: bytes) -> Kind | None:
    if start[128:132] == b"DICM":
        return "dicom"
    is_nifti_1 = start[344:348] in (b"n+1\0", b"ni1\0")
    if is_nifti_1 or (start[:4] in _NIFTI_2_SIZES and start[4:8] in (b"n+2\0", b"ni2\0")):
        return "nifti"
    is_webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    return "image" if is_webp or start.startswith(_IMAGE_MAGIC) else None
