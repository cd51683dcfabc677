from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import generate_frames

from scanlearn.readers import pictures
from scanlearn.readers.codestream import claimed_values, ordinary_picture
from scanlearn.readers.pictures import READER
from scanlearn.readers.scan import (
    MAX_PIXELS,
    Header,
    Metered,
    ReadSettings,
    Scan,
    Undecodable,
)


def read_header(path: Path, start: bytes = b"") -> Header:
    return READER.header(path, ReadSettings(), start)


def decode_with_notes(path: Path, **chosen: Any) -> tuple[Scan, tuple[str, ...]]:
    (frame,) = READER.frames(path, range(1), ReadSettings(**chosen))
    assert isinstance(frame.scan, Scan)
    return frame.scan, frame.notes


def decode(path: Path, **chosen: Any) -> Scan:
    return decode_with_notes(path, **chosen)[0]


def saved(kind: str, *shape: int, **chosen: bool) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros(shape, np.uint8)).save(buffer, kind, **chosen)
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)])
@pytest.mark.parametrize(
    ("kind", "chosen"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG2000", {"no_jp2": True}),
        ("JPEG2000", {"no_jp2": False}),
    ],
)
def test_values_are_those_of_the_picture(
    kind: str, chosen: dict[str, bool], shape: tuple[int, ...]
) -> None:
    assert claimed_values(saved(kind, *shape, **chosen)) == np.prod(shape)


@pytest.mark.parametrize(
    "stream", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"RLE", b"\xff" * 50]
)
def test_what_says_nothing_claims_nothing(stream: bytes) -> None:
    assert claimed_values(stream) is None


def test_every_cut_of_a_stream_is_borne() -> None:
    for stream in (saved("JPEG", 8, 8), saved("JPEG2000", 8, 8)):
        found = {claimed_values(stream[:end]) for end in range(len(stream))}
        assert found == {None, 64}


@pytest.mark.filterwarnings("ignore:Expected explicit VR")
def test_real_streams_claim_what_their_tags_say(real_data: Path) -> None:
    compared = 0
    for path in sorted((real_data / "readers" / "dicom").rglob("*")):
        # The size in this one was overwritten on purpose.
        if not path.is_file() or path.suffix == ".csv" or "embedded-sequence" in path.name:
            continue
        tags = pydicom.dcmread(path, force=True)
        syntax = tags.file_meta.get("TransferSyntaxUID")
        if "PixelData" not in tags or syntax is None or not syntax.is_transfer_syntax:
            continue
        if not syntax.is_encapsulated:
            continue
        number = int(tags.get("NumberOfFrames") or 1)
        claimed = claimed_values(next(generate_frames(tags.PixelData, number_of_frames=number)))
        if claimed is not None:
            assert claimed == tags.Rows * tags.Columns * tags.SamplesPerPixel, path.name
            compared += 1
    assert compared > 20


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)])
@pytest.mark.parametrize(
    ("kind", "chosen"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {})]
)
def test_first_bytes_of_an_ordinary_picture_say_what_it_is(
    kind: str, chosen: dict[str, bool], shape: tuple[int, ...]
) -> None:
    found = ordinary_picture(saved(kind, *shape, **chosen))
    assert found == (40, 50, shape[2] if len(shape) > 2 else 1, 8)


def converted(mode: str, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (50, 40)).convert(mode).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "start",
    [
        converted("CMYK", "JPEG"),
        *(converted(mode, "PNG") for mode in ("1", "P", "LA", "RGBA", "I;16")),
        saved("JPEG", 40, 50)[:200],
        saved("JPEG", 40, 50).replace(b"\xff\xc0", b"\xff\xc9"),
        saved("PNG", 40, 50)[:30],
        saved("BMP", 40, 50),
        b"",
    ],
)
def test_all_else_is_left_to_who_reads_the_whole_header(start: bytes) -> None:
    assert ordinary_picture(start) is None


