"""The numbers of a recipe at a setting of the dial, as a table to read."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from scanlearn.console import say
from scanlearn.views.adjusting import Operations
from scanlearn.views.extra_settings import Extras, build_extras
from scanlearn.views.recipes import Recipe, TableRow, find_recipe
from scanlearn.views.scale import Scale
from scanlearn.views.settings import BLUR_REFERENCE_SIZE, DEFAULT_SETTINGS, RenderSettings
from scanlearn.views.statistics import view_statistics

WIDTH = 100
_GAP = "  "
# Less than this for the last column is no longer read as lines.
_LEAST_LAST = 24


def explain(
    recipe: Annotated[Recipe | str, Field(description="A recipe or its name.")],
    *,
    scale: Annotated[
        float | str | dict[str, float | str],
        Field(
            description="The dial: 0 (identity) to 1.5, or identity, weak (.5), strong (1); or one "
            "value for each of crop, geometry, photometric and acquisition."
        ),
    ] = 1.0,
    channels: Annotated[
        Literal[1, 3], Field(description="Of the scans; one channel has no colour to change.")
    ] = 3,
    operations: Annotated[
        Operations, Field(description="Operations switched off or set by hand.")
    ] = {},  # noqa: B006  never written to
    extras: Extras = (),
    size: Annotated[
        int, Field(ge=2, description="Side of a global view in pixels: a blur shrinks with it.")
    ] = BLUR_REFERENCE_SIZE,
    scale_blur: Annotated[
        bool, Field(description="Blur shrinks with the view, as its sigma is stated at 224 px.")
    ] = True,
) -> str:
    """Prints the numbers of a recipe at a setting of the dial, and where each is from.

    Returns:
        The printed text.

    Raises:
        ScanlearnError: The recipe, the scale, an operation or an extra cannot be used.
    """
    build_extras(extras)
    adjusted = find_recipe(recipe).adjusted(operations)
    settings = RenderSettings(scale_blur=scale_blur, global_size=size)
    table = explanation(adjusted, Scale.parse(scale), channels, settings)
    text = "\n".join([table, *_wrapped([f"extra: {extra.in_words}" for extra in extras])])
    say(text)
    return text


def explanation(
    recipe: Recipe, scale: Scale, channels: int, settings: RenderSettings = DEFAULT_SETTINGS
) -> str:
    """Returns the table of a recipe at a setting of the dial, at most 100 columns wide."""
    rows = recipe.table(scale, channels, settings)
    in_use = [row for row in rows if row.note != "off"]
    kept = {row.operation for row in in_use}
    off = dict.fromkeys(row.operation for row in rows if row.operation not in kept)
    table, works = _lines(in_use)
    views = f"; values of {' / '.join(recipe.kinds)}" if recipe.num_kinds > 1 else ""
    crops = view_statistics(recipe, scale).lines()
    colour = "one channel" if channels == 1 else "colour"
    size = settings.global_size or BLUR_REFERENCE_SIZE
    text = [
        f"{recipe.name} at scale {scale} on {colour}, {size} px{views}",
        f"by hand: {recipe.by_hand}" if recipe.by_hand else "",
        recipe.reference,
    ]
    below = [
        *(f"[{number}] {work}" for number, work in enumerate(works, 1)),
        f"off: {', '.join(off) or 'nothing'}",
        f"crops of a square scan: {'; '.join(crops)}",
    ]
    return "\n".join([*_wrapped(text), "", *table, "", *_wrapped(below)])


def _wrapped(paragraphs: Sequence[str]) -> list[str]:
    return [line for text in paragraphs for line in textwrap.wrap(text, WIDTH)]


def _lines(rows: Sequence[TableRow]) -> tuple[list[str], list[str]]:
    """Aligned columns, the last one wrapped; and the works that it refers to by number."""
    cells = [("operation", "parameter", "value", "unit", "source; note")]
    works: list[str] = []
    before = ""
    for row in rows:
        operation = "" if row.operation == before else row.operation
        source = _numbered(row.source, works)
        last = f"{source}; {row.note}" if row.note else source
        cells.append((operation, row.parameter, row.value, row.unit, last))
        before = row.operation
    widths = [max(len(cell[column]) for cell in cells) for column in range(4)]
    start = sum(widths) + 4 * len(_GAP)
    room = max(WIDTH - start, _LEAST_LAST)
    lines = []
    for number, cell in enumerate(cells):
        first = _GAP.join(f"{text:{width}}" for text, width in zip(cell, widths, strict=False))
        pieces = textwrap.wrap(cell[4], room)
        lines.append(first + _GAP + pieces[0])
        lines += [" " * start + piece for piece in pieces[1:]]
        if number == 0:
            lines.append("-" * WIDTH)
    return lines, works


def _numbered(source: str, works: list[str]) -> str:
    """The source with each work replaced by its number; new works are added to the list."""

    def number(match: re.Match[str]) -> str:
        if match[2] not in works:
            works.append(match[2])
        return f"{match[1]} [{works.index(match[2]) + 1}]"

    return re.sub(r"(published|derived)(?:: | from )([^;]*)", number, source)
