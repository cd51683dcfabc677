"""The dial: how strongly scans are augmented, as one number or four."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from scanlearn.config.calls import checked_init
from scanlearn.errors import ScanlearnError, did_you_mean

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

# What a configuration says of a scale: a number, a name, or one of these for each sub-dial.
Written = float | str | Mapping[str, float | str]

MAX_SCALE = 1.5
NAMED_SCALES: Mapping[str, float] = {"identity": 0.0, "weak": 0.5, "strong": 1.0}


@checked_init
@dataclass(frozen=True)
class Scale:
    """A setting of the dial: 0 is the identity, .5 weak, 1 the published recipe, 1.5 the end.

    Args:
        crop: How far the area and the aspect of the crop vary, 0 to 1.5.
        geometry: Flips, rotation, translation, stretch, shear and elastic deformation, 0 to 1.5.
        photometric: How much colour, gray values and sharpness vary, 0 to 1.5.
        acquisition: Bias field, blur and noise of the device, 0 to 1.5; off unless asked for.

    Raises:
        ScanlearnError: A value is no number between 0 and 1.5.

    Source: docs/dial.md, which lever moves which parameter.

    Example:
        >>> Scale.of(0.5) == Scale.WEAK
        True
        >>> Scale.parse({"crop": "weak", "geometry": 0, "photometric": 1})
        Scale(crop=0.5, geometry=0.0, photometric=1.0, acquisition=0.0)

    As a field of settings (``scale: Scale``) it is parsed once and dumped as it was written.
    """

    crop: float
    geometry: float
    photometric: float
    acquisition: float = 0.0

    IDENTITY: ClassVar[Scale]
    WEAK: ClassVar[Scale]
    STRONG: ClassVar[Scale]

    # As it was written, where it was parsed; not part of its value.
    _written: ClassVar[Written | None] = None

    def __post_init__(self) -> None:
        for field in fields(self):
            checked = _number(getattr(self, field.name), where=f"scale.{field.name}")
            object.__setattr__(self, field.name, checked)

    @classmethod
    def of(cls, s: float) -> Scale:
        """Returns the scale with crop, geometry and photometric all at ``s``."""
        value = _number(s, where="scale")
        return cls(crop=value, geometry=value, photometric=value)

    @classmethod
    def parse(cls, written: Scale | Written) -> Scale:
        """Returns the scale that was written: a number from 0 to 1.5, a name, or sub-dials.

        The names are identity, weak and strong; sub-dials map crop, geometry, photometric and, 0
        where it is left out, acquisition to numbers or names.

        Raises:
            ScanlearnError: The name, the number or a sub-dial is not one of those.
        """
        if isinstance(written, Scale):
            return written
        if isinstance(written, Mapping):
            scale = cls._of_dials(written)
        else:
            scale = cls.of(_number(written, where="scale"))
        object.__setattr__(scale, "_written", _plain(written))
        return scale

    @classmethod
    def _of_dials(cls, written: Mapping[str, float | str]) -> Scale:
        dials = [field.name for field in fields(cls)]
        unknown = [str(key) for key in written if key not in dials]
        if unknown:
            raise ScanlearnError(
                f"scale: '{unknown[0]}' is not a sub-dial{did_you_mean(unknown[0], dials)}; "
                f"allowed are {', '.join(dials)}."
            )
        missing = [dial for dial in dials if dial != "acquisition" and dial not in written]
        if missing:
            raise ScanlearnError(
                f"scale: {', '.join(missing)} not given; give crop, geometry and photometric, "
                "or one number for all of them."
            )
        return cls(
            **{dial: _number(value, where=f"scale.{dial}") for dial, value in written.items()}
        )

    @property
    def is_one_number(self) -> bool:
        """Whether one number or name was given for all of it; sub-dials that agree are four."""
        return not isinstance(self._written, Mapping) and self == Scale.of(self.crop)

    @property
    def written(self) -> Written:
        """The scale as it was written; else one number where that says it all, or a mapping."""
        if self._written is not None:
            return self._written
        return self.crop if self == Scale.of(self.crop) else asdict(self)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        from pydantic_core import core_schema

        written = handler.generate_schema(float | str | dict[str, float | str])
        return core_schema.no_info_plain_validator_function(
            cls.parse,
            json_schema_input_schema=written,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda scale: scale.written, return_schema=written
            ),
        )

    def __str__(self) -> str:
        """Writes one number where one number says it all, the sub-dials otherwise."""
        if self == Scale.of(self.crop):
            return f"{self.crop:g}"
        dials = asdict(self)
        if self.acquisition == 0:
            del dials["acquisition"]
        return ", ".join(f"{name} {value:g}" for name, value in dials.items())


def _number(given: object, *, where: str) -> float:
    if isinstance(given, str):
        text = given.strip().lower()
        if text in NAMED_SCALES:
            return NAMED_SCALES[text]
        try:
            given = float(text)
        except ValueError:
            raise ScanlearnError(
                f"{where}: '{given}' is not a scale{did_you_mean(text, NAMED_SCALES)}; "
                f"give a number from 0 to {MAX_SCALE} or one of {', '.join(NAMED_SCALES)}."
            ) from None
    is_number = isinstance(given, (int, float)) and not isinstance(given, bool)
    if not is_number or not math.isfinite(given) or not 0 <= given <= MAX_SCALE:  # type: ignore[arg-type, operator]
        raise ScanlearnError(
            f"{where}: {given!r} is not between 0 (identity) and {MAX_SCALE}; "
            f"give a number from 0 to {MAX_SCALE} or one of {', '.join(NAMED_SCALES)}."
        )
    return float(given)  # type: ignore[arg-type]


def _plain(written: Any) -> Written:
    """Numbers as floats and a mapping as a dict of its own, as a YAML holds them."""
    if isinstance(written, Mapping):
        return {
            str(dial): value if isinstance(value, str) else float(value)
            for dial, value in written.items()
        }
    return written if isinstance(written, str) else float(written)


Scale.IDENTITY = Scale.of(NAMED_SCALES["identity"])
Scale.WEAK = Scale.of(NAMED_SCALES["weak"])
Scale.STRONG = Scale.of(NAMED_SCALES["strong"])
