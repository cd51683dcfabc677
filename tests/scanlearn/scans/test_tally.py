from __future__ import annotations

import numpy as np
import pytest

from scanlearn.scans.shards import Row
from scanlearn.scans.tally import PixelTally


def row(pixels: np.ndarray, box: tuple[int, ...], low: float, high: float) -> Row:
    return Row(
        pixels=pixels,
        valid_box=np.array(box, np.int32),
        spacing_mm=np.full(2, np.nan, np.float32),
        value_range=np.array((low, high), np.float32),
        mask=None,
        scan_id="a",
        patient="p",
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_mean_and_std_equal_a_slow_loop_over_valid_boxes(
    rng: np.random.Generator, dtype: type
) -> None:
    top = np.iinfo(dtype).max
    tally = PixelTally((2, 6, 5), np.dtype(dtype))
    values: list[list[float]] = [[], []]
    for height, width, low, high in ((6, 5, 0, top), (3, 2, top / 4, top / 2), (1, 5, 3, 4)):
        pixels = rng.integers(0, top + 1, (2, 6, 5)).astype(dtype)
        tally.add(row(pixels, (0, 0, height, width), low, high))
        low, high = float(np.float32(low)), float(np.float32(high))
        for channel in range(2):
            for value in pixels[channel, :height, :width].reshape(-1).tolist():
                values[channel].append(min(1.0, max(0.0, (value - low) / (high - low))))
    np.testing.assert_allclose(tally.mean, [np.mean(v) for v in values], rtol=1e-12)
    np.testing.assert_allclose(tally.std, [np.std(v) for v in values], rtol=1e-10)


def test_constant_scan_has_std_zero() -> None:
    tally = PixelTally((1, 4, 4), np.dtype(np.uint8))
    tally.add(row(np.full((1, 4, 4), 100, np.uint8), (0, 0, 4, 4), 0, 255))
    assert tally.std == pytest.approx([0.0], abs=1e-7)


def test_hash_separates_what_belongs_to_which_scan() -> None:
    def hashed(*pairs: tuple[int, float]) -> str:
        tally = PixelTally((1, 1, 1), np.dtype(np.uint8))
        for value, high in pairs:
            tally.add(row(np.full((1, 1, 1), value, np.uint8), (0, 0, 1, 1), 0, high))
        return tally.content_hash

    assert hashed((1, 255), (2, 255)) == hashed((1, 255), (2, 255))
    assert hashed((1, 255), (2, 255)) != hashed((2, 255), (1, 255))
    assert hashed((1, 255)) != hashed((1, 254))
