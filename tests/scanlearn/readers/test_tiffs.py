"""TIFF files written byte by byte, beside the values that were put in."""

from __future__ import annotations

import contextlib
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scanlearn.readers.pictures import READER
from scanlearn.readers.scan import Frame, ReadSettings, Scan, Undecodable

Tags = dict[int, tuple[str, list[int]]]
HEIGHT, WIDTH = 24, 38
_TYPES = {"H": 3, "I": 4, "Q": 16}


def tiff(
    pixels: np.ndarray[Any, Any],
    order: str = "<",
    photometric: int = 1,
    tags: Tags | None = None,
    *,
    is_planar: bool = False,
    is_deflated: bool = False,
    is_big: bool = False,
    rows: int = HEIGHT,
) -> bytes:
    """Returns the bytes of a TIFF of some ``[h w]`` or ``[h w c]`` pixels in strips."""
    stack = pixels.reshape(*pixels.shape[:2], -1)
    height, width, channels = stack.shape
    planes = np.split(stack, channels, axis=2) if is_planar else [stack]
    stored = stack.dtype.newbyteorder(order)
    strips = [
        plane[top : top + rows].astype(stored).tobytes()
        for plane in planes
        for top in range(0, height, rows)
    ]
    strips = [zlib.compress(strip) for strip in strips] if is_deflated else strips
    sample = {"u": 1, "i": 2, "f": 3}[stack.dtype.kind]
    places = np.cumsum([16, *map(len, strips)]).tolist()
    all_tags: Tags = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [8 * stack.dtype.itemsize] * channels),
        259: ("H", [8 if is_deflated else 1]),
        262: ("H", [photometric]),
        273: ("I", places[:-1]),
        277: ("H", [channels]),
        278: ("I", [rows]),
        279: ("I", [len(strip) for strip in strips]),
        284: ("H", [2 if is_planar else 1]),
        339: ("H", [sample] * channels),
        **(tags or {}),
    }
    number, place, entry = ("Q", "Q", 20) if is_big else ("H", "I", 12)
    inline = struct.calcsize(place)
    entries, behind = b"", b""
    end = places[-1] + struct.calcsize(number) + entry * len(all_tags) + inline
    for tag, (kind, values) in sorted(all_tags.items()):
        raw = struct.pack(f"{order}{len(values)}{kind}", *values)
        entries += struct.pack(f"{order}HH{place}", tag, _TYPES[kind], len(values))
        if len(raw) <= inline:
            entries += raw.ljust(inline, b"\0")
        else:
            entries += struct.pack(f"{order}{place}", end + len(behind))
            behind += raw
    mark = b"II" if order == "<" else b"MM"
    start = struct.pack(f"{order}HHHQ", 43, 8, 0, places[-1])
    if not is_big:
        start = struct.pack(f"{order}HI8x", 42, places[-1])
    count = struct.pack(f"{order}{number}", len(all_tags))
    return mark + start + b"".join(strips) + count + entries + bytes(inline) + behind


def read(tmp_path: Path, raw: bytes) -> Frame:
    (tmp_path / "a.tif").write_bytes(raw)
    READER.header(tmp_path / "a.tif", ReadSettings(), b"")
    (frame,) = READER.frames(tmp_path / "a.tif", range(1), ReadSettings())
    return frame


def scan(tmp_path: Path, raw: bytes) -> Scan:
    frame = read(tmp_path, raw)
    assert isinstance(frame.scan, Scan)
    return frame.scan


def ramp(depth: type[np.integer[Any]], *channels: int) -> np.ndarray[Any, Any]:
    """Values that no other row, column or byte order gives."""
    number = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * 7 + 3
    top = int(np.iinfo(depth).max)
    wide = np.stack([number * (k + 1) for k in range(*channels or (1,))], -1) * top // 6_400
    return (wide % top).astype(depth).reshape(HEIGHT, WIDTH, *channels)


BOTH = [("<", False), ("<", True), (">", False), (">", True)]


@pytest.mark.parametrize(("order", "is_deflated"), BOTH)
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_white_zero_is_no_negative(
    tmp_path: Path, depth: type[np.integer[Any]], order: str, is_deflated: bool
) -> None:
    bright = ramp(depth)
    raw = tiff(np.iinfo(depth).max - bright, order, 0, is_deflated=is_deflated)
    np.testing.assert_array_equal(scan(tmp_path, raw).pixels[0], bright)


