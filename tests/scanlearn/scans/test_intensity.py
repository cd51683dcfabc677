from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from PIL import Image

from scanlearn.core import Scan, Units
from scanlearn.scans.intensity import (
    Fit,
    fit,
    fit_to_canvas,
    foreground_range,
    from_zero,
    percentile_range,
    shrink_picture,
    stored_depth,
    to_gray,
    value_range,
)


def smooth(height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width] + 0.5
    wave = np.sin(3 * rows / height) * np.cos(4 * columns / width)
    return ((0.5 + 0.4 * wave) * np.iinfo(dtype).max).astype(dtype)[None]


def test_smaller_scan_keeps_its_pixels_and_is_padded_below_and_right() -> None:
    pixels = smooth(20, 30)
    canvas, box, _ = fit_to_canvas(Scan(pixels), (40, 32), 1)
    assert box == (0, 0, 20, 30)
    np.testing.assert_array_equal(canvas[:, :20, :30], pixels)
    assert not canvas[:, 20:].any()
    assert not canvas[:, :, 30:].any()


@pytest.mark.parametrize(
    ("size", "canvas", "box"),
    [
        ((320, 256), (64, 64), (0, 0, 64, 51)),
        ((256, 320), (64, 64), (0, 0, 51, 64)),
        ((100, 100), (64, 32), (0, 0, 32, 32)),
        ((4000, 2), (64, 64), (0, 0, 64, 1)),
    ],
)
def test_larger_scan_fills_the_canvas_with_its_aspect_kept(
    size: tuple[int, int], canvas: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    pixels, found, _ = fit_to_canvas(Scan(smooth(*size)), canvas, 1)
    assert pixels.shape == (1, *canvas)
    assert found == box


@pytest.mark.parametrize("how", ["pad", "crop"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(300, 200), (130, 500), (90, 40)])
def test_picture_shrunk_before_is_the_same_on_the_canvas(
    how: Fit, channels: Literal[1, 3], size: tuple[int, int], rng: np.random.Generator
) -> None:
    drawn = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    image = Image.fromarray(drawn if channels == 3 else drawn[..., 0])
    whole, small = (
        np.atleast_3d(np.asarray(picture)).transpose(2, 0, 1)
        for picture in (image, shrink_picture(image, (64, 48), how))
    )
    found, box, _ = fit_to_canvas(Scan(small), (64, 48), channels, how)
    expected, expected_box, _ = fit_to_canvas(Scan(whole), (64, 48), channels, how)
    assert box == expected_box
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_shrinking_keeps_the_mean_and_the_shape_of_a_smooth_scan(dtype: type) -> None:
    pixels, _, _ = fit_to_canvas(Scan(smooth(512, 512, dtype)), (64, 64), 1)
    assert pixels.dtype == dtype
    expected = smooth(64, 64, dtype).astype(float)
    assert np.abs(pixels - expected).max() < 0.01 * np.iinfo(dtype).max


def test_shrinking_is_antialiased() -> None:
    checker = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)[None]
    pixels, _, _ = fit_to_canvas(Scan(checker), (60, 60), 1)
    assert np.abs(pixels.astype(float) - 127.5).max() < 12


def test_sixteen_bit_does_not_overflow_at_sharp_edges() -> None:
    edge = np.zeros((1, 200, 200), np.uint16)
    edge[..., 100:] = 65535
    pixels, _, _ = fit_to_canvas(Scan(edge), (66, 66), 1)
    assert (np.diff(pixels[0, 0].astype(int)) >= -2000).all()
    assert pixels[0, 0, 0] == 0
    assert pixels[0, 0, -1] == 65535


def test_spacing_is_that_of_a_canvas_pixel() -> None:
    scan = Scan(smooth(200, 100), spacing_mm=(0.1, 0.2))
    _, box, spacing = fit_to_canvas(scan, (50, 50), 1)
    assert box == (0, 0, 50, 25)
    assert spacing == pytest.approx((0.4, 0.8))


def test_colour_becomes_luma_and_gray_is_repeated(rng: np.random.Generator) -> None:
    colour = rng.integers(0, 256, (3, 9, 8)).astype(np.uint8)
    luma = np.tensordot([0.299, 0.587, 0.114], colour.astype(float), axes=1)
    assert np.abs(to_gray(colour)[0] - luma).max() <= 1
    deep = colour.astype(np.uint16) * 257
    assert np.abs(to_gray(deep)[0] - 257 * luma).max() <= 1
    gray, _, _ = fit_to_canvas(Scan(colour[:1]), (9, 8), 3)
    np.testing.assert_array_equal(gray, np.repeat(colour[:1], 3, axis=0))


