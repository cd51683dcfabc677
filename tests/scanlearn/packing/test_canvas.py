from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.pixels import apply_rescale

from scanlearn.archive.reader import Archive
from scanlearn.packing.canvas import Fit, fit, fit_to_canvas, place, shrink_picture, to_gray
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings
from scanlearn.readers.readers import read_frames
from scanlearn.readers.scan import Scan, Units
from scanlearn.readers.values import (
    foreground_range,
    from_zero,
    percentile_range,
    stored_depth,
)

Packed = Callable[..., Archive]


def smooth(height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width] + 0.5
    wave = np.sin(3 * rows / height) * np.cos(4 * columns / width)
    return ((0.5 + 0.4 * wave) * np.iinfo(dtype).max).astype(dtype)[None]


def test_smaller_scan_keeps_its_pixels_and_is_padded_below_and_right() -> None:
    pixels = smooth(20, 30)
    packed = fit_to_canvas(Scan(pixels), (40, 32), 1)
    canvas = packed.pixels
    assert packed.valid_box == (0, 0, 20, 30)
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
    packed = fit_to_canvas(Scan(smooth(*size)), canvas, 1)
    assert packed.pixels.shape == (1, *canvas)
    assert packed.valid_box == box


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
    packed = fit_to_canvas(Scan(small), (64, 48), channels, how)
    expected = fit_to_canvas(Scan(whole), (64, 48), channels, how)
    assert packed.valid_box == expected.valid_box
    np.testing.assert_array_equal(packed.pixels, expected.pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_shrinking_keeps_the_mean_and_the_shape_of_a_smooth_scan(dtype: type) -> None:
    pixels = fit_to_canvas(Scan(smooth(512, 512, dtype)), (64, 64), 1).pixels
    assert pixels.dtype == dtype
    expected = smooth(64, 64, dtype).astype(float)
    assert np.abs(pixels - expected).max() < 0.01 * np.iinfo(dtype).max


def test_shrinking_is_antialiased() -> None:
    checker = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)[None]
    pixels = fit_to_canvas(Scan(checker), (60, 60), 1).pixels
    assert np.abs(pixels.astype(float) - 127.5).max() < 12


def test_sixteen_bit_does_not_overflow_at_sharp_edges() -> None:
    edge = np.zeros((1, 200, 200), np.uint16)
    edge[..., 100:] = 65535
    pixels = fit_to_canvas(Scan(edge), (66, 66), 1).pixels
    assert (np.diff(pixels[0, 0].astype(int)) >= -2000).all()
    assert pixels[0, 0, 0] == 0
    assert pixels[0, 0, -1] == 65535


def test_spacing_is_that_of_a_canvas_pixel() -> None:
    scan = Scan(smooth(200, 100), spacing_mm=(0.1, 0.2))
    packed = fit_to_canvas(scan, (50, 50), 1)
    assert packed.valid_box == (0, 0, 50, 25)
    assert packed.spacing_mm == pytest.approx((0.4, 0.8))


def test_colour_becomes_luma_and_gray_is_repeated(rng: np.random.Generator) -> None:
    colour = rng.integers(0, 256, (3, 9, 8)).astype(np.uint8)
    luma = np.tensordot([0.299, 0.587, 0.114], colour.astype(float), axes=1)
    assert np.abs(to_gray(colour)[0] - luma).max() <= 1
    deep = colour.astype(np.uint16) * 257
    assert np.abs(to_gray(deep)[0] - 257 * luma).max() <= 1
    gray = fit_to_canvas(Scan(colour[:1]), (9, 8), 3).pixels
    np.testing.assert_array_equal(gray, np.repeat(colour[:1], 3, axis=0))


def test_colour_keeps_its_channels_apart_when_shrunk() -> None:
    colour = np.concatenate([smooth(90, 90), np.zeros((1, 90, 90), np.uint8), smooth(90, 90)])
    pixels = fit_to_canvas(Scan(colour), (30, 30), 3).pixels
    np.testing.assert_array_equal(pixels[0], pixels[2])
    assert not pixels[1].any()


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255.0), (np.uint16, 65535.0)])
def test_full_range_is_that_of_the_dtype(dtype: type, top: float) -> None:
    scan = Scan(np.zeros((1, 3, 3), dtype))
    packed, _ = place(scan, (3, 3), 1, PackSettings(intensity="full").preprocess())
    assert packed.value_range == (0.0, top)


def test_percentiles_are_those_of_what_is_not_padding(rng: np.random.Generator) -> None:
    pixels, padding = np.zeros((50, 50), np.uint16), np.ones((50, 50), np.bool_)
    pixels[:40, :30] = rng.integers(1000, 3000, (40, 30))
    padding[:40, :30] = False
    low, high = percentile_range(pixels, padding)
    assert (low, high) == pytest.approx(tuple(np.percentile(pixels[:40, :30], (0.5, 99.5))))


