from __future__ import annotations

import numpy as np
import pytest

from scanlearn.archive.layout import ScanTally, tally_scan
from scanlearn.archive.table import ArchiveTally


def together(shape: tuple[int, int, int], dtype: np.dtype, *scans: ScanTally) -> ArchiveTally:
    tally = ArchiveTally(shape, dtype)
    tally.add(b"".join(one.digest for one in scans), np.stack([one.sums for one in scans]))
    return tally


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_mean_and_std_equal_a_slow_loop_over_valid_boxes(
    rng: np.random.Generator, dtype: type
) -> None:
    top = np.iinfo(dtype).max
    scans = []
    values: list[list[float]] = [[], []]
    for height, width, low, high in ((6, 5, 0, top), (3, 2, top / 4, top / 2), (1, 5, 3, 4)):
        pixels = rng.integers(0, top + 1, (2, 6, 5)).astype(dtype)
        scans.append(tally_scan(pixels, (0, 0, height, width), (low, high)))
        low, high = float(np.float32(low)), float(np.float32(high))
        for channel in range(2):
            for value in pixels[channel, :height, :width].reshape(-1).tolist():
                values[channel].append(min(1.0, max(0.0, (value - low) / (high - low))))
    tally = together((2, 6, 5), np.dtype(dtype), *scans)
    np.testing.assert_allclose(tally.mean, [np.mean(v) for v in values], rtol=1e-12)
    np.testing.assert_allclose(tally.std, [np.std(v) for v in values], rtol=1e-10)


def test_constant_scan_has_std_zero() -> None:
    scan = tally_scan(np.full((1, 4, 4), 100, np.uint8), (0, 0, 4, 4), (0, 255))
    assert together((1, 4, 4), np.dtype(np.uint8), scan).std == pytest.approx([0.0], abs=1e-7)


def scan(value: int, high: float) -> ScanTally:
    return tally_scan(np.full((1, 1, 1), value, np.uint8), (0, 0, 1, 1), (0, high))


def hashed(*pairs: tuple[int, float], patients: tuple[int, ...] = (0, 0)) -> str:
    tally = together((1, 1, 1), np.dtype(np.uint8), *(scan(*pair) for pair in pairs))
    return tally.content_hash(np.array(patients))


def test_hash_separates_what_belongs_to_which_scan() -> None:
    assert hashed((1, 255), (2, 255)) == hashed((1, 255), (2, 255))
    assert hashed((1, 255), (2, 255)) != hashed((2, 255), (1, 255))
    assert hashed((1, 255)) != hashed((1, 254))


def test_hash_follows_who_is_the_same_patient() -> None:
    one, other = (hashed((1, 255), (2, 255), patients=who) for who in ((0, 0), (0, 1)))
    assert one != other


def test_every_property_of_a_scan_is_in_its_digest() -> None:
    pixels, box, values = np.zeros((1, 3, 3), np.uint8), (0, 0, 3, 3), (0.0, 255.0)
    mask = np.ones((3, 3), np.bool_)
    digests = {
        tally_scan(pixels, box, values).digest,
        tally_scan(pixels + np.uint8(1), box, values).digest,
        tally_scan(pixels, (0, 0, 3, 2), values).digest,
        tally_scan(pixels, box, (0.0, 254.0)).digest,
        tally_scan(pixels, box, values, (1.0, 1.0)).digest,
        tally_scan(pixels, box, values, None, mask).digest,
        tally_scan(pixels, box, values, None, ~mask).digest,
    }
    assert len(digests) == 7


def test_nothing_follows_how_scans_come_in_batches(rng: np.random.Generator) -> None:
    sums = rng.random((50, 3)) * 1e6
    digests = rng.bytes(50 * 32)
    whole, parts = (ArchiveTally((1, 8, 8), np.dtype(np.uint8)) for _ in range(2))
    whole.add(digests, sums)
    for start, stop in ((0, 7), (7, 8), (8, 50)):
        parts.add(digests[32 * start : 32 * stop], sums[start:stop])
    codes = np.arange(50)
    assert parts.content_hash(codes) == whole.content_hash(codes)
    assert (parts.mean, parts.std) == (whole.mean, whole.std)
