"""One image file to one `Scan`: PNG, JPEG, TIFF, WebP and BMP, 8 and 16 bit."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from scanlearn.plain import Scan
from scanlearn.scans.codestream import Claim, ordinary_picture

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# Only these parsers ever see a file: fewer of them, less for a hostile file to attack.
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
# More pixels than Pillow's own warning level are taken for a decompression bomb.
MAX_PIXELS = 89_478_485
# More frames than any recording has: such a file would keep a machine busy for days.
MAX_FRAMES = 65_536
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_GRAY_MODES = ("1", "L", "LA", "La", "F", *_DEEP_MODES)
_BITS = {"1": 1, "F": 32}
Shrink = Callable[[Image.Image], Image.Image]
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")


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


def read_header(path: Path, start: bytes = b"") -> Header:
    """Returns what the header of an image says, without decoding it.

    Args:
        path: The file.
        start: Its first bytes; those of an ordinary picture say it all, several times as fast.

    Raises:
        Undecodable: It is no image in a known format, or claims too many pixels.
    """
    claim = ordinary_picture(start)
    if claim is not None and 0 < claim.height * claim.width <= MAX_PIXELS:
        return _header_of(claim)
    with refusing(path), Image.open(path, formats=_FORMATS) as image:
        _check_size(image)
        is_deep = image.mode in _DEEP_MODES
        return Header(
            is_colour=_stores_colour(image),
            is_deep=is_deep,
            size=(image.height, image.width),
            bits=_BITS.get(image.mode, 16 if is_deep else 8),
        )


@lru_cache(maxsize=256)
def _header_of(claim: Claim) -> Header:
    size = (claim.height, claim.width)
    return Header(is_colour=claim.channels > 1, is_deep=False, size=size, bits=claim.bits)


def decode(path: Path, *, at_least: int | None = None, gray: bool = False) -> Scan:
    """Returns the scan in an image file, upright as its EXIF orientation says.

    Gray stays gray and colour stays RGB; palettes are resolved, 1-bit becomes 0 and 255, alpha is
    dropped, CMYK becomes RGB. 16-bit gray stays uint16; 16-bit colour is read as 8-bit. Of several
    pages or frames the first is kept.

    Args:
        path: The file.
        at_least: Side in pixels of the canvas that the scan will be fitted to. A JPEG more than
            four times as large is decoded at 1/2, 1/4 or 1/8, at least twice that side, which is
            several times as fast; None decodes every pixel.
        gray: Whether colour becomes one channel of ITU-R BT.601 luma, which a JPEG stores as it
            is and hands over faster.

    Raises:
        Undecodable: The file cannot be read; the message says why.
    """
    return decode_with_notes(path, at_least=at_least, gray=gray)[0]


def decode_with_notes(
    path: Path, *, at_least: int | None = None, gray: bool = False, shrink: Shrink | None = None
) -> tuple[Scan, tuple[str, ...]]:
    """Returns the scan as `decode` does, and what of the file was left out, in words.

    Args:
        path: The file.
        at_least: See `decode`.
        gray: See `decode`.
        shrink: Makes an 8-bit picture smaller before it becomes an array; None keeps its size.

    Raises:
        Undecodable: The file cannot be read; the message says why.
    """
    with refusing(path), Image.open(path, formats=_FORMATS) as image:
        _check_size(image)
        notes, colour = _notes(image), _stores_colour(image)
        if colour and gray:
            notes, colour = (*notes, "three stored channels made one"), False
        if at_least is not None or gray:
            size = None if at_least is None else (2 * at_least, 2 * at_least)
            image.draft("L" if gray else None, size)
        ImageOps.exif_transpose(image, in_place=True)
        return Scan(pixels=_pixels(image, colour, shrink)), notes


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


def _check_size(image: Image.Image) -> None:
    num_pixels = image.width * image.height
    if num_pixels > MAX_PIXELS:
        raise Undecodable(
            f"claims {image.width:,} x {image.height:,} pixels, more than {MAX_PIXELS:,}"
        )


def _raw_mode(image: Image.Image) -> str | None:
    """Returns the layout in the file; Pillow's mode alone hides 16-bit colour and alpha."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    raw_mode = tiles[0].args if tiles else None
    if isinstance(raw_mode, tuple) and raw_mode:
        raw_mode = raw_mode[0]
    return raw_mode if isinstance(raw_mode, str) else None


def _has_gray_palette(image: Image.Image) -> bool:
    palette = image.getpalette("RGB") or []
    return palette[0::3] == palette[1::3] == palette[2::3]


def _stores_colour(image: Image.Image) -> bool:
    if image.mode in ("P", "PA"):
        return not _has_gray_palette(image)
    return image.mode not in _GRAY_MODES and _raw_mode(image) != "LA;16B"


def _notes(image: Image.Image) -> tuple[str, ...]:
    notes = []
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        notes.append("alpha dropped")
    if re.fullmatch("(LA|RGB|RGB[AX]|RGBa);16[LBN]", _raw_mode(image) or ""):
        notes.append("16 bits per channel read as 8")
    if image.mode in ("CMYK", "YCCK"):
        notes.append("CMYK turned into RGB")
    if getattr(image, "n_frames", 1) > 1:
        notes.append("first frame of several kept")
    return tuple(notes)


def _pixels(
    image: Image.Image, colour: bool, shrink: Shrink | None
) -> UInt8[np.ndarray, "c h w"] | UInt16[np.ndarray, "c h w"]:
    if image.mode == "F":
        raise Undecodable("holds floating-point values, of which nobody says what is black")
    if image.mode in _DEEP_MODES:
        deep = np.asarray(image)
        if deep.min() < 0 or deep.max() > np.iinfo(np.uint16).max:
            raise Undecodable(f"holds values {deep.min()} to {deep.max()}, more than 16 bits")
        return deep.astype(np.uint16)[None]
    mode = "RGB" if colour else "L"
    image = image if image.mode == mode else image.convert(mode)
    flat = np.asarray(image if shrink is None else shrink(image))
    return flat[None] if mode == "L" else flat.transpose(2, 0, 1)
