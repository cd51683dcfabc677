"""What stored values mean: which of them are 0 and 1 on the unit range."""

from __future__ import annotations

from dataclasses import replace
from math import gcd
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt8, UInt16

from scanlearn.readers.scan import Scan

Box = tuple[int, int, int, int]
Mask = Bool[np.ndarray, "*s"]
PERCENTILES = (0.5, 99.5)
# Of more values than these an even sample counts, and says what lies far from all others.
_MAX_COUNTED = 2**24
_MAX_JUDGED = 2**20
_VALUES_AT_ONCE = 2**20
# What lies this many times the spread of all others away from them was not measured; nearer values
# leave 500 gray levels to the others. The spread is that of all but the rarest values: metal or
# bright vessels, a few in a thousand, are more than these.
_FAR = 64
_RARE, _FEW, _MOST_RARE = 0.0005, 10, 0.005
# A window keeps these Hounsfield units.
_HU_BOUNDS = (-32768.0, 32767.0)
# Air is a few hundredths as bright as what is bright in a magnitude image, the darkest tissue more.
_FOREGROUND = 0.05
# Noise around zero and rounding leave a few values below it; a phase has half of them there.
_MAX_BELOW_ZERO = 0.005
_NO_MAGNITUDE = "no magnitude, values below zero: stored as they are"
_SCALED = "more than 16 bits or floating point scaled to 16 bits"
_CLIPPED = "values far from all others clipped"


def percentile_range(
    pixels: np.ndarray[Any, Any], padding: Mask | None = None
) -> tuple[float, float]:
    """Returns the .5 and 99.5 percentiles, an arbitrary step apart where they are one value.

    Args:
        padding: Which values do not count.
    """
    low, high = _percentiles(_sample(_without(pixels, padding)))
    # A scan of one value would divide by zero: it means 0 everywhere.
    return float(low), float(high if high > low else low + 1.0)


def foreground_range(
    pixels: np.ndarray[Any, Any], padding: Mask | None = None
) -> tuple[float, float]:
    """Returns the .5 and 99.5 percentiles of the foreground, for which padding does not count.

    Foreground is what lies more than a twentieth of the range, from the .5 to the 99.5 percentile
    of everything, above its lower end. Otsu's threshold would stand between fat and muscle where
    a coil lights up the one, and would show the other as black.
    """
    flat = _sample(_without(pixels, padding))
    darkest, brightest = percentile_range(flat)
    inside = flat[flat > foreground_from(darkest, brightest)]
    if not inside.size:
        return darkest, brightest
    low, high = _percentiles(inside)
    # A foreground of one value is white.
    return float(low if low < high else darkest), float(high)


def value_counts(values: np.ndarray[Any, Any]) -> Int64[np.ndarray, " v"]:
    """Returns how often each value of 8 or 16 bits occurs, ``[256]`` or ``[65536]``."""
    flat, number = values.reshape(-1), int(np.iinfo(values.dtype).max) + 1
    # In pieces: numpy makes every value eight bytes wide.
    parts = (flat[i : i + _VALUES_AT_ONCE] for i in range(0, flat.size, _VALUES_AT_ONCE))
    counts = np.zeros(number, np.int64)
    for part in parts:
        counts += np.bincount(part, minlength=number)
    return counts


