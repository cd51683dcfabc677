"""Recipes: what the dial means for each parameter of an augmentation pipeline.

A recipe is a table. Each row gives one parameter its values at the scales 0, .5 and 1 and the
limit it may reach at 1.5; `Recipe.at` reads the table at a setting of the dial.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from scanlearn.errors import ScanlearnError, did_you_mean
from scanlearn.views.adjusting import Given, adjusted_rows, in_words
from scanlearn.views.curves import BY_HAND, VIEW_KINDS, Row
from scanlearn.views.modality import AUTO, POLICIES, AnyModality, find_policy
from scanlearn.views.operations.operation import Parameter
from scanlearn.views.operations.table import (
    OPERATION_OF,
    PARAMETERS,
    at_identity_in_words,
    magnitudes_of,
    probability_of,
)
from scanlearn.views.policy import Policy, policy_rows
from scanlearn.views.published import PUBLISHED, Published
from scanlearn.views.ranges import Ranges, ViewRanges
from scanlearn.views.scale import Scale
from scanlearn.views.settings import (
    BLUR_REFERENCE_SIZE,
    DEFAULT_SETTINGS,
    LEAST_BLUR_PX,
    RenderSettings,
)

NO_MEANING = "no meaning on one channel"
_TOO_NARROW = f"sigma below {LEAST_BLUR_PX:.2f} px changes nothing".replace("0.", ".")


@dataclass(frozen=True)
class TableRow:
    """One line of a recipe at a setting of the dial.

    Args:
        value: The value of the parameter, one per view where views differ.
        source: Where the value is from: published, derived, identity, between two of these,
            beyond the recipe, by hand, or off.
        note: "fixed", "off", "no meaning on one channel", "no effect: ..." or empty.
    """

    operation: str
    parameter: str
    value: str
    unit: str
    source: str
    note: str


@dataclass(frozen=True)
class Recipe:
    """A published augmentation recipe laid along the dial.

    Args:
        rows: One row for each of `PARAMETERS`, in that order.
        policy: The policy that changed it; None for a recipe alone.

    Example:
        >>> calm = find_recipe("dino").adjusted({"solarize": "off", "rotation_deg": [7, 15]})
        >>> calm.at(Scale.WEAK).views[0].rotation_deg
        7.0
    """

    name: str
    rows: tuple[Row, ...]
    has_local_views: bool = False
    reference: str = ""
    # The rows say it already, in whatever order it was given.
    by_hand: str = field(default="", compare=False)
    policy: Policy | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        assert [row.parameter for row in self.rows] == list(PARAMETERS), self.name

    @property
    def num_kinds(self) -> int:
        """How many views have ranges of their own: 1 where all are alike, 2, or 3 with local."""
        return max(len(row.curves) for row in self.rows)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What these views are called, in order."""
        return ("every view",) if self.num_kinds == 1 else VIEW_KINDS[: self.num_kinds]

    def at(self, scale: Scale) -> Ranges:
        """Returns what may be drawn at one setting of the dial."""
        scale = self.dial(scale)
        views = (
            ViewRanges(**{row.parameter: row.value(scale, view) for row in self.rows})
            for view in range(self.num_kinds)
        )
        return Ranges(tuple(views))

    @property
    def policy_text(self) -> str:
        """The policy and all that it changes, to be read; "none" for a recipe alone."""
        return self.policy.in_words if self.policy else "none"

    def dial(self, scale: Scale) -> Scale:
        """Returns the four sub-dials of a setting: under most policies one number moves them all.

        A recipe alone leaves ``acquisition`` at 0 where one number was given.
        """
        if self.policy is None or not self.policy.moves_acquisition or not scale.is_one_number:
            return scale
        return replace(scale, acquisition=scale.crop)

    def under(self, modality: AnyModality | None, without: Collection[str] = ()) -> Recipe:
        """Returns the recipe as the policy of a modality changes it; before any `adjusted`.

        Args:
            modality: None and "auto" leave the recipe as it is.
            without: Operations of the policy that are left out.

        Raises:
            ScanlearnError: No modality is called so, its operations cannot be used, or the recipe
                was changed before.
        """
        if modality is None or modality == AUTO:
            return self
        policy = find_policy(modality).without(without)
        if self.by_hand or self.policy:
            raise ScanlearnError(
                f"modality: {policy.name} cannot change recipe {self.name}, which was changed "
                f"already ({self.by_hand or self.policy_text}); name one modality, before "
                "operations are set by hand."
            )
        rows = policy_rows(self.rows, policy, has_local_views=self.has_local_views)
        return replace(self, rows=rows, policy=policy)

    def rendered(self, settings: RenderSettings) -> RenderSettings:
        """Returns the settings with the pivot and the background that the policy asks for."""
        policy = self.policy
        if policy is None:
            return settings
        return replace(settings, pivot=policy.pivot, background=policy.background)

    def adjusted(self, operations: Mapping[str, Given]) -> Recipe:
        """Returns the recipe with operations switched off or set by hand.

        Args:
            operations: By name of an operation: "off" or False. By name of a parameter: one number
                for weak and strong, or two, or three with the limit beyond 1; or such numbers by
                view, under global, global_1, global_2 and local. See docs/dial.md.

        Raises:
            ScanlearnError: A name is unknown, or a value is not allowed or can have no effect.
        """
        rows = adjusted_rows(self.rows, operations, has_local_views=self.has_local_views)
        words = ", ".join(part for part in (self.by_hand, in_words(operations)) if part)
        return replace(self, rows=rows, by_hand=words)

    def without_effect(self, scales: Sequence[Scale]) -> dict[str, str]:
        """Returns what was set by hand to no effect: parameter, and its sub-dial that is 0.

        Args:
            scales: Settings that are used; a parameter listed has its dial at 0 in all of them.
                The identity does not count: there nothing is meant to have an effect.
        """
        used = [self.dial(scale) for scale in scales if scale != Scale.IDENTITY]
        return {
            row.parameter: row.dial
            for row in self.rows
            if any(curve.strong_source == BY_HAND for curve in row.curves)
            and used
            and all(getattr(scale, row.dial) == 0 for scale in used)
        }

    def table(
        self, scale: Scale, channels: int, settings: RenderSettings = DEFAULT_SETTINGS
    ) -> tuple[TableRow, ...]:
        """Returns the recipe at one setting of the dial, to be read.

        Args:
            channels: 1 or 3; on one channel colour operations do nothing, and the note says so.
            settings: With the side of the views, 224 px if it has none: a blur can be too narrow
                for small ones, and the note says so.
        """
        scale = self.dial(scale)
        ranges = self.at(scale)
        return tuple(_table_row(row, ranges, scale, channels, settings) for row in self.rows)


