"""PNG, JPEG, TIFF, WebP and BMP pictures of 8 and 16 bits; one file is one scan."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from scanlearn.readers.codestream import Claim, ordinary_picture
from scanlearn.readers.scan import (
    MAX_PIXELS,
    Frame,
    Header,
    Pixels,
    Reader,
    ReadSettings,
    Scan,
    Shrink,
    Undecodable,
    refusing,
)

_KIND = "picture"
# Only these parsers ever see a file: fewer of them, less for a hostile file to attack.
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM")
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
    dropped, CMYK becomes RGB. 16-bit gray stays uint16; 16-bit colour is read as 8-bit. Of several
    pages or frames the first is kept.

    With ``at_least`` a JPEG more than four times as large is decoded at 1/2, 1/4 or 1/8, at least
    twice that side, which is several times as fast. With ``gray`` colour becomes one channel of
    ITU-R BT.601 luma, which a JPEG stores as it is and hands over faster.
    """
    with _opened(path) as image:
        notes, is_colour = _notes(image), _stores_colour(image)
        if is_colour and settings.gray:
            notes, is_colour = (*notes, "three stored channels made one"), False
        if settings.at_least is not None or settings.gray:
            side = None if settings.at_least is None else 2 * settings.at_least
            image.draft("L" if settings.gray else None, None if side is None else (side, side))
        ImageOps.exif_transpose(image, in_place=True)
        scan = Scan(_pixels(image, is_colour, settings.shrink))
    yield Frame(1, scan, notes)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    with refusing(path):
        try:
            with Image.open(path, formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Undecodable(
                        f"claims {image.width:,} x {image.height:,} pixels, more than"
                        f" {MAX_PIXELS:,}"
                    )
                yield image
        except UnidentifiedImageError as error:
            raise Undecodable("is not a PNG, JPEG, TIFF, WebP or BMP image") from error
        except Image.DecompressionBombError as error:
            raise Undecodable(f"claims more than {MAX_PIXELS:,} pixels") from error


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
    if re.fullmatch("(LA|RGB|RGB[AX]|RGBa);16[LBN]", _raw_mode(image) or ""):
        notes.append("16 bits per channel read as 8")
    if image.mode in ("CMYK", "YCCK"):
        notes.append("CMYK turned into RGB")
    if getattr(image, "n_frames", 1) > 1:
        notes.append("first frame of several kept")
    return tuple(notes)


def _pixels(image: Image.Image, is_colour: bool, shrink: Shrink | None) -> Pixels:
    if image.mode == "F":
        raise Undecodable("holds floating-point values; save it with 8 or 16 bits")
    if image.mode in _DEEP_MODES:
        deep = np.asarray(image)
        if deep.min() < 0 or deep.max() > np.iinfo(np.uint16).max:
            raise Undecodable(f"holds values {deep.min()} to {deep.max()}, more than 16 bits")
        return deep.astype(np.uint16)[None]
    mode = "RGB" if is_colour else "L"
    image = image if image.mode == mode else image.convert(mode)
    flat = np.asarray(image if shrink is None else shrink(image))
    return flat[None] if mode == "L" else flat.transpose(2, 0, 1)


READER = Reader(
    kind=_KIND,
    suffixes=(".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"),
    matches=_matches,
    header=_header,
    frames=_frames,
    libraries=("PIL.JpegImagePlugin", "PIL.PngImagePlugin", "PIL.BmpImagePlugin"),
)
