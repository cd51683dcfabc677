"""A recipe adjusted by a person: operations switched off, parameters set by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from scanlearn.errors import ScanlearnError
from scanlearn.views.curves import BY_HAND, Curve, Row
from scanlearn.views.operations.acquisition import LEAST_SOFT_SIGMA
from scanlearn.views.operations.parameters import (
    JITTERED,
    OPERATION_OF,
    OPERATIONS,
    PARAMETERS,
    identity_of,
    is_decreasing,
    magnitudes_of,
    probability_of,
)
from scanlearn.views.scale import MAX_SCALE

Numbers = float | Sequence[float]
Given = bool | str | Numbers | Mapping[str, Numbers]

_NO_NUMBERS = (
    "neither off nor one number for weak and strong, two numbers, or three with the limit beyond "
    "strong; give one of these."
)
# Which views a name stands for; the third is every local one.
VIEWS: Mapping[str, tuple[int, ...]] = {
    "global": (0, 1),
    "global_1": (0,),
    "global_2": (1,),
    "local": (2,),
}
# Mirroring more often than every other time is less variation again.
_FLIPS = ("flip_p", "vflip_p")
_STEPS = 151


def _readable(given: Any) -> Any:
    """Refuses, in words, what no operation takes; a union's own errors name all its members."""
    if isinstance(given, Mapping):
        for name, value in given.items():
            parts = value.values() if isinstance(value, Mapping) else [value]
            if not all(isinstance(part, (bool, str)) or _are_numbers(part) for part in parts):
                raise ScanlearnError(f"{name}: {value!r} is {_NO_NUMBERS}")
    return given


def _are_numbers(given: object) -> bool:
    numbers = list(given) if isinstance(given, (list, tuple)) else [given]
    return all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in numbers)


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
    """Returns what was adjusted as a person reads it; empty where nothing was."""
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
        members = OPERATIONS[operation] + (JITTERED if operation == "jitter" else ())
        for field in members:
            table[field] = Row.off(field)
    for field, given in by_hand.items():
        _refuse_switched_off(field, off)
        table[field] = _by_hand(table[field], given, has_local_views)
    for field in by_hand:
        probability = probability_of(field)
        if probability and table[probability].is_idle:
            curve = Curve(0.0, 1.0, 1.0, 1.0, weak_source=BY_HAND, strong_source=BY_HAND)
            table[probability] = Row(probability, (curve,))
        needed = magnitudes_of(field)
        if needed and all(table[name].is_idle for name in needed):
            raise ScanlearnError(
                f"operations.{field}: has no effect while {' and '.join(needed)} "
                f"{'is' if len(needed) == 1 else 'are'} 0; give {' or '.join(needed)} as well."
            )
    _check_crops(table["crop_min"], table["crop_max"], by_hand)
    return tuple(table[row.parameter] for row in rows)


def _sorted_out(
    operations: Mapping[str, Given],
) -> tuple[list[str], dict[str, Numbers | Mapping[str, Numbers]]]:
    """Tells what is switched off from what is set by hand."""
    off: list[str] = []
    by_hand: dict[str, Numbers | Mapping[str, Numbers]] = {}
    for name, given in operations.items():
        where = f"operations.{name}"
        if name not in OPERATIONS and name not in PARAMETERS:
            known = [*OPERATIONS, *(field for field in PARAMETERS if field not in OPERATIONS)]
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known)}."
            raise ScanlearnError(f"{where}: is no operation and no parameter of one; {hint}")
        if given is False or given == "off":
            if name not in OPERATIONS:
                operation = OPERATION_OF[name]
                raise ScanlearnError(
                    f"{where}: takes numbers; to switch the operation off write {operation}: off."
                )
            off.append(name)
        elif isinstance(given, (bool, str)) or given is None:
            allowed = "a number" if name in PARAMETERS else _numbers_of(name)
            allowed = f"off or {allowed}" if name in OPERATIONS else allowed
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
    return f"its numbers as {' and '.join(OPERATIONS[operation])}"


def _refuse_switched_off(field: str, off: Sequence[str]) -> None:
    needed = "jitter" if field in JITTERED else OPERATION_OF[field]
    if needed in off:
        raise ScanlearnError(
            f"operations.{field}: has no effect while {needed} is off; leave one of the two out."
        )


