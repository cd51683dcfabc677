from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from scanlearn.archive.layout import Layout, PackedScan, Spacing, ValueRange
from scanlearn.archive.table import ArchiveSums


def together(*scans: PackedScan) -> ArchiveSums:
    totals = ArchiveSums(Layout(scans[0].pixels.shape, scans[0].pixels.dtype))
    sums = [scan.sums for scan in scans]
    totals.add(b"".join(one.digest for one in sums), np.stack([one.sums for one in sums]))
    return totals


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_mean_and_std_equal_a_slow_loop_over_valid_boxes(
    rng: np.random.Generator, dtype: type
) -> None:
    top = np.iinfo(dtype).max
    scans = []
    values: list[list[float]] = [[], []]
    for height, width, low, high in ((6, 5, 0, top), (3, 2, top / 4, top / 2), (1, 5, 3, 4)):
        pixels = rng.integers(0, top + 1, (2, 6, 5)).astype(dtype)
        scans.append(PackedScan(pixels, (0, 0, height, width), ValueRange(low, high)))
        low, high = float(np.float32(low)), float(np.float32(high))
        for channel in range(2):
            for value in pixels[channel, :height, :width].reshape(-1).tolist():
                values[channel].append(min(1.0, max(0.0, (value - low) / (high - low))))
    totals = together(*scans)
    np.testing.assert_allclose(totals.mean, [np.mean(v) for v in values], rtol=1e-12)
    np.testing.assert_allclose(totals.std, [np.std(v) for v in values], rtol=1e-10)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("most", [2, 200, 4095, 65535])
def test_sums_are_to_the_last_bit_those_of_all_values_added_by_numpy(
    rng: np.random.Generator, dtype: type, most: int
) -> None:
    top = int(np.iinfo(dtype).max)
    pixels = rng.integers(0, min(most, top) + 1, (3, 40, 30)).astype(dtype)
    for low, high in ((0.0, float(top)), (-300.5, 77.1), (most / 3, most / 2), (1e4, 1e4 + 3)):
        scan = PackedScan(pixels, (0, 0, 31, 29), ValueRange(low, high))
        low, high = float(np.float32(low)), float(np.float32(high))
        unit = np.clip((np.arange(top + 1, dtype=np.float64) - low) / (high - low), 0.0, 1.0)
        flat = pixels[:, :31, :29].reshape(3, -1)
        counts = [np.bincount(plane, minlength=top + 1) for plane in flat]
        first = [float((count * unit).sum()) for count in counts]
        second = [float((count * unit**2).sum()) for count in counts]
        np.testing.assert_array_equal(scan.sums.sums, [31 * 29, *first, *second])


def test_constant_scan_has_std_zero() -> None:
    scan = PackedScan(np.full((1, 4, 4), 100, np.uint8))
    assert together(scan).std == pytest.approx([0.0], abs=1e-7)


def scan(value: int, high: float) -> PackedScan:
    return PackedScan(np.full((1, 1, 1), value, np.uint8), value_range=ValueRange(0, high))


def hashed(*pairs: tuple[int, float], patients: tuple[int, ...] = (0, 0)) -> str:
    return together(*(scan(*pair) for pair in pairs)).content_hash(np.array(patients))


def test_hash_separates_what_belongs_to_which_scan() -> None:
    assert hashed((1, 255), (2, 255)) == hashed((1, 255), (2, 255))
    assert hashed((1, 255), (2, 255)) != hashed((2, 255), (1, 255))
    assert hashed((1, 255)) != hashed((1, 254))


def test_hash_follows_who_is_the_same_patient() -> None:
    one, other = (hashed((1, 255), (2, 255), patients=who) for who in ((0, 0), (0, 1)))
    assert one != other


def test_every_property_of_a_scan_is_in_its_digest() -> None:
    scan, mask = PackedScan(np.zeros((1, 3, 3), np.uint8)), np.ones((3, 3), np.bool_)
    digests = {
        scan.sums.digest,
        replace(scan, pixels=scan.pixels + np.uint8(1)).sums.digest,
        replace(scan, valid_box=(0, 0, 3, 2)).sums.digest,
        replace(scan, value_range=ValueRange(0.0, 254.0)).sums.digest,
        replace(scan, spacing_mm=Spacing(1.0, 1.0)).sums.digest,
        replace(scan, mask=mask).sums.digest,
        replace(scan, mask=~mask).sums.digest,
    }
    assert len(digests) == 7


def test_nothing_follows_how_scans_come_in_batches(rng: np.random.Generator) -> None:
    sums = rng.random((50, 3)) * 1e6
    digests = rng.bytes(50 * 32)
    whole, parts = (ArchiveSums(Layout((1, 8, 8), np.dtype(np.uint8))) for _ in range(2))
    whole.add(digests, sums)
    for start, stop in ((0, 7), (7, 8), (8, 50)):
        parts.add(digests[32 * start : 32 * stop], sums[start:stop])
    codes = np.arange(50)
    assert parts.content_hash(codes) == whole.content_hash(codes)
    assert (parts.mean, parts.std) == (whole.mean, whole.std)


def test_sums_travel_with_the_scan_and_what_is_open_is_as_if_it_were_said() -> None:
    scan = PackedScan(np.arange(12, dtype=np.uint8).reshape(1, 3, 4))
    assert "sums" not in vars(pickle.loads(pickle.dumps(scan)))
    sums = scan.sums
    assert vars(pickle.loads(pickle.dumps(scan)))["sums"].digest == sums.digest
    said = PackedScan(scan.pixels, (0, 0, 3, 4), ValueRange(0, 255), Spacing(np.nan, np.nan))
    assert said.sums.digest == sums.digest
