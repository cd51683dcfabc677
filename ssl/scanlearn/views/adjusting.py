"""A recipe adjusted by hand: operations switched off, parameters set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from scanlearn.errors import ScanlearnError, did_you_mean
from scanlearn.views.curves import BY_HAND, Curve, Row
from scanlearn.views.operations.operation import Parameter
from scanlearn.views.operations.table import (
    BY_NAME,
    OPERATION_OF,
    PARAMETERS,
    at_identity_in_words,
    magnitudes_of,
    parameters_of,
    probability_of,
)
from scanlearn.views.scale import MAX_SCALE

Numbers = float | Sequence[float]
Given = bool | str | Numbers | Mapping[str, Numbers]

_NO_NUMBERS = (
    "not allowed; give off, one number for both weak and strong, two numbers, or three with the "
    "limit beyond strong."
)
# Which views a name stands for; the third is every local one.
VIEWS: Mapping[str, tuple[int, ...]] = {
    "global": (0, 1),
    "global_1": (0,),
    "global_2": (1,),
    "local": (2,),
}
# Places along the dial where the smallest crop is compared with the largest.
_STEPS = 150


def _readable(given: Any) -> Any:
    """Refuses what no operation takes; the errors of a union would name all its members."""
    if isinstance(given, Mapping):
        for name, value in given.items():
            parts = value.values() if isinstance(value, Mapping) else [value]
            if not all(isinstance(part, (bool, str)) or _are_numbers(part) for part in parts):
                raise ScanlearnError(f"{name}: {value!r} is {_NO_NUMBERS}")
    return given


def _are_numbers(given: object) -> bool:
    return all(map(_is_number, given if isinstance(given, (list, tuple)) else [given]))


def _is_number(given: object) -> bool:
    return isinstance(given, (int, float)) and not isinstance(given, bool)


def _one_spelling(given: dict[str, Any]) -> dict[str, Any]:
    # Two spellings of one recipe must not make two different runs.
    return {name: "off" if value is False else value for name, value in given.items()}


# What a configuration takes for `Recipe.adjusted`.
_Number = Annotated[float, Field(strict=True)]
_Numbers = _Number | tuple[_Number, ...]
Operations = Annotated[
    dict[str, bool | str | _Numbers | dict[str, _Numbers]],
    BeforeValidator(_readable),
    AfterValidator(_one_spelling),
]


def in_words(operations: Mapping[str, Given]) -> str:
    """Returns what was adjusted, to be read; empty where nothing was."""
    return ", ".join(f"{name} {_words(given)}" for name, given in operations.items())


def _words(given: object) -> str:
    if given is False or isinstance(given, str):
        return "off"
    if isinstance(given, Mapping):
        views = (f"{name.replace('_', ' ')} {_words(numbers)}" for name, numbers in given.items())
        return f"({', '.join(views)})"
    numbers = list(given) if isinstance(given, Sequence) else [given]
    return "/".join(f"{number:g}" for number in numbers)


def adjusted_rows(
    rows: Sequence[Row], operations: Mapping[str, Given], *, has_local_views: bool
) -> tuple[Row, ...]:
    """Returns a recipe's rows with operations switched off or set by hand.

    At the scale 0 every parameter stays the identity. A magnitude whose operation the recipe does
    not have gets the probability 1 unless one is given.

    Raises:
        ScanlearnError: A name is unknown, or a value is not allowed or can have no effect.
    """
    table = {row.parameter: row for row in rows}
    off, by_hand = _sorted_out(operations)
    for operation in off:
        table |= {name: Row.off(name) for name in parameters_of(operation)}
    for name, numbers in by_hand.items():
        needed_operation = OPERATION_OF[name].part_of or OPERATION_OF[name].name
        if needed_operation in off:
            raise ScanlearnError(
                f"operations.{name}: has no effect while {needed_operation} is off; leave one of "
                "the two out."
            )
        table[name] = _by_hand(table[name], numbers, has_local_views)
    for name in by_hand:
        probability = probability_of(name)
        if probability and table[probability].is_idle:
            curve = Curve(0.0, 1.0, 1.0, 1.0, weak_source=BY_HAND, strong_source=BY_HAND)
            table[probability] = Row(probability, (curve,))
        needed = magnitudes_of(name)
        if needed and all(table[magnitude].is_idle for magnitude in needed):
            raise ScanlearnError(
                f"operations.{name}: has no effect while {at_identity_in_words(needed)}; give "
                f"{' or '.join(needed)} as well."
            )
    _check_crops(table["crop_min"], table["crop_max"], by_hand)
    return tuple(table[row.parameter] for row in rows)


def _sorted_out(
    operations: Mapping[str, Given],
) -> tuple[list[str], dict[str, Numbers | Mapping[str, Numbers]]]:
    """Separates operations switched off from parameters set by hand."""
    off: list[str] = []
    by_hand: dict[str, Numbers | Mapping[str, Numbers]] = {}
    for name, given in operations.items():
        where = f"operations.{name}"
        if name not in BY_NAME and name not in PARAMETERS:
            known = [*BY_NAME, *(parameter for parameter in PARAMETERS if parameter not in BY_NAME)]
            hint = did_you_mean(name, known) or f"; known are {', '.join(known)}"
            raise ScanlearnError(f"{where}: is not an operation or a parameter{hint}.")
        if given is False or given == "off":
            if name not in BY_NAME:
                operation = OPERATION_OF[name].name
                raise ScanlearnError(
                    f"{where}: takes numbers; to switch the operation off write {operation}: off."
                )
            off.append(name)
        elif isinstance(given, (bool, str)) or given is None:
            allowed = "a number" if name in PARAMETERS else _numbers_of(name)
            allowed = f"off or {allowed}" if name in BY_NAME else allowed
            raise ScanlearnError(f"{where}: {given!r} is not allowed; give {allowed}.")
        elif name not in PARAMETERS:
            raise ScanlearnError(
                f"{where}: {given!r} is not allowed, since {name} can only be switched off here; "
                f"give {_numbers_of(name)}."
            )
        else:
            by_hand[name] = given
    return off, by_hand


def _numbers_of(operation: str) -> str:
    names = [parameter.name for parameter in BY_NAME[operation].parameters]
    return f"its numbers as {' and '.join(names)}"


def _by_hand(row: Row, given: Numbers | Mapping[str, Numbers], has_local_views: bool) -> Row:
    """Returns the row with the curves that a person gave, for all views or for those named."""
    name, parameter = row.parameter, PARAMETERS[row.parameter]
    operation = OPERATION_OF[name].name
    where = f"operations.{name}"
    if isinstance(given, Mapping):
        curves = _curves_by_view(row, given, 3 if has_local_views else 2)
    elif name in ("crop_min", "crop_max") and len({curve.strong for curve in row.curves}) > 1:
        raise ScanlearnError(
            f"{where}: this recipe's global and local crops differ; say which are meant, as in "
            f"{name}: {{global: 0.5}} or {name}: {{local: 0.2}}."
        )
    else:
        curves = [_curve(where, parameter, given)]
    changed = Row(name, tuple(curves) if len(set(curves)) > 1 else (curves[0],))
    if changed.is_idle and operation != "crop":
        raise ScanlearnError(
            f"{where}: {parameter.identity:g} has no effect; to switch the operation off write "
            f"{operation}: off."
        )
    least, largest = parameter.negligible_px, max(curve.strong for curve in changed.curves)
    if not parameter.scales_with_view and 0 < least >= largest:
        raise ScanlearnError(
            f"{where}: has no effect up to {least:g} {parameter.unit}, where it "
            "changes no pixel; give more."
        )
    return changed


def _curves_by_view(row: Row, given: Mapping[str, Numbers], num_views: int) -> list[Curve]:
    where = f"operations.{row.parameter}"
    curves = [row.curve(view) for view in range(num_views)]
    allowed = [name for name, views in VIEWS.items() if max(views) < num_views]
    if not given:
        raise ScanlearnError(f"{where}: sets no view; give {', '.join(allowed)}.")
    named: set[int] = set()
    for name, numbers in given.items():
        if name not in allowed:
            raise ScanlearnError(
                f"{where}: '{name}' is not a view of this recipe; give {', '.join(allowed)}."
            )
        if named & set(VIEWS[name]):
            raise ScanlearnError(
                f"{where}: sets a view twice; give global, or global_1 and global_2."
            )
        named |= set(VIEWS[name])
        for view in VIEWS[name]:
            curves[view] = _curve(f"{where}.{name}", PARAMETERS[row.parameter], numbers)
    return curves


def _curve(where: str, parameter: Parameter, given: Numbers) -> Curve:
    """Returns the curve through one number for weak and strong, two, or three with the limit."""
    numbers = list(given) if isinstance(given, Sequence) else [given]
    if isinstance(given, str) or not 1 <= len(numbers) <= 3:
        raise ScanlearnError(f"{where}: {given!r} is {_NO_NUMBERS}")
    for number in numbers:
        if not _is_number(number) or not parameter.lowest <= number <= parameter.highest:
            raise ScanlearnError(
                f"{where}: {number!r} is not a number from {parameter.lowest:g} to "
                f"{parameter.highest:.3g} ({parameter.unit}); give one that is."
            )
    weak, strong = float(numbers[0]), float(numbers[min(1, len(numbers) - 1)])
    limit = float(numbers[2]) if len(numbers) == 3 else _limit(parameter, weak, strong)
    falls = parameter.is_decreasing
    if [weak, strong, limit] != sorted([weak, strong, limit], reverse=falls):
        raise ScanlearnError(
            f"{where}: {', '.join(f'{n:g}' for n in numbers)} is weaker at strong than at weak; "
            f"the numbers for weak, strong and the limit must {'fall' if falls else 'rise'} or "
            "stay."
        )
    return Curve(parameter.identity, weak, strong, limit, falls, BY_HAND, BY_HAND)


def _limit(parameter: Parameter, weak: float, strong: float) -> float:
    """The limit beyond 1 where none is given."""
    if parameter.name == "crop_min":
        return min(strong, max(0.02, strong / 4))
    if parameter.name == "crop_max":
        return strong if weak == strong else max(strong / 2, parameter.lowest)
    if parameter.is_decreasing:
        return strong
    return min(1.5 * strong, parameter.highest, max(strong, parameter.peak))


def _check_crops(smallest: Row, largest: Row, by_hand: Mapping[str, object]) -> None:
    changed = [name for name in ("crop_min", "crop_max") if name in by_hand]
    if not changed:
        return
    views = range(max(len(smallest.curves), len(largest.curves)))
    for s, view in product((MAX_SCALE * step / _STEPS for step in range(_STEPS + 1)), views):
        low, high = smallest.curve(view).at(s), largest.curve(view).at(s)
        # A hair of rounding between two equal curves is no contradiction.
        if low > high + 1e-12:
            raise ScanlearnError(
                f"operations.{changed[0]}: at the scale {s:g} the smallest crop ({low:.3g} of the "
                f"area) would be larger than the largest ({high:.3g}); give a smaller crop_min or "
                "a larger crop_max."
            )