def _by_hand(row: Row, given: Numbers | Mapping[str, Numbers], has_local_views: bool) -> Row:
    """Returns the row with the curves that a person gave, for all views or for those named."""
    field = row.parameter
    where = f"operations.{field}"
    if not isinstance(given, Mapping):
        if field.startswith("crop_") and any(c.strong != row.curves[0].strong for c in row.curves):
            raise ScanlearnError(
                f"{where}: this recipe's global and local crops differ; say which are meant, as in "
                f"{field}: {{global: 0.5}} or {field}: {{local: 0.2}}."
            )
        curves = [_curve(where, field, given)]
    else:
        count = 3 if has_local_views else 2
        curves = [row.curve(view) for view in range(count)]
        allowed = [name for name, views in VIEWS.items() if max(views) < count]
        named: set[int] = set()
        for name, numbers in given.items():
            if name not in allowed:
                raise ScanlearnError(
                    f"{where}: '{name}' is no view of this recipe; give {', '.join(allowed)}."
                )
            if named & set(VIEWS[name]):
                raise ScanlearnError(f"{where}: names a view twice; give global, or its two.")
            named |= set(VIEWS[name])
            for view in VIEWS[name]:
                curves[view] = _curve(f"{where}.{name}", field, numbers)
        if not given:
            raise ScanlearnError(f"{where}: names no view; give {', '.join(allowed)}.")
    made = Row(field, tuple(curves) if len(set(curves)) > 1 else (curves[0],))
    if made.is_idle and not field.startswith("crop_") and OPERATION_OF[field] != "crop":
        raise ScanlearnError(
            f"{where}: {identity_of(field):g} has no effect; to switch the operation off write "
            f"{OPERATION_OF[field]}: off."
        )
    if field == "soft_sigma" and all(c.strong <= LEAST_SOFT_SIGMA for c in made.curves):
        raise ScanlearnError(
            f"{where}: has no effect up to {LEAST_SOFT_SIGMA:g} px, where every neighbouring "
            "pixel's weight vanishes; give more."
        )
    return made


def _curve(where: str, field: str, given: Numbers) -> Curve:
    """Returns the curve through one number for weak and strong, two, or three with the limit."""
    described = PARAMETERS[field]
    numbers = list(given) if isinstance(given, Sequence) else [given]
    if isinstance(given, str) or not 1 <= len(numbers) <= 3:
        raise ScanlearnError(f"{where}: {given!r} is {_NO_NUMBERS}")
    for number in numbers:
        is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
        if not is_number or not described.lowest <= number <= described.highest:
            raise ScanlearnError(
                f"{where}: {number!r} is not a number from {described.lowest:g} to "
                f"{described.highest:.3g} ({described.unit}); give one that is."
            )
    weak, strong = float(numbers[0]), float(numbers[min(1, len(numbers) - 1)])
    limit = float(numbers[2]) if len(numbers) == 3 else _limit(field, weak, strong)
    ordered = [weak, strong, limit]
    if ordered != sorted(ordered, reverse=is_decreasing(field)):
        order = "fall" if is_decreasing(field) else "rise"
        raise ScanlearnError(
            f"{where}: {', '.join(f'{n:g}' for n in numbers)} is weaker at strong than at weak; "
            f"the numbers for weak, strong and the limit must {order} or stay."
        )
    reach = is_decreasing(field)
    return Curve(identity_of(field), weak, strong, limit, reach, BY_HAND, BY_HAND)


def _limit(field: str, weak: float, strong: float) -> float:
    """The limit beyond 1 where none is given."""
    if field == "crop_min":
        return min(strong, max(0.02, strong / 4))
    if field == "crop_max":
        return strong if weak == strong else max(strong / 2, PARAMETERS[field].lowest)
    if is_decreasing(field):
        return strong
    limit = min(1.5 * strong, PARAMETERS[field].highest)
    return min(limit, max(strong, 0.5)) if field in _FLIPS else limit


def _check_crops(smallest: Row, largest: Row, by_hand: Mapping[str, object]) -> None:
    given = [name for name in ("crop_min", "crop_max") if name in by_hand]
    if not given:
        return
    for s, low, high in _along_the_dial(smallest, largest):
        if low > high:
            raise ScanlearnError(
                f"operations.{given[0]}: at the scale {s:g} the smallest crop ({low:.3g} of the "
                f"area) would be larger than the largest ({high:.3g}); give a smaller crop_min or "
                "a larger crop_max."
            )


def _along_the_dial(smallest: Row, largest: Row) -> Iterator[tuple[float, float, float]]:
    for step in range(_STEPS):
        s = MAX_SCALE * step / (_STEPS - 1)
        for view in range(max(len(smallest.curves), len(largest.curves))):
            # A hair of rounding between two equal curves is no contradiction.
            low = smallest.curve(view).at(s) - 1e-12
            yield s, low, largest.curve(view).at(s)
