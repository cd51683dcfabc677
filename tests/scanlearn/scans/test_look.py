from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scanlearn.scans.archive import Archive, ArchiveWriter
from scanlearn.scans.look import BINS, Twins, look

Box = tuple[int, int, int, int]


def write(
    path: Path,
    scans: np.ndarray,
    patients: list[str] | None = None,
    box: Box | None = None,
    value_range: tuple[float, float] | None = None,
    **settings: bool,
) -> Archive:
    with ArchiveWriter(path, shape=scans.shape[1:], dtype=scans.dtype, **settings) as writer:
        for index, one in enumerate(scans):
            writer.add(
                one, scan_id=f"s{index}", patient=(patients or ["p"] * len(scans))[index],
                valid_box=box, value_range=value_range, spacing_mm=(0.5, 0.25),
            )  # fmt: skip
        return writer.close()


def noise(rng: np.random.Generator, number: int) -> np.ndarray:
    return rng.integers(0, 256, (number, 1, 40, 48)).astype(np.uint8)


def test_boxes_ranges_and_spacing_are_those_of_every_scan(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    seen = look(write(tmp_path / "a", noise(rng, 5), box=(0, 0, 20, 48), value_range=(10, 90)))
    assert seen.sizes.tolist() == [[20, 48]] * 5
    assert seen.padded.tolist() == [0.5] * 5
    assert seen.value_range.tolist() == [[10, 90]] * 5
    assert seen.spacing_mm.tolist() == [[0.5, 0.25]] * 5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_intensities_are_unit_values_inside_the_box(tmp_path: Path, dtype: type) -> None:
    scans = np.zeros((2, 2, 8, 8), dtype)
    scans[:, 0, :4], scans[:, 1, :4] = 100, 149
    seen = look(write(tmp_path / "a", scans, box=(0, 0, 4, 8), value_range=(100, 150)))
    expected = np.zeros((2, BINS), np.int64)
    expected[0, 0] = expected[1, int(49 / 50 * BINS)] = 2 * 4 * 8
    np.testing.assert_array_equal(seen.histogram, expected)


def test_values_outside_the_range_count_at_the_ends(tmp_path: Path) -> None:
    scans = np.zeros((1, 1, 4, 4), np.uint8)
    scans[0, 0, 2:] = 200
    seen = look(write(tmp_path / "a", scans, value_range=(50, 150)))
    assert seen.histogram[0, [0, -1]].tolist() == [8, 8]


def test_equal_scans_are_found_and_whether_patients_share_them(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    scans = noise(rng, 7)
    scans[3], scans[5], scans[6] = scans[0], scans[0], scans[1]
    seen = look(write(tmp_path / "a", scans, ["a", "b", "c", "a", "d", "e", "b"]))
    assert seen.twins == Twins(groups=2, scans=5, shared=1)


def test_scans_that_differ_in_one_pixel_are_no_twins(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    scans = np.repeat(noise(rng, 1), 128, axis=0)
    scans.reshape(128, -1)[np.arange(128), np.arange(128) * 15] ^= 1
    assert look(write(tmp_path / "a", scans)).twins == Twins(groups=0, scans=0, shared=0)


def test_sharing_is_unknown_where_patients_are(tmp_path: Path, rng: np.random.Generator) -> None:
    scans = noise(rng, 1).repeat(2, axis=0)
    seen = look(write(tmp_path / "a", scans, patients_known=False))
    assert seen.twins == Twins(groups=1, scans=2, shared=None)


def test_histogram_of_some_is_spread_over_the_archive(tmp_path: Path) -> None:
    scans = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1).repeat(4, axis=3)
    archive = write(tmp_path / "a", scans, value_range=(0, 40))
    seen = look(archive, 10)
    assert seen.num_counted == 10
    assert len(seen.sizes) == 40
    rows = np.ceil(np.flatnonzero(seen.histogram[0]) * 40 / BINS)
    assert np.array_equal(rows // 4, np.arange(10))
    assert look(archive, 0).num_counted == look(archive, 1000).num_counted == 40
