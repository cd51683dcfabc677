"""The types that need no torch: whoever only decodes scans is spared the seconds it takes to load.

The legend of axis letters stands in `scanlearn.core`, which passes these types on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8, UInt16


class ScanlearnError(ValueError):
    """What a user gave cannot be used.

    The message is one sentence that says where, what was given, what is allowed and what to
    do. The command line prints it without a traceback and exits with code 2.
    """


@dataclass(frozen=True)
class Units:
    """What stored values measure: ``slope * stored + intercept``.

    Args:
        slope: Units from one stored value to the next; negative where the file's bright is low.
        intercept: What a stored 0 measures.
        name: "HU" for Hounsfield units, else what little a file says; None where it says nothing.
    """

    slope: float
    intercept: float
    name: str | None = None


@dataclass(frozen=True)
class Scan:
    """One decoded scan, before it is packed.

    Args:
        pixels: ``[c h w]``, uint8 or uint16, in stored units.
        spacing_mm: Height and width of a pixel in millimetres, or None where unknown.
        value_range: Stored values that mean 0 and 1 by what the file says, or None where it says
            nothing of them.
        units: What stored values measure; None where that is unknown, as for pictures.
    """

    pixels: UInt8[np.ndarray, "c h w"] | UInt16[np.ndarray, "c h w"]
    spacing_mm: tuple[float, float] | None = None
    value_range: tuple[float, float] | None = None
    units: Units | None = None
