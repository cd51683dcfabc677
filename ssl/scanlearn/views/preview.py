"""Preview sheets: what the dial does to real scans, for a person to judge.

Each row is a scan, each column a setting of the dial. All views of a row come from one draw: from
left to right only the setting changes. A recipe beside another has a row of its own below it, from
the same draw. Lengths are in inches.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from jaxtyping import Float
from pydantic import Field

from scanlearn.archive.reader import Archive
from scanlearn.config.calls import checked
from scanlearn.console import doing, say, warn_user
from scanlearn.core import ScanBatch
from scanlearn.errors import ScanlearnError
from scanlearn.files import make_folder
from scanlearn.packing.settings import PackSettings
from scanlearn.packing.sources import open_archive
from scanlearn.palette import LIGHT, NUM_HUES
from scanlearn.tables.settings import DEFAULT_TABLE, Table
from scanlearn.views.adjusting import Given, Operations
from scanlearn.views.draw import Draw
from scanlearn.views.extra_settings import Extras, build_extras
from scanlearn.views.modality import AUTO, NAMES, Modality, OwnModality
from scanlearn.views.of_archive import (
    check_operations,
    contradiction,
    left_out_in_words,
    left_out_of,
    modality_by_tags,
)
from scanlearn.views.recipes import Recipe, find_recipe, no_effect_in_words
from scanlearn.views.scale import NAMED_SCALES, Scale, Written
from scanlearn.views.settings import DEFAULT_SETTINGS, LOCAL_SHARE, RenderSettings
from scanlearn.views.statistics import view_statistics
from scanlearn.views.uniforms import DrawKey, uniforms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from scanlearn.views.extras import Extra


DEFAULT_SCALES = (0.0, 0.5, 1.0, 1.5)
NUM_GLOBAL, NUM_LOCAL = 2, 2
INK, FAINT = LIGHT["--ink"], LIGHT["--muted"]
# Line styles of the crops of the first and the second view.
_STYLES = ("-", (0, (3, 2)))
# Font sizes in points, and about how high a line and how wide a letter is.
_TITLE, _SMALL = 10.0, 6.5
_LINE, _TITLE_LETTER, _LETTER = 0.13, 0.09, 0.05


def colour_of(column: int) -> str:
    """Returns the colour of a column's heading and crops."""
    return LIGHT[f"--hue-{column % NUM_HUES}"]


def _wrapped(paragraphs: Sequence[str], width: float) -> list[str]:
    room = int(width / _LETTER)
    return [line for text in paragraphs for line in textwrap.wrap(text, room)]


