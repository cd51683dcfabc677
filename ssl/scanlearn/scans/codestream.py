"""What the first bytes of a picture say of its size, before a decoder sees it."""

from __future__ import annotations

from typing import NamedTuple

# Markers of JPEG that begin a frame: SOF0 to SOF15 but DHT, JPG and DAC, and SOF55 of JPEG-LS.
_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
# Baseline, extended and progressive: Huffman-coded, as ordinary files are.
_ORDINARY_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
_SCAN_MARKER = 0xDA
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
    width, height = int.from_bytes(start[16:20], "big"), int.from_bytes(start[20:24], "big")
    return Claim(height, width, channels, bits)


def _ordinary_jpeg(start: bytes) -> Claim | None:
    found = None
    place = 2
    while place + 10 <= len(start) and start[place] == 0xFF:
        marker = start[place + 1]
        if marker == _SCAN_MARKER:
            return found
        if marker in _FRAME_MARKERS:
            bits, channels = start[place + 4], start[place + 9]
            if found or marker not in _ORDINARY_FRAMES or bits != 8 or channels not in (1, 3):
                return None
            height = int.from_bytes(start[place + 5 : place + 7], "big")
            width = int.from_bytes(start[place + 7 : place + 9], "big")
            found = Claim(height, width, channels, bits)
        elif marker in _STANDALONE_MARKERS or marker == 0xFF:
            return None
        place += 2 + int.from_bytes(start[place + 2 : place + 4], "big")
    return None


def claimed_values(stream: bytes) -> int | None:
    """Returns how many values (pixels times channels) a stream claims; None where it says nothing.

    Source: ITU-T T.81 B.2.2 (frame header), T.87 C.2.2, T.800 A.5.1 (SIZ).
    """
    if stream.startswith(b"\xff\xd8"):
        return _jpeg_values(stream)
    start = stream.find(b"\xff\x4f\xff\x51")  # In a JP2 file it comes after some boxes.
    if start < 0 or len(stream) < start + 42:
        return None
    right, bottom, left, top = (
        int.from_bytes(stream[start + place : start + place + 4], "big")
        for place in (8, 12, 16, 20)
    )
    channels = int.from_bytes(stream[start + 40 : start + 42], "big")
    return max(0, right - left) * max(0, bottom - top) * channels


def _jpeg_values(stream: bytes) -> int | None:
    place = 2
    while place + 10 <= len(stream) and stream[place] == 0xFF:
        marker = stream[place + 1]
        if marker == 0xFF:
            place += 1
        elif marker in _STANDALONE_MARKERS:
            place += 2
        elif marker in _FRAME_MARKERS:
            height = int.from_bytes(stream[place + 5 : place + 7], "big")
            width = int.from_bytes(stream[place + 7 : place + 9], "big")
            return height * width * stream[place + 9]
        else:
            place += 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
    return None
