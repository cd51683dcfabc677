"""Finds a configuration, applies overrides and checks all of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from scanlearn.config.errors import explain
from scanlearn.config.printing import default_of, is_mapping, models_in
from scanlearn.config.reading import parse_value, read_yaml
from scanlearn.config.settings import Settings
from scanlearn.errors import ScanlearnError, did_you_mean
from scanlearn.files import nearest_name

_SHOWN = 60

# Calling a function with ``key=value`` words, as every command line does.


class Spread:
    """Marks an argument that is a block of settings: its keys stand among the others.

    As in ``table: Annotated[TableSettings, Spread()] = TableSettings()``.
    """


class _Arguments(Settings):
    model_config = ConfigDict(arbitrary_types_allowed=True)


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Returns the types of a function's arguments.

    One by one: what it returns need not be imported to read its settings.
    """
    function = inspect.unwrap(function)
    hints = inspect.get_annotations(function)
    scope = function.__globals__
    return {
        name: eval(hint, scope) if isinstance(hint, str) else hint
        for name, hint in hints.items()
        if name != "return"
    }


def _spread(function: Callable[..., Any]) -> dict[str, type[Settings]]:
    hints = hints_of(function)
    metadata = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {
        name: get_args(hints[name])[0]
        for name, marks in metadata.items()
        if any(isinstance(mark, Spread) for mark in marks)
    }


def settings_model(function: Callable[..., Any]) -> Any:
    """Returns a strict pydantic model of a function's keyword-only arguments."""
    hints, spread = hints_of(function), _spread(function)
    fields: dict[str, Any] = {
        name: (
            hints[name],
            ... if argument.default is inspect.Parameter.empty else argument.default,
        )
        for name, argument in inspect.signature(function).parameters.items()
        if argument.kind is inspect.Parameter.KEYWORD_ONLY and name not in spread
    }
    arguments = create_model("own", __base__=_Arguments, **fields)
    bases: tuple[type[Settings], ...] = (*spread.values(), arguments)  # Own keys are printed first.
    return create_model(f"{function.__name__}_settings", __base__=bases)


def call(function: Callable[..., Any], *positional: Any, overrides: Any) -> Any:
    """Calls a function with ``key=value`` words as its checked keyword-only arguments."""
    settings = load_config(settings_model(function), None, overrides, kind=function.__name__)
    values = {key: getattr(settings, key) for key in settings.model_fields_set}
    blocks = {}
    for name, block in _spread(function).items():
        keys = block.model_fields.keys() & values.keys()
        blocks[name] = block.model_validate({key: values.pop(key) for key in keys})
    return function(*positional, **values, **blocks)


Model = TypeVar("Model", bound=BaseModel)


def config_folder() -> Path:
    """Returns the folder of the shipped configurations, in a checkout or in a wheel."""
    here = Path(__file__).resolve()
    packed = here.parents[1] / "_configs"
    return packed if packed.is_dir() else here.parents[3] / "configs"


def find_config(source: str | Path, kind: str) -> Path:
    """Returns the YAML file that ``source`` names: a path, or a shipped file such as ``demo``.

    Args:
        kind: Sub-folder of the shipped configurations: ``pretrain``, ``compare``.

    Raises:
        ScanlearnError: No such file; names the shipped ones.
    """
    path = Path(source)
    if path.is_file():
        return path
    shipped = sorted((config_folder() / kind).glob("*.yaml"))
    for candidate in shipped:
        if str(source) in (candidate.stem, candidate.name):
            return candidate
    names = [candidate.stem for candidate in shipped]
    if not str(source) or "=" in str(source):
        after = f"; settings, such as {source}, stand after it" if str(source) else ""
        raise ScanlearnError(
            f"the first argument of {kind} is missing: the configuration, which is a YAML file or "
            f"one of {', '.join(names)}{after}"
        )
    hint = nearest_name(path) if path.suffix else did_you_mean(str(source), names)
    raise ScanlearnError(
        f"configuration '{source}' is neither a file nor a shipped one{hint}; shipped for {kind}: "
        f"{', '.join(names)}"
    )


def load_config(
    model: type[Model],
    source: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    kind: str | None = None,
) -> Model:
    """Reads a configuration file, applies ``key=value`` overrides and checks all of it.

    Args:
        source: A path, the name of a shipped file, or None for the model's defaults.
        overrides: ``a.b=value`` words; the value is read as YAML. ``method.name=dino`` replaces
            the whole ``method`` block, whose other keys belong to the method it names.
        kind: Sub-folder of the shipped files; None is that of the model's name.

    Raises:
        ScanlearnError: File, line, key, what was given and what is allowed, in one sentence.
    """
    if not isinstance(model, type):
        raise ScanlearnError(
            f"load_config: {type(model).__name__} is not the class of the settings"
        )
    if not isinstance(source, str | Path | None):
        raise ScanlearnError(
            f"load_config: {type(source).__name__} is not a path or the name of a shipped file; "
            f"{model.__name__}(key=value) takes settings"
        )
    data: dict[str, Any] = {}
    lines: dict[tuple[str, ...], int] = {}
    name = "the command line"
    if source is not None:
        path = find_config(source, kind or model.__name__.removesuffix("Config").lower())
        name = path.name
        data, lines = read_yaml(path)
    data = _with_default_names(model, data)
    for word in overrides:
        data = _with_default_names(model, _override(data, word))
    try:
        return model.model_validate(data)
    except ValidationError as error:
        changed = {tuple(word.partition("=")[0].split(".")) for word in overrides}
        raise ScanlearnError(explain(error, model, data, name, lines, changed)) from None


def check_settings(model: type[Model], values: Mapping[str, Any], name: str) -> Model:
    """Returns settings made of the keyword arguments of a Python call of that name.

    Raises:
        ScanlearnError: Key, what was given and what is allowed, in one sentence.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ScanlearnError(explain(error, model, values, name, {})) from None


def _override(data: Mapping[str, Any], word: str) -> dict[str, Any]:
    """Returns ``data`` with one ``a.b=value`` applied; ``data`` itself stays as it is."""
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise ScanlearnError(
            f"'{word}' is not an override; write key=value, for example batch_size=64"
        )
    try:
        value = parse_value(text)
    except yaml.YAMLError:
        shortened = word if len(word) <= _SHOWN else f"{word[:_SHOWN]}..."
        raise ScanlearnError(f"{shortened!r}: the value is not valid YAML; quote it") from None
    *parents, last = key.split(".")
    result = dict(data)
    block = result
    for parent in parents:
        inner = block.get(parent)
        if inner is not None and not isinstance(inner, Mapping):
            raise ScanlearnError(f"'{word}': '{parent}' holds a value, not a block of keys")
        block[parent] = dict(inner or {})
        block = block[parent]
    if parents and last == "name" and block.get("name", value) != value:
        block.clear()
    block[last] = value
    return result


def _with_default_names(model: type[BaseModel], data: dict[str, Any]) -> dict[str, Any]:
    """Returns ``data`` with the default's name in each union block that does not name a member."""
    result = dict(data)
    for key, field in model.model_fields.items():
        block = result.get(key)
        if not isinstance(block, dict):
            continue
        default = default_of(field)
        if field.discriminator and field.discriminator not in block and default is not None:
            result[key] = {field.discriminator: getattr(default, str(field.discriminator)), **block}
        elif len(inner := models_in(field.annotation)) == 1 and not is_mapping(field.annotation):
            result[key] = _with_default_names(inner[0], block)
    return result
