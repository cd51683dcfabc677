from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scanlearn.packing.fundus import Field, field_mask, find_field
from scanlearn.readers.readers import read_frames
from scanlearn.readers.scan import ReadSettings, Scan

Disc = tuple[float, float, float]


def photograph(
    rng: np.random.Generator, size: tuple[int, int], disc: Disc, *, bright: float = 150
) -> np.ndarray:
    """A noisy disc on noisy black, darker towards its rim, ``[3 h w]``."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    away = np.hypot(rows - disc[0], columns - disc[1]) / disc[2]
    light = np.where(away <= 1, bright * (1 - 0.4 * away**2), 4)
    colours = light * np.array([1, 0.5, 0.3])[:, None, None]
    return np.clip(colours + rng.normal(0, 2, (3, *size)), 0, 255).astype(np.uint8)


def check(field: Field | None, disc: Disc) -> None:
    assert field is not None
    assert np.abs(np.array([field.row, field.column, field.radius]) - disc).max() < 0.012 * disc[2]


@pytest.mark.parametrize(
    ("size", "disc"),
    [
        ((256, 256), (128, 128, 126)),
        ((300, 450), (150, 220, 140)),
        ((900, 1350), (450, 700, 430)),
        ((80, 80), (40, 42, 30)),
    ],
)
def test_whole_disc_is_found(rng: np.random.Generator, size: tuple[int, int], disc: Disc) -> None:
    field = find_field(photograph(rng, size, disc))
    check(field, disc)
    assert field is not None
    row, column, radius = disc
    expected = np.array([row - radius, column - radius, row + radius, column + radius])
    assert np.abs(np.array(field.box) - expected).max() <= 0.015 * max(size) + 1


def test_gray_and_sixteen_bits_are_found_alike(rng: np.random.Generator) -> None:
    pixels = photograph(rng, (256, 300), (128, 150, 110))[:1]
    check(find_field(pixels), (128, 150, 110))
    check(find_field(pixels.astype(np.uint16) * 257), (128, 150, 110))


def test_disc_cut_by_the_frame_is_cropped_to_the_frame(rng: np.random.Generator) -> None:
    disc = (120.0, 180.0, 150.0)
    field = find_field(photograph(rng, (240, 360), disc))
    check(field, disc)
    assert field is not None
    assert (field.box[0], field.box[2]) == (0, 240)
    assert abs(field.box[1] - 30) <= 3
    assert abs(field.box[3] - 330) <= 3


def test_disc_cut_inside_the_frame_is_cropped_to_its_light(rng: np.random.Generator) -> None:
    disc = (160.0, 160.0, 150.0)
    pixels = photograph(rng, (320, 320), disc)
    pixels[:, :50], pixels[:, 270:] = 3, 3
    field = find_field(pixels)
    check(field, disc)
    assert field is not None
    assert np.abs(np.array(field.box) - (50, 10, 270, 310)).max() <= 4


def test_dark_quarter_and_marks_beside_the_disc_do_not_move_it(rng: np.random.Generator) -> None:
    disc = (150.0, 150.0, 120.0)
    pixels = photograph(rng, (300, 300), disc)
    pixels[:, 150:, :150] //= 12
    pixels[:, 5:20, 200:290] = 230
    pixels[:, 60:80, 250:262] = 200
    check(find_field(pixels), disc)


def test_same_picture_has_the_same_field(rng: np.random.Generator) -> None:
    pixels = photograph(rng, (256, 256), (120, 130, 100))
    assert find_field(pixels) == find_field(pixels.copy())


@pytest.mark.parametrize("kind", ["black", "flat", "noise", "square", "ramp", "tiny", "whole"])
def test_picture_without_a_disc_has_no_field(rng: np.random.Generator, kind: str) -> None:
    pixels = np.zeros((1, 200, 240), np.uint8)
    if kind == "flat":
        pixels += 90
    elif kind == "noise":
        pixels = rng.integers(0, 256, pixels.shape).astype(np.uint8)
    elif kind == "square":
        pixels[:, 30:170, 50:190] = 160
    elif kind == "ramp":
        pixels[:] = np.linspace(0, 255, 240).astype(np.uint8)
    elif kind == "tiny":
        pixels = photograph(rng, (12, 12), (6, 6, 5))
    elif kind == "whole":
        pixels = photograph(rng, (200, 240), (100, 120, 400))
    assert find_field(pixels) is None


def test_mask_holds_the_pixels_whose_centre_is_in_the_field() -> None:
    field = Field(row=20, column=30, radius=15, box=(8, 15, 40, 44))
    part = (5.0, 10.0, 41.0, 46.0)
    mask = field_mask(field, part, (18, 24))
    for row in range(18):
        for column in range(24):
            y, x = 5 + (row + 0.5) * 2, 10 + (column + 0.5) * 1.5
            inside = np.hypot(y - 20, x - 30) <= 15 and 8 <= y < 40 and 15 <= x < 44
            assert mask[row, column] == inside


def decoded(path: Path) -> np.ndarray:
    (frame,) = read_frames(path, range(1), ReadSettings())
    assert isinstance(frame.scan, Scan)
    return frame.scan.pixels


def test_every_tenth_real_photograph_has_its_field(real_data: Path) -> None:
    paths = sorted((real_data / "hygd" / "images").glob("*.jpg"))[::10]
    assert len(paths) > 70
    for path in paths:
        field = find_field(decoded(path))
        assert field is not None, path.name
        # All are square crops around the disc.
        assert 121 < field.radius < 129, path.name
        assert abs(field.row - 128) < 5, path.name
        assert abs(field.column - 128) < 5, path.name


def test_chest_x_rays_have_no_field(real_data: Path) -> None:
    paths = sorted((real_data / "nih1000").rglob("*.jp*g"))[::20]
    assert len(paths) > 40
    assert [path.name for path in paths if find_field(decoded(path))] == []
