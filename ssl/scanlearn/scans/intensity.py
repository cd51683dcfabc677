"""From a decoded scan to the canvas: size, channels and the values that mean 0 and 1."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from scanlearn.core import Scan
from scanlearn.scans.shards import Pixels

Box = tuple[int, int, int, int]
PERCENTILES = (0.5, 99.5)
_MAX_COUNTED = 2**24
# ITU-R BT.601 luma, the weights of Pillow's own conversion.
_LUMA = (0.299, 0.587, 0.114)
# Above this many canvas pixels per output pixel a box average goes before the fine resize: several
# times as fast on large scans, and the same within half a gray level.
_REDUCING_GAP = 3.0


def fit_to_canvas(
    scan: Scan, canvas: tuple[int, int], channels: Literal[1, 3]
) -> tuple[Pixels, Box, tuple[float, float] | None]:
    """Returns a scan on its canvas, the box it fills, and the spacing of a canvas pixel.

    The aspect is kept and nothing is ever enlarged: a smaller scan keeps its size. The scan lies
    at the top left; padding at the bottom and right is 0.

    Args:
        scan: ``[c h w]`` with one or three channels.
        canvas: Rows and columns of the canvas.
        channels: 1 (colour becomes luma) or 3 (gray is repeated).

    Returns:
        Pixels ``[channels h w]`` in the dtype of the scan; top, left, bottom, right; height and
        width of a canvas pixel in mm, or None.
    """
    source = to_gray(scan.pixels) if channels == 1 else scan.pixels
    height, width = source.shape[1:]
    shrink = min(1.0, canvas[0] / height, canvas[1] / width)
    rows = min(canvas[0], max(1, round(height * shrink)))
    columns = min(canvas[1], max(1, round(width * shrink)))
    fitted = source if (rows, columns) == (height, width) else _resize(source, rows, columns)
    pixels = np.zeros((channels, *canvas), source.dtype)
    pixels[:, :rows, :columns] = fitted
    spacing = scan.spacing_mm
    if spacing is not None:
        spacing = (spacing[0] * height / rows, spacing[1] * width / columns)
    return pixels, (0, 0, rows, columns), spacing


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
        return (values.astype(np.int32) + shift).astype(depth), 1.0, float(shift)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, np.uint16), 1.0, 0.0
    low, high = float(values[finite].min()), float(values[finite].max())
    if kind in "iu" and low >= 0 and high <= np.iinfo(np.uint16).max:
        return values.astype(np.uint16), 1.0, 0.0
    span = high - low
    scale = np.iinfo(np.uint16).max / span if span > 0 else 1.0
    if not (np.isfinite(span) and np.isfinite(scale)):
        return np.zeros(values.shape, np.uint16), 1.0, 0.0
    unit = np.where(finite, values.astype(np.float64), low)
    return np.rint((unit - low) * scale).astype(np.uint16), scale, -low * scale


def _resize(pixels: Pixels, rows: int, columns: int) -> np.ndarray[Any, Any]:
    """Returns ``[c rows columns]``: antialiased bicubic, by Pillow."""
    if pixels.dtype == np.uint8:
        stacked = pixels[0] if pixels.shape[0] == 1 else pixels.transpose(1, 2, 0)
        small = np.asarray(_shrink(Image.fromarray(np.ascontiguousarray(stacked)), rows, columns))
        return small[None] if small.ndim == 2 else small.transpose(2, 0, 1)
    # 16 bit goes through float, one channel at a time; bicubic overshoots, hence the clamp.
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in pixels]
    small = np.stack([np.asarray(_shrink(plane, rows, columns)) for plane in planes])
    clamped: np.ndarray[Any, Any] = np.rint(small).clip(0, np.iinfo(pixels.dtype).max)
    return clamped.astype(pixels.dtype)


def _shrink(image: Image.Image, rows: int, columns: int) -> Image.Image:
    return image.resize((columns, rows), Image.Resampling.BICUBIC, reducing_gap=_REDUCING_GAP)
