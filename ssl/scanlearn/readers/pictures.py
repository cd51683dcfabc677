"""One image file to one `Scan`: PNG, JPEG, TIFF, WebP and BMP, 8 and 16 bit."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, ImageFile, ImageOps

from scanlearn.readers.dicom import (
    _FRAME_MARKERS,
    _ORDINARY_FRAMES,
    _SCAN_MARKER,
    _STANDALONE_MARKERS,
)
from scanlearn.readers.scan import MAX_PIXELS, Header, Scan, Undecodable, refusing


class Claim(NamedTuple):
    """What a picture says of itself."""

    height: int
    width: int
    channels: int
    bits: int


def ordinary_picture(start: bytes) -> Claim | None:
    """Returns what the first bytes of an ordinary JPEG or PNG say; None of anything else.

    Gray and RGB are ordinary, and all that stands before the pixels is within these bytes.

    Source: ITU-T T.81 B.2.2 (frame header); PNG, third edition, 11.2.1 (IHDR).
    """
    if start.startswith(b"\xff\xd8\xff"):
        return _ordinary_jpeg(start)
    if not start.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR") or len(start) < 29:
        return None
    bits, channels = start[24], {0: 1, 2: 3}.get(start[25])
    if channels is None or bits != 8 or b"tRNS" in start or b"IDAT" not in start:
        return None
    width, height = int.from_bytes(start[16:20], "big"), int.from_bytes(start[20:24], "big")
    return Claim(height, width, channels, bits)


def _ordinary_jpeg(start: bytes) -> Claim | None:
    found = None
    place = 2
    while place + 10 <= len(start) and start[place] == 0xFF:
        marker = start[place + 1]
        if marker == _SCAN_MARKER:
            return found
        if marker in _FRAME_MARKERS:
            bits, channels = start[place + 4], start[place + 9]
            if found or marker not in _ORDINARY_FRAMES or bits != 8 or channels not in (1, 3):
                return None
            height = int.from_bytes(start[place + 5 : place + 7], "big")
            width = int.from_bytes(start[place + 7 : place + 9], "big")
            found = Claim(height, width, channels, bits)
        elif marker in _STANDALONE_MARKERS or marker == 0xFF:
            return None
        place += 2 + int.from_bytes(start[place + 2 : place + 4], "big")
    return None


IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


# Only these parsers ever see a file: fewer of them, less for a hostile file to attack.
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")


_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")


_GRAY_MODES = ("1", "L", "LA", "La", "F", *_DEEP_MODES)


_BITS = {"1": 1, "F": 32}


Shrink = Callable[[Image.Image], Image.Image]


_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")


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
