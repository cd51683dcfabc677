"""Extras as a configuration names them: a transform of an allowed library, by its class.

A file of settings may come from anybody: nothing but these libraries is ever imported by a name in
it, no argument can name code, and no class is taken that reads or writes files.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from scanlearn.config.settings import Settings
from scanlearn.errors import ScanlearnError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    from scanlearn.views.extras import Extra


@dataclass(frozen=True)
class Library:
    """A library whose transforms may be named.

    Args:
        package: What is installed, and whose classes are taken.
        probability: How its classes call the probability that they do anything.
        takes_arrays: Whether they take arrays ``[h w c]`` in place of tensors ``[c h w]``.
        refused: Modules of it whose classes read or write files.
    """

    package: str
    probability: str
    takes_arrays: bool = False
    refused: tuple[str, ...] = ()


LIBRARIES: Mapping[str, Library] = {
    "torchvision.transforms.v2": Library("torchvision", "p"),
    "monai.transforms": Library("monai", "prob", refused=("monai.transforms.io",)),
    "albumentations": Library("albumentations", "p", takes_arrays=True),
}


def _plain(given: Any) -> Any:
    if isinstance(given, Mapping):
        for key, value in given.items():
            if not _is_plain(value):
                raise ScanlearnError(
                    f"{key}: {value!r} is not allowed; give a number, a string, true, false, null "
                    "or a list of them."
                )
    return given


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


class ExtraConfig(Settings):
    """A transform of another library, done after the recipe's operations."""

    name: str = Field(
        description=f"its class, as in torchvision.transforms.v2.RandomPosterize; of "
        f"{', '.join(LIBRARIES)}"
    )
    arguments: Annotated[dict[str, Any], BeforeValidator(_plain)] = Field(
        default={}, description="its arguments: numbers, strings, true, false, null or lists"
    )
    probability: float = Field(
        default=1.0, gt=0, le=1, description="share of the views that it is done to"
    )
    views: Literal["all", "global", "local"] | tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default="all",
        description="all, global, local, or a list of views: 0 and 1 are the global ones",
    )
    place: Literal["before", "after"] = Field(
        default="before", description="before the views are standardised, or after"
    )

    @field_validator("name")
    @classmethod
    def _allowed(cls, value: str) -> str:
        module, _, transform = value.rpartition(".")
        if cls is not ExtraConfig:  # Of a person's own, made in Python: a file names none.
            return value
        if module not in LIBRARIES or not transform:
            raise ScanlearnError(
                f"'{value}' is no class of an allowed module; give one of {', '.join(LIBRARIES)} "
                "followed by a dot and the class"
            )
        return value

    def operation(self, where: str) -> Callable[[Tensor], Tensor]:
        """Returns what is done to a batch of views ``[k c s s]``; an own extra says so itself.

        Args:
            where: The setting that names it, for messages.
        """
        from scanlearn.views.extras import per_array, per_scan

        library = LIBRARIES[self.name.rpartition(".")[0]]
        wrapped = per_array if library.takes_arrays else per_scan
        return wrapped(_built(self, library, where))

    @property
    def in_words(self) -> str:
        """What it is, for a person."""
        arguments = ", ".join(f"{key}={value}" for key, value in self.arguments.items())
        given = self.views
        where = (
            f"{given} views" if isinstance(given, str) else f"views {', '.join(map(str, given))}"
        )
        return (
            f"{self.name}({arguments}), probability {self.probability:.4g}, in {where} "
            f"{self.place} standardisation"
        )


# What a configuration and the commands take.
Extras = Annotated[
    tuple[ExtraConfig, ...],
    Field(
        description="transforms of torchvision, MONAI or Albumentations done after the recipe's, "
        "each {name: MODULE.CLASS, arguments: {...}, probability: 0.3}"
    ),
]


def build_extras(configs: Sequence[ExtraConfig], num_views: int | None = None) -> tuple[Extra, ...]:
    """Returns the extras that a configuration names, each built by its class.

    Args:
        num_views: Views of each scan, of which every extra must be for some; None asks nothing.

    Raises:
        ScanlearnError: A library is not installed, has no such class, or refuses an argument; or
            an extra is for none of the views.
    """
    if not configs:
        return ()
    from scanlearn.views.extras import Extra

    extras = []
    for number, config in enumerate(configs):
        where = f"extras.{number}"
        extra = Extra(
            config.operation(where),
            config.probability,
            config.views,
            config.place,
            title=config.name,
        )
        if num_views is not None and not any(map(extra.applies_to, range(num_views))):
            raise ScanlearnError(
                f"{where}.views: {config.views!r} are none of the {num_views} views of a scan; "
                "give all, or leave the extra out."
            )
        extras.append(extra)
    return tuple(extras)


def _built(config: ExtraConfig, library: Library, where: str) -> Any:
    transform = _class_of(config.name, library, where)
    taken = inspect.signature(transform).parameters
    arguments = {key: _as_tuple(value) for key, value in config.arguments.items()}
    if library.probability in arguments:
        raise ScanlearnError(
            f"{where}.arguments.{library.probability}: an extra has one probability; give it as "
            "probability, beside name."
        )
    unknown = [key for key in arguments if key not in taken]
    if unknown and all(one.kind is not one.VAR_KEYWORD for one in taken.values()):
        known = [key for key in taken if key != library.probability]
        hint = did_you_mean(unknown[0], known) or f"; it takes {', '.join(known) or 'none'}"
        raise ScanlearnError(
            f"{where}.arguments.{unknown[0]}: is no argument of {config.name}{hint}."
        )
    # Half the probability that was asked for was done, in silence, by a class whose own is .5.
    if library.probability in taken:
        arguments[library.probability] = 1.0
    try:
        return transform(**arguments)
    except Exception as error:
        words = " ".join(str(error).split())
        at = next((key for key in config.arguments if re.search(rf"\b{key}\b", words)), None)
        at = at or (next(iter(config.arguments)) if len(config.arguments) == 1 else None)
        raise ScanlearnError(
            f"{where}.arguments{f'.{at}' if at else ''}: {config.name} refuses "
            f"{config.arguments}: {words}"
        ) from error


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, (list, tuple)) else value


def _class_of(name: str, library: Library, where: str) -> Any:
    module, _, wanted = name.rpartition(".")
    # Albumentations asks the network for its newest version where this is not set.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        names = vars(import_module(module))
    except ModuleNotFoundError as error:
        raise ScanlearnError(
            f"{where}.name: {name} needs {library.package}, which is not installed; install it "
            f"with pip install {library.package}."
        ) from error
    classes = {key: value for key, value in names.items() if _is_transform(value, library)}
    if wanted not in classes:
        hint = did_you_mean(wanted, classes) or f"; see the documentation of {library.package}"
        raise ScanlearnError(f"{where}.name: {module} has no transform '{wanted}'{hint}.")
    return classes[wanted]


def _is_transform(value: object, library: Library) -> bool:
    return (
        inspect.isclass(value)
        and not inspect.isabstract(value)
        and value.__module__.partition(".")[0] == library.package
        and not value.__module__.startswith(library.refused or ("\0",))
        and any("__call__" in vars(base) for base in value.__mro__)
    )
