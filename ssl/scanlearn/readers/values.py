"""What stored values mean: which of them are 0 and 1 on the unit range."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt16

from scanlearn.readers.scan import Pixels, Scan

Box = tuple[int, int, int, int]
PERCENTILES = (0.5, 99.5)
# Of more values than these an even sample counts.
_MAX_COUNTED = 2**24
_VALUES_AT_ONCE = 2**20
# Air is a few hundredths as bright as what is bright in a magnitude image, the darkest tissue more.
_FOREGROUND = 0.05
# Noise around zero and rounding leave a few values below it; a phase has half of them there.
_MAX_BELOW_ZERO = 0.005
_NO_MAGNITUDE = "no magnitude, values below zero: stored as they are"
_SCALED = "more than 16 bits or floating point scaled to 16 bits"


def value_range(
    pixels: Pixels, kind: Literal["full", "percentile"] = "full", box: Box | None = None
) -> tuple[float, float]:
    """Returns the stored values that mean 0 and 1.

    Args:
        kind: "full" for the range of the dtype, 0 to 255 or 0 to 65535; "percentile" for the .5
            and 99.5 percentiles over all channels inside ``box``.
        box: Top, left, bottom, right of the scan; None for all of ``pixels``.
    """
    if kind == "full":
        return 0.0, float(np.iinfo(pixels.dtype).max)
    top, left, bottom, right = box or (0, 0, *pixels.shape[1:])
    return percentile_range(pixels[:, top:bottom, left:right])


def percentile_range(pixels: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Returns the .5 and 99.5 percentiles, an arbitrary step apart where they are one value."""
    low, high = np.percentile(_sample(pixels), PERCENTILES)
    # A scan of one value would divide by zero: it means 0 everywhere.
    return float(low), float(high if high > low else low + 1.0)


def foreground_range(pixels: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Returns the .5 and 99.5 percentiles of the foreground.

    Foreground is what lies more than a twentieth of the range, from the .5 to the 99.5 percentile
    of everything, above its lower end. Otsu's threshold would stand between fat and muscle where
    a coil lights up the one, and would show the other as black.
    """
    flat = _sample(pixels)
    darkest, brightest = percentile_range(flat)
    inside = flat[flat > foreground_from(darkest, brightest)]
    if not inside.size:
        return darkest, brightest
    low, high = np.percentile(inside, PERCENTILES)
    # A foreground of one value is white.
    return float(low if low < high else darkest), float(high)


def _sample(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    flat = pixels.reshape(-1)
    return flat[:: 1 + flat.size // _MAX_COUNTED]


def foreground_from(low: float, high: float) -> float:
    """Returns the value above which a scan with these percentiles has its foreground."""
    return low + _FOREGROUND * (high - low)


def from_zero(scan: Scan) -> tuple[Scan, tuple[str, ...]]:
    """Returns a scan whose stored 0 is the zero of what it measures, and what was wrong with it.

    Signed values are stored shifted; the noise of a magnitude is counted from its zero. What then
    passes 16 (or 8) bits is scaled down to fit them. A scan with more than a few values below
    zero is no magnitude and stays as it is; without units a stored 0 is zero already.
    """
    if scan.units is None:
        return scan, ()
    slope, intercept = scan.units.slope, scan.units.intercept
    measured = np.sign(slope) * (scan.pixels.astype(np.float64) + intercept / slope)
    if float((measured < 0).mean()) > _MAX_BELOW_ZERO:
        return scan, (_NO_MAGNITUDE,)
    top = float(np.iinfo(scan.pixels.dtype).max)
    shrink = min(1.0, top / max(1.0, float(measured.max())))
    pixels = np.rint(measured * shrink).clip(0, top).astype(scan.pixels.dtype)
    units = replace(scan.units, slope=abs(slope) / shrink, intercept=0.0)
    return replace(scan, pixels=pixels, value_range=None, units=units), ()


class Stored(NamedTuple):
    """Values as an archive stores them: ``scale * value + offset``."""

    pixels: UInt8[np.ndarray, "*s"] | UInt16[np.ndarray, "*s"]
    scale: float = 1.0
    offset: float = 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """What was changed, in words."""
        return () if self.scale == 1 else (_SCALED,)


def stored_depth(values: np.ndarray[Any, Any]) -> Stored:
    """Returns numbers of any real dtype in 8 or 16 bits.

    8 and 16 bits are kept as they are, signed ones shifted by half their range. More bits, and
    floating point, become 0 to 65535 between the least and the greatest finite value; what is
    not finite becomes 0.
    """
    kind, num_bytes = values.dtype.kind, values.dtype.itemsize
    if kind in "iu" and num_bytes <= 2:
        depth = np.uint8 if num_bytes == 1 else np.uint16
        shift = 0 if kind == "u" else int(np.iinfo(values.dtype).max) + 1
        # Both wrap round, so that a large volume needs no room for wider numbers.
        shifted: np.ndarray[Any, Any] = values.astype(depth)
        shifted += depth(shift)
        return Stored(shifted, offset=float(shift))
    finite = np.isfinite(values)
    if not finite.any():
        return Stored(np.zeros(values.shape, np.uint16))
    some: Any = values.flat[int(finite.argmax())]
    low = float(np.min(values, initial=some, where=finite))
    high = float(np.max(values, initial=some, where=finite))
    if kind in "iu" and low >= 0 and high <= np.iinfo(np.uint16).max:
        return Stored(values.astype(np.uint16))
    span = high - low
    scale = np.iinfo(np.uint16).max / span if span > 0 else 1.0
    if not (np.isfinite(span) and np.isfinite(scale)):
        return Stored(np.zeros(values.shape, np.uint16))
    pixels = np.empty(values.shape, np.uint16)
    step = max(1, _VALUES_AT_ONCE // values[0].size)
    for start in range(0, len(values), step):
        part = slice(start, start + step)
        wide = np.where(finite[part], values[part].astype(np.float64), low)
        pixels[part] = np.rint((wide - low) * scale)
    return Stored(pixels, scale, -low * scale)


def inverted(scan: Scan) -> Scan:
    """Returns a scan with bright and dark exchanged, whose values measure what they did."""
    top = int(np.iinfo(scan.pixels.dtype).max)
    shown, units = scan.value_range, scan.units
    if units is not None:
        intercept = units.intercept + units.slope * top
        units = replace(units, slope=-units.slope, intercept=intercept)
    shown = None if shown is None else (top - shown[1], top - shown[0])
    return replace(scan, pixels=top - scan.pixels, value_range=shown, units=units)
