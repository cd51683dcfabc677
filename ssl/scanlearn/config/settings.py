"""What every block of settings is: frozen, and strict about its keys."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from scanlearn.config.errors import explain
from scanlearn.errors import ScanlearnError

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _MakesSettings(ModelMetaclass):
    """What a person makes wrongly in Python is told as of a file; pydantic makes blocks itself."""

    if not TYPE_CHECKING:

        def __call__(self, *args: Any, **values: Any) -> Any:
            name = self.__name__
            if args:
                raise ScanlearnError(
                    f"{name} takes settings by their names, as {name}(key=value); "
                    f"load_config({name}, 'FILE.yaml', ['key=value']) reads a file"
                )
            try:
                return super().__call__(**values)
            except ValidationError as error:
                raise ScanlearnError(explain(error, self, values, name, {})) from None


class Settings(BaseModel, metaclass=_MakesSettings):
    """A frozen block of settings; a key it does not know is an error.

    Raises:
        ScanlearnError: Key, what was given and what is allowed, in one sentence.
    """

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
