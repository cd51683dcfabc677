"""CT windows: the Hounsfield units that are shown as black and as white."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Num, UInt8

from scanlearn.readers.scan import Scan, Undecodable

WindowName = Literal["lung", "mediastinum", "brain", "subdural", "bone", "abdomen", "liver"]
Window = WindowName | tuple[float, float]
# Width and level in HU. Where practice gives a span (mediastinum 350-400/40-50, bone
# 1800-2000/400-500, abdomen 350-400/40-50), one value of it.
WINDOWS: dict[WindowName, tuple[float, float]] = {
    "lung": (1500, -600),
    "mediastinum": (350, 50),
    "brain": (80, 40),
    "subdural": (200, 75),
    "bone": (1800, 400),
    "abdomen": (400, 50),
    "liver": (150, 30),
}
# HU -32768 to 32767 are stored as 0 to 65535: the same for every scan of an archive.
HU_OF_ZERO = -32768
_NO_UNIT = "volume without a unit, taken as Hounsfield units"
_NO_AIR = "taken as Hounsfield units, though no value is below 0"
_COARSE = "stored values are more than 1 HU apart"


def read_window(value: object) -> object:
    """Returns a name, ``[width, level]``, three of these or None as set by a user, checked.

    Raises:
        ValueError: It is none of them.
    """
    if value is None:
        return None
    if isinstance(value, list | tuple) and len(value) == 3:
        return tuple(_window(part, value) for part in value)
    return _window(value, value)


def _window(part: object, value: object) -> Window:
    for name in WINDOWS:
        if part == name:
            return name
    if isinstance(part, list | tuple) and len(part) == 2:
        width, level = part
        numbers = [each for each in part if isinstance(each, int | float)]
        if len(numbers) == 2 and np.isfinite(numbers).all() and width > 0:
            return float(width), float(level)
    known = ", ".join(WINDOWS)
    raise ValueError(
        f"{value} is not a window; give one of {known}, or [width, level] in HU with a width above"
        " 0, or a list of three of these for three channels"
    )


def edges(window: Window) -> tuple[float, float]:
    """Returns the HU that a window shows as black and as white: level -+ half the width."""
    width, level = WINDOWS[window] if isinstance(window, str) else window
    return level - width / 2, level + width / 2


def in_hounsfield(scan: Scan) -> tuple[Scan, tuple[str, ...]]:
    """Returns a scan whose stored values are HU + 32768, and what is doubtful of it, in words.

    Raises:
        Undecodable: Its values are no Hounsfield units.
    """
    units = scan.units
    if units is None:
        raise Undecodable("has no Hounsfield units, which a window needs")
    if units.name not in (None, "HU"):
        raise Undecodable(f"holds {units.name}, not Hounsfield units, which a window needs")
    measured = units.slope * scan.pixels.astype(np.float64) + units.intercept
    notes = () if units.name == "HU" else (_NO_UNIT,)
    if units.name is None and measured.min() >= 0:
        notes = (*notes, _NO_AIR)
    if abs(units.slope) > 1:
        notes = (*notes, _COARSE)
    stored = np.rint(measured - HU_OF_ZERO).clip(0, 65535).astype(np.uint16)
    return replace(scan, pixels=stored, value_range=None, units=None), notes


def stored_range(window: tuple[float, float]) -> tuple[float, float]:
    """Returns the edges of a window as stored values."""
    return window[0] - HU_OF_ZERO, window[1] - HU_OF_ZERO


def render_windows(
    pixels: Num[np.ndarray, "1 h w"], windows: tuple[tuple[float, float], ...]
) -> UInt8[np.ndarray, "c h w"]:
    """Returns HU + 32768 as one channel of 0 to 255 for each window, given by its edges in HU."""
    planes = []
    for low, high in map(stored_range, windows):
        unit = np.clip((pixels[0].astype(np.float32) - low) / (high - low), 0, 1)
        planes.append(np.rint(255 * unit).astype(np.uint8))
    return np.stack(planes)
