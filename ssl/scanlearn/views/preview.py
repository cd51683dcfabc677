"""Preview sheets: what the dial does to real scans, for a person to judge.

Scans stand in rows, settings of the dial in columns, and one draw runs through a whole row: what
changes from left to right is the setting alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from jaxtyping import Float, Int64
from pydantic import Field

from scanlearn.core import ScanBatch, ScanlearnError
from scanlearn.runs import say
from scanlearn.scans.reader import Archive
from scanlearn.scans.source import open_archive
from scanlearn.views.adjusting import Operations
from scanlearn.views.draw import Draw
from scanlearn.views.generator import LOCAL_SHARE
from scanlearn.views.recipes import Recipe, find_recipe, no_effect_in_words
from scanlearn.views.render import DEFAULT_SETTINGS, RenderSettings, render_views
from scanlearn.views.scale import NAMED_SCALES, Scale
from scanlearn.views.sheet import FAINT, NUM_GLOBAL, NUM_LOCAL, SheetGrid, colour_of
from scanlearn.views.statistics import view_statistics
from scanlearn.views.uniforms import DrawKey, uniforms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEFAULT_SCALES = (0.0, 0.5, 1.0, 1.5)
_STYLES = ("-", (0, (3, 2)))


def preview(
    source: Annotated[str | Path, Field(description="An archive, a folder or a table.")],
    *,
    output: Annotated[
        str | Path, Field(description="The picture to write: .png, .pdf or .svg.")
    ] = "preview.png",
    recipe: Annotated[Recipe | str, Field(description="The augmentation recipe.")] = "simclr",
    operations: Annotated[
        Operations, Field(description="Operations of it switched off or set by hand.")
    ] = {},  # noqa: B006  never written to
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
    seed: Annotated[int, Field(description="Which scans and which draws are shown.")] = 0,
) -> Path:
    """Draws a sheet of views at several scales and writes it to a file.

    Args:
        source: An archive, a folder of scans, a table or a phantom.
        output: The picture; its suffix says the format.
        recipe: A recipe or its name.
        operations: As of `Recipe.adjusted`.
        scale_blur: Whether a blur's sigma shrinks with the view.
        scales: One column each.
        scans: One row each.
        size: Side of a global view in pixels.
        seed: Which scans and which draws are shown.

    Returns:
        The picture's path.

    Raises:
        ScanlearnError: The source, the recipe, an operation, a scale or the format cannot be used.
    """
    target = Path(output)
    if target.suffix not in (".png", ".pdf", ".svg"):
        raise ScanlearnError(f"output: '{output}' is no picture; end it in .png, .pdf or .svg.")
    found = (find_recipe(recipe) if isinstance(recipe, str) else recipe).adjusted(operations)
    columns = _named(scales)
    idle = found.without_effect([scale for _, scale in columns])
    if idle:
        raise ScanlearnError(no_effect_in_words(idle))
    sheet = _Sheet(
        found,
        size=size,
        seed=seed,
        settings=RenderSettings(scale_blur=scale_blur),
    )
    figure = sheet.draw(open_archive(source), columns, scans)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=150)
    say(f"preview sheet: {target}")
    return target


def preview_sheet(
    archive: Archive,
    *,
    recipe: Recipe | str = "simclr",
    scales: Sequence[Scale | float | str | Mapping[str, float | str]] = DEFAULT_SCALES,
    scans: int = 5,
    size: int = 128,
    seed: int = 0,
    settings: RenderSettings = DEFAULT_SETTINGS,
) -> Figure:
    """Returns a sheet with one column per scale; see `arm_sheet`.

    Raises:
        ScanlearnError: The recipe or a scale is unknown, or there is nothing to show.
    """
    found = find_recipe(recipe) if isinstance(recipe, str) else recipe
    return _Sheet(found, size, seed, settings).draw(archive, _named(scales), scans)


def arm_sheet(
    archive: Archive,
    arms: Mapping[str, Scale],
    *,
    recipe: Recipe | str = "simclr",
    scans: int = 5,
    size: int = 64,
    seed: int = 0,
    settings: RenderSettings = DEFAULT_SETTINGS,
) -> Figure:
    """Returns a sheet with one column per arm: views of each scan, the same draw in every one.

    The two global views and, where the recipe has local ones, two of these.

    Args:
        archive: Where the scans come from.
        arms: Scale of each arm, by its name.
        recipe: A recipe or its name.
        scans: Number of rows; fewer where the archive is smaller.
        size: Side of a global view in pixels.
        seed: Which scans and which draws are shown.
        settings: What a draw leaves open.

    Raises:
        ScanlearnError: The recipe is unknown, or there is nothing to show.
    """
    found = find_recipe(recipe) if isinstance(recipe, str) else recipe
    return _Sheet(found, size, seed, settings).draw(archive, list(arms.items()), scans)


def _named(
    scales: Sequence[Scale | float | str | Mapping[str, float | str]],
) -> list[tuple[str, Scale]]:
    names = {Scale.of(value): name for name, value in NAMED_SCALES.items()}
    parsed = [Scale.parse(scale) for scale in scales]
    return [(names.get(scale, "scale"), scale) for scale in parsed]


@dataclass(frozen=True)
class _Sheet:
    """What all columns of a sheet share."""

    recipe: Recipe
    size: int
    seed: int
    settings: RenderSettings

    @property
    def kinds(self) -> tuple[range, ...]:
        """The global views and, where the recipe has them, local ones."""
        local = range(NUM_GLOBAL, NUM_GLOBAL + NUM_LOCAL)
        return (range(NUM_GLOBAL), local) if self.recipe.has_local_views else (range(NUM_GLOBAL),)

    def draw(self, archive: Archive, columns: Sequence[tuple[str, Scale]], scans: int) -> Figure:
        if not columns:
            raise ScanlearnError("scales: none given; give at least one.")
        rows = _chosen(archive, scans, self.seed)
        batch = archive.gather(rows)
        u = uniforms(DrawKey(self.seed, 0, np.arange(len(rows))), self.kinds[-1].stop)
        draws = [self.recipe.at(scale).draw(u, batch.valid_box.numpy()) for _, scale in columns]
        headings = [self._heading(name, scale) for name, scale in columns]
        grid = SheetGrid(
            len(rows),
            headings,
            local_share=LOCAL_SHARE if self.recipe.has_local_views else 0.0,
            foot=self._foot(),
        )
        for row in range(len(rows)):
            for number, views in enumerate(self.kinds):
                axes = grid.original(row, number)
                _show(axes, _whole(batch, row))
                _outline(axes, batch, draws, row, views)
                if number == 0:
                    axes.set_ylabel(f"scan {rows[row]}", fontsize=7, color=FAINT, labelpad=4)
        for column, draw in enumerate(draws):
            self._fill(grid, column, batch, draw)
        return grid.figure

    def _fill(self, grid: SheetGrid, column: int, batch: ScanBatch, draw: Draw) -> None:
        local_size = max(round(LOCAL_SHARE * self.size), 2)
        for views, size in zip(self.kinds, (self.size, local_size), strict=False):
            rendered = render_views(batch, draw, views, size, self.settings)
            for view, pictures in zip(views, rendered, strict=True):
                for row, image in enumerate(pictures.permute(0, 2, 3, 1).numpy()):
                    _show(grid.view(row, column, view), image)

    def _heading(self, name: str, scale: Scale) -> tuple[str, list[str]]:
        """A title; below it the two numbers that say most, or the sub-dials; and the overlaps."""
        found = view_statistics(self.recipe, scale)
        if scale != Scale.of(scale.crop):
            return name, [str(scale), *found.lines()]
        views = self.recipe.at(scale).views
        least = dict.fromkeys(f"{view.crop_min:.0%}" for view in views)
        changes = f"crops from {' and '.join(least)}, brightness ±{views[0].brightness:.0%}"
        changes = "the whole scan, resized" if scale == Scale.IDENTITY else changes
        return f"{name} {scale}", [changes, *found.lines()]

    def _foot(self) -> list[str]:
        by_hand = f", by hand: {self.recipe.by_hand}" if self.recipe.by_hand else ""
        return [
            f"Recipe {self.recipe.name}{by_hand}. One draw runs through a row; only the scale "
            "changes. Crops: first view solid, second dashed.",
            "IoU: the area that two crops share over the area they cover; disjoint: how often they "
            "share none. Means for a square scan.",
        ]


def _chosen(archive: Archive, scans: int, seed: int) -> Int64[np.ndarray, " b"]:
    if scans < 1:
        raise ScanlearnError(f"scans: {scans} leaves nothing to show; give 1 or more.")
    order = np.random.default_rng(seed).permutation(len(archive))
    return np.sort(order[:scans]).astype(np.int64)


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
    for number, draw in enumerate(draws):
        for view, style in zip(views, _STYLES, strict=True):
            y0, x0, y1, x1 = draw.crop_box[row, view]
            axes.add_patch(
                Rectangle(
                    (x0 - left - 0.5, y0 - top - 0.5),
                    x1 - x0,
                    y1 - y0,
                    fill=False,
                    linewidth=1.1,
                    linestyle=style,
                    edgecolor=colour_of(number),
                    clip_on=False,
                )
            )
