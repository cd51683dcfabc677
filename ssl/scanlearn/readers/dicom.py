"""DICOM files to scans: every frame, at the depth it is stored with."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import UInt16

from scanlearn.readers.codestream import claimed_values
from scanlearn.readers.scan import (
    MAX_FRAMES,
    MAX_PIXELS,
    Frame,
    Header,
    Reader,
    ReadSettings,
    Scan,
    Undecodable,
    Units,
    refusing,
)
from scanlearn.readers.values import inverted, percentile_range, stored_depth

if TYPE_CHECKING:
    from pydicom import Dataset

Values = np.ndarray[Any, np.dtype[Any]]
_GRAY = ("MONOCHROME1", "MONOCHROME2")
_PALETTE = "PALETTE COLOR"
_PIXEL_TAGS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_MAX_DEPTH = 16
_META_BYTES = 2**12
_MAX_INFLATED = 2**30
_MAX_TEXT, _MAX_VALUES = 256, 64


def _header(path: Path, settings: ReadSettings, _start: bytes) -> Header:
    with refusing(path):
        tags = _read(path, pixels=False)
        is_palette = str(tags.PhotometricInterpretation) == _PALETTE
        tables = (*(tags.get("ModalityLUTSequence") or ()), *(tags.get("VOILUTSequence") or ()))
        depth = max([int(tags.BitsAllocated), *(int(table.LUTDescriptor[2]) for table in tables)])
        if is_palette:
            depth = int(tags.RedPaletteColorLookupTableDescriptor[2])
        return Header(
            is_colour=is_palette or int(tags.SamplesPerPixel) == 3,
            is_deep=depth > 8 or voi_function(_macro(tags, 0, "FrameVOILUTSequence")) == "SIGMOID",
            num_frames=_num_frames(tags),
            patient=_text(tags, "PatientID"),
            issuer=_text(tags, "IssuerOfPatientID"),
            has_series=_text(tags, "SeriesInstanceUID") is not None,
            size=(int(tags.Rows), int(tags.Columns)),
            bits=int(tags.get("BitsStored") or tags.BitsAllocated),
            tags={name: values for name in settings.tags if (values := _values(tags, name))},
        )


def _frames(path: Path, frames: range, settings: ReadSettings) -> Iterator[Frame]:
    """Yields frames of a DICOM file.

    Gray frames keep their stored bits: a window or the percentiles become the value range, which
    a later step may change, and only tables and sigmoid windows change values. Signed values are
    shifted, MONOCHROME1 is inverted, more than 16 bits and floating point are scaled to 16.
    Palettes and YBR become RGB.
    """
    with refusing(path):
        tags = _read(path, pixels=True)
        names = ("PatientID", "SeriesInstanceUID", "IssuerOfPatientID")
        identity = [_text(tags, name) for name in names]
        is_alone = _num_frames(tags) == 1
    for index in frames:
        try:
            with refusing(path):
                scan, notes = _frame(tags, index, windowed=settings.shows == "file")
        except Undecodable as error:
            if is_alone:
                raise
            yield Frame(index + 1, error)
        else:
            yield Frame(index + 1, scan, notes, *identity)


def _read(path: Path, *, pixels: bool) -> Dataset:
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    _check_deflated(path)
    tags = pydicom.dcmread(path, stop_before_pixels=not pixels, force=True)
    if "Rows" not in tags or "Columns" not in tags:
        raise Undecodable("is a DICOM file without an image")
    height, width = int(tags.Rows), int(tags.Columns)
    if not 0 < height * width <= MAX_PIXELS:
        raise Undecodable(f"claims {width:,} x {height:,} pixels (allowed: 1 to {MAX_PIXELS:,})")
    if _num_frames(tags) > MAX_FRAMES:
        raise Undecodable(f"claims {_num_frames(tags):,} frames, more than {MAX_FRAMES:,}")
    if pixels and not any(name in tags for name in _PIXEL_TAGS):
        raise Undecodable("is a DICOM file without pixel data")
    if "TransferSyntaxUID" not in tags.file_meta:
        is_implicit, _ = tags.original_encoding
        plain = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
        tags.file_meta.TransferSyntaxUID = plain
    return tags


def _check_deflated(path: Path) -> None:
    """Refuses a deflated file that would fill the memory, which pydicom inflates in one go."""
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    with path.open("rb") as file:
        head = file.read(_META_BYTES)
        if head[128:132] != b"DICM" or str(DeflatedExplicitVRLittleEndian).encode() not in head:
            return
        if read_file_meta_info(path).get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            return
        # The deflated part begins after the group of file tags, whose length its first tag gives.
        file.seek(144 + int.from_bytes(head[140:144], "little"))
        inflate, num_bytes = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while chunk := file.read(2**16):
            while chunk:
                num_bytes += len(inflate.decompress(chunk, 2**20))
                chunk = inflate.unconsumed_tail
            if num_bytes > _MAX_INFLATED:
                raise Undecodable(f"inflates to more than {_MAX_INFLATED:,} bytes")


def _num_frames(tags: Dataset) -> int:
    return max(1, int(tags.get("NumberOfFrames") or 1))


def _text(tags: Dataset, name: str) -> str | None:
    return str(tags.get(name) or "").strip() or None


def _values(tags: Dataset, name: str) -> tuple[str, ...]:
    """Returns all values of a tag; one that cannot be read is as good as none."""
    from pydicom.multival import MultiValue

    try:
        value = tags.get(name)
        values = value[:_MAX_VALUES] if isinstance(value, MultiValue) else [value]
        texts = ["" if each is None else str(each).strip()[:_MAX_TEXT] for each in values]
    except Exception:
        return ()
    return tuple(text for text in texts if text)


def _macro(tags: Dataset, index: int, name: str) -> Dataset:
    """Returns where a frame's attributes of one kind are: its own, those of all, or the file's."""
    by_frame = tags.get("PerFrameFunctionalGroupsSequence") or []
    shared = tags.get("SharedFunctionalGroupsSequence") or []
    for group in (*by_frame[index : index + 1], *shared[:1]):
        if macro := group.get(name):
            return macro[0]  # type: ignore[no-any-return]
    return tags


def _frame(tags: Dataset, index: int, *, windowed: bool) -> tuple[Scan, tuple[str, ...]]:
    from pydicom import Dataset

    values = _decoded(tags, index)
    spacing = _spacing_mm(tags, index)
    interpretation = str(tags.PhotometricInterpretation)
    if interpretation == _PALETTE:
        from pydicom.pixels.processing import apply_color_lut

        coloured = apply_color_lut(values, tags)[..., :3]
        return Scan(np.ascontiguousarray(coloured.transpose(2, 0, 1)), spacing), ()
    if values.ndim == 3:
        return _colour(values, int(tags.BitsStored), spacing)
    if interpretation not in _GRAY:
        raise Undecodable(f"has one channel of {interpretation}, which is not grayscale")
    rescale = _macro(tags, index, "PixelValueTransformationSequence")
    voi = _macro(tags, index, "FrameVOILUTSequence") if windowed else Dataset()
    scan, notes = gray(values, tags, rescale, voi)
    scan = inverted(scan) if interpretation == "MONOCHROME1" else scan
    shown = scan.value_range if windowed else None
    return replace(scan, spacing_mm=spacing, value_range=shown), notes


def _decoded(tags: Dataset, index: int) -> Values:
    """Returns ``[h w]`` or ``[h w 3]`` as stored, colour as RGB."""
    from pydicom.pixels.decoders.base import get_decoder

    syntax = tags.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
        _check_stream(tags, index)
        values, _ = decoder.as_array(tags, index=index)
    except NotImplementedError as error:
        missing = f"is compressed as {syntax.name}, for which no decoder is installed"
        raise Undecodable(missing) from error
    except RuntimeError as error:
        reasons = " ".join(str(error).split())
        reason = reasons.rpartition("all available plugins: ")[2][:200]
        raise Undecodable(f"is compressed as {syntax.name} and not decodable ({reason})") from error
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3):
        raise Undecodable(f"has pixels of shape {values.shape}, neither gray nor RGB")
    return values


def _check_stream(tags: Dataset, index: int) -> None:
    """Refuses a compressed frame that claims absurd sizes, which decoders would make room for."""
    from pydicom.encaps import get_frame

    if not tags.file_meta.TransferSyntaxUID.is_encapsulated or "PixelData" not in tags:
        return
    names = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
    offsets = (tags[names[0]].value, tags[names[1]].value) if names[0] in tags else None
    num_frames = _num_frames(tags)
    stream = get_frame(tags.PixelData, index, extended_offsets=offsets, number_of_frames=num_frames)
    claimed = claimed_values(stream)
    if claimed is not None and claimed > 3 * MAX_PIXELS:
        raise Undecodable(
            f"is compressed as {tags.file_meta.TransferSyntaxUID.name} and claims {claimed:,}"
            f" values in a frame (allowed: {3 * MAX_PIXELS:,})"
        )


def _spacing_mm(tags: Dataset, index: int) -> tuple[float, float] | None:
    measures = _macro(tags, index, "PixelMeasuresSequence")
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        spacing = measures.get(name)
        if spacing is None or isinstance(spacing, str) or len(spacing) != 2:
            continue
        height, width = float(spacing[0]), float(spacing[1])
        if np.isfinite((height, width)).all() and min(height, width) > 0:
            return height, width
    return None


def _colour(
    values: Values, bits: int, spacing: tuple[float, float] | None
) -> tuple[Scan, tuple[str, ...]]:
    notes: tuple[str, ...] = ()
    if values.dtype.kind != "u":
        raise Undecodable(f"holds {values.dtype} colour; only unsigned integers are supported")
    if bits > _MAX_DEPTH:
        values, notes = values >> (bits - _MAX_DEPTH), (f"{bits} bits per channel kept as 16",)
    depth = np.uint8 if values.dtype.itemsize == 1 else np.uint16
    pixels = np.ascontiguousarray(values.astype(depth).transpose(2, 0, 1))
    return Scan(pixels, spacing, (0.0, 2.0 ** min(bits, _MAX_DEPTH) - 1)), notes


def gray(
    values: Values, tags: Dataset, rescale: Dataset, voi: Dataset
) -> tuple[Scan, tuple[str, ...]]:
    """Returns what an archive stores of a gray frame, greater output values being greater.

    Args:
        tags: The file, for its modality table and its number of bits.
        rescale: Where the frame's rescale slope and intercept are, if it has any.
        voi: Where the frame's window or VOI table is, if it has any.

    Returns:
        The scan, without units behind a table or curve, and what was changed, in words.

    Raises:
        Undecodable: The slope is 0.
    """
    if int(tags.get("BitsStored") or 0) == 1:
        bits = (values != 0).astype(np.uint8) * np.uint8(255)
        return Scan(bits[None], value_range=(0.0, 255.0)), ()
    values, slope, intercept = _modality(values, tags, rescale)
    if voi.get("VOILUTSequence"):
        from pydicom.pixels.processing import apply_voi

        looked_up = apply_voi(values * slope + intercept, voi)
        low, high = float(looked_up.min()), float(looked_up.max())
        return Scan(looked_up[None], value_range=(low, high if high > low else low + 1.0)), ()
    window = _window(voi)
    if window is not None and window.is_usable and window.function == "SIGMOID":
        curved = window.sigmoid(values * slope + intercept)
        return Scan(curved[None], value_range=(0.0, 65535.0)), ()
    pixels, scale, offset = stored = stored_depth(values)
    notes, shown = stored.notes, None
    if window is not None and window.is_usable:
        limits = [(edge - intercept) / slope for edge in window.edges]
        low, high = sorted(edge * scale + offset for edge in limits)
        if np.float32(low) < np.float32(high) and low < pixels.max() and high > pixels.min():
            shown = (low, high)
    if window is not None and shown is None:
        notes = (*notes, "window that shows nothing replaced by percentiles")
    units = Units(slope / scale, intercept - slope * offset / scale, _unit_name(tags, rescale))
    scan = Scan(pixels[None], value_range=shown or percentile_range(pixels), units=units)
    return (inverted(scan) if slope < 0 else scan), notes


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


def _window(voi: Dataset) -> _Window | None:
    """Returns the first window, None where there is none."""
    first = []
    for name in ("WindowCenter", "WindowWidth"):
        value = voi.get(name)
        if value is None or value == "":
            return None
        first.append(float(value if isinstance(value, float | int) else value[0]))
    return _Window(first[0], first[1], voi_function(voi))


def keywords() -> tuple[str, ...]:
    """Returns the keywords of all tags of the standard."""
    from pydicom.datadict import keyword_dict

    return tuple(keyword_dict)


def value_representation(keyword: str) -> str | None:
    """Returns the type of a tag's values, such as "PN"; None of what is no keyword.

    Source: DICOM PS3.5 6.2.
    """
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tag = tag_for_keyword(keyword)
    return None if tag is None else dictionary_VR(tag)


READER = Reader(
    kind="DICOM",
    suffixes=(".dcm", ".dicom", ".ima"),
    often_bare=True,
    matches=lambda start: start[128:132] == b"DICM",
    header=_header,
    frames=_frames,
    libraries=("pydicom.pixels.processing", "pydicom.pixels.decoders"),
)