def _table_row(
    row: Row, ranges: Ranges, scale: Scale, channels: int, settings: RenderSettings
) -> TableRow:
    values = [view[row.parameter] for view in ranges.views]
    distinct = values[:1] if len(set(values)) == 1 else values
    return TableRow(
        operation=OPERATION_OF[row.parameter].name,
        parameter=row.parameter,
        value=" / ".join(f"{value:.3g}" for value in distinct),
        unit=PARAMETERS[row.parameter].unit,
        source=row.source(scale),
        note="off" if row.is_off else _note(row, ranges, scale, channels, settings),
    )


def _note(row: Row, ranges: Ranges, scale: Scale, channels: int, settings: RenderSettings) -> str:
    operation = OPERATION_OF[row.parameter]
    if channels == 1 and operation.needs_colour:
        return NO_MEANING
    narrow = [part for part in operation.parameters if _is_narrow(part, ranges, settings)]
    if any(not part.scales_with_view for part in narrow):
        return f"no effect: {_TOO_NARROW}"
    if getattr(scale, row.dial) == 0 and scale != Scale.IDENTITY:
        return f"no effect: {row.dial} is 0"
    if _most(ranges, row.parameter) > 0:
        lacking = _lacking(row.parameter, ranges, channels)
        if lacking:
            return f"no effect: {lacking}"
        if narrow:
            return f"no effect at this size: {_TOO_NARROW}"
    return "fixed" if all(curve.is_fixed for curve in row.curves) else ""


def _is_narrow(part: Parameter, ranges: Ranges, settings: RenderSettings) -> bool:
    """Whether a blur's widest sigma moves no value in views of this side."""
    widest = np.array([max(view[part.name] for view in ranges.views)])
    if part.scales_with_view:
        widest = settings.blur_px(widest, BLUR_REFERENCE_SIZE)
    return 0 < part.negligible_px >= float(widest[0])


def _lacking(parameter: str, ranges: Ranges, channels: int) -> str:
    """What a parameter would need to have an effect in any view; empty where it has one."""
    probability, magnitudes = probability_of(parameter), magnitudes_of(parameter)
    if probability and _most(ranges, probability) == 0:
        return at_identity_in_words([probability])
    usable = [name for name in magnitudes if channels != 1 or not OPERATION_OF[name].needs_colour]
    if magnitudes and not any(_most(ranges, name) for name in usable):
        return at_identity_in_words(usable)
    return ""


def _most(ranges: Ranges, parameter: str) -> float:
    """How far a parameter is from changing nothing, in the view where it is farthest."""
    identity = PARAMETERS[parameter].identity
    return max(abs(view[parameter] - identity) for view in ranges.views)


def no_effect_in_words(idle: Mapping[str, str]) -> str:
    """Returns the sentence for what `Recipe.without_effect` found."""
    name, dial = next(iter(idle.items()))
    return (
        f"operations.{name}: has no effect while the sub-dial {dial} is 0; give the scale as "
        f"sub-dials with {dial} above 0, or leave {name} out."
    )


def _whole(name: str, published: Published) -> Recipe:
    """A published table with the rows of all other parameters, which are off."""
    rows = {row.parameter: row for row in published.rows}
    every = tuple(rows.get(parameter, Row.off(parameter)) for parameter in PARAMETERS)
    return Recipe(name, every, published.has_local_views, published.reference)


RECIPES = {name: _whole(name, published) for name, published in PUBLISHED.items()}


def find_recipe(recipe: Recipe | str) -> Recipe:
    """Returns the recipe of that name; a recipe as it is.

    Raises:
        ScanlearnError: No recipe is called so.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        hint = did_you_mean(recipe, RECIPES)
        if recipe in POLICIES:
            hint = f" but a modality (modality={recipe} beside a recipe)"
        raise ScanlearnError(
            f"recipe: '{recipe}' is not a recipe{hint}; give one of {', '.join(RECIPES)}."
        )
    return RECIPES[recipe]
