from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scanlearn.scans.archive import Archive, ArchiveWriter
from scanlearn.scans.picture import fitted, picture


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., Archive]:
    def one(pixels: np.ndarray, **of_scan: Any) -> Archive:
        with ArchiveWriter(tmp_path / "a", shape=pixels.shape, dtype=pixels.dtype) as writer:
            writer.add(pixels, scan_id="s", patient="p", **of_scan)
            return writer.close()

    return one


def test_value_range_becomes_black_to_white(pack: Callable[..., Archive]) -> None:
    ramp = np.array([[[900, 1000, 1500, 2000, 9000]]], np.uint16)
    shown = np.asarray(picture(pack(ramp, value_range=(1000, 2000)), 0))
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
