"""Recipes: what the dial means for each parameter of an augmentation pipeline.

A recipe is a table. Each row gives one parameter its values at the scales 0, .5 and 1 and the
limit it may reach at 1.5; `Recipe.at` reads the table at a setting of the dial.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Literal

from scanlearn.core import ScanlearnError
from scanlearn.views.draw import BLUR_SIGMA_MIN, Ranges, ViewRanges
from scanlearn.views.scale import MAX_SCALE, Scale

SubDial = Literal["crop", "geometry", "photometric", "acquisition"]

_LOG_FOUR_THIRDS = math.log(4 / 3)


@dataclass(frozen=True)
class Curve:
    """One parameter as a function of the scale: piecewise linear through its knots.

    Args:
        identity: Value at 0, where nothing happens.
        weak: Value at .5.
        strong: Value at 1.
        limit: Value that is never passed beyond 1.
        reaches_limit: Whether the limit is reached linearly at 1.5. Otherwise the last slope
            goes on, or, where the last segment is flat, the value grows as ``strong * s``.

    Source: docs/dial.md, the dial.
    """

    identity: float
    weak: float
    strong: float
    limit: float
    reaches_limit: bool = False

    @property
    def is_fixed(self) -> bool:
        """Whether weak and strong are the same."""
        return self.weak == self.strong

    def at(self, s: float) -> float:
        """Returns the value at scale ``s``, 0 to 1.5; the knots come back exactly."""
        if s <= 0.5:
            return _between(self.identity, self.weak, s / 0.5)
        if s <= 1:
            return _between(self.weak, self.strong, (s - 0.5) / 0.5)
        if self.reaches_limit:
            return _between(self.strong, self.limit, (s - 1) / (MAX_SCALE - 1))
        slope = self.strong if self.is_fixed else (self.strong - self.weak) / 0.5
        value = self.strong + slope * (s - 1)
        return min(value, self.limit) if slope > 0 else max(value, self.limit)


def _between(low: float, high: float, share: float) -> float:
    return low if share == 0 else high if share == 1 else low + (high - low) * share


@dataclass(frozen=True)
class Row:
    """One line of a recipe.

    Args:
        parameter: A field of `ViewRanges`.
        dial: The sub-dial that moves it.
        curves: One curve for all views, or one per view; the last serves all further views.
        weak_source: "published" where a paper states the value at .5, "derived" where it is
            made from the published recipe by the rule in docs/dial.md.
        needs_colour: Whether it has no meaning on one channel.
    """

    parameter: str
    dial: SubDial
    curves: tuple[Curve, ...]
    weak_source: Literal["published", "derived"] = "derived"
    needs_colour: bool = False

    def value(self, scale: Scale, view: int) -> float:
        """Returns the parameter's value for one view at a setting of the dial."""
        curve = self.curves[min(view, len(self.curves) - 1)]
        return curve.at(getattr(scale, self.dial))

    def source(self, scale: Scale) -> str:
        """Says where the value at this setting comes from."""
        s = getattr(scale, self.dial)
        if s in (0, 0.5, 1):
            return {0: "identity", 0.5: self.weak_source, 1: "published"}[s]
        return "between knots" if s < 1 else "beyond the recipe"


@dataclass(frozen=True)
class TableRow:
    """One line of a resolved recipe, for a person.

    Args:
        parameter: Its name.
        value: Its value at this setting, one per view where views differ.
        fixed: Whether it is the same at weak and strong.
        source: published, derived, identity, between knots or beyond the recipe.
        note: "fixed", "no meaning on one channel" or empty.
    """

    parameter: str
    value: str
    fixed: bool
    source: str
    note: str


