"""PNG, JPEG, TIFF, WebP and BMP pictures of 8 and 16 bits; one file is one scan."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from scanlearn.readers.codestream import Claim, ordinary_picture, png_significant_bits, why_odd_jpeg
from scanlearn.readers.scan import (
    MAX_PIXELS,
    Frame,
    Header,
    Metered,
    Reader,
    ReadSettings,
    Scan,
    Undecodable,
    Units,
    open_regular,
    refusing,
)
from scanlearn.readers.tiffs import MAGIC, Tiff
from scanlearn.readers.values import inverted, percentile_range, stored_depth

_KIND = "picture"
# Only these parsers ever see a file: fewer of them, less for a hostile file to attack.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_JPEG = b"\xff\xd8\xff"
_MAGIC = (b"\x89PNG", _JPEG, b"BM", *MAGIC)
# What stands before the pixels, and of a WebP all of it; then 4 channels of 16 bits at most. A
# sparse file may claim gigabytes of either.
_MAX_TAG_BYTES, _MAX_PIXEL_BYTES = 2**26, 8
_START_BYTES, _MOST_JPEG_TAGS = 4096, 2**20
_MOST_AT_ONCE = 2**22
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_GRAY_MODES = ("1", "L", "LA", "La", "F", *_DEEP_MODES)
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_BITS = {"1": 1, "F": 32}


def _matches(start: bytes) -> bool:
    is_webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    return is_webp or start.startswith(_MAGIC)


def _header(path: Path, _settings: ReadSettings, start: bytes) -> Header:
    # The first bytes of an ordinary picture say it all, several times as fast as Pillow.
    claim = ordinary_picture(start)
    if claim is not None and 0 < claim.height * claim.width <= MAX_PIXELS:
        return _header_of(claim)
    with _opened(path) as image:
        is_deep = image.mode in _DEEP_MODES
        return Header(
            is_colour=_stores_colour(image),
            is_deep=is_deep,
            size=(image.height, image.width),
            bits=_BITS.get(image.mode, 16 if is_deep else 8),
            kind=_KIND,
        )


@lru_cache(maxsize=256)
def _header_of(claim: Claim) -> Header:
    size = (claim.height, claim.width)
    is_colour = claim.channels > 1
    # With its kind, so that one header stands for a million files.
    return Header(is_colour, is_deep=False, size=size, bits=claim.bits, kind=_KIND)


def _frames(path: Path, _wanted: range, settings: ReadSettings) -> Iterator[Frame]:
    """Yields the scan in a picture, upright as its EXIF orientation says.

    Gray stays gray and colour stays RGB; palettes are resolved, 1-bit becomes 0 and 255, alpha is
    dropped, CMYK becomes RGB. 16-bit gray stays uint16, shown in as many bits as the file says are
    significant; 16-bit colour is read as 8-bit. Signed values are shifted. Of several pages or
    frames the first is kept.

    With ``at_least`` a JPEG more than four times as large is decoded at 1/2, 1/4 or 1/8, at least
    twice that side, which is several times as fast. With ``gray`` colour becomes one channel of
    ITU-R BT.601 luma, which a JPEG stores as it is and hands over faster.
    """
    with _opened(path) as image:
        notes, is_colour = _notes(image), _stores_colour(image)
        bits = image.significant_bits if isinstance(image, Tiff) else _png_bits(image)
        if is_colour and settings.gray:
            notes, is_colour = (*notes, "three stored channels made one"), False
        if settings.at_least is not None or settings.gray:
            side = None if settings.at_least is None else 2 * settings.at_least
            image.draft("L" if settings.gray else None, None if side is None else (side, side))
        ImageOps.exif_transpose(image, in_place=True)
        scan = _scan(image, is_colour, settings, bits)
    yield Frame(1, scan, notes)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    with refusing(path), open_regular(path) as file:
        start, file.bytes_left = file.peek(4)[:4], _MAX_TAG_BYTES
        try:
            stream = _at_once(file) if start.startswith(_JPEG) else file
            with Tiff(file) if start in MAGIC else Image.open(stream, formats=_FORMATS) as image:
                num_pixels = image.width * image.height
                if num_pixels > MAX_PIXELS:
                    raise Undecodable(
                        f"claims {image.width:,} x {image.height:,}, more than"
                        f" {MAX_PIXELS:,} pixels"
                    )
                file.bytes_left += _MAX_PIXEL_BYTES * num_pixels
                yield image
        except OSError as error:
            # From the start, which is as far as tags of a JPEG go: a closed file has been read.
            reason = None if file.closed else _why_odd(file)
            if reason is None and isinstance(error, UnidentifiedImageError):
                reason = "is not a PNG, JPEG, TIFF, WebP or BMP image"
            if reason is None:
                raise
            raise Undecodable(reason) from error
        except Image.DecompressionBombError as error:
            raise Undecodable(f"claims more than {MAX_PIXELS:,} pixels") from error


def _at_once(file: Metered) -> IO[bytes]:
    """Returns a JPEG file of ordinary size in memory: Pillow asks for it in forty small pieces."""
    is_small = os.fstat(file.fileno()).st_size <= _MOST_AT_ONCE
    return io.BytesIO(file.read()) if is_small else file


def _why_odd(file: Metered) -> str | None:
    file.seek(0)
    return why_odd_jpeg(file.read(_MOST_JPEG_TAGS))


def _png_bits(image: Image.Image) -> int | None:
    """Returns the significant bits that a 16-bit PNG names, which Pillow passes over."""
    file = image.fp if isinstance(image, ImageFile.ImageFile) else None
    if image.mode not in _DEEP_MODES or file is None:
        return None
    place = file.tell()
    file.seek(0)
    start = file.read(_START_BYTES)
    file.seek(place)
    return png_significant_bits(start)


def _raw_mode(image: Image.Image) -> str | None:
    """Returns the layout in the file; Pillow's mode alone hides 16-bit colour and alpha."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    raw_mode = tiles[0].args if tiles else None
    if isinstance(raw_mode, tuple) and raw_mode:
        raw_mode = raw_mode[0]
    return raw_mode if isinstance(raw_mode, str) else None


