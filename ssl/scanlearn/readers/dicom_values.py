"""Values of a DICOM frame: the bits that are stored, padding, tables and windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import UInt16

from scanlearn.readers.dicom_tags import modality_name, number_of, numbers_of, unit_name
from scanlearn.readers.scan import Scan, Undecodable, Units
from scanlearn.readers.values import (
    Mask,
    inverted,
    padding_in,
    percentile_range,
    stored_depth,
    within_hounsfield,
)

if TYPE_CHECKING:
    from pydicom import Dataset

Values = np.ndarray[Any, np.dtype[Any]]
_MAX_DEPTH = 16
_PADDING = (
    ("PixelPaddingValue", "PixelPaddingRangeLimit"),
    ("FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit"),
    ("DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit"),
)
_BEYOND = "bits beyond BitsStored left out"


def _within_bits(raw: Values, tags: Dataset) -> Values:
    """Returns values from the bits that are stored, whatever else the others hold.

    Source: DICOM PS3.5 8.1.1.

    Raises:
        Undecodable: The highest of them is said to lie where it cannot.
    """
    allocated, stored = int(tags.BitsAllocated), int(tags.BitsStored)
    named = tags.get("HighBit")
    high = stored - 1 if named is None else int(named)
    if high == stored - 1 and stored == allocated:
        return raw
    shift = high + 1 - stored
    if shift:
        least, greatest = int(raw.min()), int(raw.max())
        is_signed = raw.dtype.kind == "i"

        def fits(bits: int) -> bool:
            top: int = 2 ** (bits - is_signed)
            return -top * is_signed <= least and greatest < top

        # Where both readings of a header that contradicts itself agree, there is no doubt.
        is_clear = fits(high + 1) if shift < 0 else not (fits(stored) and (raw % 2**shift).any())
        if high >= allocated or not is_clear:
            raise Undecodable(f"gives HighBit {high} for {stored} bits stored in {allocated}")
        shift = max(shift, 0)
    unused = allocated - stored
    return raw << (unused - shift) >> unused


def stored_bits(
    raw: Values, tags: Dataset, padding: Mask | None
) -> tuple[Values, Mask | None, tuple[str, ...]]:
    """Returns values from the bits that are stored, their padding, and what was left out.

    Args:
        padding: Which raw values are padding, by `padding_of`.
    """
    values = _within_bits(raw, tags)
    if values is raw:
        return values, padding, ()
    of_values = padding_of(values, tags)
    if padding is not None and of_values is not None:
        padding |= of_values
    # Signed values may come with zeros there, and overlays belong there.
    low_bits = np.array(2 ** int(tags.BitsStored) - 1).astype(raw.dtype)
    has_more = (raw != values) & (raw != values & low_bits)
    if padding is not None:
        has_more &= ~padding
    is_told = tags.get("HighBit") not in (None, int(tags.BitsStored) - 1) or _has_overlay(tags)
    return values, padding, (_BEYOND,) if has_more.any() and not is_told else ()


def _has_overlay(tags: Dataset) -> bool:
    """Returns whether an overlay lies in bits of the pixels."""
    places = ((group, 0x0102) for group in range(0x6000, 0x6020, 2))
    return any(tags[place].value for place in places if place in tags)


def is_signed_after_all(values: Values, padding: Mask | None) -> bool:
    """Returns whether unsigned values of a CT are signed ones whose header is wrong.

    Air would be brighter than bone. Read as signed they lie together, and are several: a single
    one far above all others may be a mark.
    """
    if values.dtype != np.uint16 or values.max() < 3 * 2**14:
        return False
    counted = values if padding is None else values[~padding]
    high = counted[counted >= 2**14]
    return bool(high.size and high.min() >= 3 * 2**14 and high.min() < high.max())


def padding_of(values: Values, tags: Dataset) -> Mask | None:
    """Returns which values are padding by a tag; None where none names any."""
    for names in _PADDING:
        first, last = (number_of(tags, name) for name in names)
        if first is None or np.isnan(first):
            continue
        ends = [first, first if last is None or np.isnan(last) else last]
        if values.dtype.kind in "iu":
            # Writers mistake the sign: -2000 stands as 63536, and the other way round.
            wrapped = np.array([int(end) for end in ends]).astype(values.dtype)
            ends = [int(end) for end in wrapped]
        is_padding: Mask = (values >= min(ends)) & (values <= max(ends))
        return is_padding
    return None


def colour(
    values: Values, bits: int, spacing: tuple[float, float] | None
) -> tuple[Scan, tuple[str, ...]]:
    """Returns RGB of at most 16 bits per channel, and what was left out, in words."""
    notes: tuple[str, ...] = ()
    if values.dtype.kind != "u":
        raise Undecodable(f"holds {values.dtype} colour; only unsigned integers are supported")
    if bits > _MAX_DEPTH:
        values, notes = values >> (bits - _MAX_DEPTH), (f"{bits} bits per channel kept as 16",)
    depth = np.uint8 if values.dtype.itemsize == 1 else np.uint16
    pixels = np.ascontiguousarray(values.astype(depth).transpose(2, 0, 1))
    return Scan(pixels, spacing, (0.0, 2.0 ** min(bits, _MAX_DEPTH) - 1)), notes


def gray(
    values: Values,
    tags: Dataset,
    rescale: Dataset,
    voi: Dataset,
    *,
    padding: Mask | None = None,
    in_hounsfield: bool = False,
) -> tuple[Scan, tuple[str, ...]]:
    """Returns what an archive stores of a gray frame, greater output values being greater.

    Args:
        tags: The file, for its modality table and its number of bits.
        rescale: Where the frame's rescale slope and intercept are, if it has any.
        voi: Where the frame's window or VOI table is, if it has any.
        padding: Which values the file names as padding; None where it names none.
        in_hounsfield: Whether a window in Hounsfield units will be drawn.

    Returns:
        The scan, without units behind a table or curve, and what was changed, in words.

    Raises:
        Undecodable: The slope is 0.
    """
    if int(tags.get("BitsStored") or 0) == 1:
        bits = (values != 0).astype(np.uint8) * np.uint8(255)
        return Scan(bits[None], value_range=(0.0, 255.0)), ()
    from pydicom import Dataset

    padding = padding_in(values) if padding is None else padding
    marked = padding[None] if padding is not None and padding.any() else None
    counted = slice(None) if marked is None or marked.all() else ~marked[0]
    values, slope, intercept, unread = _modality(values, tags, rescale)
    if unread:
        voi = Dataset()
    if voi.get("VOILUTSequence"):
        looked_up = _looked_up(values * slope + intercept, voi.VOILUTSequence[0])
        low, high = float(looked_up[counted].min()), float(looked_up[counted].max())
        ends = low, high if high > low else low + 1.0
        return Scan(looked_up[None], value_range=ends, padding=marked), ()
    window, notes = _window(voi)
    notes = (*unread, *notes)
    if window is not None and window.is_usable and window.function == "SIGMOID":
        curved = window.sigmoid(values * slope + intercept)
        return Scan(curved[None], value_range=(0.0, 65535.0), padding=marked), notes
    bounds = within_hounsfield(slope, intercept) if in_hounsfield else None
    stored = stored_depth(values, padding, bounds)
    pixels, scale, offset = stored.pixels, stored.scale, stored.offset
    notes, limits = (*stored.notes, *notes), None
    if window is not None and window.is_usable:
        low, high = sorted((edge - intercept) / slope * scale + offset for edge in window.edges)
        darkest, brightest = pixels[counted].min(), pixels[counted].max()
        if np.float32(low) < np.float32(high) and low < brightest and high > darkest:
            limits = (low, high)
    if window is not None and limits is None:
        notes = (*notes, "window that shows nothing replaced by percentiles")
    name = f"{modality_name(tags)} values" if unread else unit_name(tags, rescale)
    units = Units(slope / scale, intercept - slope * offset / scale, name)
    limits = limits or percentile_range(pixels, padding)
    scan = Scan(pixels[None], value_range=limits, units=units, padding=marked)
    return (inverted(scan) if slope < 0 else scan), notes


def _modality(
    values: Values, tags: Dataset, rescale: Dataset
) -> tuple[Values, float, float, tuple[str, ...]]:
    """Returns values, the slope and intercept to output units, and notes where these are unread."""
    if tags.get("ModalityLUTSequence"):
        return _looked_up(values, tags.ModalityLUTSequence[0]), 1.0, 0.0, ()
    names = ("RescaleSlope", "RescaleIntercept")
    read = [number_of(rescale, name) for name in names]
    unread = [name for name, number in zip(names, read, strict=True) if number != number]
    if unread:
        return values, 1.0, 0.0, (f"{unread[0]} that is no number: no units, percentiles shown",)
    slope = 1.0 if read[0] is None else read[0]
    intercept = 0.0 if read[1] is None else read[1]
    if slope == 0 or not np.isfinite((slope, intercept)).all():
        raise Undecodable(f"has a rescale slope of {slope:g} and an intercept of {intercept:g}")
    return values, slope, intercept, ()


def _looked_up(values: Values, table: Dataset) -> Values:
    """Returns what a modality or VOI table makes of values, the nearest entry beyond its ends.

    pydicom's counts places in a table of 8 bits with 8 bits: of 4,096 entries it reads 256.

    Source: DICOM PS3.3 C.11.1.1 and C.11.2.1.1.
    """
    number, first, bits = map(int, table.LUTDescriptor)
    data = table.LUTData
    if isinstance(data, bytes):
        order = "<" if table.original_encoding[1] is not False else ">"
        is_packed = bits <= 8 and len(data) <= (number or 2**16) + 1
        data = np.frombuffer(data, "u1" if is_packed else f"{order}u2")
    entries = np.asarray(data).astype(np.uint8 if bits <= 8 else np.uint16)[: number or 2**16]
    if first >= 2**15 and values.min() < 0:
        first -= 2**16  # A signed value written without its sign.
    places = np.rint(values).astype(np.int64) - first
    return entries[places.clip(0, len(entries) - 1)]  # type: ignore[no-any-return]


def voi_function(voi: Dataset) -> str:
    """Returns the shape of a window: LINEAR, LINEAR_EXACT or SIGMOID."""
    return str(voi.get("VOILUTFunction") or "LINEAR").strip().upper()


class _Window(NamedTuple):
    centre: float
    width: float
    function: str

    @property
    def is_usable(self) -> bool:
        # A linear window of width 1 is a step: its two edges are one.
        least = 1 if self.function == "LINEAR" else 0
        return bool(np.isfinite((self.centre, self.width)).all()) and self.width > least

    @property
    def edges(self) -> tuple[float, float]:
        """The values that are black and white.

        Source: DICOM PS3.3 C.11.2.1.2.1 and C.11.2.1.3.2.
        """
        if self.function == "LINEAR_EXACT":
            return self.centre - self.width / 2, self.centre + self.width / 2
        half = (self.width - 1) / 2
        return self.centre - 0.5 - half, self.centre - 0.5 + half

    def sigmoid(self, values: Values) -> UInt16[np.ndarray, "h w"]:
        """Returns values under a sigmoid window, 0 to 65535.

        Source: DICOM PS3.3 C.11.2.1.3.1.
        """
        # Beyond this the curve is flat to 16 bits, and exp would overflow.
        steepness = np.clip(-4 * (values - self.centre) / self.width, -50, 50)
        return np.rint(65535 / (1 + np.exp(steepness))).astype(np.uint16)


def _window(voi: Dataset) -> tuple[_Window | None, tuple[str, ...]]:
    """Returns the first window, None where there is none that can be read, and why."""
    names = ("WindowCenter", "WindowWidth")
    for pair in zip(*(numbers_of(voi, name) for name in names), strict=False):
        centre, width = pair
        if centre is None or width is None:
            continue
        for name, number in zip(names, pair, strict=True):
            if number != number:
                return None, (f"{name} that is no number replaced by percentiles",)
        return _Window(float(centre), float(width), voi_function(voi)), ()
    return None, ()
