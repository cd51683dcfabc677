from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scanlearn.audit.audit import audit
from scanlearn.errors import ScanlearnError
from scanlearn.packing.dry_run import tabulate
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings
from scanlearn.readers import nifti, numpy_arrays
from scanlearn.readers.readers import is_scan, read_frames, read_header
from scanlearn.readers.scan import Frame, ReadSettings, Scan, Undecodable


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array, allow_pickle=False)
    return path


def frames_in(path: Path, **chosen: Any) -> list[Frame]:
    num_frames = read_header(path, ReadSettings()).num_frames
    return list(read_frames(path, range(num_frames), ReadSettings(**chosen)))


def scans_in(path: Path, **chosen: Any) -> list[Scan]:
    scans = [frame.scan for frame in frames_in(path, **chosen)]
    return [scan for scan in scans if isinstance(scan, Scan)]


@pytest.mark.parametrize(
    ("shape", "stacked"),
    [
        ((6, 7), lambda x: x[None, None]),
        ((6, 7, 1), lambda x: x.transpose(2, 0, 1)[None]),
        ((6, 7, 3), lambda x: x.transpose(2, 0, 1)[None]),
        ((1, 6, 7), lambda x: x[None]),
        ((3, 6, 7), lambda x: x[None]),
        ((2, 6, 7), lambda x: x[:, None]),
        ((9, 6, 7), lambda x: x[:, None]),
        ((5, 6, 7, 3), lambda x: x.transpose(0, 3, 1, 2)),
        ((5, 1, 6, 7), lambda x: x),
    ],
)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2"])
def test_every_shape_gives_its_pixels(
    tmp_path: Path,
    rng: np.random.Generator,
    shape: tuple[int, ...],
    stacked: Callable[[np.ndarray], np.ndarray],
    order: Any,
    dtype: Any,
) -> None:
    array = rng.integers(0, 256, shape).astype(dtype)
    path = saved(tmp_path / "a.npy", np.asarray(array, order=order))
    expected = stacked(array)
    header = read_header(path, ReadSettings())
    assert (header.num_frames, header.size) == (len(expected), expected.shape[2:])
    assert header.is_colour == (expected.shape[1] == 3)
    assert header.is_deep == (dtype != np.uint8)
    assert header.kind == "NumPy array"
    pixels = np.stack([scan.pixels for scan in scans_in(path)])
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(30, 20), (4, 30, 20), (4, 1, 30, 20)])
def test_stored_values_measure_what_the_array_holds(
    tmp_path: Path, rng: np.random.Generator, dtype: Any, shape: tuple[int, ...]
) -> None:
    array = rng.integers(-120, 120, shape).astype(dtype)
    scans = scans_in(saved(tmp_path / "a.npy", array))
    whole = array.reshape(-1, 30, 20).astype(float)
    assert len(scans) == len(whole)
    for scan, values in zip(scans, whole, strict=True):
        assert scan.units is not None
        assert scan.value_range is not None
        measured = scan.units.slope * scan.pixels[0].astype(float) + scan.units.intercept
        np.testing.assert_allclose(measured, values, atol=0.01)
        # The slices of a volume have one range, each picture of a stack has its own.
        of = whole if len(shape) == 3 else values
        low, high = (scan.units.slope * edge + scan.units.intercept for edge in scan.value_range)
        np.testing.assert_allclose((low, high), np.percentile(of, (0.5, 99.5)), atol=0.02)


def test_pictures_of_8_bits_and_colour_keep_the_range_of_their_type(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    gray, colour = rng.integers(0, 99, (6, 7), np.uint8), rng.integers(0, 99, (6, 7, 3), np.uint16)
    for array in (gray, colour):
        (scan,) = scans_in(saved(tmp_path / "a.npy", array))
        assert scan.value_range is None
        assert scan.units is None


def test_volume_is_cut_as_one_of_nifti(tmp_path: Path, rng: np.random.Generator) -> None:
    import nibabel

    # Left-right and foot-head as NIfTI has them, turned as a slice is shown.
    slices = rng.integers(-500, 900, (6, 8, 10)).astype(np.int16)
    slices[4:] = -500
    voxels = slices[:, ::-1, ::-1].transpose(2, 1, 0)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "v.nii")
    path = saved(tmp_path / "v.npy", slices)
    for chosen in ({"neighbours": True}, {"empty_below": 0.01}, {"shows": "foreground"}):
        settings = ReadSettings(**chosen)  # type: ignore[arg-type]
        as_array = list(read_frames(path, range(6), settings))
        as_nifti = list(nifti.READER.frames(tmp_path / "v.nii", range(6), settings))
        assert len(as_array) == (4 if "empty_below" in chosen else 6)
        for found, expected in zip(as_array, as_nifti, strict=True):
            assert isinstance(found.scan, Scan)
            assert isinstance(expected.scan, Scan)
            assert (found.number, found.notes) == (expected.number, expected.notes)
            assert found.scan.value_range == expected.scan.value_range
            assert found.scan.units == expected.scan.units
            np.testing.assert_array_equal(found.scan.pixels, expected.scan.pixels)


