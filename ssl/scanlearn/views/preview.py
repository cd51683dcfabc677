"""Preview sheets: what the dial does to real scans, for a person to judge.

Scans stand in rows, settings of the dial in columns, and one draw runs through a whole row: what
changes from left to right is the setting alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from jaxtyping import Float, Int64
from pydantic import Field

from scanlearn.core import ScanBatch, ScanlearnError
from scanlearn.runs import say
from scanlearn.scans.reader import Archive
from scanlearn.scans.source import open_archive
from scanlearn.views.draw import Draw, ViewRanges
from scanlearn.views.recipes import Recipe, find_recipe
from scanlearn.views.render import render_views
from scanlearn.views.scale import NAMED_SCALES, Scale
from scanlearn.views.uniforms import DrawKey, uniforms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEFAULT_SCALES = (0.0, 0.5, 1.0, 1.5)
NUM_VIEWS = 2
_INK, _FAINT = "#1f2933", "#6b7785"
# From calm to hot along the dial; told apart in gray print and by colour-blind eyes.
_COLOURS = ("#3b6fb6", "#2a9d8f", "#e9a23b", "#d1495b", "#7b2d8b", "#5c677d")


def preview(
    source: Annotated[str | Path, Field(description="An archive, a folder or a table.")],
    *,
    output: Annotated[
        str | Path, Field(description="The picture to write: .png, .pdf or .svg.")
    ] = "preview.png",
    recipe: Annotated[str, Field(description="The augmentation recipe.")] = "simclr",
    scales: Annotated[
        tuple[float | str, ...],
        Field(description="The columns: numbers from 0 to 1.5, or identity, weak, strong."),
    ] = DEFAULT_SCALES,
    scans: Annotated[int, Field(description="How many scans to show, one a row.")] = 5,
    size: Annotated[int, Field(description="Side of a view in pixels.")] = 128,
    seed: Annotated[int, Field(description="Which scans and which draws are shown.")] = 0,
) -> Path:
    """Draws a sheet of views at several scales and writes it to a file.

    Args:
        source: An archive, a folder of scans, a table or a phantom.
        output: The picture; its suffix says the format.
        recipe: Name of the recipe.
        scales: One column each.
        scans: One row each.
        size: Side of a view in pixels.
        seed: Which scans and which draws are shown.

    Returns:
        The picture's path.

    Raises:
        ScanlearnError: The source, the recipe, a scale or the format cannot be used.
    """
    target = Path(output)
    if target.suffix not in (".png", ".pdf", ".svg"):
        raise ScanlearnError(f"output: '{output}' is no picture; end it in .png, .pdf or .svg.")
    figure = preview_sheet(
        open_archive(source), recipe=recipe, scales=scales, scans=scans, size=size, seed=seed
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=150)
    say(f"preview sheet: {target}")
    return target


def preview_sheet(
    archive: Archive,
    *,
    recipe: Recipe | str = "simclr",
    scales: Sequence[Scale | float | str] = DEFAULT_SCALES,
    scans: int = 5,
    size: int = 128,
    seed: int = 0,
) -> Figure:
    """Returns a sheet with one column per scale; see `arm_sheet`.

    Raises:
        ScanlearnError: The recipe or a scale is unknown, or there is nothing to show.
    """
    names = {Scale.of(value): name for name, value in NAMED_SCALES.items()}
    parsed = [Scale.parse(scale) for scale in scales]
    columns = [(names.get(scale, "scale"), scale) for scale in parsed]
    return _sheet(archive, recipe, columns, _chosen(archive, scans, seed), size, seed)


def arm_sheet(
    archive: Archive,
    arms: Mapping[str, Scale],
    *,
    recipe: Recipe | str = "simclr",
    scans: int = 5,
    size: int = 64,
    seed: int = 0,
) -> Figure:
    """Returns a sheet with one column per arm: two views of each scan, the same draw in every one.

    Args:
        archive: Where the scans come from.
        arms: Scale of each arm, by its name.
        recipe: A recipe or its name.
        scans: Number of rows; fewer where the archive is smaller.
        size: Side of a view in pixels.
        seed: Which scans and which draws are shown.

    Raises:
        ScanlearnError: The recipe is unknown, or there is nothing to show.
    """
    return _sheet(archive, recipe, list(arms.items()), _chosen(archive, scans, seed), size, seed)


def _chosen(archive: Archive, scans: int, seed: int) -> Int64[np.ndarray, " b"]:
    if scans < 1:
        raise ScanlearnError(f"scans: {scans} leaves nothing to show; give 1 or more.")
    order = np.random.default_rng(seed).permutation(len(archive))
    return np.sort(order[:scans]).astype(np.int64)


def _sheet(
    archive: Archive,
    recipe: Recipe | str,
    columns: Sequence[tuple[str, Scale]],
    rows: Int64[np.ndarray, " b"],
    size: int,
    seed: int,
) -> Figure:
    if not columns:
        raise ScanlearnError("scales: none given; give at least one.")
    found = find_recipe(recipe) if isinstance(recipe, str) else recipe
    batch = archive.gather(rows)
    u = uniforms(DrawKey(seed, 0, np.arange(len(rows))), NUM_VIEWS)
    draws = [found.at(scale).draw(u, batch.valid_box.numpy()) for _, scale in columns]
    grid = _Grid(len(rows), len(columns))
    for row in range(len(rows)):
        axes = grid.original(row)
        _show(axes, _whole(batch, row))
        _outline(axes, batch, draws, row)
        axes.set_ylabel(f"scan {rows[row]}", fontsize=7, color=_FAINT, labelpad=4)
    for number, ((name, scale), draw) in enumerate(zip(columns, draws, strict=True)):
        grid.title(number, *_heading(name, scale, found.at(scale).views[0]))
        views = render_views(batch, draw, range(NUM_VIEWS), size)
        for view, rendered in enumerate(views):
            for row, image in enumerate(rendered.permute(0, 2, 3, 1).numpy()):
                _show(grid.view(row, number, view), image)
    return grid.figure


def _heading(name: str, scale: Scale, ranges: ViewRanges) -> tuple[str, str]:
    """A title, and below it the sub-dials or the two numbers that say most about one dial."""
    if scale != Scale.of(scale.crop):
        return name, str(scale)
    changes = f"crop from {ranges.crop_min:.0%}, brightness ±{ranges.brightness:.0%}"
    return f"{name} {scale}", "nothing changes" if scale == Scale.IDENTITY else changes


def _whole(batch: ScanBatch, row: int) -> Float[np.ndarray, "h w c"]:
    top, left, bottom, right = batch.valid_box[row].tolist()
    low, high = batch.value_range[row].tolist()
    pixels = batch.pixels[row, :, top:bottom, left:right].float().numpy()
    image: Float[np.ndarray, "h w c"] = np.clip((pixels - low) / (high - low), 0, 1)
    return image.transpose(1, 2, 0)


def _show(axes: Axes, image: Float[np.ndarray, "h w c"]) -> None:
    axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1)


def _outline(axes: Axes, batch: ScanBatch, draws: Sequence[Draw], row: int) -> None:
    """Draws the crops of every column on the original: the first view solid, the second dashed."""
    from matplotlib.patches import Rectangle

    top, left = batch.valid_box[row, :2].tolist()
    for number, draw in enumerate(draws):
        for view, style in enumerate(("-", (0, (3, 2)))):
            y0, x0, y1, x1 = draw.crop_box[row, view]
            corner = (x0 - left - 0.5, y0 - top - 0.5)
            axes.add_patch(
                Rectangle(
                    corner,
                    x1 - x0,
                    y1 - y0,
                    fill=False,
                    linewidth=1.1,
                    linestyle=style,
                    edgecolor=_colour(number),
                    clip_on=False,
                )
            )


def _colour(column: int) -> str:
    return _COLOURS[column % len(_COLOURS)]


class _Grid:
    """Places the pictures of a sheet; all lengths in inches."""

    CELL, GAP, BETWEEN, LEFT, TOP, FOOT = 1.0, 0.04, 0.22, 0.32, 0.52, 0.34

    def __init__(self, rows: int, columns: int) -> None:
        from matplotlib.figure import Figure

        self.rows = rows
        self.group = NUM_VIEWS * self.CELL + (NUM_VIEWS - 1) * self.GAP
        self.width = self.LEFT + self.CELL + columns * (self.BETWEEN + self.group) + 0.12
        self.height = self.TOP + rows * (self.CELL + self.GAP) + self.FOOT
        self.figure = Figure(figsize=(self.width, self.height), facecolor="white")
        self._text(self.LEFT, "the scan", "and where it is cropped", _INK)
        legend = "One draw runs through a row; only the scale changes. "
        legend += "Crops: first view solid, second dashed."
        self.figure.text(
            self.LEFT / self.width, 0.12 / self.height, legend, fontsize=6.5, color=_FAINT
        )

    def original(self, row: int) -> Axes:
        return self._axes(self.LEFT, row)

    def view(self, row: int, column: int, view: int) -> Axes:
        return self._axes(self._left(column) + view * (self.CELL + self.GAP), row)

    def title(self, column: int, title: str, summary: str) -> None:
        self._text(self._left(column), title, summary, _colour(column))

    def _left(self, column: int) -> float:
        return self.LEFT + self.CELL + self.BETWEEN + column * (self.group + self.BETWEEN)

    def _axes(self, left: float, row: int) -> Axes:
        bottom = self.height - self.TOP - (row + 1) * self.CELL - row * self.GAP
        axes = self.figure.add_axes(
            (
                left / self.width,
                bottom / self.height,
                self.CELL / self.width,
                self.CELL / self.height,
            )
        )
        axes.set_xticks([])
        axes.set_yticks([])
        # A hair of a frame: a view burnt out to white must not vanish into the page.
        for spine in axes.spines.values():
            spine.set(color="#d5dbe1", linewidth=0.4)
        return axes

    def _text(self, left: float, title: str, summary: str, colour: str) -> None:
        for text, below, size, ink in ((title, 0.22, 10, colour), (summary, 0.42, 6.5, _FAINT)):
            self.figure.text(
                left / self.width,
                1 - below / self.height,
                text,
                fontsize=size,
                color=ink,
                weight="bold" if size == 10 else "normal",
            )