class SheetGrid:
    """Lays out a sheet: in each row the scan, then the views of each column.

    The two global views stand side by side, the smaller local ones one above the other beside them.
    With local views the scan is shown twice, once for the crops of each kind.

    Args:
        headings: Title of each column and the small print below it.
        local_share: Side of a local view over that of a global one; 0 without local views.
        rows_together: Number of rows that belong together; further ones stand apart.
    """

    CELL, GAP, BETWEEN, LEFT = 1.0, 0.04, 0.22, 0.36

    def __init__(
        self,
        rows: int,
        headings: Sequence[tuple[str, Sequence[str]]],
        *,
        local_share: float,
        foot: Sequence[str],
        rows_together: int = 1,
    ) -> None:
        from matplotlib.figure import Figure

        # Two local views one above the other are no higher than a global one.
        self._small = min(local_share, (self.CELL - self.GAP) / NUM_LOCAL)
        local = self.GAP + self._small if local_share else 0.0
        self._group = NUM_GLOBAL * self.CELL + (NUM_GLOBAL - 1) * self.GAP + local
        self._scans = 2 * self.CELL + self.GAP if local_share else self.CELL
        self._width = self.LEFT + self._scans + len(headings) * (self.BETWEEN + self._group) + 0.12
        small = [(title, _wrapped(lines, self._group)) for title, lines in headings]
        foot = _wrapped(foot, self._width - 2 * self.LEFT)
        self._top = 0.34 + max(len(lines) for _, lines in small) * _LINE
        self._together = rows_together
        self._height = self._top + self._down(rows) + 0.16 + len(foot) * _LINE
        self.figure: Figure = Figure(figsize=(self._width, self._height), facecolor="white")
        below = "and its global and local crops" if local_share else "and where it is cropped"
        self._words(self.LEFT, "the scan", [below], INK)
        for column, (title, lines) in enumerate(small):
            self._words(self._left(column), title, lines, colour_of(column))
        for number, line in enumerate(reversed(foot)):
            self._line(self.LEFT, 0.1 + number * _LINE, line)

    def original(self, row: int, number: int) -> Axes:
        """Returns the place of a scan: 0 for the crops of global views, 1 for those of local."""
        return self._axes(self.LEFT + number * (self.CELL + self.GAP), row, self.CELL, 0.0)

    def label(self, row: int, text: str) -> None:
        """Writes up the left of a row; beside the scan itself, crops would run through it."""
        middle = self._height - self._top - self._down(row) - self.CELL / 2
        x, y = (self.LEFT - 0.05) / self._width, middle / self._height
        look: dict[str, Any] = {"fontsize": 7, "color": FAINT, "rotation": 90}
        self.figure.text(x, y, text, ha="right", va="center", multialignment="center", **look)

    def view(self, row: int, column: int, view: int) -> Axes:
        """Returns the place of a view: 0 and 1 are global, 2 and further local."""
        left = self._left(column)
        if view < NUM_GLOBAL:
            return self._axes(left + view * (self.CELL + self.GAP), row, self.CELL, 0.0)
        left += NUM_GLOBAL * (self.CELL + self.GAP)
        return self._axes(left, row, self._small, (view - NUM_GLOBAL) * (self._small + self.GAP))

    def _down(self, row: int) -> float:
        """How far below the first row a row begins."""
        apart = row // self._together if self._together > 1 else 0
        return row * (self.CELL + self.GAP) + apart * self.BETWEEN / 2

    def _left(self, column: int) -> float:
        return self.LEFT + self._scans + self.BETWEEN + column * (self._group + self.BETWEEN)

    def _axes(self, left: float, row: int, side: float, below: float) -> Axes:
        top = self._height - self._top - self._down(row) - below
        width, height = self._width, self._height
        axes = self.figure.add_axes(
            (left / width, (top - side) / height, side / width, side / height), xticks=[], yticks=[]
        )
        # A thin frame: a white view must not vanish into the page.
        for spine in axes.spines.values():
            spine.set(color=LIGHT["--rule"], linewidth=0.4)
        return axes

    def _words(self, left: float, title: str, lines: Sequence[str], colour: str) -> None:
        size = min(_TITLE, _TITLE * self._group / (len(title) * _TITLE_LETTER))
        y = 1 - 0.22 / self._height
        self.figure.text(left / self._width, y, title, fontsize=size, color=colour, weight="bold")
        for number, line in enumerate(lines):
            self._line(left, self._height - 0.38 - number * _LINE, line)

    def _line(self, left: float, bottom: float, text: str) -> None:
        self.figure.text(
            left / self._width, bottom / self._height, text, fontsize=_SMALL, color=FAINT
        )


