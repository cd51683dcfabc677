"""DICOM files to scans: every frame, at the depth it is stored with."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, MutableSequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

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
    open_regular,
    refusing,
)
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
_GRAY = ("MONOCHROME1", "MONOCHROME2")
_PALETTE = "PALETTE COLOR"
_PIXEL_TAGS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_MAX_DEPTH = 16
_META_BYTES = 2**12
_MAX_INFLATED, _MAX_HEADER_VALUE = 2**28, 2**26
_MAX_TEXT, _MAX_VALUES = 256, 64
NO_PICTURE = "not a picture of a patient"
# Source: DICOM PS3.4 B.5. Waveforms, presentation states, spectra, raw data with registrations,
# fiducials, segmentations and surfaces, value mappings, eye measurements, reports, documents and
# models, what is planned and delivered in radiotherapy (but for its images), implants, protocols.
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_NO_PICTURES = (
    *(f"{_STORAGE}{number}." for number in (9, 11, 66, 68, 78, 79, 80, 88, 90, 104, 200, 201)),
    *("1.2.840.10008.1.3.10.", "1.2.840.10008.5.1.4.34.", "1.2.840.10008.5.1.4.38."),
    *("1.2.840.10008.5.1.4.39.", "1.2.840.10008.5.1.4.43.", "1.2.840.10008.5.1.4.44."),
    *(f"{_STORAGE}{number}." for number in ("4.2", "67", "77.1.5.3", "131")),
    *(f"{_STORAGE}481.{number}." for number in (*range(2, 23), 25)),
)
# Of a secondary capture, which often is a scanned film, only what itself says so is set aside.
NO_PICTURE_MODALITIES = (
    *("AU", "DOC", "FID", "KO", "PLAN", "PR", "REG", "RTDOSE", "RTPLAN", "RTRECORD", "RTSTRUCT"),
    *("RWV", "SEG", "SR"),
)
_DOSE_REPORT = re.compile(r"DOSE.?(INFO|REPORT|SHEET)|CT_SOM\d PROT")
# A number in a text, with the decimal comma of some writers.
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE)
# Nobody can tell whether "2,048" is two or two thousand.
_AMBIGUOUS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_PADDING = (
    ("PixelPaddingValue", "PixelPaddingRangeLimit"),
    ("FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit"),
    ("DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit"),
)
_BEYOND = "bits beyond BitsStored left out"
_UNSIGNED = "unsigned values read as signed: no others are Hounsfield units"

# What a table of labels calls a file by, if not by its path, series or patient.
IDENTIFIERS = {
    "instance": "SOPInstanceUID",
    "study": "StudyInstanceUID",
    "accession": "AccessionNumber",
}


def _header(path: Path, settings: ReadSettings, _start: bytes) -> Header:
    with refusing(path):
        tags = _read(path, pixels=False, pictures_only=settings.pictures_only)
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
    Palettes and YBR become RGB. Padding, as the file or its values say, is marked.
    """
    with refusing(path):
        tags = _read(path, pixels=True, pictures_only=settings.pictures_only)
        names = ("PatientID", "SeriesInstanceUID", "IssuerOfPatientID")
        patient, series, issuer = (_text(tags, name) for name in names)
        by_kind = {kind: _text(tags, name) for kind, name in IDENTIFIERS.items()}
        identifiers = tuple((kind, value) for kind, value in by_kind.items() if value)
        is_alone = _num_frames(tags) == 1
    for index in frames:
        try:
            with refusing(path):
                scan, notes = _frame(tags, index, settings.shows)
        except Undecodable as error:
            if is_alone:
                raise
            yield Frame(index + 1, error)
        else:
            yield Frame(index + 1, scan, notes, patient, series, issuer, identifiers)


