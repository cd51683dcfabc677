"""What kind a source file is, and one way to read all kinds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from scanlearn.scans import decode, dicom, nifti
from scanlearn.scans.decode import IMAGE_SUFFIXES, Frame, Header
from scanlearn.scans.nifti import NIFTI_SUFFIXES, Axis

Kind = Literal["image", "dicom", "nifti"]
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
SCAN_SUFFIXES = (*IMAGE_SUFFIXES, *_DICOM_SUFFIXES, *NIFTI_SUFFIXES)
_HEAD_BYTES = 352
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
    """

    axis: Axis = "axial"
    empty_below: float = 0.0
    at_least: int | None = None
    gray: bool = False


def is_scan(path: Path) -> bool:
    """Returns whether a file may be a scan: by its ending, or by its content if it has none.

    The names of DICOM files often are numbers with dots; what follows the last is no ending.
    """
    name = path.name.lower()
    if name.endswith(SCAN_SUFFIXES):
        return True
    suffix = PurePosixPath(name).suffix
    return (
        (not suffix or suffix[1:].isdigit())
        and name != "dicomdir"
        and _by_content(path) is not None
    )


def kind_of(path: Path) -> Kind:
    """Returns what reads a file: its content decides, its ending only where that is silent."""
    found = _by_content(path)
    if found is not None:
        return found
    name = path.name.lower()
    if name.endswith(_DICOM_SUFFIXES):
        return "dicom"
    return "nifti" if name.endswith(NIFTI_SUFFIXES) else "image"


def read_header(path: Path, settings: ReadSettings) -> Header:
    """Returns what a file says of itself before its pixels are decoded.

    Raises:
        Undecodable: It is no scan, or claims absurd sizes.
    """
    kind = kind_of(path)
    if kind == "dicom":
        return dicom.read_header(path)
    if kind == "nifti":
        return nifti.read_header(path, axis=settings.axis)
    return decode.read_header(path)


def read_frames(path: Path, frames: range, settings: ReadSettings) -> Iterator[Frame]:
    """Yields the scans that some frames of a file give.

    Args:
        path: The file.
        frames: Which frames, from 0; a picture has one.
        settings: What of the file is read.

    Raises:
        Undecodable: The file cannot be read; the message says why.
    """
    kind = kind_of(path)
    if kind == "dicom":
        yield from dicom.read_frames(path, frames)
    elif kind == "nifti":
        axis, empty_below = settings.axis, settings.empty_below
        yield from nifti.read_frames(path, frames, axis=axis, empty_below=empty_below)
    else:
        scan, notes = decode.decode_with_notes(path, at_least=settings.at_least, gray=settings.gray)
        yield Frame(1, scan, notes)


def _by_content(path: Path) -> Kind | None:
    # A pipe would be waited for without end.
    if not path.is_file():
        return None
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return None
    if head[128:132] == b"DICM":
        return "dicom"
    is_nifti_1 = head[344:348] in (b"n+1\0", b"ni1\0")
    if is_nifti_1 or (head[:4] in _NIFTI_2_SIZES and head[4:8] in (b"n+2\0", b"ni2\0")):
        return "nifti"
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return "image" if is_webp or head.startswith(_IMAGE_MAGIC) else None