def _percentiles(flat: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Returns what ``np.percentile`` does, to the last bit.

    Values of 8 and 16 bits are counted: ordering them takes four times as long, and more.
    """
    if flat.dtype not in (np.uint8, np.uint16):
        low, high = np.percentile(flat, PERCENTILES)
        return float(low), float(high)
    up_to = value_counts(flat).cumsum()

    def at(percent: float) -> float:
        place = percent / 100 * (flat.size - 1)
        before = int(place)
        share = place - before
        ends = np.searchsorted(up_to, (before, min(before + 1, flat.size - 1)), side="right")
        left, right = map(int, ends)
        step = right - left
        return right - step * (1 - share) if share >= 0.5 else left + step * share

    low, high = map(at, PERCENTILES)
    return low, high


def _without(pixels: np.ndarray[Any, Any], padding: Mask | None) -> np.ndarray[Any, Any]:
    """Returns the values that are no padding; all of them where nothing else is left."""
    return pixels if padding is None or padding.all() else pixels[~padding]


def _sample(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    flat = pixels.reshape(-1)
    return flat[:: 1 + flat.size // _MAX_COUNTED]


def _few(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Returns an even sample, of every row and column, without a copy of a turned volume."""
    step = 1 + values.size // _MAX_JUDGED
    while gcd(step, values.size) > 1:
        step += 1
    return values.flat[::step] if step > 1 else values.reshape(-1)


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


def padding_in(values: np.ndarray[Any, Any]) -> Mask | None:
    """Returns which values are padding though no tag says so; None where there is none.

    Of signed 16 bits that is the least value, -32768, where it lies further from the others than
    they lie apart; of more bits and floating point a value that many have at the lower or the
    upper end, far from all others. Counted as measured, either left no gray levels to tissue.
    """
    kind, num_bytes = values.dtype.kind, values.dtype.itemsize
    if kind == "i" and num_bytes == 2:
        least = int(np.iinfo(values.dtype).min)
        is_least = values == least
        if not is_least.any() or is_least.all():
            return None
        others = values[~is_least]
        low, high = int(others.min()), int(others.max())
        return is_least if low - least > high - low else None
    if kind in "iu" and num_bytes <= 2:
        return None
    flat = _few(values)
    flat = flat[np.isfinite(flat)]
    constants = []
    for end in (0, 1):
        if not _num_rare(flat.size):
            break
        constant = _edges(flat)[end]
        rest = flat[flat < constant] if end else flat[flat > constant]
        if not rest.size or np.count_nonzero(flat == constant) <= _num_rare(flat.size):
            continue
        near, far = map(float, _edges(rest))
        gap = float(constant) - far if end else near - float(constant)
        if far > near and gap > _FAR * (far - near):
            constants.append(constant)
            flat = rest
    return np.isin(values, constants) if constants else None


def darkened(scan: Scan, black: float | None = None) -> Scan:
    """Returns a scan whose padding is as dark as its darkest other value.

    Elsewhere it would shine, as a value above all others does, or draw bright seams when the scan
    is resized, as one far below them does.

    Args:
        black: What will be shown as black: padding below it keeps its value, but for a 0, which
            is what lies below all that 16 bits hold.
    """
    padding = scan.padding
    if padding is None or padding.all():
        return scan
    darkest = float(scan.pixels[~padding].min())
    if black is None:
        dark = np.full_like(scan.pixels, darkest)
    else:
        is_kept = (scan.pixels > 0) & (scan.pixels <= black)
        dark = np.where(is_kept, scan.pixels, min(darkest, max(black, 0.0)))
    pixels = np.where(padding, dark, scan.pixels).astype(scan.pixels.dtype)
    return replace(scan, pixels=pixels)


class Stored(NamedTuple):
    """Values as an archive stores them: ``scale * value + offset``."""

    pixels: UInt8[np.ndarray, "*s"] | UInt16[np.ndarray, "*s"]
    scale: float = 1.0
    offset: float = 0.0
    is_clipped: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """What was changed, in words."""
        scaled = () if self.scale == 1 else (_SCALED,)
        return (*scaled, _CLIPPED) if self.is_clipped else scaled


def stored_depth(
    values: np.ndarray[Any, Any],
    padding: Mask | None = None,
    bounds: tuple[float, float] | None = None,
) -> Stored:
    """Returns numbers of any real dtype in 8 or 16 bits.

    8 and 16 bits are kept as they are, signed ones shifted by half their range. More bits, and
    floating point, become 0 to 65535 between the least and the greatest finite value, without
    the few that lie far from all others: these are clipped, since one voxel of 1e10 would leave
    the rest without a gray level. What is not finite becomes 0.

    Args:
        padding: Which values do not count.
        bounds: Values that can be shown: all of them are kept, however far apart. None where
            that is not known.
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
    counted = finite if padding is None or padding.all() else finite & ~padding
    low, high = _extremes(values, counted if counted.any() else finite)
    least, greatest = low, high
    nearest, furthest = bounds or _plausible(values, counted)
    if low < nearest or high > furthest:
        near = counted & (values >= nearest) & (values <= furthest)
        if near.any():
            least, greatest = _extremes(values, near)
    is_clipped = (least, greatest) != (low, high)
    if kind in "iu" and least >= 0 and greatest <= np.iinfo(np.uint16).max:
        return Stored(
            values.clip(int(least), int(greatest)).astype(np.uint16), 1.0, 0.0, is_clipped
        )
    span = greatest - least
    scale = np.iinfo(np.uint16).max / span if span > 0 else 1.0
    if not (np.isfinite(span) and np.isfinite(scale)):
        return Stored(np.zeros(values.shape, np.uint16))
    pixels = np.empty(values.shape, np.uint16)
    step = max(1, _VALUES_AT_ONCE // values[0].size)
    for start in range(0, len(values), step):
        part = slice(start, start + step)
        wide = np.where(finite[part], values[part].astype(np.float64), least)
        pixels[part] = np.rint((wide.clip(least, greatest) - least) * scale)
    return Stored(pixels, scale, -least * scale, is_clipped)


def within_hounsfield(slope: float = 1.0, intercept: float = 0.0) -> tuple[float, float]:
    """Returns between which values lie the Hounsfield units that 16 bits hold."""
    low, high = sorted((edge - intercept) / slope for edge in _HU_BOUNDS)
    return low, high


def _extremes(values: np.ndarray[Any, Any], where: Mask) -> tuple[float, float]:
    some: Any = values.flat[int(where.argmax())]
    low, high = np.min(values, initial=some, where=where), np.max(values, initial=some, where=where)
    return float(low), float(high)


def _plausible(values: np.ndarray[Any, Any], counted: Mask) -> tuple[float, float]:
    """Returns the values between which lies what can have been measured."""
    flat = _few(values)[_few(counted)]
    if not flat.size:
        return -np.inf, np.inf
    low, high = _edges(flat)
    if low == high:
        # Nearly all of it is one value: what is not is judged by itself.
        rest = flat[flat != low]
        if rest.size:
            below, above = _edges(rest)
            low, high = min(low, below), max(high, above)
    margin = _FAR * (float(high) - float(low))
    return (float(low) - margin, float(high) + margin) if margin > 0 else (-np.inf, np.inf)


def _edges(flat: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Returns the least and the greatest value but for the rarest at either end."""
    last = flat.size - 1
    num_rare = _num_rare(flat.size)
    ordered = np.partition(flat, (num_rare, last - num_rare))
    return ordered[num_rare], ordered[last - num_rare]


def _num_rare(number: int) -> int:
    """Returns how many of some values may be errors: in small scans ten are, if of 2,000."""
    return min(max(int(_RARE * number), _FEW), int(_MOST_RARE * number))


def inverted(scan: Scan) -> Scan:
    """Returns a scan with bright and dark exchanged, whose values measure what they did."""
    top = int(np.iinfo(scan.pixels.dtype).max)
    limits, units = scan.value_range, scan.units
    if units is not None:
        intercept = units.intercept + units.slope * top
        units = replace(units, slope=-units.slope, intercept=intercept)
    limits = None if limits is None else (top - limits[1], top - limits[0])
    return replace(scan, pixels=top - scan.pixels, value_range=limits, units=units)