def _read(path: Path, *, pixels: bool, pictures_only: bool) -> Dataset:
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    _check_deflated(path)
    # Of a value as large as pixels a header has no need; a sparse file may claim gigabytes.
    most = None if pixels else _MAX_HEADER_VALUE
    tags = pydicom.dcmread(path, most, stop_before_pixels=not pixels, force=True)
    if pictures_only:
        _check_picture(tags)
    if "Rows" not in tags or "Columns" not in tags:
        raise Undecodable("is a DICOM file without an image")
    height, width = int(tags.Rows), int(tags.Columns)
    if not 0 < height * width <= MAX_PIXELS:
        raise Undecodable(f"claims {width:,} x {height:,} pixels (allowed: 1 to {MAX_PIXELS:,})")
    num_frames = _num_frames(tags)
    if num_frames > MAX_FRAMES:
        raise Undecodable(f"claims {num_frames:,} frames, more than {MAX_FRAMES:,}")
    if isinstance(tags.get("NumberOfFrames"), str):
        tags.NumberOfFrames = num_frames  # For pydicom, which reads it too.
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

    with open_regular(path) as file:
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


def _check_picture(tags: Dataset) -> None:
    """Refuses masks, doses, reports and the like, which would be packed as scans."""
    from pydicom.uid import UID

    sop_class = UID(_text(tags, "SOPClassUID") or "")
    if f"{sop_class}.".startswith(_NO_PICTURES):
        name = sop_class.name.removesuffix(" Storage") if sop_class.name != sop_class else "DICOM"
        raise Undecodable(f"is a {name} object, {NO_PICTURE}")
    modality = (_text(tags, "Modality") or "").upper()
    if modality in NO_PICTURE_MODALITIES:
        raise Undecodable(f"has the modality {modality}, {NO_PICTURE}")
    if any(_DOSE_REPORT.search(value.upper()) for value in _values(tags, "ImageType")):
        raise Undecodable(f"is a dose report by its image type, {NO_PICTURE}")


def _num_frames(tags: Dataset) -> int:
    number = _number(tags, "NumberOfFrames")
    if number is None:
        return 1
    if not number.is_integer():
        raise Undecodable("has a NumberOfFrames that is no whole number")
    return max(1, int(number))


def _numbers(tags: Dataset, name: str) -> tuple[float | None, ...]:
    """Returns all numbers of a tag, None for a blank and NaN for what is no number.

    Numbers of DICOM are text, and one that pydicom cannot read comes as that: its first character
    was once taken for the first number.
    """
    value = tags.get(name)
    values = value if isinstance(value, MutableSequence) else (value,)
    return tuple(_as_number(each) for each in values)


def _as_number(value: Any) -> float | None:
    if value is None or isinstance(value, int | float):
        return value
    text = str(value).strip(" \0")
    if not text:
        return None
    if not _NUMBER.fullmatch(text) or _AMBIGUOUS.fullmatch(text):
        return float("nan")
    return float(text.replace(",", "."))


def _number(tags: Dataset, name: str) -> float | None:
    """Returns the one number of a tag, None where it has none, NaN where it has anything else."""
    numbers = [number for number in _numbers(tags, name) if number is not None]
    if not numbers:
        return None
    return float(numbers[0]) if len(numbers) == 1 else float("nan")


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


def _frame(
    tags: Dataset, index: int, shows: Literal["file", "foreground", "nothing"]
) -> tuple[Scan, tuple[str, ...]]:
    from pydicom import Dataset

    values, padding, notes = _decoded(tags, index)
    spacing = _spacing_mm(tags, index)
    interpretation = str(tags.PhotometricInterpretation)
    if interpretation == _PALETTE:
        from pydicom.pixels.processing import apply_color_lut

        coloured = apply_color_lut(values, tags)[..., :3]
        return Scan(np.ascontiguousarray(coloured.transpose(2, 0, 1)), spacing), notes
    if values.ndim == 3:
        return _colour(values, int(tags.BitsStored), spacing)
    if interpretation not in _GRAY:
        raise Undecodable(f"has one channel of {interpretation}, which is not grayscale")
    rescale = _macro(tags, index, "PixelValueTransformationSequence")
    if _unit_name(tags, rescale) == "HU" and _is_signed_after_all(values, padding):
        values, notes = values.view(np.int16), (*notes, _UNSIGNED)
    voi = _macro(tags, index, "FrameVOILUTSequence") if shows == "file" else Dataset()
    in_hounsfield = shows == "nothing"
    scan, more = gray(values, tags, rescale, voi, padding=padding, in_hounsfield=in_hounsfield)
    scan = inverted(scan) if interpretation == "MONOCHROME1" else scan
    limits = scan.value_range if shows == "file" else None
    return replace(scan, spacing_mm=spacing, value_range=limits), (*notes, *more)


