"""A sheet of the pairs an audit found, side by side, for a person to judge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Int64
from PIL import Image

from scanlearn.archive.reader import Archive
from scanlearn.archive.sheets import BLUE, FAINT, RED, Line, Section, Tile, fitted, grid, picture
from scanlearn.audit.fingerprint import TURNS
from scanlearn.audit.result import IDENTICAL, NEAR, PATIENT, Audit, Comparison

_COLUMNS = 4
# In pixels.
_SIDE, _GAP = 176, 30


def draw_sheet(audit: Audit, archives: Mapping[str, Archive], most: int) -> Image.Image | None:
    """Returns a picture of pairs found by their pixels, or None where there are none.

    Args:
        most: Pairs at most; of more, an even choice from the surest to the least sure.
    """
    sections = []
    for comparison in audit.comparisons:
        chosen = _chosen(comparison, most)
        if len(chosen):
            heading = Line(comparison.title, 22), Line(_counts(comparison, len(chosen)), 14, FAINT)
            pairs = [list(_tiles(comparison, place, archives)) for place in chosen.tolist()]
            sections.append(Section(heading, pairs))
    return grid(sections, columns=_COLUMNS, size=(_SIDE, _SIDE), gap=_GAP) if sections else None


def _chosen(comparison: Comparison, most: int) -> Int64[np.ndarray, " k"]:
    """Returns places of pairs: identical ones first, then by falling correlation."""
    pairs = comparison.pairs
    order = np.lexsort((-pairs["correlation"], pairs["kind"]))
    order = order[pairs["kind"][order] != PATIENT]
    if len(order) > most:
        order = order[np.linspace(0, len(order) - 1, most).round().astype(int)]
    places: Int64[np.ndarray, " k"] = order.astype(np.int64)
    return places


def _counts(comparison: Comparison, num_drawn: int) -> str:
    identical, near = comparison.count(IDENTICAL), comparison.count(NEAR)
    text = f"{identical:,} pairs with identical pixels, {near:,} near-duplicates"
    return text if num_drawn == identical + near else f"{text}; {num_drawn} shown, spread evenly"


def _tiles(comparison: Comparison, place: int, archives: Mapping[str, Archive]) -> Iterator[Tile]:
    """Yields both scans of a pair: below the first what they share, below the second its turn."""
    pair = comparison.pairs[place]
    kind, turn = int(pair["kind"]), int(pair["turn"])
    verdict = Line("identical", ink=RED)
    if kind == NEAR:
        verdict = Line(f"near  r = {float(pair['correlation']):.4f}", ink=BLUE)
    turned = verdict._replace(text=TURNS[turn] if turn else "")
    yield _tile(archives[comparison.first], pair["first"], verdict, comparison.first_ids[place])
    yield _tile(archives[comparison.second], pair["second"], turned, comparison.second_ids[place])


def _tile(archive: Archive, row: int, line: Line, scan_id: str) -> Tile:
    return Tile(fitted(picture(archive, int(row)), _SIDE), (line, Line(str(scan_id), 11, FAINT)))
