"""What every block of settings is: frozen, and strict about its keys."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, model_validator


class Settings(BaseModel):
    """A frozen block of settings; a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, data: Any) -> Any:
        """Takes one value where a list of them is a setting, as in ``tasks=pneumonia``."""
        if not isinstance(data, Mapping):
            return data
        alone = {
            key: (value,)
            for key, value in data.items()
            if type(value) in (str, int, float)
            and key in cls.model_fields
            and _is_list(cls.model_fields[key].annotation)
        }
        return {**data, **alone}


def _is_list(annotation: Any) -> bool:
    """Returns whether a type takes lists of any length, and nothing else but None."""
    if get_origin(annotation) in (Union, UnionType):
        others = [each for each in get_args(annotation) if each is not type(None)]
        return len(others) == 1 and _is_list(others[0])
    return get_origin(annotation) is tuple and get_args(annotation)[-1:] == (...,)