@checked
def preview(
    source: Annotated[str | Path, Field(description="An archive, a folder or a table.")],
    *,
    output: Annotated[
        str | Path, Field(description="The picture to write; its suffix is .png, .pdf or .svg.")
    ] = "preview.png",
    recipe: Annotated[Recipe | str, Field(description="The augmentation recipe.")] = "simclr",
    operations: Annotated[
        Operations, Field(description="Operations of it switched off or set by hand.")
    ] = {},  # noqa: B006  never written to
    modality: Annotated[
        Modality,
        Field(
            description="Kind of scan, whose policy is drawn below the recipe at each scale: "
            f"{NAMES}; or one of your own; auto is the one that the DICOM tags of all scans name, "
            "if there is one; null draws the recipe alone."
        ),
    ] = AUTO,
    extras: Extras = (),
    scale_blur: Annotated[
        bool, Field(description="Blur shrinks with the view, as its sigma is stated at 224 px.")
    ] = True,
    scales: Annotated[
        tuple[float | str | dict[str, float | str], ...],
        Field(
            description="The columns: numbers from 0 to 1.5, or identity, weak, strong; or one "
            "value for each of crop, geometry, photometric and acquisition."
        ),
    ] = DEFAULT_SCALES,
    scans: Annotated[int, Field(description="How many scans to show, one a row.")] = 5,
    size: Annotated[int, Field(description="Side of a global view in pixels.")] = 128,
    seed: Annotated[int, Field(description="Chooses the scans and the draw of each.")] = 0,
    table: Table = DEFAULT_TABLE,
) -> Path:
    """Draw a sheet of views at several augmentation scales.

    Returns:
        The path of the picture.

    Raises:
        ScanlearnError: The source, the recipe, an operation, the modality, an extra, a scale or the
            format cannot be used, or an operation set by hand is not for these scans.
    """
    target = Path(output).expanduser()
    if target.suffix not in (".png", ".pdf", ".svg"):
        raise ScanlearnError(f"output: '{output}' is no picture; end it in .png, .pdf or .svg.")
    pure = find_recipe(recipe)
    columns = named_columns(scales)
    # Refused before scans are packed.
    adjusted = _ruled(pure, modality, operations, columns)
    drawn_extras = build_extras(extras)
    archive = open_archive(source, settings=PackSettings.of_table(table))
    check_operations(operations, archive)
    if isinstance(modality, OwnModality):
        check_operations(modality.operations, archive, "modality.operations")
    contrary = contradiction(modality, archive)
    if contrary:
        warn_user(contrary)
    if modality == AUTO:
        modality, why = modality_by_tags(archive)
        if why:
            is_named = modality or "not given, and the recipe alone is drawn"
            say(f"modality is {is_named}: {why}")
        adjusted = _ruled(pure, modality, operations, columns)
    left_out = left_out_of(adjusted, archive)
    if left_out:
        adjusted = _ruled(pure, modality, operations, columns, tuple(left_out))
    for words in left_out_in_words(left_out):
        say(words)
    beside = pure if adjusted.policy else None
    settings = RenderSettings(scale_blur=scale_blur)
    sheet = Sheet(adjusted, size, seed, settings, drawn_extras, beside)
    with doing("drawing the sheet"):
        figure = sheet.draw(archive, columns, scans)
        make_folder(target.parent)
        figure.savefig(target, dpi=150)
    say(f"preview sheet: {target}")
    return target


def _ruled(
    recipe: Recipe,
    modality: OwnModality | str | None,
    operations: Mapping[str, Given],
    columns: Sequence[tuple[str, Scale]],
    left_out: Sequence[str] = (),
) -> Recipe:
    """The recipe under a modality, adjusted by hand to some effect in the columns."""
    ruled = recipe.under(modality, left_out).adjusted(operations)
    idle = ruled.without_effect([scale for _, scale in columns])
    if idle:
        raise ScanlearnError(no_effect_in_words(idle))
    return ruled


def preview_sheet(
    archive: Archive,
    *,
    recipe: Recipe | str = "simclr",
    scales: Sequence[Scale | Written] = DEFAULT_SCALES,
    scans: int = 5,
    size: int = 128,
    seed: int = 0,
    settings: RenderSettings = DEFAULT_SETTINGS,
) -> Figure:
    """Returns a sheet with one column per scale; see `arm_sheet`.

    Raises:
        ScanlearnError: The recipe or a scale is unknown, or there is nothing to show.
    """
    sheet = Sheet(find_recipe(recipe), size, seed, settings)
    return sheet.draw(archive, named_columns(scales), scans)


def arm_sheet(
    archive: Archive,
    arms: Mapping[str, Scale],
    *,
    recipe: Recipe | str = "simclr",
    scans: int = 5,
    size: int = 64,
    seed: int = 0,
    settings: RenderSettings = DEFAULT_SETTINGS,
    extras: Sequence[Extra] = (),
) -> Figure:
    """Returns a sheet with one column per arm: two global and, if there are any, two local views.

    Args:
        scans: Number of rows; fewer where the archive is smaller.
        size: Side of a global view in pixels.
        seed: Chooses the scans and the views.

    Raises:
        ScanlearnError: The recipe is unknown, or there is nothing to show.
    """
    sheet = Sheet(find_recipe(recipe), size, seed, settings, tuple(extras))
    return sheet.draw(archive, list(arms.items()), scans)


