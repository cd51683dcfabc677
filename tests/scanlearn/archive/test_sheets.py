from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scanlearn.archive.layout import Origin, PackedScan, ValueRange
from scanlearn.archive.reader import Archive
from scanlearn.archive.sheets import contact_sheet, fitted, picture, sampled_rows
from scanlearn.archive.writer import ArchiveWriter


def drawn(path: Path, scans: np.ndarray, **of_scan: Any) -> np.ndarray:
    """The sheet of an archive, ``[h w]`` or ``[h w 3]``."""
    return np.asarray(Image.open(io.BytesIO(contact_sheet(write(path, scans, **of_scan)))))


def write(path: Path, scans: np.ndarray, **of_scan: Any) -> Archive:
    with ArchiveWriter(path, shape=scans.shape[1:], dtype=scans.dtype) as writer:
        for index, one in enumerate(scans):
            writer.add(PackedScan(one, **of_scan), Origin(f"s{index}", f"p{index}"))
        return writer.close()


@pytest.mark.parametrize(("number", "sample"), [(5, 64), (64, 64), (1000, 64), (1, 1)])
def test_rows_are_spread_evenly_one_from_each_part(number: int, sample: int) -> None:
    rows = sampled_rows(number, sample)
    size = min(number, sample)
    assert len(rows) == size
    for part, row in enumerate(rows.tolist()):
        assert part * number // size <= row < (part + 1) * number // size


def test_rows_follow_the_seed() -> None:
    assert np.array_equal(sampled_rows(1000, 64), sampled_rows(1000, 64))
    assert not np.array_equal(sampled_rows(1000, 64), sampled_rows(1000, 64, seed=1))


def test_same_archive_gives_the_same_bytes(tmp_path: Path, rng: np.random.Generator) -> None:
    archive = write(tmp_path / "a", rng.integers(0, 256, (70, 1, 16, 16)).astype(np.uint8))
    assert contact_sheet(archive) == contact_sheet(Archive(archive.path))


def test_value_range_is_applied_to_16_bits(tmp_path: Path) -> None:
    scans = np.full((1, 1, 16, 16), 30_000, np.uint16)
    sheet = drawn(tmp_path / "a", scans, value_range=ValueRange(29_000, 31_000))
    assert sheet.ndim == 2
    assert (sheet == 128).sum() >= 128 * 128


def test_padding_is_light_and_not_black(tmp_path: Path) -> None:
    sheet = drawn(tmp_path / "a", np.zeros((1, 1, 16, 16), np.uint8), valid_box=(0, 0, 8, 16))
    assert (sheet == 0).sum() >= 64 * 128
    assert (sheet == 214).sum() >= 64 * 128


def test_colour_stays_colour(tmp_path: Path) -> None:
    scans = np.zeros((1, 3, 16, 16), np.uint8)
    scans[:, 0] = 255
    sheet = drawn(tmp_path / "a", scans)
    assert (sheet == (255, 0, 0)).all(axis=2).sum() == 128 * 128


def test_at_most_64_scans_are_shown_in_their_order(tmp_path: Path) -> None:
    scans = np.arange(128, dtype=np.uint8).reshape(128, 1, 1, 1).repeat(8, 2).repeat(8, 3)
    sheet = drawn(tmp_path / "a", scans)
    height, width = sheet.shape
    cells = sheet[-14 - 64 :: -132, 14 + 64 : width - 14 : 132][::-1][-8:]
    assert cells.shape == (8, 8)
    assert np.array_equal(cells.ravel() // 2, np.arange(64))
    assert height < 8 * 132 + 100


def test_canvas_keeps_its_aspect_and_a_large_one_is_made_small(tmp_path: Path) -> None:
    sheet = drawn(tmp_path / "a", np.zeros((9, 1, 300, 600), np.uint8))
    assert (sheet == 0).sum() == 9 * 64 * 128


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., Archive]:
    def one(pixels: np.ndarray, **of_scan: Any) -> Archive:
        with ArchiveWriter(tmp_path / "a", shape=pixels.shape, dtype=pixels.dtype) as writer:
            writer.add(PackedScan(pixels, **of_scan), Origin("s", "p"))
            return writer.close()

    return one


def test_value_range_becomes_black_to_white(pack: Callable[..., Archive]) -> None:
    ramp = np.array([[[900, 1000, 1500, 2000, 9000]]], np.uint16)
    shown = np.asarray(picture(pack(ramp, value_range=ValueRange(1000, 2000)), 0))
    np.testing.assert_array_equal(shown, [[0, 0, 128, 255, 255]])


def test_what_lies_outside_the_box_is_cut_off_or_gray(pack: Callable[..., Archive]) -> None:
    archive = pack(np.full((1, 8, 8), 255, np.uint8), valid_box=(2, 0, 6, 8))
    assert picture(archive, 0).size == (8, 4)
    canvas = np.asarray(picture(archive, 0, padding=77))
    assert (canvas[2:6] == 255).all()
    assert (canvas[[0, 1, 6, 7]] == 77).all()


def test_three_channels_are_colours(pack: Callable[..., Archive]) -> None:
    pixels = np.zeros((3, 4, 4), np.uint8)
    pixels[1] = 200
    archive = pack(pixels, valid_box=(0, 0, 4, 2))
    shown = picture(archive, 0, padding=9)
    assert shown.mode == "RGB"
    assert shown.getpixel((0, 0)) == (0, 200, 0)
    assert shown.getpixel((3, 3)) == (9, 9, 9)


@pytest.mark.parametrize("size", [(200, 100), (10, 5), (1000, 1)])
def test_fitted_pictures_keep_their_aspect(size: tuple[int, int]) -> None:
    width, height = fitted(Image.new("L", size), 50).size
    assert width == 50
    assert height == max(1, round(50 * size[1] / size[0]))
