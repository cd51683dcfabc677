from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.pixels import apply_rescale

from scanlearn.core import Scan
from scanlearn.scans.archive import Archive
from scanlearn.scans.files import read_frames
from scanlearn.scans.pack import pack
from scanlearn.scans.placing import place
from scanlearn.scans.settings import PackSettings

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
    make_dicom: MakeDicom, packed: Callable[..., Archive], rng: np.random.Generator
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
    make_dicom: MakeDicom, packed: Callable[..., Archive], rng: np.random.Generator
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
    make_dicom: MakeDicom, packed: Callable[..., Archive], tmp_path: Path
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
    assert reasons.count("holds CT values, no Hounsfield units") == 2
    assert reasons.count("holds MR values, no Hounsfield units") == 1
    assert reasons.count("has no Hounsfield units") == 1


def test_windows_are_laid_on_volumes_with_a_note(
    packed: Callable[..., Archive], tmp_path: Path, rng: np.random.Generator
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
    assert archive.info["notes"] == {"a volume that names no unit taken for Hounsfield units": 3}


def test_one_window_and_neighbours_go_together(
    packed: Callable[..., Archive], tmp_path: Path, rng: np.random.Generator
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
    packed: Callable[..., Archive], tmp_path: Path, rng: np.random.Generator
) -> None:
    save_volume(tmp_path / "scans" / "a.nii", rng.integers(0, 9, (8, 8, 2)).astype(np.uint8))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "scans" / "b.png")
    archive = packed(neighbours=True, empty_below=0)
    assert archive.shape == (3, 32, 32)
    assert len(archive) == 2
    assert "is no NIfTI volume" in (archive.path / "rejected.csv").read_text()


def magnitude(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A bright square in faint noise on 32 x 32, and where the square is."""
    values = rng.rayleigh(6, (32, 32))
    inside = np.zeros((32, 32), bool)
    inside[8:24, 10:26] = True
    return np.where(inside, rng.uniform(400, 900, (32, 32)), values).astype(np.int16), inside


def test_foreground_of_dicom_is_counted_from_the_zero_of_the_magnitude(
    make_dicom: MakeDicom, packed: Callable[..., Archive], rng: np.random.Generator
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
    make_dicom: MakeDicom, packed: Callable[..., Archive], rng: np.random.Generator
) -> None:
    values, inside = magnitude(rng)
    make_dicom(values[:, :28], "scans/a.dcm", Modality="MR")
    pixels, ranges = scans_of(packed(intensity="foreground"))
    assert not pixels[..., 28:].any()
    low, _ = ranges[0]
    assert (pixels[0, 0, :, :28][~inside[:, :28]] < low).all()


def test_picture_is_cropped_to_its_field_and_keeps_the_mask(
    packed: Callable[..., Archive], tmp_path: Path
) -> None:
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


def test_field_is_masked_where_a_crop_shows_it(rng: np.random.Generator) -> None:
    rows, columns = np.mgrid[:100, :200] + 0.5
    disc = np.hypot(rows - 50, columns - 100) <= 80
    scan = Scan(np.where(disc, 140, 2).astype(np.uint8)[None])
    treatment = PackSettings(field_of_view="fundus", fit="crop").treatment()
    placed = place(scan, (50, 50), 1, treatment)
    assert placed.valid_box == (0, 0, 50, 50)
    assert placed.mask is not None
    # The middle square of the disc's strip lies in the disc whole.
    assert placed.mask.all()
    assert (placed.pixels == 140).all()


def test_default_treatment_leaves_values_alone(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (3, 20, 24)).astype(np.uint8)
    placed = place(Scan(pixels), (32, 32), 3, PackSettings().treatment())
    np.testing.assert_array_equal(placed.pixels[:, :20, :24], pixels)
    assert (placed.value_range, placed.mask, placed.notes) == ((0, 255), None, ())


def test_real_ct_is_in_the_units_that_pydicom_computes(real_data: Path) -> None:
    settings = PackSettings(window="lung")
    treatment, reading = settings.treatment(), settings.reading()
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
        placed = place(frame.scan, size, 1, treatment)
        whole = pydicom.dcmread(path, force=True)
        expected = apply_rescale(whole.pixel_array, whole).clip(-32768, 32767)
        np.testing.assert_allclose(placed.pixels[0].astype(float) - 32768, expected, atol=0.5)
        seen += 1
    assert seen > 10