@pytest.mark.parametrize(("order", "is_deflated"), BOTH)
@pytest.mark.parametrize("rows", [HEIGHT, 5])
def test_planes_of_sixteen_bits_are_no_noise(
    tmp_path: Path, order: str, is_deflated: bool, rows: int
) -> None:
    colour = ramp(np.uint16, 3)
    raw = tiff(colour, order, 2, is_planar=True, is_deflated=is_deflated, rows=rows)
    frame = read(tmp_path, raw)
    assert isinstance(frame.scan, Scan)
    np.testing.assert_array_equal(frame.scan.pixels, (colour >> 8).transpose(2, 0, 1))
    assert frame.notes == ("16 bits per channel read as 8",)


@pytest.mark.parametrize(("order", "is_deflated"), BOTH)
@pytest.mark.parametrize("bits", [8, 16])
def test_signed_values_are_shifted_in_either_byte_order(
    tmp_path: Path, bits: int, order: str, is_deflated: bool
) -> None:
    depth = np.uint8 if bits == 8 else np.uint16
    half = 2 ** (bits - 1)
    signed = (ramp(depth).astype(int) - half).astype(f"i{bits // 8}")
    for values in (signed, np.maximum(signed, 0)):
        found = scan(tmp_path, tiff(values, order, is_deflated=is_deflated))
        np.testing.assert_array_equal(found.pixels[0], values.astype(int) + half)
        assert found.units is not None
        assert (found.units.slope, found.units.intercept) == (1, -half)
        shown = np.percentile(values.astype(int) + half, (0.5, 99.5))
        np.testing.assert_allclose(found.value_range, shown)


UPRIGHT = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("pixels", [ramp(np.uint8), ramp(np.uint16), ramp(np.uint8, 3)])
def test_uncompressed_scan_is_upright_and_whole(
    tmp_path: Path, pixels: np.ndarray[Any, Any], orientation: int
) -> None:
    raw = tiff(pixels, "<", 2 if pixels.ndim == 3 else 1, {274: ("H", [orientation])})
    upright = UPRIGHT[orientation](pixels).reshape(*UPRIGHT[orientation](pixels).shape[:2], -1)
    np.testing.assert_array_equal(scan(tmp_path, raw).pixels, upright.transpose(2, 0, 1))


@pytest.mark.parametrize("scale", [1, 257])
def test_palette_of_eight_bits_is_not_black(tmp_path: Path, scale: int) -> None:
    pixels, colours = ramp(np.uint8), [(255 - value) * scale for value in range(256)]
    raw = tiff(pixels, "<", 3, {320: ("H", colours * 3)})
    np.testing.assert_array_equal(scan(tmp_path, raw).pixels[0], 255 - pixels)


@pytest.mark.parametrize(
    ("most", "shown"), [(4095, (0, 4095)), (3000, (0, 4095)), (1023, None), (65_535, None)]
)
def test_largest_value_tells_how_many_bits_are_shown(
    tmp_path: Path, most: int, shown: tuple[float, float] | None
) -> None:
    values = ramp(np.uint16) >> 4
    raw = tiff(values, tags={281: ("H", [most])})
    found = scan(tmp_path, raw)
    assert found.value_range == shown  # Values above it contradict the tag.
    np.testing.assert_array_equal(found.pixels[0], values)


def test_twelve_packed_bits_are_shown_as_twelve(tmp_path: Path) -> None:
    values = (ramp(np.uint16) >> 4).astype(int)
    first, second = values[:, ::2], values[:, 1::2]
    three = (first >> 4, (first % 16) << 4 | second >> 8, second % 256)
    raw = np.stack(three, -1).reshape(HEIGHT, -1).astype(np.uint8)
    found = scan(tmp_path, tiff(raw, tags={256: ("I", [WIDTH]), 258: ("H", [12])}))
    np.testing.assert_array_equal(found.pixels[0], values)
    assert found.value_range == (0, 4095)


