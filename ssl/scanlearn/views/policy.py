"""Policies: what is kept, changed or switched off in a recipe for a kind of scan.

A policy is a table in the form of `views.operations`: weak and strong, with the limit beyond where
it is not 1.5 times strong. A row that is listed replaces the recipe's, whatever else the recipe
has stays; the smallest crop is rescaled to the floor (`Recipe.under`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from scanlearn.views.adjusting import Given, adjusted_rows, in_words
from scanlearn.views.curves import BY_HAND, POLICY, Curve, Row
from scanlearn.views.operations.table import BY_NAME, OPERATION_OF, OPERATIONS
from scanlearn.views.settings import Background, Pivot

OURS = "ours, to be measured"


@dataclass(frozen=True)
class Policy:
    """What a modality makes of a recipe.

    Args:
        operations: Rows that replace the recipe's, in the form of `Recipe.adjusted`.
        crop_floor: Smallest area of a global crop that is known to be safe; None is the recipe's.
        spares_multi_crop: Whether recipes with local views keep their crops all the same.
        local_area: Smallest area of local crops at weak and strong; None is the recipe's.
        sources: Where rows are from, or why they are off, by operation; others are `OURS`.
        moves_acquisition: Whether one number moves the sub-dial `acquisition` too.
        turns_about: What rotation, shear and stretch leave in its place; None is what it is in
            the policy that this one changes.
        beyond: What rotation and the like bring in from beyond the scan; None is what it is in
            the policy that this one changes.
        like: The policy that this one changes; None for a recipe alone.
    """

    name: str
    operations: Mapping[str, Given] = field(default_factory=dict)
    crop_floor: float | None = None
    spares_multi_crop: bool = False
    local_area: tuple[float, float] | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    moves_acquisition: bool = True
    turns_about: Pivot | None = None
    beyond: Background | None = None
    like: Policy | None = None

    def source(self, operation: str) -> str:
        """Returns where the rows of an operation are from."""
        return f"{POLICY}{self.name}: {self.sources.get(operation, OURS)}"

    @property
    def pivot(self) -> Pivot:
        """What rotation, shear and stretch leave in its place, its own or that of `like`."""
        return self.turns_about or (self.like.pivot if self.like else "centre")

    def is_a(self, name: str) -> bool:
        """Whether it is the policy of that name, or one that changes it."""
        return self.name == name or (self.like is not None and self.like.is_a(name))

    @property
    def background(self) -> Background:
        """What is brought in from beyond the scan, its own or that of `like`."""
        return self.beyond or (self.like.background if self.like else "black")

    @property
    def in_words(self) -> str:
        """Its name and all that it changes, such as "xray: crop floor 0.3, flip off"."""
        base = self.like.in_words if self.like else ""
        parts = (
            f"crop floor {self.crop_floor:g}" if self.crop_floor else "",
            "local crops at least {:g}/{:g}".format(*self.local_area) if self.local_area else "",
            in_words(self.operations),
            f"turns about the {self.turns_about}" if self.turns_about else "",
            "mirrored at its edges where it is turned" if self.beyond == "reflect_moved" else "",
            f"else as {base}" if base else "",
        )
        changes = ", ".join(filter(None, parts))
        return f"{self.name}: {changes}" if changes else self.name

    def without(self, operations: Collection[str]) -> Policy:
        """Returns the policy without its rows of some operations, those of `like` too."""
        kept = {
            name: given
            for name, given in self.operations.items()
            if (OPERATION_OF[name].name if name in OPERATION_OF else name) not in operations
        }
        like = self.like and self.like.without(operations)
        return replace(self, operations=kept, like=like)

    def why_off(self, operation: str) -> str:
        """Returns why an operation is off; empty where the table does not say."""
        if operation in self.sources:
            return self.sources[operation]
        return self.like.why_off(operation) if self.like else ""


# A row of these tempers what the recipe does: where it does nothing of the kind, neither does the
# policy. Without this a limit on the blur would add a blur to a recipe that has none.
_TEMPERED = frozenset({"jitter", "gray", "blur"})


def policy_rows(rows: Sequence[Row], policy: Policy, *, has_local_views: bool) -> tuple[Row, ...]:
    """Returns a recipe's rows under a policy.

    A policy's operations of the device replace all of the recipe's.

    Raises:
        ScanlearnError: See `adjusted_rows`; of the modalities of this table none raises it.
    """
    if policy.like is not None:
        rows = policy_rows(rows, policy.like, has_local_views=has_local_views)
    table = {row.parameter: row for row in rows}
    lacking = {
        operation
        for operation in _TEMPERED
        # What a user writes into a modality of their own is meant.
        if policy.like is None
        and all(table[name.name].is_idle for name in BY_NAME[operation].parameters)
    }
    operations = {
        name: given
        for name, given in policy.operations.items()
        if name not in OPERATION_OF
        or given == "off"
        or (OPERATION_OF[name].part_of or OPERATION_OF[name].name) not in lacking
    }
    if policy.like is None and policy.operations:
        listed = {OPERATION_OF[name].name for name in operations if name in OPERATION_OF}
        operations |= {
            each.name: "off"
            for each in OPERATIONS
            if each.dial == "acquisition" and each.name not in listed
        }
    changed = adjusted_rows(rows, operations, has_local_views=has_local_views)
    table = {row.parameter: _relabelled(row, policy) for row in changed}
    views = 3 if has_local_views else 2
    if policy.crop_floor is not None and not (policy.spares_multi_crop and has_local_views):
        floor, source = policy.crop_floor, policy.source("crop")
        table["crop_min"] = _each(
            table["crop_min"], range(2), lambda curve: _raised(curve, floor, source), views
        )
    if policy.local_area is not None and has_local_views:
        least, source = policy.local_area, f"{POLICY}{policy.name}: {OURS}"
        for name in ("crop_min", "crop_max"):
            table[name] = _each(
                table[name], range(2, 3), lambda curve: _at_least(curve, least, source), views
            )
    return tuple(table[row.parameter] for row in rows)


def _relabelled(row: Row, policy: Policy) -> Row:
    """The row with the policy's name for what was set in its name."""
    source = policy.source(OPERATION_OF[row.parameter].name)
    return Row(
        row.parameter,
        tuple(
            replace(curve, weak_source=source, strong_source=source)
            if curve.strong_source == BY_HAND
            else curve
            for curve in row.curves
        ),
    )