def named_columns(scales: Sequence[Scale | Written]) -> list[tuple[str, Scale]]:
    """Returns the columns of some scales, each under its name: weak, strong or just scale."""
    names = {Scale.of(value): name for name, value in NAMED_SCALES.items()}
    parsed = [Scale.parse(scale) for scale in scales]
    return [(names.get(scale, "scale"), scale) for scale in parsed]


@dataclass(frozen=True)
class Sheet:
    """What all columns of a sheet share.

    Args:
        beside: A recipe that is drawn above ``recipe`` from the same draws; None draws one alone.
    """

    recipe: Recipe
    size: int
    seed: int
    settings: RenderSettings
    extras: tuple[Extra, ...] = ()
    beside: Recipe | None = None

    @property
    def kinds(self) -> tuple[range, ...]:
        """The global views and, where the recipe has them, local ones."""
        local = range(NUM_GLOBAL, NUM_GLOBAL + NUM_LOCAL)
        return (range(NUM_GLOBAL), local) if self.recipe.has_local_views else (range(NUM_GLOBAL),)

    def draw(self, archive: Archive, columns: Sequence[tuple[str, Scale]], scans: int) -> Figure:
        """Returns the sheet, fewer rows than ``scans`` where the archive is smaller."""
        if not columns:
            raise ScanlearnError("scales: none given; give at least one.")
        if scans < 1:
            raise ScanlearnError(f"scans: {scans} leaves nothing to show; give 1 or more.")
        order = np.random.default_rng(self.seed).permutation(len(archive))
        rows = np.sort(order[:scans]).astype(np.int64)
        batch = archive.gather(rows)
        u = uniforms(DrawKey(self.seed, 0, np.arange(len(rows))), self.kinds[-1].stop)
        recipes = self._recipes
        headings = [self._heading(*column) for column in columns]
        local_share = LOCAL_SHARE if self.recipe.has_local_views else 0.0
        grid = SheetGrid(
            len(rows) * len(recipes),
            headings,
            local_share=local_share,
            foot=self._foot(),
            rows_together=len(recipes),
        )
        for line, recipe in enumerate(recipes):
            draws = [recipe.at(scale).draw(u, batch.valid_box.numpy()) for _, scale in columns]
            for scan in range(len(rows)):
                row = scan * len(recipes) + line
                for number, views in enumerate(self.kinds):
                    axes = grid.original(row, number)
                    _show(axes, _whole(batch, scan))
                    _outline(axes, batch, draws, scan, views)
                beside = "" if self.beside is None else f"\n{_called(recipe)}"
                grid.label(row, f"scan {rows[scan]}{beside}")
            settings = replace(recipe.rendered(self.settings), global_size=self.size)
            places = range(line, len(rows) * len(recipes), len(recipes))
            for column, draw in enumerate(draws):
                self._fill(grid, places, column, batch, draw, archive, settings)
        return grid.figure

    def _fill(
        self,
        grid: SheetGrid,
        rows: Sequence[int],
        column: int,
        batch: ScanBatch,
        draw: Draw,
        archive: Archive,
        settings: RenderSettings,
    ) -> None:
        from scanlearn.views.render import render_views

        local_size = max(round(LOCAL_SHARE * self.size), 2)
        for views, size in zip(self.kinds, (self.size, local_size), strict=False):
            rendered = render_views(batch, draw, views, size, settings)
            for view, planes in zip(views, rendered, strict=True):
                pictures = self._extended(planes, draw, view, batch, archive)
                images = pictures.permute(0, 2, 3, 1).numpy()
                for row, image in zip(rows, images, strict=True):
                    _show(grid.view(row, column, view), image)

    def _extended(
        self, planes: Tensor, draw: Draw, view: int, batch: ScanBatch, archive: Archive
    ) -> Tensor:
        """Returns views after the extras, on the unit range."""
        if not self.extras:
            return planes
        import torch

        from scanlearn.views.extras import apply_extras
        from scanlearn.views.render import standardise
        from scanlearn.views.settings import Standard

        def scan_name(row: int) -> str:
            return f"'{archive.scan_ids[int(batch.ids[row])]}'"

        apply_extras(planes, draw, view, self.extras, "before", scan_name)
        if all(extra.place == "before" for extra in self.extras):
            return planes
        standardise(planes, Standard.of(archive.mean, archive.std))
        apply_extras(planes, draw, view, self.extras, "after", scan_name)
        mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (archive.mean, archive.std))
        return (planes * std + mean).clamp_(0, 1)

    @property
    def _recipes(self) -> tuple[Recipe, ...]:
        """The recipes, each of which has a row of every scan."""
        return (self.recipe,) if self.beside is None else (self.beside, self.recipe)

    def _heading(self, name: str, scale: Scale) -> tuple[str, list[str]]:
        """The title of a column; below it two numbers, or the sub-dials, and the overlaps."""
        if scale == Scale.IDENTITY:
            overlaps = view_statistics(self.recipe, scale).lines()
            return f"{name} {scale}", ["the whole scan, resized", *overlaps]
        is_one_number = scale == Scale.of(scale.crop)
        lines = [] if is_one_number else [str(scale)]
        for recipe in self._recipes:
            first, *further = view_statistics(recipe, scale).lines()
            if is_one_number:
                views = recipe.at(scale).views
                least = dict.fromkeys(f"{view.crop_min:.0%}" for view in views)
                brightness = f"brightness ±{views[0].brightness:.0%}"
                further = [first, *further]
                first = f"crops ≥{' and '.join(least)}, {brightness}"
            lines.append(first if self.beside is None else f"{_called(recipe)}: {first}")
            lines.extend(further)
        return f"{name} {scale}" if is_one_number else name, lines

    def _foot(self) -> list[str]:
        by_hand = f", by hand: {self.recipe.by_hand}" if self.recipe.by_hand else ""
        policy = self.recipe.policy
        modality = f", modality {policy.name}" if policy else ""
        if self.extras:
            by_hand += f", extras: {', '.join(extra.name for extra in self.extras)}"
        changing = "the scale or the modality" if self.beside else "the scale"
        return [
            f"Recipe {self.recipe.name}{modality}{by_hand}. All views of a scan come from one "
            f"draw; only {changing} changes. Crops: first view solid, second dashed, before they "
            "are turned.",
            "IoU: area shared by two crops over the area they cover together; disjoint: share of "
            "pairs that do not overlap. Means for a square scan.",
        ]