def test_pictures_have_no_neighbours(tmp_path: Path) -> None:
    with pytest.raises(Undecodable, match="neighbours=true needs one"):
        frames_in(saved(tmp_path / "a.npy", np.zeros((6, 7), np.uint8)), neighbours=True)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros(7), r"shape \(7,\)"),
        (np.float32(3), r"shape \(\)"),
        (np.zeros((0, 7)), r"shape \(0, 7\)"),
        (np.zeros((6, 7, 4), np.uint8), r"shape \(6, 7, 4\)"),
        (np.zeros((3, 6, 3), np.uint8), r"shape \(3, 6, 3\)"),
        (np.zeros((5, 3, 6, 3), np.uint8), r"shape \(5, 3, 6, 3\)"),
        (np.zeros((5, 6, 7, 8), np.uint8), r"shape \(5, 6, 7, 8\)"),
        (np.zeros((6, 7, 3), np.float32), "float32; .*colour as uint8 or uint16"),
        (np.zeros((6, 7), np.bool_), "holds bool"),
        (np.zeros((6, 7), np.complex64), "holds complex64"),
        (np.zeros((6, 7), "M8[s]"), "holds datetime64"),
        (np.zeros((6, 7), [("a", "u1")]), "holds"),
        (np.zeros((6, 7), "S3"), "holds"),
        (np.full((6, 7), np.nan), "NaN or infinite"),
        (np.full((9, 6, 7), np.inf, np.float32), "NaN or infinite"),
    ],
)
def test_what_makes_no_scan_is_refused(tmp_path: Path, array: np.ndarray, reason: str) -> None:
    with pytest.raises(Undecodable, match=reason):
        frames_in(saved(tmp_path / "a.npy", array))


def test_objects_are_refused_and_never_run(tmp_path: Path) -> None:
    class Program:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    np.save(tmp_path / "a.npy", np.array([[Program()]], object), allow_pickle=True)
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Program()))
    for name, reason in (("a.npy", "may run a program"), ("b.npy", "cut short or damaged")):
        with pytest.raises(Undecodable, match=reason):
            frames_in(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_files_that_are_cut_short_or_damaged_are_refused(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    whole = saved(tmp_path / "a.npy", rng.integers(0, 9, (6, 7))).read_bytes()
    for num_bytes in range(0, len(whole), 9):
        (tmp_path / "a.npy").write_bytes(whole[:num_bytes])
        with pytest.raises(Undecodable):
            frames_in(tmp_path / "a.npy")
    for _ in range(100):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[rng.integers(0, 128, 3)] = rng.integers(0, 256, 3)
        (tmp_path / "a.npy").write_bytes(damaged.tobytes())
        with contextlib.suppress(Undecodable):  # Anything else fails the test.
            frames_in(tmp_path / "a.npy")


def test_claims_beyond_the_limits_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = saved(tmp_path / "a.npy", np.zeros((6, 7), np.uint8))
    volume = saved(tmp_path / "b.npy", np.zeros((9, 6, 7), np.int16))
    with monkeypatch.context() as patched:
        patched.setattr(numpy_arrays, "MAX_PIXELS", 41)
        with pytest.raises(Undecodable, match=r"claims shape \(6, 7\)"):
            frames_in(picture)
    with monkeypatch.context() as patched:
        patched.setattr(numpy_arrays, "MAX_FRAMES", 8)
        with pytest.raises(Undecodable, match=r"claims shape \(9, 6, 7\)"):
            frames_in(volume)
    monkeypatch.setattr(numpy_arrays, "MAX_VOLUME_BYTES", 755)
    with pytest.raises(Undecodable, match=r"claims shape \(9, 6, 7\)"):
        frames_in(volume)


def test_arrays_are_packed_looked_at_and_audited_like_pictures(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    folders = tmp_path / "arrays", tmp_path / "pictures"
    for folder in folders:
        folder.mkdir()
    for number, array in enumerate(rng.integers(0, 256, (5, 40, 30), np.uint8)):
        saved(folders[0] / f"{number}.npy", array)
        Image.fromarray(array).save(folders[1] / f"{number}.png")
    (folders[0] / "bare").write_bytes((folders[0] / "0.npy").read_bytes())
    assert is_scan(folders[0] / "bare")
    assert "NumPy array" in tabulate(folders[0])
    (folders[0] / "bare").unlink()
    settings = PackSettings(canvas=32, workers=1)
    arrays, pictures = (
        pack(folder, tmp_path / f"{folder.name}.packed", settings=settings) for folder in folders
    )
    rows = np.arange(5)
    np.testing.assert_array_equal(arrays.gather(rows).pixels, pictures.gather(rows).pixels)
    assert audit(pictures.path, [arrays.path]).is_invalid


def test_hounsfield_units_of_an_array_take_a_window(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    hounsfield = rng.integers(-1000, 400, (2, 16, 16)).astype(np.int16)
    path = tmp_path / "ct"
    path.mkdir()
    saved(path / "v.npy", hounsfield)
    archive = pack(path, tmp_path / "a", settings=PackSettings(canvas=16, window="lung"))
    pixels = np.asarray(archive.gather(np.arange(2)).pixels).astype(int)[:, 0]
    np.testing.assert_array_equal(pixels - 32768, hounsfield)
    saved(path / "v.npy", np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(ScanlearnError, match="Hounsfield"):
        pack(path, tmp_path / "b", settings=PackSettings(canvas=16, window="lung"))