def test_constant_scan_has_a_range_that_can_be_divided_by() -> None:
    assert percentile_range(np.full((1, 4, 4), 9, np.uint8)) == (9.0, 10.0)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_up_to_sixteen_bits_are_stored_as_they_are(dtype: str) -> None:
    limits = np.iinfo(dtype)
    values = np.array([limits.min, 0, 1, limits.max], dtype)
    stored, scale, offset, _ = stored_depth(values)
    assert stored.dtype.itemsize == values.dtype.itemsize
    assert stored.dtype.kind == "u"
    assert scale == 1
    np.testing.assert_array_equal(stored - offset, values.astype(float))


def test_more_bits_are_kept_where_the_values_fit_and_scaled_where_not() -> None:
    stored, scale, offset, _ = stored_depth(np.array([0, 65535], np.int64))
    assert (stored.tolist(), scale, offset) == ([0, 65535], 1, 0)
    values = np.array([-3e9, 0.0, 7e9, np.nan, np.inf])
    stored, scale, offset, _ = stored_depth(values)
    assert stored.tolist() == [0, 19660, 65535, 0, 0]
    np.testing.assert_allclose(values[:3] * scale + offset, [0, 19660.5, 65535])


def test_values_without_a_range_are_stored_as_zero() -> None:
    for values in (np.full(3, np.nan), np.full(3, 7.5), np.array([-1.7e308, 1.7e308])):
        stored, scale, offset, _ = stored_depth(values)
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
        for pixel in range(len(source)):
            x = abs(pixel + 0.5 - centre) / step
            weight = 0.0
            if x < 1:
                weight = 1.5 * x**3 - 2.5 * x**2 + 1
            elif x < 2:
                weight = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
            total, weights = total + weight * source[pixel], weights + weight
        rows.append(total / weights)
    return np.array(rows)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_crop_fills_the_canvas_with_the_middle_of_the_scan(dtype: type) -> None:
    scan = Scan(smooth(70, 112, dtype), spacing_mm=(0.5, 0.25))
    packed = fit_to_canvas(scan, (30, 30), 1, "crop")
    assert packed.valid_box == (0, 0, 30, 30)
    # 112 columns would be 48 at this size; the middle 30 of them are 70 of the scan.
    assert packed.spacing_mm == pytest.approx((0.5 * 70 / 30, 0.25 * 70 / 30))
    tall = bicubic(scan.pixels[0].astype(float), 0, 70, 30)
    expected = bicubic(tall.T, 21, 91, 30).T
    assert np.abs(packed.pixels[0] - expected).max() <= (1.5 if dtype == np.uint8 else 2)


def test_crop_keeps_what_is_smaller_than_the_canvas() -> None:
    wide = smooth(20, 75)
    packed = fit_to_canvas(Scan(wide), (40, 32), 1, "crop")
    pixels = packed.pixels
    assert packed.valid_box == (0, 0, 20, 32)
    np.testing.assert_array_equal(pixels[:, :20], wide[:, :, 21:53])
    assert not pixels[:, 20:].any()
    small = smooth(20, 30)
    cropped, padded = (fit_to_canvas(Scan(small), (40, 32), 1, how) for how in ("crop", "pad"))
    assert cropped.valid_box == padded.valid_box == (0, 0, 20, 30)
    np.testing.assert_array_equal(cropped.pixels, padded.pixels)


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


MakeDicom = Callable[..., Path]
CT = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024}


@pytest.fixture
def packed(tmp_path: Path) -> Callable[..., Archive]:
    """A function that packs the folder ``scans`` onto 32 pixels a side."""

    def make(**settings: Any) -> Archive:
        given = PackSettings(canvas=32, workers=1, summary=False, **settings)
        return pack(tmp_path / "scans", tmp_path / "packed", settings=given)

    return make


def scans_of(archive: Archive) -> tuple[np.ndarray, np.ndarray]:
    """Stored values ``[n c h w]`` and value ranges ``[n 2]``."""
    batch = archive.gather(np.arange(len(archive)))
    return batch.pixels.numpy(), batch.value_range.numpy()


def save_volume(path: Path, voxels: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)


