"""Scans of an archive as a viewer shows them, and sheets of many for a person to look at."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64
from PIL import Image, ImageDraw, ImageFont

from scanlearn.archive.reader import Archive
from scanlearn.palette import LIGHT

INK, FAINT, RED, BLUE = (LIGHT[name] for name in ("--ink", "--muted", "--hue-3", "--hue-0"))
_PAPER = "#f6f6f6"
COLUMNS, ROWS = 8, 8
_CELL, _PADDING = 128, 214
# Fast, and a sixth larger than the best: the contact sheet is written with every archive.
_FAST_COMPRESSION, _COMPRESSION = 1, 9
# In pixels: between the pictures of a cell, below a heading, and around captions.
_INNER_GAP, _BELOW_HEADING, _AROUND_CAPTION = 6, 8, 5
_LINE_HEIGHT = 1.4


class Line(NamedTuple):
    """A line of text on a sheet."""

    text: str
    size: int = 14
    ink: str = INK


@dataclass(frozen=True)
class Tile:
    """A picture, and what is written below it."""

    image: Image.Image
    caption: Sequence[Line] = ()


@dataclass(frozen=True)
class Section:
    """A part of a sheet; each cell is one picture, or several that stand close together."""

    heading: Sequence[Line]
    cells: Sequence[Sequence[Tile]] = ()


def grid(
    sections: Sequence[Section], *, columns: int, size: tuple[int, int], gap: int, margin: int = 32
) -> Image.Image:
    """Returns a sheet of sections one below the other, their cells in rows.

    Args:
        size: Width and height of the place of a picture; a smaller one stands on black in its
            middle.
        gap: Pixels between cells; ``margin`` those around everything.
    """
    cells = [cell for section in sections for cell in section.cells]
    cell_width = max((len(cell) * (size[0] + _INNER_GAP) - _INNER_GAP for cell in cells), default=0)
    across = min(columns, max(len(section.cells) for section in sections))
    widths = [_width(line) for section in sections for line in section.heading]
    width = max([across * (cell_width + gap) - gap, *widths]) + 2 * margin
    height = sum(_section_height(section, columns, size[1] + gap) for section in sections) - gap
    sheet = Image.new("RGB", (width, height + 2 * margin), _PAPER)
    top = margin
    for section in sections:
        _write(sheet, (margin, top), section.heading)
        top += _padded(section.heading, _BELOW_HEADING)
        for row in _rows(section, columns):
            for number, cell in enumerate(row):
                _draw_cell(sheet, (margin + number * (cell_width + gap), top), cell, size)
            top += size[1] + gap + _caption_height(row)
    return sheet


def png(sheet: Image.Image, *, is_fast: bool = False) -> bytes:
    """Returns a sheet as a file, which is the same for the same sheet."""
    file = io.BytesIO()
    sheet.save(file, "PNG", compress_level=_FAST_COMPRESSION if is_fast else _COMPRESSION)
    return file.getvalue()


def _rows(section: Section, columns: int) -> list[Sequence[Sequence[Tile]]]:
    starts = range(0, len(section.cells), columns)
    return [section.cells[start : start + columns] for start in starts]


def _section_height(section: Section, columns: int, row_height: int) -> int:
    rows = _rows(section, columns)
    heights = (row_height + _caption_height(row) for row in rows)
    return _padded(section.heading, _BELOW_HEADING) + sum(heights)


def _draw_cell(
    sheet: Image.Image, corner: tuple[int, int], cell: Sequence[Tile], size: tuple[int, int]
) -> None:
    left, top = corner
    width, height = size
    for tile in cell:
        image = tile.image
        sheet.paste("#000000", (left, top, left + width, top + height))
        sheet.paste(image, (left + (width - image.width) // 2, top + (height - image.height) // 2))
        lines = [line._replace(text=_cut(line, width)) for line in tile.caption]
        _write(sheet, (left, top + height + _AROUND_CAPTION), lines)
        left += width + _INNER_GAP


def _write(sheet: Image.Image, corner: tuple[int, int], lines: Sequence[Line]) -> None:
    left, top = corner
    draw = ImageDraw.Draw(sheet)
    for line in lines:
        draw.text((left, top), line.text, line.ink, _font(line.size))
        top += round(_LINE_HEIGHT * line.size)


def _cut(line: Line, width: int) -> str:
    """Returns the text without what does not fit below a picture."""
    text = line.text
    while _width(line._replace(text=text)) > width:
        text = text[:-2] + "…"
    return text


def _caption_height(row: Sequence[Sequence[Tile]]) -> int:
    return max(_padded(tile.caption, 2 * _AROUND_CAPTION) for cell in row for tile in cell)


def _padded(lines: Sequence[Line], padding: int) -> int:
    """Returns the height of lines of text and what is around them; 0 without any."""
    return sum(round(_LINE_HEIGHT * line.size) for line in lines) + padding * bool(lines)


def _width(line: Line) -> int:
    return round(_font(line.size).getlength(line.text))


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def contact_sheet(archive: Archive) -> bytes:
    """Returns a PNG of up to 64 scans: value ranges applied, padding left as light paper.

    The same archive gives the same bytes.
    """
    rows = sampled_rows(len(archive), COLUMNS * ROWS)
    channels, height, width = archive.shape
    shrink = _CELL / max(height, width)
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    sampling = Image.Resampling.NEAREST if shrink > 1 else Image.Resampling.BICUBIC
    pictures = [picture(archive, row, padding=_PADDING) for row in rows.tolist()]
    cells = [[Tile(image.resize(size, sampling))] for image in pictures]
    section = Section(_title(archive, len(rows)), cells)
    sheet = grid([section], columns=COLUMNS, size=size, gap=4, margin=14)
    return png(sheet if channels == 3 else sheet.convert("L"), is_fast=True)


def sampled_rows(num_scans: int, sample: int, *, seed: int = 0) -> Int64[np.ndarray, " k"]:
    """Returns rows evenly spread over an archive, one of each of ``sample`` parts, or all rows."""
    size = min(sample, num_scans)
    edges = np.arange(size + 1, dtype=np.int64) * num_scans // max(1, size)
    return np.random.default_rng(seed).integers(edges[:-1], edges[1:])


def _title(archive: Archive, num_shown: int) -> tuple[Line, Line]:
    channels, height, width = archive.shape
    scans = "1 scan" if len(archive) == 1 else f"{len(archive):,} scans"
    num_patients = archive.info["patients"]
    patients = f" of {num_patients:,} {'patient' if num_patients == 1 else 'patients'}"
    layout = f"{channels} x {height} x {width}, {archive.dtype.name}"
    choice = "all" if num_shown == len(archive) else f"{num_shown}, spread evenly,"
    return (
        Line(f"{scans}{patients if archive.patients_known else ''}", 15),
        Line(f"{layout}; {choice} shown; light gray is padding", 12, FAINT),
    )


def picture(archive: Archive, row: int, *, padding: int | None = None) -> Image.Image:
    """Returns a scan with its value range applied, gray or in colour, 8 bits.

    Args:
        padding: Gray level, 0 to 255, of the canvas outside the scan's box; None shows the box
            alone.
    """
    batch = archive.arrays(np.array([row]))
    low, high = batch.value_range[0].tolist()
    top, left, bottom, right = batch.valid_box[0].tolist()
    pixels = batch.pixels[0][:, top:bottom, left:right].astype(np.float32)
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
