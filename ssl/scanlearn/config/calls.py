"""A wrong call of a public function ends in one sentence, as a wrong word of a command does."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import cache, wraps
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ParamSpec, TypeVar, Union, get_args, get_origin

from scanlearn.config.loading import check_settings, hints_of, settings_model
from scanlearn.config.printing import models_in
from scanlearn.config.settings import Settings
from scanlearn.errors import ScanlearnError, did_you_mean

_P = ParamSpec("_P")
_R = TypeVar("_R")
_model_of = cache(settings_model)
_hints_of = cache(hints_of)


def checked(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Checks what a person gives a public function, as the command line checks its words.

    Arguments that are named only are settings: those of the command of that name. A dictionary
    stands for a block of settings, and one text or path for a list of one. Of a method, all
    arguments are checked by their types alone.

    Raises:
        ScanlearnError: An argument is missing, unknown or of another type.
    """
    signature = inspect.signature(function)
    name = function.__qualname__.removesuffix(".__init__")
    is_method = "self" in signature.parameters

    @wraps(function)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            raise ScanlearnError(f"{name}: {_unfit(function, args, kwargs)}") from None
        hints, named = _hints_of(function), {}
        for key, value in bound.arguments.items():
            kind = signature.parameters[key].kind
            if kind is inspect.Parameter.KEYWORD_ONLY and not is_method:
                named[key] = value
            elif kind is not inspect.Parameter.VAR_KEYWORD and key in hints:
                bound.arguments[key] = _taken(value, hints[key], name, key)
        if named:
            bound.arguments |= _settings(function, named, name)
        return function(*bound.args, **bound.kwargs)

    return called


def checked_init(made: type[_R]) -> type[_R]:
    """Checks what a class is made of as `checked` does: for dataclasses, whose calls are theirs."""
    setattr(made, "__init__", checked(getattr(made, "__init__")))  # noqa: B009, B010
    return made


def _settings(function: Callable[..., Any], named: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns arguments that are named only, read as settings; the others as they are."""
    model = _model_of(function)
    own = {
        key: value for key, value in named.items() if key in model.model_fields and _is_plain(value)
    }
    if own:
        settings = check_settings(model, own, name)
        own = {key: getattr(settings, key) for key in own}
    return {**named, **own}


def _is_plain(value: Any) -> bool:
    """Returns whether a value could stand in a file: objects, such as a `Scale`, are their own."""
    if isinstance(value, Mapping):
        return all(_is_plain(each) for each in value.values())
    if isinstance(value, list | tuple | Set):
        return all(_is_plain(each) for each in value)
    return value is None or isinstance(value, str | int | float | Path | Settings)


def _taken(value: Any, hint: Any, name: str, key: str) -> Any:
    """Returns what an argument is taken for.

    Raises:
        ScanlearnError: It is of none of the types that are allowed.
    """
    kinds = _members(hint)
    origins = [get_origin(kind) or kind for kind in kinds]
    blocks = [kind for kind in origins if isinstance(kind, type) and issubclass(kind, Settings)]
    if isinstance(value, Mapping) and len(blocks) == 1:
        return check_settings(blocks[0], value, name)
    if Sequence in origins:
        if isinstance(value, str | Path):
            return (value,)
        origins = [Iterable, *origins]
    if not all(isinstance(kind, type) for kind in origins):
        return value
    is_table = type(value).__name__ == "DataFrame"
    is_number = (int in origins and isinstance(value, Integral)) or (
        float in origins and isinstance(value, Real)
    )
    is_path = isinstance(value, os.PathLike) and Path in origins
    if is_number or is_path or (isinstance(value, tuple(origins)) and not is_table):
        return value
    advice = ""
    if is_table:
        advice = "; write it to a file, as by to_csv('scans.csv', index=False), and name that"
    elif blocks:
        (block,) = blocks
        advice = f"; load_config({block.__name__}, 'FILE.yaml', ['key=value']) makes one"
    raise ScanlearnError(
        f"{name}: '{key}' is of the type {type(value).__name__}, but it should be "
        f"{_in_words(origins)}{advice}"
    )


def _members(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) is Annotated:
        return _members(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return tuple(member for each in get_args(hint) for member in _members(each))
    return (hint,)


def _in_words(kinds: Sequence[Any]) -> str:
    """Returns the types of an argument; a path and its text are one thing to a person."""
    if Sequence in kinds:
        return "a list"
    paths = ["a name or a path"] if {str, Path} & {*kinds} else []
    others = [
        "a dictionary" if kind is Mapping else kind.__name__
        for kind in kinds
        if kind not in (str, Path, type(None))
    ]
    return " or ".join([*paths, *others])


def _unfit(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Returns why arguments do not fit a function, and what would."""
    parameters = {
        key: each for key, each in inspect.signature(function).parameters.items() if key != "self"
    }
    given = len(args) - ("self" in inspect.signature(function).parameters)
    unnamed = [key for key, each in parameters.items() if each.kind is each.POSITIONAL_OR_KEYWORD]
    for key in kwargs:
        if key not in parameters:
            home = _where_it_goes(function, key, kwargs[key], parameters)
            return f"'{key}' is not an argument{home}"
    if given > len(unnamed):
        others = [key for key in parameters if key not in unnamed]
        after = f"; after them give {', '.join(f'{key}=' for key in others)}" if others else ""
        return f"takes {len(unnamed)} arguments without their names ({', '.join(unnamed)}){after}"
    twice = [key for key in unnamed[:given] if key in kwargs]
    if twice:
        return f"'{twice[0]}' is given twice"
    missing = [
        key
        for key, each in parameters.items()
        if each.default is each.empty and key not in (*unnamed[:given], *kwargs)
    ]
    return f"'{missing[0]}' is missing; give it as {missing[0]}=VALUE"


def _where_it_goes(
    function: Callable[..., Any], key: str, value: Any, parameters: Mapping[str, Any]
) -> str:
    hints = _hints_of(function)
    for home in parameters:
        if any(key in block.model_fields for block in models_in(hints.get(home))):
            if "overrides" in parameters:
                how = f"in the list of settings: {function.__name__}(..., ['{key}={value}'])"
            else:
                how = f"in {home}: {function.__name__}(..., {home}={{{key!r}: {value!r}}})"
            return f" but a setting, which stands {how}"
    return did_you_mean(key, parameters) or f"; allowed: {', '.join(parameters)}"
