"""What the first bytes of a JPEG, JPEG 2000 or PNG stream claim, before a decoder sees them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

# Markers of JPEG that begin a frame: SOF0 to SOF15 but DHT, JPG and DAC, and SOF55 of JPEG-LS.
_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
# Baseline, extended and progressive: Huffman-coded, as ordinary files are.
_ORDINARY_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
_SCAN_MARKER, _FILL = 0xDA, 0xFF
_STANDALONE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})


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
    bits, channels = start[24], {0: 1, 2: 3}.get(start[25])
    if channels is None or bits != 8 or b"tRNS" in start or b"IDAT" not in start:
        return None
    return Claim(_number(start, 20, 4), _number(start, 16, 4), channels, bits)


def _ordinary_jpeg(start: bytes) -> Claim | None:
    claim = None
    for marker, place in _jpeg_segments(start):
        if marker == _SCAN_MARKER:
            return claim
        if marker == _FILL or marker in _STANDALONE_MARKERS:
            return None
        if marker in _FRAME_MARKERS:
            is_second = claim is not None
            claim = _jpeg_frame(start, place)
            is_ordinary = marker in _ORDINARY_FRAMES and claim.bits == 8
            if is_second or not is_ordinary or claim.channels not in (1, 3):
                return None
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
    right, bottom, left, top = (_number(stream, start + place, 4) for place in (8, 12, 16, 20))
    return max(0, right - left) * max(0, bottom - top) * _number(stream, start + 40, 2)


def _jpeg_segments(stream: bytes) -> Iterator[tuple[int, int]]:
    """Yields marker and place of each segment, as far as segments follow one another."""
    place = 2
    while place + 10 <= len(stream) and stream[place] == 0xFF:
        marker = stream[place + 1]
        yield marker, place
        if marker == _FILL:
            place += 1
        elif marker in _STANDALONE_MARKERS:
            place += 2
        else:
            place += 2 + _number(stream, place + 2, 2)


def _jpeg_frame(stream: bytes, place: int) -> Claim:
    size = _number(stream, place + 5, 2), _number(stream, place + 7, 2)
    return Claim(*size, channels=stream[place + 9], bits=stream[place + 4])


def _number(stream: bytes, place: int, num_bytes: int) -> int:
    return int.from_bytes(stream[place : place + num_bytes], "big")