GRAY, DEEP, COLOUR = ramp(np.uint8), ramp(np.uint16), ramp(np.uint8, 3)
REFUSED = {
    "Lab": (tiff(COLOUR, "<", 8), "PhotometricInterpretation 8"),
    "ICC Lab": (tiff(COLOUR, "<", 9), "PhotometricInterpretation 9"),
    "LogLuv": (tiff(COLOUR, "<", 32_845), "PhotometricInterpretation 32845"),
    "mask": (tiff(GRAY, "<", 4), "PhotometricInterpretation 4"),
    "nothing said": (tiff(GRAY, "<", 1).replace(b"\x06\x01\x03\0", b"\x05\x01\x03\0"), "has no Ph"),
    "predictor": (tiff(DEEP, tags={317: ("H", [2])}), "Predictor 2"),
    "subsampled": (tiff(COLOUR, "<", 6), "YCbCrSubSampling"),
    "video range": (
        tiff(COLOUR, "<", 6, {530: ("H", [1, 1]), 532: ("H", [16, 235, 128, 240, 128, 240])}),
        "ReferenceBlackWhite",
    ),
    "gray and alpha": (tiff(ramp(np.uint16, 2), tags={338: ("H", [2])}), "BitsPerSample (16, 16)"),
    "float": (tiff(GRAY.astype(np.float32)), "SampleFormat 3"),
    "double": (tiff(GRAY.astype(np.float64)), "SampleFormat (3,)"),
    "big-endian 32 bits": (tiff(DEEP.astype(np.uint32), ">"), "BitsPerSample (32,)"),
    "signed 32 bits": (tiff(DEEP.astype(np.int32) - 9000), "holds values -8970 to"),
    "big-endian BigTIFF": (tiff(GRAY, ">", is_big=True), "BigTIFF in big-endian order"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_read_wrong_is_refused_by_its_tag(tmp_path: Path, name: str) -> None:
    raw, reason = REFUSED[name]
    with pytest.raises(Undecodable) as caught:
        read(tmp_path, raw)
    assert reason in str(caught.value)


def test_large_tiff_is_read_like_any_other(tmp_path: Path) -> None:
    np.testing.assert_array_equal(scan(tmp_path, tiff(DEEP, is_big=True)).pixels[0], DEEP)


def test_second_page_of_another_kind_does_not_refuse_the_first(tmp_path: Path) -> None:
    raw, other = tiff(GRAY), tiff(COLOUR, "<", 8)
    (place,) = struct.unpack_from("<I", raw, 4)
    (number,) = struct.unpack_from("<H", raw, place)
    (second,) = struct.unpack_from("<I", other, 4)
    link = place + 2 + 12 * number
    # Only its list of tags is looked at, if anything.
    raw = raw[:link] + struct.pack("<I", len(raw)) + raw[link + 4 :] + other[second:]
    frame = read(tmp_path, raw)
    assert isinstance(frame.scan, Scan)
    np.testing.assert_array_equal(frame.scan.pixels[0], GRAY)
    assert frame.notes == ("first frame of several kept",)


def test_tag_that_claims_gigabytes_of_a_sparse_file_is_refused(tmp_path: Path) -> None:
    raw = tiff(GRAY, tags={700: ("I", [0] * 64)})
    at = raw.index(struct.pack("<HH", 700, 4)) + 4
    with (tmp_path / "a.tif").open("wb") as file:
        file.write(raw[:at] + struct.pack("<I", 2**29) + raw[at + 4 :])
        file.truncate(2**32)
    with pytest.raises(Undecodable, match="far more bytes of tags"):
        READER.header(tmp_path / "a.tif", ReadSettings(), b"")


def test_damaged_tags_are_always_a_verdict_never_another_error(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    whole = [
        tiff(DEEP, ">", 0, rows=5, is_deflated=True),
        tiff(ramp(np.uint16, 3), "<", 2, rows=5, is_planar=True),
        tiff(GRAY, "<", 3, {320: ("H", list(range(256)) * 3)}),
    ]
    for raw in whole * 60:
        damaged = bytearray(raw[: rng.integers(8, len(raw))] if rng.random() < 0.3 else raw)
        for place in rng.integers(0, len(damaged), 3):
            damaged[place] = rng.integers(256)
        for place in rng.integers(max(0, len(damaged) - 400), len(damaged), 2):
            damaged[place] ^= 1 << rng.integers(8)
        with contextlib.suppress(Undecodable):
            read(tmp_path, bytes(damaged))