def _stores_colour(image: Image.Image) -> bool:
    if image.mode in ("P", "PA"):
        palette = image.getpalette("RGB") or []
        return not palette[0::3] == palette[1::3] == palette[2::3]
    return image.mode not in _GRAY_MODES and _raw_mode(image) != "LA;16B"


def _notes(image: Image.Image) -> tuple[str, ...]:
    notes = []
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        notes.append("alpha dropped")
    if re.fullmatch("(LA|R|RGB|RGB[AX]|RGBa|CMYK);16[LBN]", _raw_mode(image) or ""):
        notes.append("16 bits per channel read as 8")
    if image.mode in ("CMYK", "YCCK"):
        notes.append("CMYK turned into RGB")
    # The pages of a TIFF are not counted: one of another kind would refuse the first.
    num_frames = 1 if isinstance(image, Tiff) else getattr(image, "n_frames", 1)
    if num_frames > 1 or (isinstance(image, Tiff) and image.tag_v2.next):
        notes.append("first frame of several kept")
    return tuple(notes)


def _scan(image: Image.Image, is_colour: bool, settings: ReadSettings, bits: int | None) -> Scan:
    """Returns the pixels and, where fewer than 16 bits are significant, their range.

    Signed values are shifted and shown between their percentiles, as those of NumPy files are.
    """
    if image.mode == "F":
        raise Undecodable("holds floating-point values (SampleFormat 3); save it with 8 or 16 bits")
    if isinstance(image, Tiff) and image.is_signed and image.mode in (*_DEEP_MODES, "L"):
        values = np.asarray(image)
        _check_depth(values, np.int16)
        stored = stored_depth(values.astype(np.int16) if image.mode != "L" else values.view("i1"))
        scan = Scan(stored.pixels[None], units=Units(1.0, -stored.offset))
        scan = inverted(scan) if image.has_white_zero else scan
        limits = percentile_range(scan.pixels) if settings.shows == "file" else None
        return replace(scan, value_range=limits)
    if image.mode in _DEEP_MODES:
        deep = np.asarray(image)
        _check_depth(deep, np.uint16)
        is_said = bits is not None and settings.shows == "file" and _fits(deep, bits, image)
        limits = (0.0, 2.0**bits - 1) if bits is not None and is_said else None
        scan = Scan(deep.astype(np.uint16)[None], value_range=limits)
        return inverted(scan) if isinstance(image, Tiff) and image.has_white_zero else scan
    mode = "RGB" if is_colour else "L"
    image = image if image.mode == mode else image.convert(mode)
    flat = np.asarray(image if settings.shrink is None else settings.shrink(image))
    return Scan(flat[None] if mode == "L" else flat.transpose(2, 0, 1))


def _fits(deep: np.ndarray[Any, Any], bits: int, image: Image.Image) -> bool:
    """Returns whether values are what few significant bits say: a tag may be contradicted.

    Source: PNG, third edition, 11.3.2.7: values with an sBIT are scaled up to all 16 bits, which
    leaves the lower bits of a dark picture 0. Who stores them as they are ignores that.
    """
    if bits >= 16 or deep.max() >= 2**bits:
        return False
    return isinstance(image, Tiff) or bool((deep & (2 ** (16 - bits) - 1)).any())


def _check_depth(values: np.ndarray[Any, Any], depth: type[np.integer[Any]]) -> None:
    limits = np.iinfo(depth)
    if values.min() < limits.min or values.max() > limits.max:
        raise Undecodable(f"holds values {values.min()} to {values.max()}, more than 16 bits")


READER = Reader(
    kind=_KIND,
    suffixes=(".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"),
    matches=_matches,
    header=_header,
    frames=_frames,
    libraries=("PIL.JpegImagePlugin", "PIL.PngImagePlugin", "PIL.BmpImagePlugin"),
)
