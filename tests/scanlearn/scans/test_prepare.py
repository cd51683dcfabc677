from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from scanlearn.scans.files import ReadSettings
from scanlearn.scans.manifest import Manifest
from scanlearn.scans.prepare import Job, Plan, Prepared, Refused, make_plan, prepare
from scanlearn.scans.survey import Survey, survey


def surveyed(*paths: Path) -> Survey:
    names = pa.array([str(path) for path in paths], pa.string())
    manifest = Manifest(Path("/"), pa.table({"path": names, "patient": names}), (), False)
    return survey(manifest, ReadSettings())[1]


def save(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def test_plan_follows_the_deepest_and_most_colourful_scan(tmp_path: Path) -> None:
    gray = save(tmp_path / "gray.png", np.zeros((4, 4), np.uint8))
    deep = save(tmp_path / "deep.png", np.zeros((4, 4), np.uint16))
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 200
    colour = save(tmp_path / "colour.png", red)

    def planned(*paths: Path) -> tuple[int, str]:
        plan = make_plan(surveyed(*paths), canvas=(8, 8), channels="auto")
        return plan.channels, plan.dtype.name

    assert planned(gray) == (1, "uint8")
    assert planned(gray, deep) == (1, "uint16")
    assert planned(gray, colour, tmp_path / "gone.png") == (3, "uint8")


def test_jpeg_noise_in_the_channels_of_a_gray_scan_is_no_colour(tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).integers(120, 126, (40, 40, 3)).astype(np.uint8)
    path = save(tmp_path / "a.png", noisy)
    plan = make_plan(surveyed(path), canvas=(8, 8), channels="auto")
    assert plan.channels == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_scan_is_brought_to_the_plan(tmp_path: Path, channels: int) -> None:
    path = save(tmp_path / "a.png", np.full((4, 6), 9, np.uint8))
    plan = Plan((8, 8), channels, np.dtype(np.uint16))  # type: ignore[arg-type]
    (found,) = prepare(plan, Job(path))
    assert isinstance(found, Prepared)
    assert found.pixels.shape == (channels, 8, 8)
    assert found.pixels.dtype == np.uint16
    assert found.value_range == (0, 255)
    assert found.valid_box == (0, 0, 4, 6)


def test_what_cannot_be_decoded_is_refused_with_the_reason(tmp_path: Path) -> None:
    plan = Plan((8, 8), 1, np.dtype(np.uint8))
    assert prepare(plan, Job(tmp_path / "gone.png")) == (Refused("file not found"),)
    assert prepare(plan, Refused("known before")) == (Refused("known before"),)


def test_sixteen_bits_are_never_squeezed_into_eight(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.full((4, 4), 300, np.uint16))
    (found,) = prepare(Plan((8, 8), 1, np.dtype(np.uint8)), Job(path))
    assert isinstance(found, Refused)
    assert "more bits" in found.reason