def test_colour_keeps_its_channels_apart_when_shrunk() -> None:
    colour = np.concatenate([smooth(90, 90), np.zeros((1, 90, 90), np.uint8), smooth(90, 90)])
    pixels, _, _ = fit_to_canvas(Scan(colour), (30, 30), 3)
    np.testing.assert_array_equal(pixels[0], pixels[2])
    assert not pixels[1].any()


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255.0), (np.uint16, 65535.0)])
def test_full_range_is_that_of_the_dtype(dtype: type, top: float) -> None:
    assert value_range(np.zeros((1, 3, 3), dtype), "full") == (0.0, top)


def test_percentiles_are_those_of_the_box_alone(rng: np.random.Generator) -> None:
    pixels = np.zeros((1, 50, 50), np.uint16)
    pixels[:, :40, :30] = rng.integers(1000, 3000, (40, 30))
    low, high = value_range(pixels, "percentile", (0, 0, 40, 30))
    assert (low, high) == pytest.approx(tuple(np.percentile(pixels[0, :40, :30], (0.5, 99.5))))


def test_constant_scan_has_a_range_that_can_be_divided_by() -> None:
    assert value_range(np.full((1, 4, 4), 9, np.uint8), "percentile") == (9.0, 10.0)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_up_to_sixteen_bits_are_stored_as_they_are(dtype: str) -> None:
    limits = np.iinfo(dtype)
    values = np.array([limits.min, 0, 1, limits.max], dtype)
    stored, scale, offset = stored_depth(values)
    assert stored.dtype.itemsize == values.dtype.itemsize
    assert stored.dtype.kind == "u"
    assert scale == 1
    np.testing.assert_array_equal(stored - offset, values.astype(float))


def test_more_bits_are_kept_where_the_values_fit_and_scaled_where_not() -> None:
    stored, scale, offset = stored_depth(np.array([0, 65535], np.int64))
    assert (stored.tolist(), scale, offset) == ([0, 65535], 1, 0)
    values = np.array([-3e9, 0.0, 7e9, np.nan, np.inf])
    stored, scale, offset = stored_depth(values)
    assert stored.tolist() == [0, 19660, 65535, 0, 0]
    np.testing.assert_allclose(values[:3] * scale + offset, [0, 19660.5, 65535])


def test_values_without_a_range_are_stored_as_zero() -> None:
    for values in (np.full(3, np.nan), np.full(3, 7.5), np.array([-1.7e308, 1.7e308])):
        stored, scale, offset = stored_depth(values)
        assert stored.tolist() == [0] * len(values)
        assert np.isfinite([scale, offset]).all()


def test_percentiles_of_one_value_are_a_step_apart() -> None:
    assert percentile_range(np.full((4, 4), 9)) == (9, 10)
    assert percentile_range(np.arange(201)) == (1, 199)


def bicubic(source: np.ndarray, start: float, stop: float, count: int) -> np.ndarray:
    """Rows of a resized part, one by one: a cubic kernel (a = -.5) as wide as the step."""
    step = (stop - start) / count
    rows = []
    for row in range(count):
        centre = start + (row + 0.5) * step
        total, weights = 0.0, 0.0
        for place in range(len(source)):
            x = abs(place + 0.5 - centre) / step
            weight = 0.0
            if x < 1:
                weight = 1.5 * x**3 - 2.5 * x**2 + 1
            elif x < 2:
                weight = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
            total, weights = total + weight * source[place], weights + weight
        rows.append(total / weights)
    return np.array(rows)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_crop_fills_the_canvas_with_the_middle_of_the_scan(dtype: type) -> None:
    scan = Scan(smooth(70, 112, dtype), spacing_mm=(0.5, 0.25))
    pixels, box, spacing = fit_to_canvas(scan, (30, 30), 1, "crop")
    assert box == (0, 0, 30, 30)
    # 112 columns would be 48 at this size; the middle 30 of them are 70 of the scan.
    assert spacing == pytest.approx((0.5 * 70 / 30, 0.25 * 70 / 30))
    tall = bicubic(scan.pixels[0].astype(float), 0, 70, 30)
    expected = bicubic(tall.T, 21, 91, 30).T
    assert np.abs(pixels[0] - expected).max() <= (1.5 if dtype == np.uint8 else 2)