def _each(row: Row, changed: range, change: Callable[[Curve], Curve], num_views: int) -> Row:
    """The row with the curves of some views changed."""
    curves = [
        change(row.curve(view)) if view in changed else row.curve(view) for view in range(num_views)
    ]
    return Row(row.parameter, tuple(curves) if len(set(curves)) > 1 else (curves[0],))


def _raised(curve: Curve, floor: float, source: str) -> Curve:
    """A crop's curve mapped from [strong, 1] to [floor, 1]; the floor is its limit beyond 1.

    A clip would make weak equal strong where both lie below the floor.
    """
    if curve.strong >= floor:
        return replace(curve, limit=max(curve.limit, floor))
    slope = (1 - floor) / (1 - curve.strong)
    return Curve(
        curve.identity,
        floor + (curve.weak - curve.strong) * slope,
        floor,
        floor,
        weak_source=source,
        strong_source=source,
    )


def _at_least(curve: Curve, least: tuple[float, float], source: str) -> Curve:
    """The curve of a local crop's area, at least so large at weak and at strong."""
    weak, strong = max(curve.weak, least[0]), max(curve.strong, least[1])
    return replace(
        curve,
        weak=weak,
        strong=strong,
        limit=max(curve.limit, least[1]),
        weak_source=curve.weak_source if weak == curve.weak else source,
        strong_source=curve.strong_source if strong == curve.strong else source,
    )
