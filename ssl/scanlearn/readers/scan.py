"""What a reader gives: a decoded scan, its header, its frames, and why there is none.

Nothing here needs torch: whoever only decodes scans is spared the seconds it takes to load.
The legend of axis letters stands in `scanlearn.core`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, UnidentifiedImageError


@dataclass(frozen=True)
class Units:
    """What stored values measure: ``slope * stored + intercept``.

    Args:
        slope: Units from one stored value to the next; negative where the file's bright is low.
        intercept: What a stored 0 measures.
        name: "HU" for Hounsfield units, else what little a file says; None where it says nothing.
    """

    slope: float
    intercept: float
    name: str | None = None


@dataclass(frozen=True)
class Scan:
    """One decoded scan, before it is packed.

    Args:
        pixels: ``[c h w]``, uint8 or uint16, in stored units.
        spacing_mm: Height and width of a pixel in millimetres, or None where unknown.
        value_range: Stored values that mean 0 and 1 by what the file says, or None where it says
            nothing of them.
        units: What stored values measure; None where that is unknown, as for pictures.
    """

    pixels: UInt8[np.ndarray, "c h w"] | UInt16[np.ndarray, "c h w"]
    spacing_mm: tuple[float, float] | None = None
    value_range: tuple[float, float] | None = None
    units: Units | None = None


# More pixels than Pillow's own warning level are taken for a decompression bomb.
MAX_PIXELS = 89_478_485


# More frames than any recording has: such a file would keep a machine busy for days.
MAX_FRAMES = 65_536


class Undecodable(ValueError):  # noqa: N818 - a verdict on a scan, which is set aside, not a fault
    """A file that cannot be read as a scan; the message is the reason."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself before its pixels are decoded.

    Args:
        is_colour: Whether the file stores colour; its channels may still be equal.
        is_deep: Whether it holds more than 8 bits per value that we keep.
        num_frames: How many scans it may give: frames of a recording, slices of a volume.
        has_patient: Whether it names its patient.
        has_series: Whether it names its series.
        size: Rows and columns of one scan, as stored.
        bits: Bits of one value, as stored.
        tags: DICOM tags that were asked for and are there, each with all its values.
        kind: What reads the file.
    """

    is_colour: bool
    is_deep: bool
    num_frames: int = 1
    has_patient: bool = False
    has_series: bool = False
    size: tuple[int, int] = (0, 0)
    bits: int = 8
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kind: str = "image"


@dataclass(frozen=True)
class Frame:
    """One scan of a file that may give several.

    Args:
        number: Which one it is, from 1, in the order of the file.
        scan: The scan, or the reason why there is none.
        notes: What of the file was left out, in words.
        patient: Patient that the file names; None where it names none.
        series: Series that the file names; None where it names none.
        issuer: Who gave the patient that number, where the file says so.
    """

    number: int
    scan: Scan | Undecodable
    notes: tuple[str, ...] = ()
    patient: str | None = None
    series: str | None = None
    issuer: str | None = None


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Makes one verdict with a reason out of all the ways in which a file can be bad.

    Raises:
        Undecodable: The block raised anything, or there is no file with a byte in it.
    """
    try:
        # A pipe or device named like an image would be waited for without end.
        if not path.is_file():
            raise Undecodable("is a folder or no file" if path.exists() else "file not found")
        if path.stat().st_size == 0:
            raise Undecodable("file is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on metadata we do not read.
            yield
    except Undecodable:
        raise
    except UnidentifiedImageError as error:
        raise Undecodable("is no PNG, JPEG, TIFF, WebP or BMP image") from error
    except Image.DecompressionBombError as error:
        raise Undecodable(f"claims more than {MAX_PIXELS:,} pixels") from error
    except FileNotFoundError as error:
        raise Undecodable("has a part in another file, which is missing") from error
    except PermissionError as error:
        raise Undecodable("may not be read (permission denied)") from error
    except MemoryError as error:
        raise Undecodable("does not fit into memory") from error
    except Exception as error:
        # Pillow's parsers raise almost anything on damaged bytes (SyntaxError, struct.error,
        # zlib.error, IndexError ...): whatever it is, this file is no scan.
        raise Undecodable(f"is cut short or damaged ({_first_line(error, path)})") from error


def _first_line(error: Exception, path: Path) -> str:
    # Reasons are listed with the archive, which tells nothing of the folders its scans came from.
    text = str(error).replace(f"{path.parent}{os.sep}", "")
    return (text.splitlines() or [type(error).__name__])[0][:200]


Pixels = UInt8[np.ndarray, "c h w"] | UInt16[np.ndarray, "c h w"]