@dataclass(frozen=True)
class Recipe:
    """A published augmentation recipe laid along the dial.

    Args:
        name: What a config calls it.
        rows: One row per field of `ViewRanges`.
    """

    name: str
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        given = [row.parameter for row in self.rows]
        assert sorted(given) == sorted(field.name for field in fields(ViewRanges)), self.name

    def at(self, scale: Scale) -> Ranges:
        """Returns what may be drawn at one setting of the dial."""
        num_views = max(len(row.curves) for row in self.rows)
        return Ranges(
            tuple(
                ViewRanges(**{row.parameter: row.value(scale, view) for row in self.rows})
                for view in range(num_views)
            )
        )

    def table(self, scale: Scale, channels: int) -> tuple[TableRow, ...]:
        """Returns the recipe at one setting of the dial, as a person reads it.

        Args:
            scale: The setting.
            channels: 1 or 3; on one channel colour operations do nothing, and the note says so.
        """
        return tuple(_table_row(row, scale, channels) for row in self.rows)


def _table_row(row: Row, scale: Scale, channels: int) -> TableRow:
    values = [row.value(scale, view) for view in range(len(row.curves))]
    fixed = all(curve.is_fixed for curve in row.curves)
    without_meaning = row.needs_colour and channels == 1
    return TableRow(
        parameter=row.parameter,
        value=" / ".join(f"{value:.3g}" for value in values),
        fixed=fixed,
        source=row.source(scale),
        note="no meaning on one channel" if without_meaning else "fixed" if fixed else "",
    )


def weak_crop_min(strong: float) -> float:
    """Returns the weak end of a crop whose strong end is ``strong``.

    Source: the affine map through the crop points of Cheng et al., MIDL 2025, table 2
    (local .05 -> .2, global .4 -> .5), applied to other recipes; see docs/dial.md.
    """
    return 0.2 + (strong - 0.05) * 0.3 / 0.35


def _two_view_crop_min(strong: float) -> Row:
    limit = max(0.02, strong / 4)
    curve = Curve(1.0, weak_crop_min(strong), strong, limit, reaches_limit=True)
    return Row("crop_min", "crop", (curve,))


def _halved(parameter: str, strong: float) -> Row:
    curve = Curve(0.0, strong / 2, strong, 1.5 * strong)
    return Row(parameter, "photometric", (curve,))


def _flat(
    parameter: str, dial: SubDial, value: float, limit: float, *, needs_colour: bool = False
) -> Row:
    return Row(parameter, dial, (Curve(0.0, value, value, limit),), needs_colour=needs_colour)


_SIMCLR = Recipe(
    name="simclr",
    rows=(
        _two_view_crop_min(0.08),
        Row("crop_max", "crop", (Curve(1.0, 1.0, 1.0, 1.0),)),
        _flat("log_aspect", "crop", _LOG_FOUR_THIRDS, math.log(2)),
        # Ours: at 0 the view is the whole scan whatever its shape, at .5 the recipe's own centre.
        Row("own_aspect", "crop", (Curve(1.0, 0.0, 0.0, 0.0),)),
        _flat("flip_p", "geometry", 0.5, 0.5),
        _flat("jitter_p", "photometric", 0.8, 1.0),
        _halved("brightness", 0.8),
        _halved("contrast", 0.8),
        _flat("saturation", "photometric", 0.8, 1.2, needs_colour=True),
        _flat("hue", "photometric", 0.2, 0.5, needs_colour=True),
        _flat("gray_p", "photometric", 0.2, 0.5, needs_colour=True),
        _flat("blur_p", "photometric", 0.5, 1.0),
        Row("blur_sigma", "photometric", (Curve(BLUR_SIGMA_MIN, 2.0, 2.0, 4.0),)),
    ),
)

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in (_SIMCLR,)}


def find_recipe(name: str) -> Recipe:
    """Returns the recipe of that name.

    Raises:
        ScanlearnError: No recipe is called so.
    """
    if name not in RECIPES:
        close = get_close_matches(name, RECIPES, n=1)
        hint = f" (did you mean '{close[0]}'?)" if close else ""
        raise ScanlearnError(
            f"recipe: '{name}' is not a recipe{hint}; give one of {', '.join(RECIPES)}."
        )
    return RECIPES[name]