def _called(recipe: Recipe) -> str:
    return recipe.policy.name if recipe.policy else recipe.name


def _whole(batch: ScanBatch, row: int) -> Float[np.ndarray, "h w c"]:
    top, left, bottom, right = batch.valid_box[row].tolist()
    low, high = batch.value_range[row].tolist()
    pixels = batch.pixels[row, :, top:bottom, left:right].float().numpy()
    image: Float[np.ndarray, "h w c"] = np.clip((pixels - low) / (high - low), 0, 1)
    return image.transpose(1, 2, 0)


def _show(axes: Axes, image: Float[np.ndarray, "h w c"]) -> None:
    axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1)


def _outline(axes: Axes, batch: ScanBatch, draws: Sequence[Draw], row: int, views: range) -> None:
    """Draws crops of every column on the original: the first view solid, the second dashed."""
    from matplotlib.patches import Rectangle

    top, left = batch.valid_box[row, :2].tolist()
    for column, draw in enumerate(draws):
        look: dict[str, Any] = {"edgecolor": colour_of(column), "linewidth": 1.1}
        for view, style in zip(views, _STYLES, strict=True):
            y0, x0, y1, x1 = draw.crop_box[row, view]
            corner = (x0 - left - 0.5, y0 - top - 0.5)
            crop = Rectangle(corner, x1 - x0, y1 - y0, fill=False, linestyle=style, **look)
            crop.set_clip_on(False)
            axes.add_patch(crop)
