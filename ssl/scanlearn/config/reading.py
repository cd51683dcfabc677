"""YAML text by the rules of YAML 1.2, with the line of each key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from scanlearn.errors import ScanlearnError

_WIDTH = 96
# Of a file in characters, and of what its anchors stand for.
_MOST_VALUES = 1_000_000
_DEEPEST = 50
_TEXT = "tag:yaml.org,2002:str"
_FLOAT = re.compile(r"^[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf|INF)$")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's scalars; PyYAML alone reads ``off`` as False."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  PyYAML keeps it on the class

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for place, (key, value) in enumerate(node.value):
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    "a list or a block of keys stands where a key should",
                    node.start_mark,
                )
            # A key is a name: 7 and true are no numbers here.
            node.value[place] = (yaml.ScalarNode(_TEXT, key.value, key.start_mark), value)
            if key.value in seen:
                # PyYAML alone keeps the last of two equal keys and says nothing.
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("^(null|~|)$"), ["n", "~", ""])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9]\d*)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def _construct_float(_loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float | str:
    """Reads a float, but leaves digits with leading zeros (``007``) the string they are."""
    text = str(node.value)
    if re.fullmatch(r"[-+]?\d+", text):
        return text
    return float(text.replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf"))


_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def parse_value(text: str) -> Any:
    """Returns the value of one YAML scalar or flow collection, by YAML 1.2's rules.

    Raises:
        yaml.YAMLError: It is not valid YAML, is nested too deeply or repeats itself too often.
    """
    # Each opens something in YAML: alone after a key, as in sep=|, it can only mean itself.
    if text in ("|", ",", ">", "\t"):
        return text
    return _parse(text)[0]


def _parse(text: str) -> tuple[Any, yaml.Node | None]:
    """Returns the content of YAML, and its nodes.

    Raises:
        yaml.YAMLError: See `parse_value`; PyYAML alone raises errors of many other classes.
    """
    if len(text) > _MOST_VALUES:
        raise yaml.MarkedYAMLError(problem=f"it is longer than {_MOST_VALUES:,} characters")
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is not None:
            _check_nesting(node, {}, 0)
        return yaml.load(text, Loader=_Loader), node
    except yaml.reader.ReaderError as error:
        problem = f"it holds the character {error.character!r}, which no text has"
    except RecursionError:
        problem = "it is nested too deeply"
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        # A tag that its value does not fit, such as !!timestamp, or a number of 5,000 digits.
        problem = str(error).partition("\n")[0] or type(error).__name__
    raise yaml.MarkedYAMLError(problem=problem)


def _check_nesting(node: yaml.Node, sizes: dict[int, int], depth: int) -> int:
    """Returns how many values a node stands for, those of anchors at each place where they stand.

    Raises:
        yaml.YAMLError: Blocks are nested too deeply, hold themselves, or are repeated too often.
    """
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in sizes:
        # Not known yet while it is counted: what holds itself goes on until it is too deep.
        if depth > _DEEPEST:
            raise yaml.MarkedYAMLError(
                problem="its blocks are nested too deeply, or hold themselves",
                problem_mark=node.start_mark,
            )
        is_mapping = isinstance(node, yaml.MappingNode)
        parts = [part for pair in node.value for part in pair] if is_mapping else node.value
        sizes[id(node)] = 1 + sum(_check_nesting(part, sizes, depth + 1) for part in parts)
    if sizes[id(node)] > _MOST_VALUES:
        raise yaml.MarkedYAMLError(
            problem="its anchors are repeated too often", problem_mark=node.start_mark
        )
    return sizes[id(node)]


def dump_config(config: BaseModel) -> str:
    """Returns the resolved configuration as YAML that `load_config` reads back equal."""
    return dump_plain(config.model_dump(mode="json"))


def dump_plain(data: Mapping[str, Any]) -> str:
    """Returns plain data as YAML; strings that YAML 1.1 would read as something else are quoted."""
    return yaml.safe_dump(dict(data), sort_keys=False, width=_WIDTH, allow_unicode=True)


def read_yaml(
    path: Path, name: str | None = None
) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """Returns the content of a YAML file and the line of each key.

    Args:
        name: What the file is called in an error; None for its name without folders.

    Raises:
        ScanlearnError: Not UTF-8, not valid YAML, or no mapping; names the line.
    """
    name = name or path.name
    try:
        data, node = _parse(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ScanlearnError(f"{name}: is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise ScanlearnError(f"{name}: cannot be read ({error.strerror})") from None
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ScanlearnError(f"{name}{line}: is not valid YAML: {error.problem}") from None
    if data is None:
        return {}, {}
    if not isinstance(data, dict):
        raise ScanlearnError(f"{name}: holds no 'key: value' lines")
    lines: dict[tuple[str, ...], int] = {}
    _collect_lines(node, (), lines)
    return data, lines


Read = TypeVar("Read")


def read_json(
    path: Path,
    of: type[Read],
    *,
    what: str,
    remedy: str,
    also: Mapping[str, Any] | None = None,
) -> Read:
    """Returns the content of a JSON file that the program wrote, its types checked.

    Args:
        of: What it holds: a dataclass, a pydantic model, or a type such as ``dict[str, float]``.
        what: What is to be said of a file that holds something else, such as "is no result".
        remedy: What to do then.
        also: Fields that are not in the file.

    Raises:
        ScanlearnError: It cannot be read, or it is not JSON of this kind; names the key.
    """
    try:
        content = path.read_bytes()
        if also is None:
            return TypeAdapter(of).validate_json(content)
        values = TypeAdapter(dict[str, Any]).validate_json(content) | dict(also)
        return TypeAdapter(of).validate_json(json.dumps(values), strict=True)
    except OSError as error:
        raise ScanlearnError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        problem = f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}"
        raise ScanlearnError(f"{path}: {what} ({problem}); {remedy}") from None


def _collect_lines(
    node: yaml.Node | None, at: tuple[str, ...], lines: dict[tuple[str, ...], int]
) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[(*at, str(key.value))] = key.start_mark.line + 1
            _collect_lines(value, (*at, str(key.value)), lines)
