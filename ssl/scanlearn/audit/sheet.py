"""A sheet of the pairs an audit found, side by side, for a person to judge."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int64
from PIL import Image, ImageDraw, ImageFont

from scanlearn.archive.reader import Archive
from scanlearn.archive.sheets import fitted, picture
from scanlearn.audit.fingerprint import TURNS
from scanlearn.audit.result import IDENTICAL, NEAR, PATIENT, Audit, Comparison

_INK, _FAINT, _PAPER, _RULE = "#1f2933", "#6b7785", "#ffffff", "#d5dbe1"
_COLOURS = {IDENTICAL: "#b3372b", NEAR: "#3b6fb6"}
_COLUMNS = 4
# Lengths in pixels.
_SIDE, _GAP, _BETWEEN, _MARGIN = 176, 6, 30, 32
_PAIR_WIDTH = 2 * _SIDE + _GAP
_HEADING, _CAPTION, _NAMES, _BELOW = 58, 24, 18, 22
_PAIR_HEIGHT = _CAPTION + _SIDE + _NAMES + _BELOW
_WIDTH = 2 * _MARGIN + _COLUMNS * _PAIR_WIDTH + (_COLUMNS - 1) * _BETWEEN
_ID_LETTERS = 26


def draw_sheet(audit: Audit, archives: Mapping[str, Archive], shown: int) -> Image.Image | None:
    """Returns a picture of pairs found by their pixels, or None where there are none.

    Args:
        audit: What was found.
        archives: By the names of the sets.
        shown: Pairs at most; of more, an even choice from the surest to the least sure.
    """
    found = [(one, _chosen(one, shown)) for one in audit.comparisons]
    found = [(one, chosen) for one, chosen in found if len(chosen)]
    if not found:
        return None
    heights = [_HEADING + -(-len(chosen) // _COLUMNS) * _PAIR_HEIGHT for _, chosen in found]
    sheet = Image.new("RGB", (_WIDTH, 2 * _MARGIN + sum(heights)), _PAPER)
    top = _MARGIN
    for (comparison, chosen), height in zip(found, heights, strict=True):
        _draw_comparison(sheet, top, comparison, chosen, archives)
        top += height
    return sheet


def _chosen(comparison: Comparison, shown: int) -> Int64[np.ndarray, " k"]:
    """Returns places of pairs: identical ones first, then by falling correlation."""
    pairs = comparison.pairs
    order = np.lexsort((-pairs["correlation"], pairs["kind"]))
    order = order[pairs["kind"][order] != PATIENT]
    if len(order) > shown:
        order = order[np.linspace(0, len(order) - 1, shown).round().astype(int)]
    places: Int64[np.ndarray, " k"] = order.astype(np.int64)
    return places


def _draw_comparison(
    sheet: Image.Image,
    top: int,
    comparison: Comparison,
    chosen: Int64[np.ndarray, " k"],
    archives: Mapping[str, Archive],
) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, top), comparison.title, _INK, _font(22))
    draw.text((_MARGIN, top + 29), _counts(comparison, len(chosen)), _FAINT, _font(14))
    for number, place in enumerate(chosen.tolist()):
        row, column = divmod(number, _COLUMNS)
        left = _MARGIN + column * (_PAIR_WIDTH + _BETWEEN)
        _draw_pair(sheet, (left, top + _HEADING + row * _PAIR_HEIGHT), comparison, place, archives)


def _counts(comparison: Comparison, shown: int) -> str:
    identical, near = comparison.count(IDENTICAL), comparison.count(NEAR)
    text = f"{identical:,} pairs with identical pixels, {near:,} near-duplicates"
    return text if shown == identical + near else f"{text}; {shown} shown, spread evenly"


def _draw_pair(
    sheet: Image.Image,
    corner: tuple[int, int],
    comparison: Comparison,
    place: int,
    archives: Mapping[str, Archive],
) -> None:
    left, top = corner
    draw = ImageDraw.Draw(sheet)
    pair = comparison.pairs[place]
    kind, turn = int(pair["kind"]), int(pair["turn"])
    words = "identical" if kind == IDENTICAL else f"near  r = {float(pair['correlation']):.4f}"
    words += f"  {TURNS[turn]}" if turn else ""
    draw.text((left, top), words, _COLOURS[kind], _font(14))
    sides = (
        (comparison.first, int(pair["first"]), comparison.first_ids[place]),
        (comparison.second, int(pair["second"]), comparison.second_ids[place]),
    )
    for number, (name, row, scan_id) in enumerate(sides):
        x, y = left + number * (_SIDE + _GAP), top + _CAPTION
        shown = fitted(picture(archives[name], row), _SIDE)
        inside = (x + (_SIDE - shown.width) // 2, y + (_SIDE - shown.height) // 2)
        draw.rectangle((x, y, x + _SIDE - 1, y + _SIDE - 1), fill="#000000", outline=_RULE)
        sheet.paste(shown, inside)
        short = scan_id if len(scan_id) <= _ID_LETTERS else scan_id[: _ID_LETTERS - 1] + "…"
        draw.text((x, y + _SIDE + 4), short, _FAINT, _font(11))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
