"""A configuration's defaults as commented YAML, and its JSON schema."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

import yaml
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticUndefined

# What a configuration's pydantic models say of themselves.


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Returns the pydantic models named anywhere in a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    models: list[type[BaseModel]] = []
    for argument in getattr(annotation, "__args__", ()):
        models += models_in(argument)
    return models


def default_of(field: FieldInfo) -> Any:
    """Returns the default of a field, None where it has none."""
    value = field.get_default(call_default_factory=True)
    return None if value is PydanticUndefined else value


def is_mapping(annotation: Any) -> bool:
    """Whether a type annotation is that of a mapping."""
    return getattr(annotation, "__origin__", None) in (dict, Mapping)


_WIDTH = 96


def default_yaml(model: type[BaseModel], heading: str = "") -> str:
    """Returns the whole default configuration as YAML, each key under its description.

    A key without a default shows its first example and is marked ``required``.
    """
    lines = [f"# {line}".rstrip() for line in heading.splitlines()]
    if lines:
        lines.append("")
    return "\n".join([*lines, *_yaml_lines(model, 0)]) + "\n"


def _yaml_lines(model: type[BaseModel], depth: int) -> list[str]:
    indent = "  " * depth
    lines: list[str] = []
    for name, field in model.model_fields.items():
        text = (field.description or "").rstrip(".")
        required = field.is_required()
        comment = f"{text} (required)" if required else text
        wrapped = textwrap.wrap(comment, _WIDTH - len(indent) - 2)
        lines += [f"{indent}# {line}" for line in wrapped]
        value = (field.examples or ["VALUE"])[0] if required else default_of(field)
        inner = models_in(field.annotation)
        if isinstance(value, BaseModel):
            lines += [f"{indent}{name}:", *_yaml_lines(type(value), depth + 1)]
        elif required and inner and not field.examples:
            lines += [f"{indent}{name}:", *_yaml_lines(inner[0], depth + 1)]
        else:
            annotation: Any = Any if required else field.annotation
            adapter: TypeAdapter[Any] = TypeAdapter(annotation)
            plain = adapter.dump_python(value, mode="json", exclude_unset=True)
            lines += _value_lines(name, plain, indent)
    return lines


def _value_lines(name: str, plain: Any, indent: str) -> list[str]:
    """Returns the YAML lines of one key whose value is no model."""
    flow = isinstance(plain, list) or plain == {}
    text = yaml.safe_dump(
        {name: plain}, sort_keys=False, default_flow_style=None if flow else False
    )
    return [indent + line for line in text.rstrip().splitlines()]


def json_schema(model: type[BaseModel]) -> str:
    """Returns the JSON schema of a configuration, for editors that complete YAML."""
    return json.dumps(model.model_json_schema(schema_generator=_JsonSchema), indent=2)


class _JsonSchema(GenerateJsonSchema):
    def encode_default(self, dft: Any) -> Any:
        # As its own type writes it; pydantic would write a dataclass field by field.
        if is_dataclass(dft):
            return TypeAdapter(type(dft)).dump_python(dft, mode="json")
        return super().encode_default(dft)
