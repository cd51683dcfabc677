"""One sentence for what is wrong in a configuration: where, what, and what is allowed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from scanlearn.config.printing import models_in
from scanlearn.errors import did_you_mean


def explain(
    error: ValidationError,
    model: type[BaseModel],
    data: Mapping[str, Any],
    name: str,
    lines: Mapping[tuple[str, ...], int],
    overridden: Set[tuple[str, ...]] = frozenset(),
) -> str:
    """Returns one sentence for the first thing wrong, and says how many more there are."""
    details = error.errors(include_url=False)
    # A misspelt key often leaves a missing one behind it: the misspelling is what to mend.
    first = min(details, key=lambda detail: detail["type"] != "extra_forbidden")
    at = _plain_location(first, data)
    sentence = f"{_where(at, name, lines, overridden)}: {_problem(first, at, model)}"
    if first["type"] == "missing":
        is_file = Path(name).suffix in (".yaml", ".yml")
        sentence += f"; give it {'in the file or ' if is_file else ''}as {'.'.join(at)}=VALUE"
    # A value that may be of several types has an error for each; they are one thing to mend.
    places = {_plain_location(detail, data) for detail in details}
    others = {place for place in places if any(a != b for a, b in zip(place, at, strict=False))}
    if first["type"] == "extra_forbidden":
        missing = {place for place in others if place[:-1] == at[:-1] and _is_missing(place, data)}
        meant = [place for place in missing if did_you_mean(at[-1], [place[-1]])]
        others -= set(meant[:1])
    if others:
        sentence += f" ({len(others)} more to mend after this)"
    return sentence


def _where(
    at: tuple[str, ...],
    name: str,
    lines: Mapping[tuple[str, ...], int],
    overridden: Set[tuple[str, ...]],
) -> str:
    """Returns what gave the value at a place: a line of the file, or the command line."""
    parents = [at[:i] for i in range(len(at), 0, -1)]
    # ``bacbone.name=x`` is refused at ``bacbone``, which stands in no file.
    is_above = at not in lines and any(at and key[: len(at)] == at for key in overridden)
    if is_above or any(parent in overridden for parent in parents):
        return "the command line"
    line = next((lines[parent] for parent in parents if parent in lines), None)
    if line:
        return f"{name} line {line}"
    # A rule about several keys, any of which the command line may have changed.
    return f"{name} with the command line" if not at and lines and overridden else name


def _is_missing(at: tuple[str, ...], data: Mapping[str, Any]) -> bool:
    here: Any = data
    for part in at:
        if not isinstance(here, Mapping) or part not in here:
            return True
        here = here[part]
    return False


def _plain_location(detail: ErrorDetails, data: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the error's place as keys of the file; pydantic adds the tags of unions to it."""
    at: list[str] = []
    here: Any = data
    location = [str(part) for part in detail["loc"]]
    for i, part in enumerate(location):
        is_last = i == len(location) - 1
        if isinstance(here, Mapping) and part in here:
            here = here[part]
            at.append(part)
        elif isinstance(here, list) and part.isdigit():
            here = here[int(part)]
            at.append(part)
        elif is_last and detail["type"] == "missing":
            at.append(part)
    return (*at, "name") if detail["type"] == "union_tag_invalid" else tuple(at)


def _problem(detail: ErrorDetails, at: tuple[str, ...], model: type[BaseModel]) -> str:
    key = ".".join(at) or "the file"
    kind = detail["type"]
    value = detail["input"]
    if kind == "extra_forbidden":
        allowed = sorted(_fields_at(model, detail["loc"][:-1]))
        places = _places_of(at[-1], model)[:2]
        hint = did_you_mean(at[-1], allowed, cutoff=0.8 if places else 0.6)
        if places:
            hint += f"; it stands under {' and '.join(places)}"
        hint = hint or f"; allowed here: {', '.join(allowed)}"
        return f"'{key}' is not a key{hint}"
    if kind == "missing":
        return f"'{key}' is missing"
    if kind == "value_error":
        return f"'{key}': {detail['ctx']['error']}" if at else str(detail["ctx"]["error"])
    if kind == "union_tag_invalid":
        known = detail["ctx"]["expected_tags"]
        return f"'{key}' is '{detail['ctx']['tag']}', but it should be one of {known}"
    message = detail["msg"][0].lower() + detail["msg"][1:]
    text = json.dumps(value, default=str)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"'{key}' is {text}, but {message}".replace("but input should", "but it should")


def _places_of(key: str, model: type[BaseModel], above: str = "") -> list[str]:
    """Returns where in the blocks of a model, at most three deep, a key of that name stands."""
    places = []
    blocks = [
        (f"{above}{name}", block)
        for name, field in model.model_fields.items()
        for block in _blocks_in(field.annotation)
    ]
    for place, block in blocks:
        if key in block.model_fields:
            places.append(f"{place}.{key}")
    if above.count(".") < 2:
        for place, block in blocks:
            places += _places_of(key, block, f"{place}.")
    return list(dict.fromkeys(places))


def _blocks_in(annotation: Any) -> list[type[BaseModel]]:
    """Returns the models that a value may be itself: not those in its lists and mappings."""
    if get_origin(annotation) in (Annotated, Union, UnionType):
        return [block for part in get_args(annotation) for block in _blocks_in(part)]
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return [annotation] if is_model else []


def _fields_at(model: type[BaseModel], location: Sequence[int | str]) -> set[str]:
    """Returns the field names of the model that stands at ``location`` in ``model``."""
    models = [model]
    for part in location:
        inner: list[type[BaseModel]] = []
        for candidate in models:
            field = candidate.model_fields.get(str(part))
            inner += models_in(field.annotation) if field else []
        tagged = [m for m in models if "name" in m.model_fields]
        named = [m for m in tagged if m.model_fields["name"].default == part]
        models = inner or named or models
    return {field for candidate in models for field in candidate.model_fields}
