"""DICOM files to scans: every frame, at the depth it is stored with."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scanlearn.plain import Scan
from scanlearn.scans.codestream import claimed_values
from scanlearn.scans.decode import MAX_FRAMES, MAX_PIXELS, Frame, Header, Undecodable, refusing
from scanlearn.scans.voi import Values, gray, inverted, inverted_units, voi_function

if TYPE_CHECKING:
    from pydicom import Dataset

_GRAY = ("MONOCHROME1", "MONOCHROME2")
_PALETTE = "PALETTE COLOR"
_MAX_DEPTH = 16
_META_BYTES = 2**12
_MAX_INFLATED = 2**30
_MAX_TEXT, _MAX_VALUES = 256, 64


def read_header(path: Path, wanted: tuple[str, ...] = ()) -> Header:
    """Returns what the tags of a DICOM file say, without decoding its pixels.

    Args:
        path: The file.
        wanted: Keywords of tags whose values are asked for.

    Raises:
        Undecodable: It is no DICOM image, or claims too many pixels or frames.
    """
    with refusing(path):
        tags = _read(path, pixels=False)
        is_palette = _interpretation(tags) == _PALETTE
        depth = max(int(tags.BitsAllocated), *_table_depths(tags))
        if is_palette:
            depth = int(tags.RedPaletteColorLookupTableDescriptor[2])
        return Header(
            is_colour=is_palette or int(tags.SamplesPerPixel) == 3,
            is_deep=depth > 8 or voi_function(_macro(tags, 0, "FrameVOILUTSequence")) == "SIGMOID",
            num_frames=_num_frames(tags),
            has_patient=_text(tags, "PatientID") is not None,
            has_series=_text(tags, "SeriesInstanceUID") is not None,
            size=(int(tags.Rows), int(tags.Columns)),
            bits=int(tags.get("BitsStored") or tags.BitsAllocated),
            tags={name: found for name in wanted if (found := _values(tags, name))},
            kind="dicom",
        )


def read_frames(path: Path, frames: range, *, windowed: bool = True) -> Iterator[Frame]:
    """Yields frames of a DICOM file.

    Gray frames keep their stored bits: a window or the percentiles become the value range, which
    a later step may change, and only tables and sigmoid windows change values. Signed values are
    shifted, MONOCHROME1 is inverted, more than 16 bits and floating point are scaled to 16.
    Palettes and YBR become RGB.

    Args:
        path: The file.
        frames: Which, from 0.
        windowed: Whether the file's window or table says what gray frames show; else they have no
            value range, and tables and curves of display are left alone.

    Raises:
        Undecodable: The file cannot be read; the message says why. A frame that cannot be decoded
            among others is yielded with its reason.
    """
    with refusing(path):
        tags = _read(path, pixels=True)
        names = ("PatientID", "SeriesInstanceUID", "IssuerOfPatientID")
        whose = [_text(tags, name) for name in names]
        alone = _num_frames(tags) == 1
    for index in frames:
        try:
            with refusing(path):
                scan, notes = _frame(tags, index, windowed)
        except Undecodable as error:
            if alone:
                raise
            yield Frame(index + 1, error)
        else:
            yield Frame(index + 1, scan, notes, *whose)


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


_PIXEL_TAGS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def _num_frames(tags: Dataset) -> int:
    return max(1, int(tags.get("NumberOfFrames") or 1))


def _interpretation(tags: Dataset) -> str:
    return str(tags.PhotometricInterpretation)


def _text(tags: Dataset, name: str) -> str | None:
    return str(tags.get(name) or "").strip() or None


def _values(tags: Dataset, name: str) -> tuple[str, ...]:
    """Returns all values of a tag; one that cannot be read is as good as none."""
    from pydicom.multival import MultiValue

    try:
        value = tags.get(name)
        several = value[:_MAX_VALUES] if isinstance(value, MultiValue) else [value]
        texts = ["" if one is None else str(one).strip()[:_MAX_TEXT] for one in several]
    except Exception:
        return ()
    return tuple(text for text in texts if text)


def _macro(tags: Dataset, index: int, name: str) -> Dataset:
    """Returns where a frame's attributes of one kind are: its own, those of all, or the file's."""
    own = tags.get("PerFrameFunctionalGroupsSequence") or []
    shared = tags.get("SharedFunctionalGroupsSequence") or []
    for group in (*own[index : index + 1], *shared[:1]):
        found = group.get(name)
        if found:
            return found[0]  # type: ignore[no-any-return]
    return tags


def _table_depths(tags: Dataset) -> list[int]:
    """Returns 0 and the bits of every lookup table that gray values go through."""
    tables = [*(tags.get("ModalityLUTSequence") or []), *(tags.get("VOILUTSequence") or [])]
    return [0, *(int(table.LUTDescriptor[2]) for table in tables)]


def _frame(tags: Dataset, index: int, windowed: bool) -> tuple[Scan, tuple[str, ...]]:
    from pydicom import Dataset

    values = _decoded(tags, index)
    spacing = _spacing_mm(tags, index)
    interpretation = _interpretation(tags)
    if interpretation == _PALETTE:
        from pydicom.pixels.processing import apply_color_lut

        coloured = apply_color_lut(values, tags)[..., :3]
        return Scan(np.ascontiguousarray(coloured.transpose(2, 0, 1)), spacing), ()
    if values.ndim == 3:
        return _colour(values, int(tags.BitsStored), spacing)
    if interpretation not in _GRAY:
        raise Undecodable(f"has one channel of {interpretation}, which is no gray value")
    rescale = _macro(tags, index, "PixelValueTransformationSequence")
    voi = _macro(tags, index, "FrameVOILUTSequence") if windowed else Dataset()
    pixels, stored_range, notes, units = gray(values, tags, rescale, voi)
    if interpretation == "MONOCHROME1":
        pixels, stored_range = inverted(pixels, stored_range)
        units = None if units is None else inverted_units(units, pixels)
    return Scan(pixels[None], spacing, stored_range if windowed else None, units), notes


def _decoded(tags: Dataset, index: int) -> Values:
    """Returns ``[h w]`` or ``[h w 3]`` as stored, colour as RGB."""
    from pydicom.pixels.decoders.base import get_decoder

    syntax = tags.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
        _check_stream(tags, index)
        values, _ = decoder.as_array(tags, index=index)
    except NotImplementedError as error:
        raise Undecodable(f"is compressed as {syntax.name}, which no decoder here reads") from error
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
        found = measures.get(name)
        if found is None or isinstance(found, str) or len(found) != 2:
            continue
        height, width = float(found[0]), float(found[1])
        if np.isfinite((height, width)).all() and min(height, width) > 0:
            return height, width
    return None


def _colour(
    values: Values, bits: int, spacing: tuple[float, float] | None
) -> tuple[Scan, tuple[str, ...]]:
    notes: tuple[str, ...] = ()
    if values.dtype.kind != "u":
        raise Undecodable(f"holds {values.dtype} colour, which has no meaning")
    if bits > _MAX_DEPTH:
        values, notes = values >> (bits - _MAX_DEPTH), (f"{bits} bits per channel kept as 16",)
    depth = np.uint8 if values.dtype.itemsize == 1 else np.uint16
    pixels = np.ascontiguousarray(values.astype(depth).transpose(2, 0, 1))
    return Scan(pixels, spacing, (0.0, 2.0 ** min(bits, _MAX_DEPTH) - 1)), notes
