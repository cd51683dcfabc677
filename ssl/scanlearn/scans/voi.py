"""Gray values of a DICOM frame: what is stored of them, and which of them it shows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8, UInt16

from scanlearn.plain import Units
from scanlearn.scans.decode import Undecodable
from scanlearn.scans.intensity import percentile_range, stored_depth

if TYPE_CHECKING:
    from pydicom import Dataset

Values = np.ndarray[Any, np.dtype[Any]]
Gray = UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]


def gray(
    values: Values, tags: Dataset, rescale: Dataset, voi: Dataset
) -> tuple[Gray, tuple[float, float], tuple[str, ...], Units | None]:
    """Returns what an archive stores of a gray frame, greater output values being greater.

    Args:
        values: ``[h w]`` as stored in the file.
        tags: The file, for its modality table and its number of bits.
        rescale: Where the frame's rescale slope and intercept are, if it has any.
        voi: Where the frame's window or VOI table is, if it has any.

    Returns:
        Pixels ``[h w]``; which of them mean 0 and 1; what was changed, in words; what they
        measure, None behind a table or curve.

    Raises:
        Undecodable: The slope is 0.
    """
    if int(tags.get("BitsStored") or 0) == 1:
        return (values != 0).astype(np.uint8) * np.uint8(255), (0.0, 255.0), (), None
    values, slope, intercept = _modality(values, tags, rescale)
    if voi.get("VOILUTSequence"):
        from pydicom.pixels.processing import apply_voi

        looked_up = apply_voi(values * slope + intercept, voi)
        return looked_up, _spread(float(looked_up.min()), float(looked_up.max())), (), None
    given, function = _window(voi), voi_function(voi)
    window = given if given is not None and _is_usable(*given, function) else None
    if window is not None and function == "SIGMOID":
        return _sigmoid(values * slope + intercept, *window), (0.0, 65535.0), (), None
    pixels, scale, offset = stored_depth(values)
    notes = () if scale == 1 else ("more than 16 bits or floating point scaled to 16 bits",)
    stored = None
    if window is not None:
        limits = [(edge - intercept) / slope for edge in _edges(*window, function)]
        low, high = sorted(edge * scale + offset for edge in limits)
        if np.float32(low) < np.float32(high) and low < pixels.max() and high > pixels.min():
            stored = (low, high)
    if given is not None and stored is None:
        notes = (*notes, "window that shows nothing replaced by percentiles")
    stored = stored or percentile_range(pixels)
    units = Units(slope / scale, intercept - slope * offset / scale, _unit_name(tags, rescale))
    if slope < 0:
        pixels, stored = inverted(pixels, stored)
        units = inverted_units(units, pixels)
    return pixels, stored, notes, units


def _modality(values: Values, tags: Dataset, rescale: Dataset) -> tuple[Values, float, float]:
    """Returns values, and the slope and intercept that make them output units."""
    if tags.get("ModalityLUTSequence"):
        from pydicom.pixels.processing import apply_modality_lut

        return apply_modality_lut(values, tags), 1.0, 0.0
    slope, intercept = rescale.get("RescaleSlope"), rescale.get("RescaleIntercept")
    slope = 1.0 if slope is None else float(slope)
    intercept = 0.0 if intercept is None else float(intercept)
    if slope == 0 or not np.isfinite((slope, intercept)).all():
        raise Undecodable(f"has a rescale slope of {slope} and an intercept of {intercept}")
    return values, slope, intercept


def _unit_name(tags: Dataset, rescale: Dataset) -> str:
    """Returns "HU" where a frame is rescaled to Hounsfield units, else the modality's values.

    Source: DICOM PS3.3 C.8.2.1 and C.11.1.1.2: CT is in HU unless its rescale type says otherwise.
    """
    modality = str(tags.get("Modality") or "unknown").strip().upper()
    tables = tags.get("ModalityLUTSequence")
    of, name = (tables[0], "ModalityLUTType") if tables else (rescale, "RescaleType")
    kind = str(of.get(name) or "HU").strip().upper()
    is_rescaled = bool(tables) or rescale.get("RescaleIntercept") not in (None, "")
    return "HU" if modality == "CT" and is_rescaled and kind == "HU" else f"{modality} values"


def voi_function(voi: Dataset) -> str:
    """Returns the shape of a window: LINEAR, LINEAR_EXACT or SIGMOID."""
    return str(voi.get("VOILUTFunction") or "LINEAR").strip().upper()


def _window(voi: Dataset) -> tuple[float, float] | None:
    """Returns centre and width of the first window, None where there is none."""
    first = []
    for name in ("WindowCenter", "WindowWidth"):
        found = voi.get(name)
        if found is None or found == "":
            return None
        first.append(float(found if isinstance(found, float | int) else found[0]))
    return first[0], first[1]


def _is_usable(centre: float, width: float, function: str) -> bool:
    # A linear window of width 1 is a step: its two edges are one.
    least = 1 if function == "LINEAR" else 0
    return bool(np.isfinite((centre, width)).all()) and width > least


def _sigmoid(values: Values, centre: float, width: float) -> Gray:
    """Returns values under a sigmoid window, 0 to 65535.

    Source: DICOM PS3.3 C.11.2.1.3.1.
    """
    # Beyond this the curve is flat to 16 bits, and exp would overflow.
    steepness = np.clip(-4 * (values - centre) / width, -50, 50)
    return np.rint(65535 / (1 + np.exp(steepness))).astype(np.uint16)


def _edges(centre: float, width: float, function: str) -> tuple[float, float]:
    """Returns the values that a window shows as black and as white.

    Source: DICOM PS3.3 C.11.2.1.2.1 and C.11.2.1.3.2.
    """
    if function == "LINEAR_EXACT":
        return centre - width / 2, centre + width / 2
    return centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2


def _spread(low: float, high: float) -> tuple[float, float]:
    return low, high if high > low else low + 1.0


def inverted(pixels: Gray, stored: tuple[float, float]) -> tuple[Gray, tuple[float, float]]:
    """Returns pixels with bright and dark exchanged, and the range that goes with them."""
    top = np.iinfo(pixels.dtype).max
    return top - pixels, (top - stored[1], top - stored[0])


def inverted_units(units: Units, pixels: Gray) -> Units:
    """Returns what pixels measure after bright and dark were exchanged."""
    top = int(np.iinfo(pixels.dtype).max)
    return replace(units, slope=-units.slope, intercept=units.intercept + units.slope * top)
