"""Scans of an archive as pictures: thumbnails and contact sheets."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from jaxtyping import Int64
from PIL import Image, ImageDraw, ImageFont

from scanlearn.archive.reader import Archive

# The contact sheet of an archive: a sample of its scans as they were packed, in one picture.


COLUMNS, ROWS = 8, 8


_CELL, _GAP, _MARGIN, _TITLE = 128, 4, 14, 46


_PAPER, _PADDING, _INK, _FAINT = 246, 214, 25, 105


# Fast, and a sixth larger than the best: the sheet is written with every archive.
_COMPRESSION = 1


def sampled_rows(num_scans: int, sample: int, *, seed: int = 0) -> Int64[np.ndarray, " k"]:
    """Returns rows evenly spread over an archive, one drawn from each of ``sample`` equal parts.

    Args:
        num_scans: Scans of the archive.
        sample: How many; all of them where there are fewer.
        seed: Of the draw.
    """
    size = min(sample, num_scans)
    edges = np.arange(size + 1, dtype=np.int64) * num_scans // max(1, size)
    return np.random.default_rng(seed).integers(edges[:-1], edges[1:])


def contact_sheet(archive: Archive) -> bytes:
    """Returns a PNG of up to 64 scans: value ranges applied, padding left as light paper.

    The same archive gives the same bytes.
    """
    rows = sampled_rows(len(archive), COLUMNS * ROWS)
    channels, height, width = archive.shape
    shrink = _CELL / max(height, width)
    cell = max(1, round(width * shrink)), max(1, round(height * shrink))
    across, down = min(COLUMNS, len(rows)), -(-len(rows) // COLUMNS)
    mode, title = ("RGB" if channels == 3 else "L"), _title(archive, len(rows))
    font, small = (ImageFont.load_default(size) for size in (15, 12))
    inner = max(across * (cell[0] + _GAP) - _GAP, *(round(font.getlength(line)) for line in title))
    size = (inner + 2 * _MARGIN, down * (cell[1] + _GAP) - _GAP + _TITLE + 2 * _MARGIN)
    sheet = Image.new(mode, size, _gray(mode, _PAPER))
    pen = ImageDraw.Draw(sheet)
    for number, (line, face, ink) in enumerate(
        zip(title, (font, small), (_INK, _FAINT), strict=True)
    ):
        pen.text((_MARGIN, _MARGIN + 20 * number), line, _gray(mode, ink), face)
    for number, row in enumerate(rows.tolist()):
        shown = picture(archive, row, padding=_PADDING)
        sampling = Image.Resampling.NEAREST if shrink > 1 else Image.Resampling.BICUBIC
        place = number % COLUMNS, number // COLUMNS
        left, top = (at * (side + _GAP) for at, side in zip(place, cell, strict=True))
        sheet.paste(shown.resize(cell, sampling), (_MARGIN + left, _MARGIN + _TITLE + top))
    file = io.BytesIO()
    sheet.save(file, "PNG", compress_level=_COMPRESSION)
    return file.getvalue()


def _title(archive: Archive, num_shown: int) -> tuple[str, str]:
    channels, height, width = archive.shape
    scans = "1 scan" if len(archive) == 1 else f"{len(archive):,} scans"
    num_patients = archive.info["patients"]
    whose = f" of {num_patients:,} {'patient' if num_patients == 1 else 'patients'}"
    what = f"{channels} x {height} x {width}, {archive.dtype.name}"
    shown = "all" if num_shown == len(archive) else f"{num_shown}, spread evenly,"
    return (
        f"{scans}{whose if archive.patients_known else ''}",
        f"{what}; {shown} shown; light gray is padding",
    )


def _gray(mode: str, level: int) -> Any:
    return level if mode == "L" else (level,) * 3


# A packed scan as a viewer shows it, for sheets that a person looks at.


def picture(archive: Archive, row: int, *, padding: int | None = None) -> Image.Image:
    """Returns a scan with its value range applied, gray or in colour, 8 bits.

    Args:
        archive: Where it is packed.
        row: Its row.
        padding: Gray level, 0 to 255, of the canvas outside the scan's box; None shows the box
            alone.
    """
    batch = archive.gather(np.array([row]))
    low, high = batch.value_range[0].tolist()
    top, left, bottom, right = batch.valid_box[0].tolist()
    pixels = batch.pixels[0].numpy()[:, top:bottom, left:right].astype(np.float32)
    octets = np.rint(255 * np.clip((pixels - low) / (high - low), 0.0, 1.0)).astype(np.uint8)
    in_colour = len(octets) == 3
    image = Image.fromarray(octets.transpose(1, 2, 0) if in_colour else octets[0])
    if padding is None:
        return image
    _, height, width = archive.shape
    mode = "RGB" if in_colour else "L"
    canvas = Image.new(mode, (width, height), (padding,) * 3 if in_colour else padding)
    canvas.paste(image, (left, top))
    return canvas


def fitted(image: Image.Image, side: int) -> Image.Image:
    """Returns a picture made larger or smaller, at its aspect, to fill a square of a side."""
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)
