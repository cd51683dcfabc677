"""The numbers of a recipe at a setting of the dial, as a table to read."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from itertools import product
from typing import Annotated, Literal

from pydantic import Field

from scanlearn.config.calls import checked
from scanlearn.console import say
from scanlearn.views.adjusting import Operations
from scanlearn.views.extra_settings import Extras, build_extras
from scanlearn.views.modality import NAMES, Modality
from scanlearn.views.operations.table import OPERATION_OF
from scanlearn.views.recipes import Recipe, TableRow, find_recipe
from scanlearn.views.scale import Scale
from scanlearn.views.settings import BLUR_REFERENCE_SIZE, DEFAULT_SETTINGS, RenderSettings
from scanlearn.views.statistics import view_statistics

WIDTH = 100
_GAP = "  "
# Less than this for the last column is no longer read as lines.
_LEAST_LAST = 24


@checked
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
    modality: Annotated[
        Modality,
        Field(
            description=f"Kind of scan, whose policy is shown beside the recipe: {NAMES}; or one "
            "of your own, as {name: ..., like: xray, operations: {...}}."
        ),
    ] = None,
    extras: Extras = (),
    size: Annotated[
        int, Field(ge=2, description="Side of a global view in pixels: a blur shrinks with it.")
    ] = BLUR_REFERENCE_SIZE,
    scale_blur: Annotated[
        bool, Field(description="Blur shrinks with the view, as its sigma is stated at 224 px.")
    ] = True,
) -> str:
    """Print the numbers of a recipe at one augmentation scale.

    Returns:
        The printed text.

    Raises:
        ScanlearnError: The recipe, the scale, an operation, the modality or an extra cannot be
            used.
    """
    build_extras(extras)
    pure, dial = find_recipe(recipe), Scale.parse(scale)
    settings = RenderSettings(scale_blur=scale_blur, global_size=size)
    changed = pure.under(modality).adjusted(operations)
    if changed.policy is None:
        table = explanation(changed, dial, channels, settings)
    else:
        table = comparison(pure, changed, dial, channels, settings)
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


def comparison(
    recipe: Recipe,
    ruled: Recipe,
    scale: Scale,
    channels: int,
    settings: RenderSettings = DEFAULT_SETTINGS,
) -> str:
    """Returns a recipe and what a modality's policy makes of it, side by side.

    Args:
        ruled: The recipe under the policy, with what was set by hand.
    """
    policy = ruled.policy
    assert policy is not None
    before, after = (each.table(scale, channels, settings) for each in (recipe, ruled))
    cells = [("parameter", recipe.name, f"modality {policy.name}", "source; note")]
    works: list[str] = []
    for one, other in zip(before, after, strict=True):
        if {one.note, other.note} == {"off"}:
            continue
        values = ["off" if row.note == "off" else row.value for row in (one, other)]
        last = "off" if other.note == "off" else _last_column(other, works)
        is_same = (one.value, one.source, one.note) == (other.value, other.source, other.note)
        cells.append((one.parameter, values[0], "same" if is_same else values[1], last))
    colour = "one channel" if channels == 1 else "colour"
    size = settings.global_size or BLUR_REFERENCE_SIZE
    views = f"; values of {' / '.join(ruled.kinds)}" if ruled.num_kinds > 1 else ""
    dial = ruled.dial(scale)
    named = {recipe.name: recipe, policy.name: ruled}
    crops = {name: view_statistics(each, scale).lines() for name, each in named.items()}
    text = [
        f"{recipe.name} and modality {policy.name} at scale {scale} on {colour}, {size} px{views}",
        f"one number moves acquisition too: {dial.acquisition:g}" if dial != scale else "",
        f"by hand: {ruled.by_hand}" if ruled.by_hand else "",
    ]
    below = [
        *(f"[{number}] {work}" for number, work in enumerate(works, 1)),
        f"the policy switches off: {', '.join(_switched_off(recipe, ruled)) or 'nothing'}",
        *(f"crops of a square scan, {name}: {'; '.join(lines)}" for name, lines in crops.items()),
    ]
    return "\n".join([*_wrapped(text), "", *_columns(cells), "", *_wrapped(below)])


def policy_changes(ruled: Recipe) -> str:
    """Returns what the policy of a recipe makes of it, in words; its numbers are in its table."""
    policy = ruled.policy
    assert policy is not None
    # What was set by hand is not the policy's.
    recipe = find_recipe(ruled.name)
    ruled = recipe.under(policy)
    was_on, is_on = _operations_on(recipe), _operations_on(ruled)
    read = list(product((ruled.dial(Scale.WEAK), ruled.dial(Scale.STRONG)), range(ruled.num_kinds)))
    changed = dict.fromkeys(
        OPERATION_OF[one.parameter].name
        for one, other in zip(recipe.rows, ruled.rows, strict=True)
        if any(one.value(scale, view) != other.value(scale, view) for scale, view in read)
    )
    crops = [each.at(Scale.STRONG).views[0].crop_min for each in (recipe, ruled)]
    parts = {
        "off": _switched_off(recipe, ruled),
        "added": [name for name in changed if name not in was_on],
        "changed": [
            name for name in changed if name in was_on and name in is_on and name != "crop"
        ],
    }
    sentences = [
        *(f"{words}: {', '.join(names)}" for words, names in parts.items() if names),
        *((f"global crops from {crops[1]:.3g} of the area on at s = 1",) * (len({*crops}) > 1)),
        *(("one number moves acquisition too",) * policy.moves_acquisition),
    ]
    return f"{policy.name} ({'; '.join(sentences).replace('_', ' ') or 'the recipe as published'})"


def _operations_on(recipe: Recipe) -> dict[str, None]:
    return dict.fromkeys(OPERATION_OF[row.parameter].name for row in recipe.rows if not row.is_off)


def _switched_off(recipe: Recipe, ruled: Recipe) -> list[str]:
    """The operations that are off under a policy, with its reasons."""
    assert ruled.policy is not None
    is_on = _operations_on(ruled)
    return [
        f"{name} ({why})" if (why := ruled.policy.why_off(name)) else name
        for name in _operations_on(recipe)
        if name not in is_on
    ]


def _last_column(row: TableRow, works: list[str]) -> str:
    source = _numbered(row.source, works)
    return f"{source}; {row.note}" if row.note else source


def _wrapped(paragraphs: Sequence[str]) -> list[str]:
    return [line for text in paragraphs for line in textwrap.wrap(text, WIDTH)]


def _lines(rows: Sequence[TableRow]) -> tuple[list[str], list[str]]:
    """Aligned columns, the last one wrapped; and the works that it refers to by number."""
    cells: list[tuple[str, ...]] = [("operation", "parameter", "value", "unit", "source; note")]
    works: list[str] = []
    before = ""
    for row in rows:
        operation = "" if row.operation == before else row.operation
        cells.append((operation, row.parameter, row.value, row.unit, _last_column(row, works)))
        before = row.operation
    return _columns(cells), works


def _columns(cells: Sequence[tuple[str, ...]]) -> list[str]:
    """Aligned columns below their headings, the last one wrapped."""
    narrow = len(cells[0]) - 1
    widths = [max(len(cell[column]) for cell in cells) for column in range(narrow)]
    start = sum(widths) + narrow * len(_GAP)
    room = max(WIDTH - start, _LEAST_LAST)
    lines = []
    for number, cell in enumerate(cells):
        first = _GAP.join(f"{text:{width}}" for text, width in zip(cell, widths, strict=False))
        pieces = textwrap.wrap(cell[-1], room)
        lines.append(first + _GAP + pieces[0])
        lines += [" " * start + piece for piece in pieces[1:]]
        if number == 0:
            lines.append("-" * WIDTH)
    return lines


def _numbered(source: str, works: list[str]) -> str:
    """The source with each work replaced by its number; new works are added to the list."""

    def number(match: re.Match[str]) -> str:
        if match[2] not in works:
            works.append(match[2])
        return f"{match[1]} [{works.index(match[2]) + 1}]"

    return re.sub(r"(published|derived|policy [^:;,]+)(?:: | from )([^;]*)", number, source)
