"""From a decoded scan to the canvas: size, channels and the values that mean 0 and 1."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from scanlearn.plain import Scan
from scanlearn.scans.shards import Pixels

Box = tuple[int, int, int, int]
Fit = Literal["pad", "crop"]
PERCENTILES = (0.5, 99.5)
_MAX_COUNTED = 2**24
_VALUES_AT_ONCE = 2**20
# ITU-R BT.601 luma, the weights of Pillow's own conversion.
_LUMA = (0.299, 0.587, 0.114)
# A box average goes before the fine resize where it leaves this much of the shrinking to it. Large
# photographs take half the time of one that leaves 3; in those of the fundus a pixel differs by a
# quarter of a gray level on average from what the fine resize alone makes of it.
_REDUCING_GAP = 1.5
# Air is a few hundredths as bright as what is bright in a magnitude image, the darkest tissue more.
_FOREGROUND = 0.05
# Noise around zero and rounding leave a few values below it; a phase has half of them there.
_MAX_BELOW_ZERO = 0.005
_NO_MAGNITUDE = "no magnitude, values below zero: stored as they are"


@dataclass(frozen=True)
class Fitting:
    """Which part of a picture goes onto the canvas, and how large.

    Args:
        part: Top, left, bottom, right of the part, in pixels of the picture.
        rows: Rows of the canvas that it fills.
        columns: Columns of the canvas that it fills.
    """

    part: tuple[float, float, float, float]
    rows: int
    columns: int


def fit(size: tuple[int, int], canvas: tuple[int, int], how: Fit = "pad") -> Fitting:
    """Returns how a picture is fitted to a canvas, its aspect kept and never enlarged.

    Args:
        size: Rows and columns of the picture.
        canvas: Rows and columns of the canvas.
        how: "pad": all of it, as large as fits. "crop": as large as fills the canvas, and of the
            longer side the middle; a side that is shorter than the canvas already stays whole.
    """
    height, width = size
    if how == "pad":
        shrink = min(1.0, canvas[0] / height, canvas[1] / width)
        rows = min(canvas[0], max(1, round(height * shrink)))
        columns = min(canvas[1], max(1, round(width * shrink)))
        return Fitting((0, 0, height, width), rows, columns)
    shrink = min(1.0, max(canvas[0] / height, canvas[1] / width))
    rows, columns = (min(of, round(n * shrink)) for of, n in zip(canvas, size, strict=True))
    tall, wide = min(height, rows / shrink), min(width, columns / shrink)
    top, left = (height - tall) / 2, (width - wide) / 2
    if shrink == 1:
        # A picture that keeps its size keeps its pixels: no half pixel may be cut.
        top, left = top // 1, left // 1
    return Fitting((top, left, top + tall, left + wide), rows, columns)


def fit_to_canvas(
    scan: Scan, canvas: tuple[int, int], channels: Literal[1, 3], how: Fit = "pad"
) -> tuple[Pixels, Box, tuple[float, float] | None]:
    """Returns a scan on its canvas, the box it fills, and the spacing of a canvas pixel.

    The aspect is kept and nothing is ever enlarged: a smaller scan keeps its size. The scan lies
    at the top left; padding at the bottom and right is 0.

    Args:
        scan: ``[c h w]`` with one or three channels.
        canvas: Rows and columns of the canvas.
        channels: 1 (colour becomes luma) or 3 (gray is repeated).
        how: "pad" or "crop", see `fit`.

    Returns:
        Pixels ``[channels h w]`` in the dtype of the scan; top, left, bottom, right; height and
        width of a canvas pixel in mm, or None.
    """
    source = to_gray(scan.pixels) if channels == 1 else scan.pixels
    fitting = fit((source.shape[1], source.shape[2]), canvas, how)
    top, left, bottom, right = fitting.part
    rows, columns = fitting.rows, fitting.columns
    if (rows, columns) == (bottom - top, right - left):
        fitted = source[:, int(top) : int(bottom), int(left) : int(right)]
    else:
        fitted = _resize(source, fitting)
    pixels = np.zeros((channels, *canvas), source.dtype)
    pixels[:, :rows, :columns] = fitted
    spacing = scan.spacing_mm
    if spacing is not None:
        spacing = (spacing[0] * (bottom - top) / rows, spacing[1] * (right - left) / columns)
    return pixels, (0, 0, rows, columns), spacing


def shrink_picture(image: Image.Image, canvas: tuple[int, int], how: Fit = "pad") -> Image.Image:
    """Returns a picture in the size that `fit_to_canvas` gives it, with the same pixels.

    One that need not be resized is returned as it is. The way into an array at full size, and back
    to Pillow to be resized, is spared.

    Args:
        image: 8 bits, of mode L or RGB.
        canvas: Rows and columns of the canvas.
        how: "pad" or "crop", see `fit`.
    """
    fitting = fit((image.height, image.width), canvas, how)
    top, left, bottom, right = fitting.part
    is_kept = (fitting.rows, fitting.columns) == (bottom - top, right - left)
    return image if is_kept else _shrink(image, fitting)


def to_gray(pixels: Pixels) -> UInt8[np.ndarray, "1 h w"] | UInt16[np.ndarray, "1 h w"]:
    """Returns one channel: the scan itself where it is gray, else its ITU-R BT.601 luma.

    Args:
        pixels: ``[c h w]`` with one or three channels.
    """
    if pixels.shape[0] == 1:
        return pixels
    if pixels.dtype == np.uint8:
        image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        return np.asarray(image.convert("L"))[None]
    luma = np.tensordot(np.array(_LUMA), pixels.astype(np.float64), axes=1)
    return np.rint(luma).astype(pixels.dtype)[None]


def value_range(
    pixels: Pixels, kind: Literal["full", "percentile"] = "full", box: Box | None = None
) -> tuple[float, float]:
    """Returns the stored values that mean 0 and 1.

    Args:
        pixels: ``[c h w]`` uint8 or uint16.
        kind: "full" for the range of the dtype, 0 to 255 or 0 to 65535; "percentile" for the .5
            and 99.5 percentiles over all channels inside ``box``.
        box: Top, left, bottom, right of the scan; None for all of ``pixels``.
    """
    if kind == "full":
        return 0.0, float(np.iinfo(pixels.dtype).max)
    top, left, bottom, right = box or (0, 0, *pixels.shape[1:])
    return percentile_range(pixels[:, top:bottom, left:right])


def percentile_range(pixels: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Returns the .5 and 99.5 percentiles, an arbitrary step apart where they are one value.

    Args:
        pixels: Stored values of any shape; of very many, an even sample counts.
    """
    flat = pixels.reshape(-1)
    low, high = np.percentile(flat[:: 1 + flat.size // _MAX_COUNTED], PERCENTILES)
    # A scan of one value would divide by zero: it means 0 everywhere.
    return float(low), float(high if high > low else low + 1.0)


def foreground_range(pixels: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Returns the .5 and 99.5 percentiles of the foreground.

    Foreground is what lies more than a twentieth of the range, from the .5 to the 99.5 percentile
    of everything, above its lower end. Otsu's threshold would stand between fat and muscle where
    a coil lights up the one, and would show the other as black.

    Args:
        pixels: Stored values of any shape; of very many, an even sample counts.
    """
    flat = pixels.reshape(-1)
    flat = flat[:: 1 + flat.size // _MAX_COUNTED]
    darkest, brightest = percentile_range(flat)
    inside = flat[flat > foreground_from(darkest, brightest)]
    if not inside.size:
        return darkest, brightest
    low, high = np.percentile(inside, PERCENTILES)
    # A foreground of one value is white.
    return float(low if low < high else darkest), float(high)


def foreground_from(low: float, high: float) -> float:
    """Returns the value above which a scan with these percentiles has its foreground."""
    return low + _FOREGROUND * (high - low)


def from_zero(scan: Scan) -> tuple[Scan, tuple[str, ...]]:
    """Returns a scan whose stored 0 is the zero of what it measures, and what was wrong with it.

    Signed values are stored shifted; the noise of a magnitude is counted from its zero. What then
    passes 16 (or 8) bits is scaled down to fit them. A scan with more than a few values below
    zero is no magnitude and stays as it is.

    Args:
        scan: With ``units``; without, its stored 0 is zero already.
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


def stored_depth(
    values: np.ndarray[Any, Any],
) -> tuple[UInt8[np.ndarray, "*s"] | UInt16[np.ndarray, "*s"], float, float]:
    """Returns values as an archive stores them, and scale and offset from values to stored.

    8 and 16 bits are kept as they are, signed ones shifted by half their range. More bits, and
    floating point, become 0 to 65535 between the least and the greatest finite value; what is
    not finite becomes 0.

    Args:
        values: Numbers of any real dtype and shape.
    """
    kind, num_bytes = values.dtype.kind, values.dtype.itemsize
    if kind in "iu" and num_bytes <= 2:
        depth = np.uint8 if num_bytes == 1 else np.uint16
        shift = 0 if kind == "u" else int(np.iinfo(values.dtype).max) + 1
        # Both wrap round, so that a large volume needs no room for wider numbers.
        stored: np.ndarray[Any, Any] = values.astype(depth)
        stored += depth(shift)
        return stored, 1.0, float(shift)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, np.uint16), 1.0, 0.0
    some: Any = values.flat[int(finite.argmax())]
    low = float(np.min(values, initial=some, where=finite))
    high = float(np.max(values, initial=some, where=finite))
    if kind in "iu" and low >= 0 and high <= np.iinfo(np.uint16).max:
        return values.astype(np.uint16), 1.0, 0.0
    span = high - low
    scale = np.iinfo(np.uint16).max / span if span > 0 else 1.0
    if not (np.isfinite(span) and np.isfinite(scale)):
        return np.zeros(values.shape, np.uint16), 1.0, 0.0
    pixels = np.empty(values.shape, np.uint16)
    step = max(1, _VALUES_AT_ONCE // values[0].size)
    for start in range(0, len(values), step):
        part = slice(start, start + step)
        wide = np.where(finite[part], values[part].astype(np.float64), low)
        pixels[part] = np.rint((wide - low) * scale)
    return pixels, scale, -low * scale


def _resize(pixels: Pixels, fitting: Fitting) -> np.ndarray[Any, Any]:
    """Returns ``[c rows columns]``: antialiased bicubic, by Pillow."""
    if pixels.dtype == np.uint8:
        stacked = pixels[0] if pixels.shape[0] == 1 else pixels.transpose(1, 2, 0)
        small = np.asarray(_shrink(Image.fromarray(np.ascontiguousarray(stacked)), fitting))
        return small[None] if small.ndim == 2 else small.transpose(2, 0, 1)
    # 16 bit goes through float, one channel at a time; bicubic overshoots, hence the clamp.
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in pixels]
    small = np.stack([np.asarray(_shrink(plane, fitting)) for plane in planes])
    clamped: np.ndarray[Any, Any] = np.rint(small).clip(0, np.iinfo(pixels.dtype).max)
    return clamped.astype(pixels.dtype)


def _shrink(image: Image.Image, fitting: Fitting) -> Image.Image:
    top, left, bottom, right = fitting.part
    size, box = (fitting.columns, fitting.rows), (left, top, right, bottom)
    return image.resize(size, Image.Resampling.BICUBIC, box, _REDUCING_GAP)