def test_one_window_keeps_all_hounsfield_units_of_dicom(
    make_dicom: MakeDicom, packed: Packed, rng: np.random.Generator
) -> None:
    values = rng.integers(0, 4000, (32, 32)).astype(np.uint16)
    # The window in the file is not the one that was asked for.
    make_dicom(values, "scans/a.dcm", **CT, WindowCenter=40, WindowWidth=80)
    signed = (values.astype(np.int32) - 1024).astype(np.int16)
    make_dicom(signed, "scans/b.dcm", **(CT | {"RescaleIntercept": 0, "RescaleType": "HU"}))
    archive = packed(window="lung")
    pixels, ranges = scans_of(archive)
    for row in range(32):
        for column in range(32):
            hounsfield = int(values[row, column]) - 1024
            assert pixels[0, 0, row, column] == hounsfield + 32768
    np.testing.assert_array_equal(pixels[0], pixels[1])
    assert ranges.tolist() == [[-1350 + 32768, 150 + 32768]] * 2
    said = archive.info["pixels"]
    assert (said["unit"], said["scale"], said["offset"]) == ("HU", 1, -32768)
    measured = said["scale"] * pixels[0, 0].astype(float) + said["offset"]
    np.testing.assert_array_equal(measured, values.astype(float) - 1024)


def test_three_windows_fill_three_channels(
    make_dicom: MakeDicom, packed: Packed, rng: np.random.Generator
) -> None:
    values = rng.integers(0, 4000, (32, 20)).astype(np.uint16)
    make_dicom(values, "scans/a.dcm", **CT)
    archive = packed(window=("lung", "mediastinum", (80.0, 40.0)))
    pixels, ranges = scans_of(archive)
    assert (archive.shape, archive.dtype) == ((3, 32, 32), np.uint8)
    assert ranges.tolist() == [[0, 255]]
    assert archive.info["pixels"]["unit"] is None
    assert not pixels[..., 20:].any()
    for channel, (width, level) in enumerate(((1500, -600), (350, 50), (80, 40))):
        for (row, column), value in np.ndenumerate(values):
            unit = (int(value) - 1024 - (level - width / 2)) / width
            expected = 255 * min(max(unit, 0), 1)
            assert abs(int(pixels[0, channel, row, column]) - expected) <= 0.501


def test_window_refuses_what_is_no_ct(
    make_dicom: MakeDicom, packed: Packed, tmp_path: Path
) -> None:
    values = np.arange(256, dtype=np.uint16).reshape(16, 16)
    make_dicom(values, "scans/ct.dcm", **CT)
    make_dicom(values, "scans/mr.dcm", Modality="MR")
    make_dicom(values, "scans/density.dcm", **CT, RescaleType="ED")
    make_dicom(values, "scans/raw.dcm", Modality="CT")
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "scans" / "picture.png")
    archive = packed(window="brain")
    assert len(archive) == 1
    reasons = (archive.path / "rejected.csv").read_text()
    assert reasons.count("holds CT values, not Hounsfield units") == 2
    assert reasons.count("holds MR values, not Hounsfield units") == 1
    assert reasons.count("has no Hounsfield units") == 1


def test_windows_are_laid_on_volumes_with_a_note(
    packed: Packed, tmp_path: Path, rng: np.random.Generator
) -> None:
    voxels = rng.integers(-1024, 2000, (12, 10, 3)).astype(np.int16)
    save_volume(tmp_path / "scans" / "a.nii", voxels)
    archive = packed(window="abdomen")
    pixels, ranges = scans_of(archive)
    for number in range(3):
        for x in range(12):
            for y in range(10):
                stored = int(pixels[number, 0, 9 - y, 11 - x])
                assert stored - 32768 == voxels[x, y, number]
    assert ranges.tolist() == [[-150 + 32768, 250 + 32768]] * 3
    assert archive.info["notes"] == {"volume without a unit, taken as Hounsfield units": 3}


def test_one_window_and_neighbours_go_together(
    packed: Packed, tmp_path: Path, rng: np.random.Generator
) -> None:
    voxels = rng.integers(-1024, 2000, (12, 10, 4)).astype(np.int16)
    save_volume(tmp_path / "scans" / "a.nii", voxels)
    pixels, _ = scans_of(packed(window="lung", neighbours=True))
    assert pixels.shape == (4, 3, 32, 32)
    for number in range(4):
        for channel, neighbour in enumerate((number - 1, number, number + 1)):
            flat = voxels[::-1, ::-1, min(max(neighbour, 0), 3)].T.astype(int)
            np.testing.assert_array_equal(pixels[number, channel, :10, :12], flat + 32768)


def test_neighbours_are_refused_where_there_is_no_volume(
    packed: Packed, tmp_path: Path, rng: np.random.Generator
) -> None:
    save_volume(tmp_path / "scans" / "a.nii", rng.integers(0, 9, (8, 8, 2)).astype(np.uint8))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "scans" / "b.png")
    archive = packed(neighbours=True, empty_below=0)
    assert archive.shape == (3, 32, 32)
    assert len(archive) == 2
    assert "is not a volume (" in (archive.path / "rejected.csv").read_text()


