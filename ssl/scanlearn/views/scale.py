"""The dial: how strongly scans are augmented, as one number or four."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import ClassVar

from scanlearn.errors import ScanlearnError

MAX_SCALE = 1.5
NAMED_SCALES: Mapping[str, float] = {"identity": 0.0, "weak": 0.5, "strong": 1.0}


@dataclass(frozen=True)
class Scale:
    """A setting of the dial: 0 is the identity, .5 weak, 1 the published recipe, 1.5 the end.

    Args:
        crop: How far the area and the aspect of the crop vary, 0 to 1.5.
        geometry: Flips, rotation, translation, stretch, shear and elastic deformation, 0 to 1.5.
        photometric: Colour jitter, grayscale, gamma, histogram shift, blur and solarize, 0 to 1.5.
        acquisition: Bias field, blur and noise of the device, 0 to 1.5; off unless asked for.

    Raises:
        ScanlearnError: A value is no number between 0 and 1.5.

    Source: docs/dial.md, which lever moves which parameter.

    Example:
        >>> Scale.of(0.5) == Scale.WEAK
        True
        >>> Scale.parse({"crop": "weak", "geometry": 0, "photometric": 1})
        Scale(crop=0.5, geometry=0.0, photometric=1.0, acquisition=0.0)
    """

    crop: float
    geometry: float
    photometric: float
    acquisition: float = 0.0

    IDENTITY: ClassVar[Scale]
    WEAK: ClassVar[Scale]
    STRONG: ClassVar[Scale]

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
    def parse(cls, given: Scale | float | str | Mapping[str, float | str]) -> Scale:
        """Returns the scale a person wrote.

        Args:
            given: A number from 0 to 1.5, one of the names identity, weak and strong, or a
                mapping from sub-dials (crop, geometry, photometric, acquisition) to either.
                A mapping names the first three; acquisition is 0 where it is left out.

        Raises:
            ScanlearnError: The name, the number or a sub-dial is not one of those.
        """
        if isinstance(given, Scale):
            return given
        if not isinstance(given, Mapping):
            return cls.of(_number(given, where="scale"))
        dials = [field.name for field in fields(cls)]
        unknown = [str(key) for key in given if key not in dials]
        if unknown:
            raise ScanlearnError(
                f"scale: '{unknown[0]}' is not a sub-dial{_nearest(unknown[0], dials)}; "
                f"give {', '.join(dials)}."
            )
        missing = [dial for dial in dials if dial != "acquisition" and dial not in given]
        if missing:
            raise ScanlearnError(
                f"scale: {', '.join(missing)} not given; name crop, geometry and photometric, "
                "or give one number for all of them."
            )
        return cls(**{dial: _number(value, where=f"scale.{dial}") for dial, value in given.items()})

    def __str__(self) -> str:
        """Writes one number where one number says it all, the sub-dials otherwise."""
        if self.crop == self.geometry == self.photometric and self.acquisition == 0:
            return f"{self.crop:g}"
        dials = {field.name: getattr(self, field.name) for field in fields(self)}
        return ", ".join(
            f"{name} {value:g}" for name, value in dials.items() if name != "acquisition" or value
        )


def _number(given: object, *, where: str) -> float:
    if isinstance(given, str):
        text = given.strip().lower()
        if text in NAMED_SCALES:
            return NAMED_SCALES[text]
        try:
            given = float(text)
        except ValueError:
            raise ScanlearnError(
                f"{where}: '{given}' is not a scale{_nearest(text, list(NAMED_SCALES))}; "
                f"give a number from 0 to {MAX_SCALE} or one of {', '.join(NAMED_SCALES)}."
            ) from None
    is_number = isinstance(given, (int, float)) and not isinstance(given, bool)
    if not is_number or not math.isfinite(given) or not 0 <= given <= MAX_SCALE:  # type: ignore[arg-type, operator]
        raise ScanlearnError(
            f"{where}: {given!r} is not between 0 (identity) and {MAX_SCALE}; "
            f"give a number from 0 to {MAX_SCALE} or one of {', '.join(NAMED_SCALES)}."
        )
    return float(given)  # type: ignore[arg-type]


def _nearest(given: str, allowed: list[str]) -> str:
    close = get_close_matches(given, allowed, n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


Scale.IDENTITY = Scale.of(NAMED_SCALES["identity"])
Scale.WEAK = Scale.of(NAMED_SCALES["weak"])
Scale.STRONG = Scale.of(NAMED_SCALES["strong"])