def save(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def png_header(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG written chunk by chunk, for layouts that Pillow cannot save."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.fixture
def gray(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (7, 5)).astype(np.uint8)


@pytest.fixture
def rgb(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (7, 5, 3)).astype(np.uint8)


def test_gray_png_is_one_channel_bit_for_bit(tmp_path: Path, gray: np.ndarray) -> None:
    scan = decode(save(tmp_path / "a.png", gray))
    assert scan.pixels.dtype == np.uint8
    np.testing.assert_array_equal(scan.pixels, gray[None])
    assert scan.spacing_mm is None


def test_colour_png_is_three_channels_bit_for_bit(tmp_path: Path, rgb: np.ndarray) -> None:
    scan = decode(save(tmp_path / "a.png", rgb))
    np.testing.assert_array_equal(scan.pixels, rgb.transpose(2, 0, 1))


def test_sixteen_bit_gray_keeps_every_bit(tmp_path: Path, rng: np.random.Generator) -> None:
    deep = rng.integers(0, 65536, (7, 5)).astype(np.uint16)
    path = save(tmp_path / "a.png", deep)
    np.testing.assert_array_equal(decode(path).pixels, deep[None])
    assert decode(path).pixels.dtype == np.uint16
    assert read_header(path).is_deep
    assert not read_header(path).is_colour


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    bits = np.eye(9, dtype=bool)
    Image.fromarray(bits).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode(tmp_path / "a.png").pixels[0], bits * np.uint8(255))


@pytest.mark.parametrize(("depth", "top"), [(2, 3), (4, 15)])
def test_low_bit_gray_is_stretched_to_eight_bits(tmp_path: Path, depth: int, top: int) -> None:
    row = int("".join(f"{value:0{depth}b}" for value in (0, 1, top, top)), 2)
    packed = row.to_bytes(4 * depth // 8, "big")
    (tmp_path / "a.png").write_bytes(png_header(4, 1, depth, 0, b"\0" + packed))
    assert decode(tmp_path / "a.png").pixels[0, 0].tolist() == [0, 255 // top, 255, 255]


def test_palette_is_resolved(tmp_path: Path, rgb: np.ndarray) -> None:
    image = Image.fromarray(rgb).quantize(8)
    image.save(tmp_path / "a.png")
    expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(decode(tmp_path / "a.png").pixels, expected)
    assert read_header(tmp_path / "a.png").is_colour


def test_gray_palette_is_gray(tmp_path: Path, gray: np.ndarray) -> None:
    image = Image.fromarray(gray, "L").convert("P")
    image.putpalette([level for index in range(256) for level in (255 - index,) * 3])
    image.save(tmp_path / "a.png")
    assert not read_header(tmp_path / "a.png").is_colour
    np.testing.assert_array_equal(decode(tmp_path / "a.png").pixels, 255 - gray[None])


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_dropped_and_said(tmp_path: Path, rgb: np.ndarray, mode: str) -> None:
    plain = Image.fromarray(rgb).convert(mode.removesuffix("A"))
    image = plain.copy()
    image.putalpha(Image.fromarray(rgb[..., 0]))
    image.save(tmp_path / "a.png")
    scan, notes = decode_with_notes(tmp_path / "a.png")
    expected = np.atleast_3d(np.asarray(plain)).transpose(2, 0, 1)
    np.testing.assert_array_equal(scan.pixels, expected)
    assert notes == ("alpha dropped",)


def test_sixteen_bit_gray_with_alpha_is_gray_and_says_what_is_lost(tmp_path: Path) -> None:
    row = b"\0" + struct.pack(">HHHH", 0x1234, 65535, 0xFF00, 0)
    (tmp_path / "a.png").write_bytes(png_header(2, 1, 16, 4, row))
    scan, notes = decode_with_notes(tmp_path / "a.png")
    assert scan.pixels.tolist() == [[[0x12, 0xFF]]]
    assert notes == ("alpha dropped", "16 bits per channel read as 8")


def test_sixteen_bit_colour_says_what_is_lost(tmp_path: Path) -> None:
    row = b"\0" + struct.pack(">HHH", 0x1234, 0x5678, 0xFF00)
    (tmp_path / "a.png").write_bytes(png_header(1, 1, 16, 2, row))
    scan, notes = decode_with_notes(tmp_path / "a.png")
    assert scan.pixels.reshape(-1).tolist() == [0x12, 0x56, 0xFF]
    assert notes == ("16 bits per channel read as 8",)


def test_jpeg_equals_pillow(tmp_path: Path, rgb: np.ndarray) -> None:
    path = save(tmp_path / "a.jpg", rgb)
    np.testing.assert_array_equal(
        decode(path).pixels, np.asarray(Image.open(path)).transpose(2, 0, 1)
    )


def test_cmyk_jpeg_becomes_rgb(tmp_path: Path, rgb: np.ndarray) -> None:
    scan, notes = decode_with_notes(save(tmp_path / "a.jpg", rgb, "CMYK"))
    assert scan.pixels.shape == (3, 7, 5)
    assert notes == ("CMYK turned into RGB",)


def test_exif_orientation_is_applied(tmp_path: Path, gray: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # Stored lying on its side: turn by a quarter, clockwise.
    path = save(tmp_path / "a.png", gray, exif=exif)
    np.testing.assert_array_equal(decode(path).pixels[0], np.rot90(gray, -1))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_gray_on_request_is_luma_within_rounding(
    tmp_path: Path, rng: np.random.Generator, suffix: str
) -> None:
    coarse = Image.fromarray(rng.integers(0, 256, (6, 5, 3)).astype(np.uint8))
    coarse.resize((50, 60), Image.Resampling.BICUBIC).save(tmp_path / f"a{suffix}", quality=95)
    scan, notes = decode_with_notes(tmp_path / f"a{suffix}", gray=True)
    colour = decode(tmp_path / f"a{suffix}").pixels.astype(float)
    luma = np.tensordot([0.299, 0.587, 0.114], colour, axes=1)
    # A JPEG's own luma is not clipped into the RGB cube, hence the rare larger difference.
    assert np.abs(scan.pixels[0] - luma).mean() < 0.75
    assert notes == ("three stored channels made one",)


def test_large_jpeg_is_decoded_smaller_but_twice_the_canvas(tmp_path: Path) -> None:
    wave = np.sin(np.linspace(0, 20, 1600))[:, None] * np.cos(np.linspace(0, 15, 1300))
    path = save(tmp_path / "a.jpg", (127 + 100 * wave).astype(np.uint8), quality=95)
    assert decode(path).pixels.shape == (1, 1600, 1300)
    assert decode(path, at_least=256).pixels.shape == (1, 800, 650)
    assert decode(path, at_least=700).pixels.shape == (1, 1600, 1300)


def test_format_is_told_by_content_not_by_name(tmp_path: Path, gray: np.ndarray) -> None:
    path = save(tmp_path / "a.png", gray).rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(decode(path).pixels, gray[None])


@pytest.mark.parametrize("suffix", [".tif", ".webp", ".bmp"])
def test_other_formats_equal_pillow(tmp_path: Path, rgb: np.ndarray, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", rgb)
    np.testing.assert_array_equal(
        decode(path).pixels, np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)
    )
    assert read_header(path).is_colour


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
def test_sixteen_bit_tiff_keeps_every_bit(
    tmp_path: Path, rng: np.random.Generator, compression: str | None
) -> None:
    deep = rng.integers(0, 65536, (7, 5)).astype(np.uint16)
    path = save(tmp_path / "a.tif", deep, compression=compression)
    np.testing.assert_array_equal(decode(path).pixels, deep[None])
    assert read_header(path).is_deep
    assert not read_header(path).is_colour


def test_first_page_of_a_tiff_is_kept_and_said(tmp_path: Path, gray: np.ndarray) -> None:
    other = Image.fromarray(255 - gray)
    path = save(tmp_path / "a.tif", gray, save_all=True, append_images=[other])
    scan, notes = decode_with_notes(path)
    np.testing.assert_array_equal(scan.pixels, gray[None])
    assert notes == ("first frame of several kept",)


def test_floating_point_tiff_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", np.ones((4, 4), np.float32))
    with pytest.raises(Undecodable, match="floating-point values"):
        decode(path)


def png_16(values: np.ndarray, *before: tuple[bytes, bytes]) -> bytes:
    size = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [(b"IHDR", size), *before, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


TWELVE = np.arange(4096, dtype=np.uint16).reshape(64, 64)


@pytest.mark.parametrize(
    ("values", "bits", "shown"),
    [
        (TWELVE, 12, (0, 4095)),
        (TWELVE // 8, 10, (0, 1023)),
        (TWELVE, 16, None),
        (TWELVE, 8, None),  # The values contradict it.
        (TWELVE << 4 | TWELVE >> 8, 12, None),  # Scaled up, as the format asks for.
        (TWELVE // 32 << 4, 12, None),  # So is a dark picture.
    ],
)
def test_significant_bits_of_a_png_are_what_is_shown(
    tmp_path: Path, values: np.ndarray, bits: int, shown: tuple[float, float] | None
) -> None:
    (tmp_path / "a.png").write_bytes(png_16(values, (b"sBIT", bytes([bits]))))
    scan = decode(tmp_path / "a.png")
    assert scan.value_range == shown
    np.testing.assert_array_equal(scan.pixels[0], values)


def test_ycck_jpeg_becomes_rgb(tmp_path: Path) -> None:
    down, across = np.mgrid[:48, :64]
    rgb = np.stack([down * 5, across * 4, 255 - down * 2], -1).astype(np.uint8)
    # Adobe stores inverted inks; the three colours are those of RGB 255 - ink, as YCbCr.
    inks = np.asarray(Image.fromarray(255 - rgb).convert("YCbCr"))
    stored = np.concatenate([255 - inks, np.zeros((48, 64, 1), np.uint8)], -1)
    buffer = io.BytesIO()
    Image.frombytes("CMYK", (64, 48), stored.tobytes()).save(
        buffer, "JPEG", quality=98, subsampling=0
    )
    raw = bytearray(buffer.getvalue())
    raw[raw.index(b"Adobe") + 11] = 2  # Its transform: YCCK.
    (tmp_path / "a.jpg").write_bytes(raw)
    assert np.abs(decode(tmp_path / "a.jpg").pixels.astype(int) - rgb.transpose(2, 0, 1)).max() < 6


@pytest.mark.parametrize(
    ("frame", "bits", "reason"),
    [(0xC1, 12, "is a JPEG of 12 bits, not 8"), (0xC3, 8, "lossless JPEG")],
)
def test_jpeg_that_is_no_picture_of_eight_bits_says_why(
    tmp_path: Path, frame: int, bits: int, reason: str
) -> None:
    raw = bytearray(saved("JPEG", 40, 50))
    place = raw.index(b"\xff\xc0")
    raw[place + 1], raw[place + 4] = frame, bits
    (tmp_path / "a.jpg").write_bytes(raw)
    with pytest.raises(Undecodable, match=reason):
        decode(tmp_path / "a.jpg")


def test_truncated_jpeg_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    path = save(tmp_path / "a.jpg", rng.integers(0, 256, (64, 64)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(Undecodable, match="cut short or damaged"):
        decode(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "file is empty"),
        (b"patient was seen on Monday", "is not a PNG, JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG|damaged"),
        (b"\xff\xd8\xff", "JPEG|damaged"),
        (b"GIF89a" + bytes(40), "is not a PNG, JPEG"),
    ],
)
def test_file_that_is_no_scan_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(Undecodable, match=reason):
        decode(tmp_path / "a.jpg")


def test_missing_file_folder_and_pipe_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    reasons = {"gone": "not found", "folder": "not a regular file", "pipe": "not a regular file"}
    for name, reason in reasons.items():
        with pytest.raises(Undecodable, match=reason):
            decode(tmp_path / f"{name}.png")


@pytest.mark.parametrize("side", [9_460, 20_000, 2**31 - 1])
def test_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    assert side**2 > MAX_PIXELS
    (tmp_path / "a.png").write_bytes(png_header(side, side, 8, 0, b""))
    with pytest.raises(Undecodable, match=r"claims|damaged"):
        decode(tmp_path / "a.png")


def test_damaged_bytes_are_always_a_verdict_never_another_error(
    tmp_path: Path, rng: np.random.Generator, rgb: np.ndarray
) -> None:
    for suffix in (".png", ".jpg"):
        whole = io.BytesIO()
        Image.fromarray(rgb).save(whole, "PNG" if suffix == ".png" else "JPEG")
        for _ in range(60):
            broken = np.frombuffer(whole.getvalue(), np.uint8).copy()
            where = rng.integers(0, len(broken), 6)
            broken[where] = rng.integers(0, 256, 6)
            path = tmp_path / f"a{suffix}"
            path.write_bytes(broken.tobytes())
            with contextlib.suppress(Undecodable):  # Anything else fails the test.
                assert decode(path).pixels.ndim == 3


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_header_from_the_first_bytes_is_that_of_the_whole_file(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.jpg"
    Image.new(mode, (50, 40)).save(path)
    assert read_header(path, path.read_bytes()) == read_header(path)


@pytest.mark.parametrize("shape", [(90, 70), (90, 70, 3)])
def test_jpeg_read_at_once_is_the_one_read_in_pieces(
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
) -> None:
    whole, cut = tmp_path / "whole.jpg", tmp_path / "cut.jpg"
    Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8)).save(whole)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    pieces: list[int] = []
    read = Metered.read

    def counted(file: Metered, size: int | None = -1) -> bytes:
        pieces.append(1)
        return read(file, size)

    monkeypatch.setattr(Metered, "read", counted)
    at_once, num_at_once = decode(whole, gray=True, at_least=20).pixels, len(pieces)
    with pytest.raises(Undecodable) as refused_at_once:
        decode(cut)
    monkeypatch.setattr(pictures, "_MOST_AT_ONCE", 0)
    pieces.clear()
    np.testing.assert_array_equal(decode(whole, gray=True, at_least=20).pixels, at_once)
    assert num_at_once == 1 < len(pieces)
    with pytest.raises(Undecodable) as refused:
        decode(cut)
    assert str(refused.value) == str(refused_at_once.value)