def _decoded(tags: Dataset, index: int) -> tuple[Values, Mask | None, tuple[str, ...]]:
    """Returns ``[h w]`` or ``[h w 3]`` as stored, colour as RGB, its padding and notes."""
    from pydicom.pixels.decoders.base import get_decoder

    syntax = tags.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
        _check_stream(tags, index)
        is_plain = not syntax.is_encapsulated and tags.SamplesPerPixel == 1 and "PixelData" in tags
        # Padding may reach into bits that are not stored, which pydicom would cut off it.
        options: Any = {"correct_unused_bits": False} if is_plain else {}
        values, _ = decoder.as_array(tags, index=index, **options)
    except NotImplementedError as error:
        missing = f"is compressed as {syntax.name}, for which no decoder is installed"
        raise Undecodable(missing) from error
    except RuntimeError as error:
        reasons = " ".join(str(error).split())
        reason = reasons.rpartition("all available plugins: ")[2][:200]
        raise Undecodable(f"is compressed as {syntax.name} and not decodable ({reason})") from error
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3):
        raise Undecodable(f"has pixels of shape {values.shape}, neither gray nor RGB")
    padding = _padding(values, tags) if values.ndim == 2 else None
    if not is_plain or int(tags.BitsAllocated) % 8:
        return values, padding, ()
    raw, values = values, _within_bits(values, tags)
    if values is raw:
        return values, padding, ()
    of_values = _padding(values, tags)
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


def _is_signed_after_all(values: Values, padding: Mask | None) -> bool:
    """Returns whether unsigned values of a CT are signed ones whose header is wrong.

    Air would be brighter than bone. Read as signed they lie together, and are several: a single
    one far above all others may be a mark.
    """
    if values.dtype != np.uint16 or values.max() < 3 * 2**14:
        return False
    counted = values if padding is None else values[~padding]
    high = counted[counted >= 2**14]
    return bool(high.size and high.min() >= 3 * 2**14 and high.min() < high.max())


def _padding(values: Values, tags: Dataset) -> Mask | None:
    """Returns which values are padding by a tag; None where none names any."""
    for names in _PADDING:
        first, last = (_number(tags, name) for name in names)
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
        spacing = [mm for mm in _numbers(measures, name) if mm is not None]
        if len(spacing) == 2 and np.isfinite(spacing).all() and min(spacing) > 0:
            return float(spacing[0]), float(spacing[1])
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
    name = f"{_modality_name(tags)} values" if unread else _unit_name(tags, rescale)
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
    read = [_number(rescale, name) for name in names]
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


def _unit_name(tags: Dataset, rescale: Dataset) -> str:
    """Returns "HU" where a frame is rescaled to Hounsfield units, else the modality's values.

    Source: DICOM PS3.3 C.8.2.1 and C.11.1.1.2: CT is in HU unless its rescale type says otherwise.
    """
    modality = _modality_name(tags)
    tables = tags.get("ModalityLUTSequence")
    of, name = (tables[0], "ModalityLUTType") if tables else (rescale, "RescaleType")
    kind = str(of.get(name) or "HU").strip().upper()
    is_rescaled = bool(tables) or _number(rescale, "RescaleIntercept") is not None
    return "HU" if modality == "CT" and is_rescaled and kind == "HU" else f"{modality} values"


def _modality_name(tags: Dataset) -> str:
    return str(tags.get("Modality") or "unknown").strip().upper()


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
    for pair in zip(*(_numbers(voi, name) for name in names), strict=False):
        centre, width = pair
        if centre is None or width is None:
            continue
        for name, number in zip(names, pair, strict=True):
            if number != number:
                return None, (f"{name} that is no number replaced by percentiles",)
        return _Window(float(centre), float(width), voi_function(voi)), ()
    return None, ()


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
