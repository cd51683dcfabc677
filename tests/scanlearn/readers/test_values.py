"""Outliers, padding and what a file says in text, each with the right value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from scanlearn.readers import values as of_values
from scanlearn.readers.readers import read_frames, read_header
from scanlearn.readers.scan import ReadSettings, Scan
from scanlearn.readers.values import (
    foreground_range,
    padding_in,
    percentile_range,
    stored_depth,
    value_counts,
)

MakeDicom = Callable[..., Path]


@pytest.fixture
def head() -> np.ndarray:
    """A smooth volume of 0 to 900, ``[24 20 8]``."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (24, 20, 8)), indexing="ij")
    return np.rint(900 * np.exp(-2 * (x**2 + y**2 + z**2)))


def shown(scan: Scan) -> np.ndarray:
    assert scan.value_range is not None
    low, high = scan.value_range
    return np.clip((scan.pixels.astype(float) - low) / (high - low), 0, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_percentiles_are_numpys_to_the_last_bit(rng: np.random.Generator, dtype: type) -> None:
    top = 2.0**16 if dtype == np.float32 else float(np.iinfo(dtype).max)
    for size in (2, 3, 7, 199, 200, 201, 1001, 4096):
        pixels = (rng.random((size, 3)) ** 4 * top).astype(dtype)
        pixels[0] = 0, top / 2, top - 1
        padding = rng.random(pixels.shape) < 0.3
        padding[0] = False
        for counted, given in ((pixels, None), (pixels[~padding], padding)):
            low, high = np.percentile(counted, (0.5, 99.5))
            assert percentile_range(pixels, given) == (low, high)
            inside = counted[counted > low + 0.05 * (high - low)]
            low, high = np.percentile(inside, (0.5, 99.5))
            assert foreground_range(pixels, given) == (low, high)
        assert percentile_range(pixels[::2].T) == tuple(np.percentile(pixels[::2], (0.5, 99.5)))


def test_percentiles_of_one_value_are_a_step_apart() -> None:
    assert percentile_range(np.full((4, 4), 7, np.uint16)) == (7.0, 8.0)
    assert percentile_range(np.full(1, 255, np.uint8)) == (255.0, 256.0)


def test_values_are_counted_in_pieces(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_values, "_VALUES_AT_ONCE", 7)
    for dtype in (np.uint8, np.uint16):
        values = rng.integers(0, 256, (5, 6)).astype(dtype)
        expected = np.bincount(values.reshape(-1), minlength=np.iinfo(dtype).max + 1)
        np.testing.assert_array_equal(value_counts(values), expected)


def pictures(path: Path, **chosen: Any) -> np.ndarray:
    """All pictures of a file, ``[n c h w]``, empty slices left out as pack does."""
    settings = ReadSettings(empty_below=0.01, **chosen)
    num_frames = read_header(path, settings).num_frames
    frames = read_frames(path, range(num_frames), settings)
    return np.stack([shown(frame.scan) for frame in frames if isinstance(frame.scan, Scan)])


def saved(path: Path, values: np.ndarray, slope: float | None = None) -> Path:
    if path.suffix == ".npy":
        np.save(path, values.transpose(2, 0, 1))
        return path
    if path.suffix == ".mgz":
        nibabel.save(nibabel.MGHImage(values, np.eye(4)), path)
    else:
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4), dtype=values.dtype), path)
    if slope is not None:
        content = bytearray(path.read_bytes())
        content[112:120] = np.array([slope, -3], "<f4").tobytes()
        path.write_bytes(content)
    return path


def assert_alike(found: np.ndarray, expected: np.ndarray, num_outliers: int) -> None:
    assert found.shape == expected.shape
    is_alike = np.abs(found - expected) < 0.02
    assert (~is_alike).sum() <= num_outliers
    assert np.corrcoef(found[is_alike], expected[is_alike])[0, 1] > 0.999
    assert len(np.unique(found)) > 0.9 * len(np.unique(expected))


@pytest.mark.parametrize("shows", ["file", "foreground"])
@pytest.mark.parametrize(
    ("name", "dtype", "slope", "outlier"),
    [
        ("a.nii", "float32", None, 1e10),
        ("a.nii", "float32", None, 1e7),
        ("a.nii", "float32", None, -1e30),
        ("a.nii", "float32", None, np.inf),
        ("a.nii", "float32", None, np.nan),
        ("a.nii", "float32", 0.5, 1e10),
        ("a.nii", "float32", -0.5, 1e10),
        ("a.nii", "float64", None, 1.7e308),
        ("a.nii", "int32", None, -(2**31)),
        ("a.nii", "int64", None, 2**62),
        ("a.nii", "uint32", None, 4_000_000_000),
        ("a.mgz", "float32", None, 1e10),
        ("a.mgz", "int32", None, -(2**31)),
        ("a.npy", "float64", None, 1e10),
        ("a.npy", "int32", None, -(2**31)),
    ],
)
@pytest.mark.parametrize("number", [1, 5])
def test_pictures_are_those_without_the_outlier(
    tmp_path: Path,
    head: np.ndarray,
    name: str,
    dtype: str,
    slope: float | None,
    outlier: float,
    shows: Any,
    number: int,
) -> None:
    good = head.astype(dtype)
    bad = good.copy()
    bad[12, 10, np.arange(number) % 8] = outlier
    (tmp_path / "good").mkdir()
    expected = pictures(saved(tmp_path / "good" / name, good, slope), shows=shows)
    found = pictures(saved(tmp_path / name, bad, slope), shows=shows)
    assert_alike(found, expected, number)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint32"])
