"""What is counted of each scan as it is packed, and what all scans of an archive come to."""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8, UInt16
from PIL import Image

DIGEST_BYTES = 32


@dataclass(frozen=True)
class ScanTally:
    """What is counted of one scan.

    Args:
        digest: sha256 over pixels, valid box, value range, spacing and mask.
        sums: ``[1 + 2c]`` pixels of the valid box; then the sum of each channel on the unit
            range (``value_range`` mapped to 0 and 1, clamped), and of its squares.
    """

    digest: bytes
    sums: Float64[np.ndarray, " t"]


def num_sums(channels: int) -> int:
    """Returns how many sums a scan has."""
    return 1 + 2 * channels


def tally_scan(
    pixels: UInt8[np.ndarray, "c h w"] | UInt16[np.ndarray, "c h w"],
    valid_box: tuple[int, int, int, int],
    value_range: tuple[float, float],
    spacing_mm: tuple[float, float] | None = None,
    mask: Bool[np.ndarray, "h w"] | None = None,
) -> ScanTally:
    """Counts one scan; packing does it where the scan is decoded, in many processes."""
    digest = hashlib.sha256(np.ascontiguousarray(pixels).data)
    digest.update(
        struct.pack("<4i4f", *valid_box, *value_range, *(spacing_mm or (math.nan, math.nan)))
    )
    if mask is not None:
        digest.update(np.ascontiguousarray(mask).data)
    low, high = (float(np.float32(value)) for value in value_range)
    unit, squares = _unit_values(pixels.dtype.itemsize, low, high)
    top, left, bottom, right = valid_box
    # Values are counted, not converted: exact, and several times as fast as float64 pixels.
    inside = pixels[:, top:bottom, left:right]
    # Gray scans among coloured ones repeat their channel.
    num_counted = 1 if len(inside) > 1 and (inside[1:] == inside[:1]).all() else len(inside)
    counts = [_counts(plane) for plane in inside[:num_counted]]
    # Not a dot product: its last bits would follow the number of threads.
    repeats = len(inside) // num_counted
    first = [float((count * unit).sum()) for count in counts] * repeats
    second = [float((count * squares).sum()) for count in counts] * repeats
    return ScanTally(
        digest.digest(), np.array([(bottom - top) * (right - left), *first, *second], np.float64)
    )


@lru_cache(maxsize=4)
def _unit_values(
    itemsize: int, low: float, high: float
) -> tuple[Float64[np.ndarray, " v"], Float64[np.ndarray, " v"]]:
    """Returns what each stored value is on the unit range, and its square."""
    values = np.arange(256**itemsize, dtype=np.float64)
    unit = np.clip((values - low) / (high - low), 0.0, 1.0)
    return unit, unit**2


def _counts(plane: np.ndarray[Any, np.dtype[Any]]) -> Int64[np.ndarray, " v"]:
    """Returns how often each value occurs."""
    if plane.dtype == np.uint8:
        return np.array(Image.fromarray(plane).histogram(), np.int64)
    return np.bincount(plane.reshape(-1), minlength=65536)


class ArchiveTally:
    """Puts the tallies of all scans together, in the order of the archive.

    Args:
        shape: Channels, rows and columns of every scan.
        dtype: uint8 or uint16.
    """

    def __init__(self, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> None:
        self._hash = hashlib.sha256(f"{shape} {dtype}".encode())
        self._channels = shape[0]
        self._sums = np.zeros(num_sums(shape[0]))

    def add(self, digests: bytes, sums: Float64[np.ndarray, "r t"]) -> None:
        """Takes the digests and sums of ``r`` scans."""
        assert len(digests) == DIGEST_BYTES * len(sums), "a digest for each row of sums"
        self._hash.update(digests)
        # One after the other, so that the last bits do not follow how scans come in batches.
        self._sums = np.add.accumulate(np.vstack([self._sums, sums]), axis=0)[-1]

    def content_hash(self, patients: Int64[np.ndarray, " n"]) -> str:
        """Returns the sha256 over all scans in order and over which are of the same patient.

        Args:
            patients: ``[n]`` number of each scan's patient in the order of first appearance, so
                that the hash does not follow a site's key.
        """
        whole = self._hash.copy()
        whole.update(np.ascontiguousarray(patients, "<i8").data)
        return whole.hexdigest()

    @property
    def mean(self) -> list[float]:
        """Mean of each channel over valid boxes, on the unit range, ``[c]``."""
        means: list[float] = (self._sums[1 : 1 + self._channels] / self._sums[0]).tolist()
        return means

    @property
    def std(self) -> list[float]:
        """Standard deviation of each channel, ``[c]``."""
        squares = (self._sums[1 + self._channels :] / self._sums[0]).tolist()
        pairs = zip(squares, self.mean, strict=True)
        return [math.sqrt(max(0.0, square - mean**2)) for square, mean in pairs]
