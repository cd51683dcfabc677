"""DICOM files to scans: every frame, at the depth it is stored with."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from scanlearn.readers.codestream import claimed_values
from scanlearn.readers.dicom_tags import (
    IDENTIFIERS,
    check_picture,
    examined_of,
    laterality_of,
    load_pydicom,
    macro,
    num_frames_of,
    spacing_mm_of,
    text_of,
    texts_of,
    unit_name,
)
from scanlearn.readers.dicom_values import (
    Values,
    colour,
    gray,
    is_signed_after_all,
    padding_of,
    stored_bits,
    voi_function,
)
from scanlearn.readers.scan import (
    MAX_FRAMES,
    MAX_PIXELS,
    Frame,
    Header,
    Reader,
    ReadSettings,
    Scan,
    Undecodable,
    open_regular,
    refusing,
)
from scanlearn.readers.values import Mask, inverted

if TYPE_CHECKING:
    from pydicom import Dataset

_GRAY = ("MONOCHROME1", "MONOCHROME2")
_PALETTE = "PALETTE COLOR"
_PIXEL_TAGS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_META_BYTES = 2**12
_MAX_INFLATED, _MAX_HEADER_VALUE = 2**28, 2**26
_UNSIGNED = "unsigned values read as signed: no others are Hounsfield units"


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
            is_deep=depth > 8 or voi_function(macro(tags, 0, "FrameVOILUTSequence")) == "SIGMOID",
            num_frames=num_frames_of(tags),
            patient=text_of(tags, "PatientID"),
            issuer=text_of(tags, "IssuerOfPatientID"),
            has_series=text_of(tags, "SeriesInstanceUID") is not None,
            size=(int(tags.Rows), int(tags.Columns)),
            bits=int(tags.get("BitsStored") or tags.BitsAllocated),
            tags={name: values for name in settings.tags if (values := texts_of(tags, name))},
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
        patient, series, issuer = (text_of(tags, name) for name in names)
        by_kind = {kind: text_of(tags, name) for kind, name in IDENTIFIERS.items()}
        examined = examined_of(tags)
        identifiers = tuple((kind, value) for kind, value in by_kind.items() if value)
        is_alone = num_frames_of(tags) == 1
    for index in frames:
        try:
            with refusing(path):
                scan, notes = _frame(tags, index, settings.shows)
        except Undecodable as error:
            if is_alone:
                raise
            yield Frame(index + 1, error)
        else:
            yield Frame(index + 1, scan, notes, patient, series, issuer, identifiers, examined)


def _read(path: Path, *, pixels: bool, pictures_only: bool) -> Dataset:
    load_pydicom()
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    _check_deflated(path)
    # Of a value as large as pixels a header has no need; a sparse file may claim gigabytes.
    most = None if pixels else _MAX_HEADER_VALUE
    tags = pydicom.dcmread(path, most, stop_before_pixels=not pixels, force=True)
    if pictures_only:
        check_picture(tags)
    if "Rows" not in tags or "Columns" not in tags:
        raise Undecodable("is a DICOM file without an image")
    height, width = int(tags.Rows), int(tags.Columns)
    if not 0 < height * width <= MAX_PIXELS:
        raise Undecodable(f"claims {width:,} x {height:,} pixels (allowed: 1 to {MAX_PIXELS:,})")
    num_frames = num_frames_of(tags)
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


def _frame(
    tags: Dataset, index: int, shows: Literal["file", "foreground", "nothing"]
) -> tuple[Scan, tuple[str, ...]]:
    from pydicom import Dataset

    values, padding, notes = _decoded(tags, index)
    spacing = spacing_mm_of(tags, index)
    interpretation = str(tags.PhotometricInterpretation)
    if interpretation == _PALETTE:
        from pydicom.pixels.processing import apply_color_lut

        coloured = apply_color_lut(values, tags)[..., :3]
        return Scan(np.ascontiguousarray(coloured.transpose(2, 0, 1)), spacing), notes
    if values.ndim == 3:
        return colour(values, int(tags.BitsStored), spacing)
    if interpretation not in _GRAY:
        raise Undecodable(f"has one channel of {interpretation}, which is not grayscale")
    rescale = macro(tags, index, "PixelValueTransformationSequence")
    if unit_name(tags, rescale) == "HU" and is_signed_after_all(values, padding):
        values, notes = values.view(np.int16), (*notes, _UNSIGNED)
    voi = macro(tags, index, "FrameVOILUTSequence") if shows == "file" else Dataset()
    in_hounsfield = shows == "nothing"
    scan, more = gray(values, tags, rescale, voi, padding=padding, in_hounsfield=in_hounsfield)
    scan = inverted(scan) if interpretation == "MONOCHROME1" else scan
    limits = scan.value_range if shows == "file" else None
    side = laterality_of(tags, index)
    scan = replace(scan, spacing_mm=spacing, value_range=limits, laterality=side)
    return scan, (*notes, *more)


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
    padding = padding_of(values, tags) if values.ndim == 2 else None
    if not is_plain or int(tags.BitsAllocated) % 8:
        return values, padding, ()
    return stored_bits(values, tags, padding)


def _check_stream(tags: Dataset, index: int) -> None:
    """Refuses a compressed frame that claims absurd sizes, which decoders would make room for."""
    from pydicom.encaps import get_frame

    if not tags.file_meta.TransferSyntaxUID.is_encapsulated or "PixelData" not in tags:
        return
    names = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
    offsets = (tags[names[0]].value, tags[names[1]].value) if names[0] in tags else None
    num_frames = num_frames_of(tags)
    stream = get_frame(tags.PixelData, index, extended_offsets=offsets, number_of_frames=num_frames)
    claimed = claimed_values(stream)
    if claimed is not None and claimed > 3 * MAX_PIXELS:
        raise Undecodable(
            f"is compressed as {tags.file_meta.TransferSyntaxUID.name} and claims {claimed:,}"
            f" values in a frame (allowed: {3 * MAX_PIXELS:,})"
        )


READER = Reader(
    kind="DICOM",
    suffixes=(".dcm", ".dicom", ".ima"),
    often_bare=True,
    matches=lambda start: start[128:132] == b"DICM",
    header=_header,
    frames=_frames,
    libraries=("pydicom.pixels.processing", "pydicom.pixels.decoders"),
)