def magnitude(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A bright square in faint noise on 32 x 32, and where the square is."""
    values = rng.rayleigh(6, (32, 32))
    inside = np.zeros((32, 32), bool)
    inside[8:24, 10:26] = True
    return np.where(inside, rng.uniform(400, 900, (32, 32)), values).astype(np.int16), inside


def test_foreground_of_dicom_is_counted_from_the_zero_of_the_magnitude(
    make_dicom: MakeDicom, packed: Packed, rng: np.random.Generator
) -> None:
    values, inside = magnitude(rng)
    make_dicom(values, "scans/a.dcm", Modality="MR", WindowCenter=300, WindowWidth=50)
    make_dicom(values.astype(np.uint16), "scans/b.dcm", Modality="MR", RescaleSlope=2)
    pixels, ranges = scans_of(packed(intensity="foreground"))
    expected = np.percentile(values[inside], (0.5, 99.5))
    for scan, shown in zip(pixels, ranges, strict=True):
        np.testing.assert_array_equal(scan[0], values)
        np.testing.assert_allclose(shown, expected, rtol=1e-6)


def test_padding_and_background_are_black_under_foreground(
    make_dicom: MakeDicom, packed: Packed, rng: np.random.Generator
) -> None:
    values, inside = magnitude(rng)
    make_dicom(values[:, :28], "scans/a.dcm", Modality="MR")
    pixels, ranges = scans_of(packed(intensity="foreground"))
    assert not pixels[..., 28:].any()
    low, _ = ranges[0]
    assert (pixels[0, 0, :, :28][~inside[:, :28]] < low).all()


def test_picture_is_cropped_to_its_field_and_keeps_the_mask(packed: Packed, tmp_path: Path) -> None:
    rows, columns = np.mgrid[:120, :160] + 0.5
    disc = np.hypot(rows - 60, columns - 84) <= 48
    Path(tmp_path / "scans").mkdir()
    Image.fromarray(np.where(disc, 140, 2).astype(np.uint8)).save(tmp_path / "scans" / "a.png")
    Image.fromarray(np.full((120, 160), 90, np.uint8)).save(tmp_path / "scans" / "b.png")
    archive = packed(field_of_view="fundus")
    assert archive.info["has_mask"]
    assert archive.info["notes"] == {"no lit disc found, kept whole": 1}
    batch = archive.gather(np.arange(2))
    assert batch.mask is not None
    assert batch.valid_box.tolist() == [[0, 0, 32, 32], [0, 0, 24, 32]]
    wrong = 0
    for row in range(32):
        for column in range(32):
            away = np.hypot(row - 15.5, column - 15.5)
            wrong += abs(away - 16) > 0.7 and bool(batch.mask[0, row, column]) != (away < 16)
    assert wrong == 0
    assert batch.mask[1].numpy().sum() == 24 * 32
    assert (batch.pixels[0, 0].numpy()[batch.mask[0].numpy()] > 60).mean() > 0.97


def test_field_is_masked_where_a_crop_shows_it() -> None:
    rows, columns = np.mgrid[:100, :200] + 0.5
    disc = np.hypot(rows - 50, columns - 100) <= 80
    scan = Scan(np.where(disc, 140, 2).astype(np.uint8)[None])
    preprocess = PackSettings(field_of_view="fundus", fit="crop").preprocess()
    placed, _ = place(scan, (50, 50), 1, preprocess)
    assert placed.valid_box == (0, 0, 50, 50)
    assert placed.mask is not None
    # The middle square of the disc's strip lies in the disc whole.
    assert placed.mask.all()
    assert (placed.pixels == 140).all()


def test_default_preprocessing_leaves_values_alone(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (3, 20, 24)).astype(np.uint8)
    placed, notes = place(Scan(pixels), (32, 32), 3, PackSettings().preprocess())
    np.testing.assert_array_equal(placed.pixels[:, :20, :24], pixels)
    assert (placed.value_range, placed.mask, notes) == ((0, 255), None, ())


def test_real_ct_is_in_the_units_that_pydicom_computes(real_data: Path) -> None:
    settings = PackSettings(window="lung")
    preprocess, reading = settings.preprocess(), settings.reading()
    seen = 0
    for path in sorted((real_data / "readers" / "dicom").iterdir()):
        data = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        is_plain = "RescaleIntercept" in data and int(data.get("NumberOfFrames") or 1) == 1
        if data.get("Modality") != "CT" or not is_plain or path.name == "badVR.dcm":
            continue
        try:
            (frame,) = read_frames(path, range(1), reading)
        except ValueError:
            continue
        assert isinstance(frame.scan, Scan)
        size = frame.scan.pixels.shape[1:]
        placed, _ = place(frame.scan, size, 1, preprocess)
        whole = pydicom.dcmread(path, force=True)
        expected = apply_rescale(whole.pixel_array, whole).clip(-32768, 32767)
        np.testing.assert_allclose(placed.pixels[0].astype(float) - 32768, expected, atol=0.5)
        seen += 1
    assert seen > 10
