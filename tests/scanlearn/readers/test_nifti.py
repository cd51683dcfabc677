from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff

from scanlearn.readers.nifti import READER
from scanlearn.readers.scan import Frame, Header, Plane, ReadSettings, Scan, Undecodable

AXES: tuple[Plane, ...] = ("sagittal", "coronal", "axial")
REFUSED = {
    "analyze.hdr": "in another file",
    "nifti1.hdr": "in another file",
    "nifti2.hdr": "in another file",
    "row_major.dconn.nii": "no 3-D volume",
}


def read_header(path: Path, **chosen: Any) -> Header:
    return READER.header(path, ReadSettings(**chosen), b"")


def read_frames(path: Path, frames: range, **chosen: Any) -> Iterator[Frame]:
    return READER.frames(path, frames, ReadSettings(**chosen))


def scans_in(path: Path, axis: Plane = "axial", empty_below: float = 0.0) -> list[Scan]:
    frames = range(read_header(path, axis=axis).num_frames)
    found = read_frames(path, frames, axis=axis, empty_below=empty_below)
    return [frame.scan for frame in found if isinstance(frame.scan, Scan)]


def check_against_nibabel(path: Path, axis: Plane) -> int:
    """Compares every slice with nibabel's scaled, canonical volume; returns their number."""
    whole = nibabel.as_closest_canonical(nibabel.load(path)).get_fdata()
    volumes = whole.reshape(*whole.shape[:3], -1, order="F").transpose(3, 0, 1, 2)
    scans = scans_in(path, axis)
    along = AXES.index(axis)
    num_slices = volumes.shape[1 + along]
    assert len(scans) == len(volumes) * num_slices
    for number, scan in enumerate(scans):
        volume = volumes[number // num_slices]
        flat = np.take(volume, number % num_slices, axis=along)[::-1, ::-1].T
        finite = np.isfinite(volume)
        filled = np.where(finite, volume, volume[finite].min())
        low, high = np.percentile(filled, (0.5, 99.5))
        expected = np.clip((flat - low) / (high - low), 0, 1)
        assert scan.value_range is not None
        below, above = scan.value_range
        unit = np.clip((scan.pixels[0].astype(float) - below) / (above - below), 0, 1)
        np.testing.assert_allclose(unit, np.where(np.isfinite(flat), expected, 0), atol=1e-4)
    return len(scans)


@pytest.mark.parametrize("axis", AXES)
def test_every_real_file_agrees_with_nibabel_or_is_refused(real_data: Path, axis: Plane) -> None:
    paths = sorted((real_data / "readers" / "nifti").iterdir())
    assert len(paths) == 12
    refused = {}
    for path in paths:
        try:
            read_header(path, axis=axis)
            list(read_frames(path, range(1), axis=axis))
        except Undecodable as error:
            refused[path.name] = str(error)
            continue
        assert check_against_nibabel(path, axis) > 2
    assert refused.keys() == REFUSED.keys()
    assert all(REFUSED[name] in reason for name, reason in refused.items())


@pytest.fixture
def volume(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(-500, 3000, (6, 5, 4)).astype(np.int16)


def save(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    kind = nibabel.Nifti2Image if "2" in path.name else nibabel.Nifti1Image
    nibabel.save(kind(voxels, np.diag([2.0, 3.0, 4.0, 1.0]) if affine is None else affine), path)
    return path


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a2.nii", "a.hdr", "a.mgz"])
def test_slices_agree_with_nibabel(
    tmp_path: Path, volume: np.ndarray, axis: Plane, name: str
) -> None:
    if name == "a.mgz":
        nibabel.save(nibabel.MGHImage(volume, np.diag([2.0, 3.0, 4.0, 1.0])), tmp_path / name)
    else:
        save(tmp_path / name, volume)
    assert (
        check_against_nibabel(tmp_path / name, axis)
        == {6: 6, 5: 5, 4: 4}[volume.shape[AXES.index(axis)]]
    )


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SPL", "AIR"])
def test_slices_do_not_depend_on_how_voxels_are_ordered(
    tmp_path: Path, volume: np.ndarray, codes: str
) -> None:
    image = nibabel.Nifti1Image(volume, np.diag([2.0, 3.0, 4.0, 1.0]))
    turn = nibabel.orientations.ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    turned = nibabel.orientations.apply_orientation(volume, turn)
    affine = image.affine @ inv_ornt_aff(turn, volume.shape)
    straight = scans_in(save(tmp_path / "straight.nii", volume))
    found = scans_in(save(tmp_path / "turned.nii", turned, affine))
    assert len(found) == len(straight)
    for one, other in zip(found, straight, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        assert one.spacing_mm == other.spacing_mm == (3.0, 2.0)


def test_right_is_at_the_left_and_front_and_head_are_at_the_top(tmp_path: Path) -> None:
    voxels = np.zeros((6, 5, 4), np.uint8)
    voxels[5, 4, 3] = 9  # Right, front, head.
    path = save(tmp_path / "a.nii", voxels)
    assert scans_in(path)[3].pixels[0, 0, 0] == 9
    assert scans_in(path, "coronal")[4].pixels[0, 0, 0] == 9
    assert scans_in(path, "sagittal")[5].pixels[0, 0, 0] == 9
    assert scans_in(path, "sagittal")[5].spacing_mm == (4.0, 3.0)


def test_stored_bits_are_kept_whatever_the_scale(tmp_path: Path, volume: np.ndarray) -> None:
    image = nibabel.Nifti1Image(volume, np.eye(4))
    image.header.set_slope_inter(0.25, 10)
    image.dataobj[:] = volume
    nibabel.save(image, tmp_path / "a.nii")
    stored = nibabel.load(tmp_path / "a.nii").dataobj.get_unscaled()
    first = scans_in(tmp_path / "a.nii")[0].pixels[0]
    np.testing.assert_array_equal(first, stored[::-1, ::-1, 0].T.astype(np.int32) + 32768)
    assert check_against_nibabel(tmp_path / "a.nii", "axial") == 4


def test_negative_scale_turns_bright_and_dark(tmp_path: Path, volume: np.ndarray) -> None:
    path = save(tmp_path / "a.nii", volume)
    header = nibabel.load(path).header
    content = bytearray(path.read_bytes())
    header["scl_slope"], header["scl_inter"] = -2, 5
    content[:348] = header.binaryblock
    path.write_bytes(content)
    assert nibabel.load(path).get_fdata().min() < -5000
    assert check_against_nibabel(path, "axial") == 4


def test_four_dimensions_give_volume_after_volume(tmp_path: Path, rng: np.random.Generator) -> None:
    path = save(tmp_path / "a.nii.gz", rng.normal(size=(6, 5, 4, 3)).astype(np.float32))
    assert check_against_nibabel(path, "axial") == 12
    numbers = [frame.number for frame in read_frames(path, range(3, 9))]
    assert numbers == [4, 5, 6, 7, 8, 9]


def test_empty_slices_are_left_out_on_request(tmp_path: Path, rng: np.random.Generator) -> None:
    voxels = np.zeros((6, 5, 4), np.int16)
    voxels[:, :, 1:3] = rng.integers(500, 900, (6, 5, 2))
    voxels[0, 0, 0] = 900  # One voxel of 30.
    path = save(tmp_path / "a.nii", voxels)
    assert len(scans_in(path)) == 4
    assert len(scans_in(path, empty_below=0.01)) == 3
    assert len(scans_in(path, empty_below=0.05)) == 2
    numbers = [frame.number for frame in read_frames(path, range(4), empty_below=0.05)]
    assert numbers == [2, 3]


def test_volume_without_an_ending_is_read(tmp_path: Path, volume: np.ndarray) -> None:
    for name in ("a1.nii", "b2.nii"):
        path = save(tmp_path / name, volume)
        expected = scans_in(path)[1].pixels
        bare = path.rename(path.with_suffix(""))
        np.testing.assert_array_equal(scans_in(bare)[1].pixels, expected)


def test_what_makes_no_scan_is_refused(tmp_path: Path, volume: np.ndarray) -> None:
    whole = save(tmp_path / "a.nii", volume).read_bytes()
    huge = bytearray(whole)
    huge[40:56] = np.array([3, 30000, 30000, 30000, 1, 1, 1, 1], "<i2").tobytes()
    zipped = gzip.compress(whole)
    rgb = np.zeros((3, 3, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    flat = save(tmp_path / "flat.nii", np.zeros((4, 4), np.int16)).read_bytes()
    cases = {
        "empty.nii": (b"", "file is empty"),
        "text.nii": (b"no volume", "is not a readable volume"),
        "short.nii": (whole[:-20], "cut short or damaged"),
        "header.nii": (whole[:348], "cut short or damaged|is not a readable volume"),
        "short.nii.gz": (zipped[:-30], "cut short or damaged|is not a readable volume"),
        "huge.nii": (bytes(huge), "voxels"),
        "rgb.nii": (save(tmp_path / "c.nii", rgb).read_bytes(), "not grayscale"),
        "flat.nii": (flat, "no 3-D volume"),
    }
    for name, (content, reason) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Undecodable, match=reason) as caught:
            list(read_frames(tmp_path / name, range(read_header(tmp_path / name).num_frames)))
        assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("axis", AXES)
def test_neighbouring_slices_fill_the_channels_and_edges_repeat(
    tmp_path: Path, volume: np.ndarray, axis: Plane
) -> None:
    path = save(tmp_path / "a.nii", volume)
    alone = [scan.pixels[0] for scan in scans_in(path, axis)]
    number = len(alone)
    found = list(read_frames(path, range(number), axis=axis, neighbours=True))
    for place, frame in enumerate(found):
        assert isinstance(frame.scan, Scan)
        expected = [alone[max(place - 1, 0)], alone[place], alone[min(place + 1, number - 1)]]
        np.testing.assert_array_equal(frame.scan.pixels, np.stack(expected))
    # In pieces, as processes read them, slices find the same neighbours.
    (third,) = read_frames(path, range(2, 3), axis=axis, neighbours=True)
    assert isinstance(third.scan, Scan)
    assert isinstance(found[2].scan, Scan)
    np.testing.assert_array_equal(third.scan.pixels, found[2].scan.pixels)


@pytest.mark.parametrize("slope", [0.25, -2.0])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32])
def test_stored_values_measure_what_nibabel_says(
    tmp_path: Path, rng: np.random.Generator, dtype: type, slope: float
) -> None:
    voxels = rng.integers(0, 200, (6, 5, 4)).astype(dtype)
    path = save(tmp_path / "a.nii", voxels)
    header = nibabel.load(path).header
    header["scl_slope"], header["scl_inter"] = slope, 10
    content = bytearray(path.read_bytes())
    content[:348] = header.binaryblock
    path.write_bytes(content)
    whole = nibabel.load(path).get_fdata()
    for number, scan in enumerate(scans_in(path)):
        assert scan.units is not None
        assert scan.units.slope > 0
        measured = scan.units.slope * scan.pixels[0].astype(float) + scan.units.intercept
        np.testing.assert_allclose(measured, whole[::-1, ::-1, number].T, atol=0.01)


def test_foreground_of_a_volume_is_its_percentiles_above_the_background(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    voxels = np.abs(rng.normal(0, 3, (12, 11, 10)))
    voxels[3:9, 3:9, 2:8] += rng.uniform(300, 500, (6, 6, 6))
    path = save(tmp_path / "a.nii", voxels.astype(np.int16))
    inside = voxels.astype(np.int16)[voxels.astype(np.int16) > 150]
    for number, frame in enumerate(read_frames(path, range(10), shows="foreground")):
        assert isinstance(frame.scan, Scan)
        assert frame.scan.value_range == tuple(np.percentile(inside, (0.5, 99.5)))
        # Signed voxels are stored from their own zero.
        expected = voxels.astype(np.int16)[::-1, ::-1, number].T
        np.testing.assert_array_equal(frame.scan.pixels[0], expected)
        assert frame.notes == ()