def test_crop_keeps_what_is_smaller_than_the_canvas() -> None:
    wide = smooth(20, 75)
    pixels, box, _ = fit_to_canvas(Scan(wide), (40, 32), 1, "crop")
    assert box == (0, 0, 20, 32)
    np.testing.assert_array_equal(pixels[:, :20], wide[:, :, 21:53])
    assert not pixels[:, 20:].any()
    small = smooth(20, 30)
    cropped, padded = (fit_to_canvas(Scan(small), (40, 32), 1, how)[:2] for how in ("crop", "pad"))
    assert cropped[1] == padded[1] == (0, 0, 20, 30)
    np.testing.assert_array_equal(cropped[0], padded[0])


@pytest.mark.parametrize("size", [(64, 64), (128, 64), (65, 64), (63, 64), (199, 301), (64, 4000)])
def test_crop_never_enlarges_and_never_pads_a_large_scan(size: tuple[int, int]) -> None:
    fitting = fit(size, (32, 48), "crop")
    top, left, bottom, right = fitting.part
    assert (fitting.rows, fitting.columns) == (32, 48)
    assert 0 <= top < bottom <= size[0]
    assert 0 <= left < right <= size[1]
    assert bottom - top >= fitting.rows
    assert (bottom - top) / 32 == pytest.approx((right - left) / 48)
    assert (top + bottom) / 2 == pytest.approx(size[0] / 2, abs=0.5)
    assert (left + right) / 2 == pytest.approx(size[1] / 2, abs=0.5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_foreground_range_leaves_the_background_out(dtype: type, rng: np.random.Generator) -> None:
    scale = 1 if dtype == np.uint8 else 40
    air, muscle, fat = rng.rayleigh(2, 5000), rng.normal(25, 3, 2000), rng.normal(200, 9, 900)
    values = (np.concatenate([air, muscle, fat]) * scale).astype(dtype)
    darkest, brightest = np.percentile(values, (0.5, 99.5))
    inside = [value for value in values if (value - darkest) / (brightest - darkest) > 1 / 20]
    found = foreground_range(values)
    assert found == tuple(np.percentile(inside, (0.5, 99.5)))
    # Dark tissue is not black beside bright tissue.
    assert found[0] < 20 * scale


def test_foreground_of_one_value_is_white() -> None:
    assert foreground_range(np.full(9, 7, np.uint8)) == (7, 8)
    assert foreground_range(np.array([0, 0, 0, 255, 255], np.uint8)) == (0, 255)


@pytest.mark.parametrize("slope", [1.0, 2.5, -0.5])
def test_stored_zero_becomes_the_zero_of_what_is_measured(slope: float) -> None:
    magnitude = np.array([[[0, 1, 500, 1999]]], np.uint16)
    zero = 32768 if slope > 0 else 65000
    stored = (zero + np.sign(slope) * magnitude.astype(int)).astype(np.uint16)
    found, notes = from_zero(Scan(stored, units=Units(slope, -slope * zero)))
    np.testing.assert_array_equal(found.pixels, magnitude)
    assert found.units == Units(abs(slope), 0.0)
    assert notes == ()


def test_what_is_no_magnitude_keeps_its_stored_values() -> None:
    phase = Scan(np.arange(4096, dtype=np.uint16)[None, None], units=Units(1.0, -2048.0))
    found, notes = from_zero(phase)
    assert found is phase
    assert "values below zero" in notes[0]
    picture = Scan(phase.pixels)
    assert from_zero(picture) == (picture, ())


def test_magnitude_that_starts_far_from_zero_is_scaled_into_its_bits() -> None:
    stored = np.array([[[0, 30000, 65535]]], np.uint16)
    found, notes = from_zero(Scan(stored, units=Units(0.5, 4000.0)))
    assert notes == ()
    assert found.units is not None
    assert found.units.intercept == 0
    measured = found.units.slope * found.pixels.astype(float)
    np.testing.assert_allclose(measured, 0.5 * stored + 4000, atol=found.units.slope)
    assert found.pixels.max() == 65535
