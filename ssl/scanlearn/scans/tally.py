"""What an archive says of its pixels, counted while they pass by: mean, std, hash."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from scanlearn.scans.shards import Row


class PixelTally:
    """Counts mean, standard deviation and content hash over scans in their order.

    Mean and std are per channel, on the unit range (``value_range`` mapped to 0 and 1, clamped),
    over valid boxes, accumulated in float64.

    Args:
        shape: Channels, rows and columns of every scan.
        dtype: uint8 or uint16.
    """

    def __init__(self, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> None:
        self._hash = hashlib.sha256(f"{shape} {dtype}".encode())
        self._sum = np.zeros(shape[0])
        self._sum_of_squares = np.zeros(shape[0])
        self._values = np.arange(np.iinfo(dtype).max + 1, dtype=np.float64)
        self._count = 0

    def add(self, row: Row) -> None:
        """Takes one scan."""
        patient = row.patient.encode()
        for part in (row.pixels, row.valid_box, row.value_range, row.spacing_mm, row.mask):
            self._hash.update(b"none" if part is None else np.ascontiguousarray(part).data)
        self._hash.update(len(patient).to_bytes(8, "little") + patient)
        top, left, bottom, right = row.valid_box.tolist()
        low, high = row.value_range.tolist()
        # Values are counted, not converted: exact, and several times as fast as float64 pixels.
        unit = np.clip((self._values - low) / (high - low), 0.0, 1.0)
        for channel, plane in enumerate(row.pixels[:, top:bottom, left:right]):
            counts = np.bincount(plane.reshape(-1), minlength=len(unit))
            self._sum[channel] += counts @ unit
            self._sum_of_squares[channel] += counts @ unit**2
        self._count += (bottom - top) * (right - left)

    @property
    def content_hash(self) -> str:
        """sha256 over pixels, boxes, ranges, spacings, masks and patients, in order."""
        return self._hash.hexdigest()

    @property
    def mean(self) -> list[float]:
        """Mean of each channel, ``[c]``."""
        return [float(total / self._count) for total in self._sum]

    @property
    def std(self) -> list[float]:
        """Standard deviation of each channel, ``[c]``."""
        means = self._sum / self._count
        variances = self._sum_of_squares / self._count - means**2
        return [math.sqrt(max(0.0, float(variance))) for variance in variances]
