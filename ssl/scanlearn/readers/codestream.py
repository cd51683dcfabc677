"""What the first bytes of a JPEG, JPEG 2000 or PNG stream claim, before a decoder sees them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

# Markers of JPEG that begin a frame: SOF0 to SOF15 but DHT, JPG and DAC, and SOF55 of JPEG-LS.
_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
# Baseline, extended and progressive: Huffman-coded, as ordinary files are.
_ORDINARY_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
_SCAN_MARKER = 0xDA
# Frames without loss: SOF3, SOF7, SOF11, SOF15 and that of JPEG-LS.
_LOSSLESS_FRAMES = frozenset({0xC3, 0xC7, 0xCB, 0xCF, 0xF7})
# Bytes to the next marker, of a fill byte and of markers without a segment.
_BARE_MARKERS = {0xFF: 1} | dict.fromkeys((0x01, *range(0xD0, 0xD9)), 2)


class Claim(NamedTuple):
    """What a picture says of itself."""

    height: int
    width: int
    channels: int
    bits: int


def ordinary_picture(start: bytes) -> Claim | None:
    """Returns what the first bytes of an ordinary JPEG or PNG say; None of anything else.

    Gray and RGB are ordinary, and all that stands before the pixels is within these bytes.

    Source: ITU-T T.81 B.2.2 (frame header); PNG, third edition, 11.2.1 (IHDR).
    """
    if start.startswith(b"\xff\xd8\xff"):
        return _ordinary_jpeg(start)
    if not start.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR") or len(start) < 29:
        return None
    width, height, bits, colour_type = struct.unpack_from(">2I2B", start, 16)
    channels = {0: 1, 2: 3}.get(colour_type)
    if channels is None or bits != 8 or b"tRNS" in start or b"IDAT" not in start:
        return None
    return Claim(height, width, channels, bits)


def _ordinary_jpeg(start: bytes) -> Claim | None:
    claim = None
    for marker, place in _jpeg_segments(start):
        if marker in _FRAME_MARKERS:
            if claim is not None or marker not in _ORDINARY_FRAMES:
                return None
            claim = _jpeg_frame(start, place)
            if claim.bits != 8 or claim.channels not in (1, 3):
                return None
        elif marker == _SCAN_MARKER:
            return claim
        elif marker in _BARE_MARKERS:
            return None
    return None


def why_odd_jpeg(start: bytes) -> str | None:
    """Returns why no decoder of pictures reads a JPEG; None of anything else.

    Source: ITU-T T.81 B.2.2 and table B.1, T.87 C.2.2.
    """
    segments = _jpeg_segments(start) if start.startswith(b"\xff\xd8\xff") else ()
    for marker, place in segments:
        if marker in _FRAME_MARKERS:
            bits = _jpeg_frame(start, place).bits
            if marker in _LOSSLESS_FRAMES:
                return "is a lossless JPEG, which only DICOM files are read with; save it as PNG"
            return f"is a JPEG of {bits} bits, not 8; save it as 16-bit PNG" if bits != 8 else None
    return None


def png_significant_bits(start: bytes) -> int | None:
    """Returns how many bits of a gray PNG are significant by its sBIT; None where it has none.

    Source: PNG, third edition, 5.3 (chunks) and 11.3.2.7 (sBIT).
    """
    place = 8
    while start.startswith(b"\x89PNG") and place + 9 <= len(start):
        (num_bytes,) = struct.unpack_from(">I", start, place)
        kind = start[place + 4 : place + 8]
        if kind == b"sBIT" and num_bytes == 1:
            return start[place + 8]
        if kind in (b"PLTE", b"IDAT"):
            return None
        place += 12 + num_bytes
    return None


def claimed_values(stream: bytes) -> int | None:
    """Returns how many values (pixels times channels) a stream claims; None where it says nothing.

    Source: ITU-T T.81 B.2.2 (frame header), T.87 C.2.2, T.800 A.5.1 (SIZ).
    """
    if stream.startswith(b"\xff\xd8"):
        frames = (place for marker, place in _jpeg_segments(stream) if marker in _FRAME_MARKERS)
        place = next(frames, None)
        if place is None:
            return None
        claim = _jpeg_frame(stream, place)
        return claim.height * claim.width * claim.channels
    start = stream.find(b"\xff\x4f\xff\x51")  # In a JP2 file it comes after some boxes.
    if start < 0 or len(stream) < start + 42:
        return None
    right, bottom, left, top, channels = struct.unpack_from(">4I16xH", stream, start + 8)
    return int(max(0, right - left) * max(0, bottom - top) * channels)


def _jpeg_segments(stream: bytes) -> Iterator[tuple[int, int]]:
    """Yields marker and place of each segment, as far as segments follow one another."""
    place = 2
    while place + 10 <= len(stream) and stream[place] == 0xFF:
        marker = stream[place + 1]
        yield marker, place
        place += _BARE_MARKERS.get(marker) or 2 + (stream[place + 2] << 8) + stream[place + 3]


def _jpeg_frame(stream: bytes, place: int) -> Claim:
    bits, height, width, channels = struct.unpack_from(">B2HB", stream, place + 4)
    return Claim(height, width, channels, bits)
