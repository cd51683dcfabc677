from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from scanlearn.packing.headers import HeaderScan, scan_headers
from scanlearn.packing.prepare import (
    PackPlan,
    Prepared,
    Refused,
    WorkItem,
    make_plan,
    num_scans,
    pieces,
    prepare,
    scan_name,
    work_items,
)
from scanlearn.readers.scan import ReadSettings
from scanlearn.tables.manifest import Manifest


def surveyed(*paths: Path) -> HeaderScan:
    names = pa.array([str(path) for path in paths], pa.string())
    manifest = Manifest(Path("/"), pa.table({"path": names, "patient": names}), (), False)
    return scan_headers(manifest, ReadSettings())[1]


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
    plan = PackPlan((8, 8), channels, np.dtype(np.uint16))  # type: ignore[arg-type]
    (found,) = prepare(plan, WorkItem(path))
    assert isinstance(found, Prepared)
    assert found.scan.pixels.shape == (channels, 8, 8)
    assert found.scan.pixels.dtype == np.uint16
    assert found.scan.value_range == (0, 255)
    assert found.scan.valid_box == (0, 0, 4, 6)
    assert "sums" in vars(found.scan)


def test_what_cannot_be_decoded_is_refused_with_the_reason(tmp_path: Path) -> None:
    plan = PackPlan((8, 8), 1, np.dtype(np.uint8))
    assert prepare(plan, WorkItem(tmp_path / "gone.png")) == (Refused("file not found"),)
    assert prepare(plan, Refused("known before")) == (Refused("known before"),)


def test_sixteen_bits_are_never_squeezed_into_eight(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.full((4, 4), 300, np.uint16))
    (found,) = prepare(PackPlan((8, 8), 1, np.dtype(np.uint8)), WorkItem(path))
    assert isinstance(found, Refused)
    assert "more bits" in found.reason


def headers_of(*num_frames: int) -> HeaderScan:
    return HeaderScan(array("I", num_frames), False, (), False, False)


def planned(side: int) -> PackPlan:
    return PackPlan((side, side), 1, np.dtype(np.uint8))


def test_long_files_are_cut_into_pieces_of_four_mebibytes() -> None:
    found = list(pieces(headers_of(1, 5, 2), planned(1024)))
    assert found == [(0, range(1), 1), (1, range(4), 5), (1, range(4, 5), 5), (2, range(2), 2)]


def test_every_row_of_a_table_gets_its_work_or_one_refusal() -> None:
    columns = {"path": ["a", None, "b", "a"], "patient": ["p", "p", None, "q"]}
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    manifest = Manifest(Path("/r"), table, (), patients_known=True)
    found = list(work_items(manifest, headers_of(5, 1, 1, 5), planned(1024)))
    assert [job for job, _ in found] == [
        WorkItem(Path("/r/a"), range(4), 5),
        WorkItem(Path("/r/a"), range(4, 5), 5),
        Refused("the table gives no path"),
        Refused("the table gives no patient"),
        Refused("an earlier row of the table has the same path"),
    ]
    assert [row[0] for _, row in found] == ["a", "a", None, "b", "a"]


def test_processes_are_given_at_most_four_mebibytes_at_a_time() -> None:
    assert planned(32).frames_per_chunk == 64
    assert planned(256).frames_per_chunk == 64
    assert planned(1024).frames_per_chunk == 4
    assert planned(4096).frames_per_chunk == 1


def test_memory_of_a_chunk_holds_the_largest_piece_of_work() -> None:
    for side in (32, 256, 1024, 4096):
        longest = max(len(frames) for _, frames, _ in pieces(headers_of(10_000), planned(side)))
        assert planned(side).bytes_per_chunk >= longest * side * side
    assert planned(256).bytes_per_chunk < 5 * 2**20


def test_piece_of_work_counts_for_the_scans_it_may_give() -> None:
    assert num_scans(WorkItem(Path("a"), range(3, 7), 9)) == 4
    assert num_scans(Refused("unread")) == 1


def test_scan_of_several_is_named_by_its_number() -> None:
    assert scan_name("3fa9", None) == "3fa9"
    assert scan_name("3fa9", 3) == "3fa9#3"
