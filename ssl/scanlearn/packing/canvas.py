"""From a decoded scan to the canvas: size, channels and the values that mean 0 and 1."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, UInt8, UInt16
from PIL import Image

from scanlearn.archive.layout import PackedScan, Spacing, ValueRange
from scanlearn.packing.chest_wall import Side, with_wall_at
from scanlearn.packing.fundus import NO_FIELD, Field, field_mask, find_field
from scanlearn.packing.windows import HU_OF_ZERO, in_hounsfield, render_windows, stored_range
from scanlearn.readers.scan import Pixels, Scan
from scanlearn.readers.values import (
    darkened,
    foreground_range,
    from_zero,
    percentile_range,
)

Intensity = Literal["full", "percentile", "foreground"]
FieldOfView = Literal["none", "fundus"]
Fit = Literal["pad", "crop"]
# ITU-R BT.601 luma, the weights of Pillow's own conversion.
_LUMA = (0.299, 0.587, 0.114)
# A box average goes before the fine resize where it leaves this much of the shrinking to it. Large
# photographs take half the time of one that leaves 3; in those of the fundus a pixel differs by a
# quarter of a gray level on average from what the fine resize alone makes of it.
_REDUCING_GAP = 1.5
_INTENSITY_WORDS = {
    "full": "0 and 1 are the ends of 8 or 16 bits, of DICOM its window, else percentiles .5 and"
    " 99.5 (of a volume, for all its slices)",
    "percentile": "0 and 1 are the .5 and 99.5 percentiles of each scan",
    "foreground": "0 and 1 are the .5 and 99.5 percentiles of the foreground, of a whole volume"
    " where there is one, else of each scan; a stored 0 is the zero of the magnitude, unless a note"
    " says otherwise",
}


@dataclass(frozen=True)
class Preprocess:
    """What is done to the pixels of every scan.

    Args:
        intensity: What means 0 and 1, where no window says it.
        windows: Black and white of one CT window or three, in HU.
        chest_wall: The side that the chest wall of mammograms is brought to; None leaves them.
    """

    intensity: Intensity = "full"
    fit: Fit = "pad"
    field_of_view: FieldOfView = "none"
    windows: tuple[tuple[float, float], ...] = ()
    chest_wall: Side | None = None

    @property
    def has_mask(self) -> bool:
        """Whether scans get a mask."""
        return self.field_of_view != "none"

    @property
    def shows_full_range(self) -> bool:
        """Whether 0 and 1 are the ends of 8 or 16 bits where a file says nothing else."""
        return self.intensity == "full" and not self.windows

    def dtype(self, is_deep: bool) -> np.dtype[Any]:
        """Returns what scans are stored as.

        One window keeps 16 bits, all HU with it, so that it may be moved later. Three are drawn,
        8 bits each as on a display: half the bytes of 16, in steps of a 255th of each window.
        """
        if self.windows:
            is_deep = len(self.windows) == 1
        return np.dtype(np.uint16 if is_deep else np.uint8)

    def described(self) -> dict[str, Any]:
        """Returns what ``archive.json`` says of the pixels, in words and numbers.

        ``unit``, ``scale`` and ``offset`` say what stored values measure where that is one thing
        for all scans: unit = scale x stored + offset; else they are None.
        """
        facts: dict[str, Any] = {
            "size": "aspect kept, never enlarged, antialiased bicubic; "
            + ("padded at the bottom and right" if self.fit == "pad" else "cropped to the middle"),
            "field_of_view": self.field_of_view,
            "shown": _INTENSITY_WORDS[self.intensity],
            "values": "as the files store them, signed ones shifted, more than 16 bits and floating"
            " point scaled; value_range says what is 0 and 1",
            "unit": None,
            "scale": None,
            "offset": None,
        }
        if self.windows:
            drawn = ", ".join(f"{low:g} to {high:g}" for low, high in self.windows)
            facts["shown"] = f"0 and 1 are the edges of the window in HU: {drawn}"
            facts["values"] = "one window a channel, drawn as 0 to 255"
        if len(self.windows) == 1:
            facts |= {"values": "HU + 32768", "unit": "HU", "scale": 1.0, "offset": HU_OF_ZERO}
        if self.chest_wall:
            facts["chest_wall"] = f"at the {self.chest_wall}, others mirrored"
        return facts


def place(
    scan: Scan, canvas: tuple[int, int], channels: Literal[1, 3], preprocess: Preprocess
) -> tuple[PackedScan, tuple[str, ...]]:
    """Returns a scan on its canvas, and what was done or found wanting, in words.

    In this order: a mammogram is mirrored, the field of view is cut out, values become HU or start
    at zero, the scan is resized and cropped or padded, windows are drawn, and black and white are
    set.

    Args:
        channels: 1 (colour becomes luma) or 3 (gray is repeated).

    Raises:
        Undecodable: A window is asked for and the scan's values are no Hounsfield units.
    """
    notes: tuple[str, ...] = ()
    if preprocess.chest_wall:
        scan, notes = with_wall_at(preprocess.chest_wall, scan)
    field = None
    if preprocess.field_of_view == "fundus":
        field = find_field(scan.pixels)
        notes = (*notes, NO_FIELD) if field is None else notes
    if field is not None:
        top, left, bottom, right = field.box
        padding = None if scan.padding is None else scan.padding[:, top:bottom, left:right]
        scan = replace(scan, pixels=scan.pixels[:, top:bottom, left:right], padding=padding)
    doubts: tuple[str, ...] = ()
    if preprocess.windows:
        scan, doubts = in_hounsfield(scan)
        scan = darkened(scan, min(stored_range(window)[0] for window in preprocess.windows))
    else:
        scan = darkened(scan)
        if preprocess.intensity == "foreground" and scan.value_range is None:
            scan, doubts = from_zero(scan)
    is_drawn = len(preprocess.windows) > 1
    packed = fit_to_canvas(scan, canvas, 1 if is_drawn else channels, preprocess.fit)
    bottom, right = packed.box[2:]
    unit_range = _unit_range(scan, packed.pixels[:, :bottom, :right], preprocess)
    pixels = render_windows(packed.pixels, preprocess.windows) if is_drawn else packed.pixels
    mask = None if field is None else _mask(field, canvas, preprocess.fit)
    packed = replace(packed, pixels=pixels, value_range=unit_range, mask=mask)
    return packed, (*notes, *doubts)


def _mask(field: Field, canvas: tuple[int, int], how: Fit) -> Bool[np.ndarray, "h w"]:
    """Returns which pixels of the canvas show the field, whose box was fitted to it."""
    top, left, bottom, right = field.box
    fitting = fit((bottom - top, right - left), canvas, how)
    above, before, below, behind = fitting.part
    part = (top + above, left + before, top + below, left + behind)
    mask = np.zeros(canvas, np.bool_)
    size = (fitting.rows, fitting.columns)
    mask[: size[0], : size[1]] = field_mask(field, part, size)
    return mask


def _unit_range(scan: Scan, pixels: Pixels, preprocess: Preprocess) -> ValueRange:
    """Returns the stored values that mean 0 and 1."""
    if len(preprocess.windows) > 1:
        return ValueRange(0.0, 255.0)
    if preprocess.windows:
        return ValueRange(*stored_range(preprocess.windows[0]))
    # Padding and what it borders on are one in resized pixels: it is counted out before that.
    counted = pixels if scan.padding is None else scan.pixels
    if preprocess.intensity == "foreground":
        # A volume brings the range of all its slices.
        return ValueRange(*(scan.value_range or foreground_range(counted, scan.padding)))
    if preprocess.intensity == "percentile":
        return ValueRange(*percentile_range(counted, scan.padding))
    # The range belongs to the scan's own depth: 8-bit scans among 16-bit ones keep 0 to 255.
    return ValueRange(*(scan.value_range or (0.0, float(np.iinfo(pixels.dtype).max))))


@dataclass(frozen=True)
class Fitting:
    """Top, left, bottom, right in pixels of the part of a picture that fills rows and columns."""

    part: tuple[float, float, float, float]
    rows: int
    columns: int


def fit(size: tuple[int, int], canvas: tuple[int, int], how: Fit = "pad") -> Fitting:
    """Returns how a picture is fitted to a canvas, its aspect kept and never enlarged.

    Args:
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
) -> PackedScan:
    """Returns a scan on its canvas, in its own dtype, with the box it fills.

    The aspect is kept and nothing is ever enlarged: a smaller scan keeps its size. The scan lies
    at the top left; padding at the bottom and right is 0.
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
    spacing = None
    if scan.spacing_mm is not None:
        high, wide = scan.spacing_mm
        spacing = Spacing(high * (bottom - top) / rows, wide * (right - left) / columns)
    return PackedScan(pixels, (0, 0, rows, columns), spacing_mm=spacing)


def shrink_picture(image: Image.Image, canvas: tuple[int, int], how: Fit = "pad") -> Image.Image:
    """Returns an 8-bit L or RGB picture in the size and with the pixels of `fit_to_canvas`.

    One that need not be resized is returned as it is. The way into an array at full size, and back
    to Pillow to be resized, is spared.
    """
    fitting = fit((image.height, image.width), canvas, how)
    top, left, bottom, right = fitting.part
    is_kept = (fitting.rows, fitting.columns) == (bottom - top, right - left)
    return image if is_kept else _shrink(image, fitting)


def to_gray(pixels: Pixels) -> UInt8[np.ndarray, "1 h w"] | UInt16[np.ndarray, "1 h w"]:
    """Returns one channel: the scan itself where it is gray, else its ITU-R BT.601 luma."""
    if pixels.shape[0] == 1:
        return pixels
    if pixels.dtype == np.uint8:
        image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        return np.asarray(image.convert("L"))[None]
    luma = np.tensordot(np.array(_LUMA), pixels.astype(np.float64), axes=1)
    return np.rint(luma).astype(pixels.dtype)[None]


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