def test_dicom_of_more_than_16_bits_is_not_black_beside_an_outlier(
    make_dicom: MakeDicom, head: np.ndarray, dtype: str
) -> None:
    good = head[:, :, 4].astype(dtype)
    bad = good.copy()
    bad[0, 0] = 4_000_000_000 if dtype == "uint32" else -(2**31)
    found, expected = (dicom_of(make_dicom, values) for values in (bad, good))
    assert_alike(found, expected, 1)


def dicom_of(make_dicom: MakeDicom, values: np.ndarray) -> np.ndarray:
    import pydicom

    path = make_dicom(values)
    if values.dtype.kind == "f":
        data = pydicom.dcmread(path)
        name = "FloatPixelData" if values.dtype.itemsize == 4 else "DoubleFloatPixelData"
        setattr(data, name, data.PixelData)
        del data.PixelData, data.BitsStored, data.HighBit, data.PixelRepresentation
        data.save_as(path)
    return pictures(path)


@pytest.mark.parametrize("share", [0.002, 0.01])
@pytest.mark.parametrize("bright", [30.0, 1e6])
def test_bright_signal_of_a_few_in_a_thousand_is_no_outlier(
    head: np.ndarray, rng: np.random.Generator, share: float, bright: float
) -> None:
    values = rng.normal(0, 1, (60, 50, 40)).astype(np.float32)
    is_vessel = rng.random(values.shape) < share
    values[is_vessel] = bright * rng.uniform(0.5, 1, values.shape)[is_vessel]
    stored = stored_depth(values)
    assert not stored.is_clipped
    measured = (stored.pixels - stored.offset) / stored.scale
    np.testing.assert_allclose(measured, values, atol=bright / 65535)


def test_hounsfield_units_of_a_window_stay_exact(tmp_path: Path, head: np.ndarray) -> None:
    values = (head - 1000).astype(np.float32)
    values[3, 3, 3], values[4, 4, 4] = 3071, 1e10
    values[5, 5, 5] = -1024
    path = saved(tmp_path / "a.nii", values)
    frames = list(read_frames(path, range(8), ReadSettings(shows="nothing")))
    for number, frame in enumerate(frames):
        scan = frame.scan
        assert isinstance(scan, Scan)
        assert scan.units is not None
        found = scan.units.slope * scan.pixels[0].astype(float) + scan.units.intercept
        expected = values[::-1, ::-1, number].T
        is_kept = expected < 1e9
        np.testing.assert_allclose(found[is_kept], expected[is_kept], atol=0.05)


@pytest.mark.parametrize("share", [0.02, 0.6])
@pytest.mark.parametrize(
    ("dtype", "fill"),
    [("int16", -32768), ("int32", -(2**31)), ("float32", -1e30), ("float32", 9.96921e36)],
)
def test_a_constant_far_from_all_others_is_padding_and_dark(
    tmp_path: Path,
    head: np.ndarray,
    rng: np.random.Generator,
    dtype: str,
    fill: float,
    share: float,
) -> None:
    values = (head - 100).astype(dtype)
    is_fill = rng.random(values.shape) < share
    values[is_fill] = fill
    low, high = np.percentile(head[~is_fill], (0.5, 99.5))
    expected = np.where(is_fill, 0, np.clip((head - low) / (high - low), 0, 1))
    found = pictures(saved(tmp_path / "a.nii", values))[:, 0]
    np.testing.assert_allclose(found, expected[::-1, ::-1].transpose(2, 1, 0), atol=2e-3)


@pytest.mark.parametrize(
    "values",
    [
        np.array([0, 900], np.int16).repeat(500),
        np.array([-1024, 0, 3071], np.int16).repeat(500),
        np.array([-32768, -32000, 32767], np.int16).repeat(500),
        np.array([0.0, 1.0]).repeat(500),
        np.array([0, *range(1000, 3000)], np.float32).repeat(9),
        np.array([0, 65535], np.uint16).repeat(500),
    ],
    ids=str,
)
def test_backgrounds_saturation_and_masks_are_no_padding(values: np.ndarray) -> None:
    assert padding_in(values) is None
    assert not stored_depth(values).is_clipped


def test_row_of_npz_loses_no_slice_to_one_voxel(tmp_path: Path, head: np.ndarray) -> None:
    good = head.transpose(2, 0, 1)[None].astype(np.uint16)
    bad = good.copy()
    bad[0, 3, 0, 0] = 65535
    found = []
    for name, images in (("good", good), ("bad", bad)):
        np.savez(tmp_path / f"{name}.npz", train_images=images, train_labels=np.zeros((1, 1), int))
        path = tmp_path / f"{name}.npz" / "train" / "0000000"
        found.append(
            [frame.number for frame in read_frames(path, range(8), ReadSettings(empty_below=0.01))]
        )
    assert found[0] == found[1] == list(range(1, 9))
