"""What a JPEG, JPEG-LS or JPEG 2000 stream says of its own size, before a decoder believes it."""

from __future__ import annotations

# Markers of JPEG that begin a frame: SOF0 to SOF15 but DHT, JPG and DAC, and SOF55 of JPEG-LS.
_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_STANDALONE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})


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
