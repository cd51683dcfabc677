"""What a configuration's pydantic models say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Returns the pydantic models named anywhere in a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    found: list[type[BaseModel]] = []
    for argument in getattr(annotation, "__args__", ()):
        found += models_in(argument)
    return found


def default_of(field: FieldInfo) -> Any:
    """Returns the default of a field, None where it has none."""
    value = field.get_default(call_default_factory=True)
    return None if value is PydanticUndefined else value


def is_mapping(annotation: Any) -> bool:
    """Whether a type annotation is that of a mapping."""
    return getattr(annotation, "__origin__", None) in (dict, Mapping)
