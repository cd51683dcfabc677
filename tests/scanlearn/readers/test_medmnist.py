from __future__ import annotations

import io
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.packing import parallel as pool
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings
from scanlearn.readers import medmnist
from scanlearn.readers.medmnist import READER, list_rows
from scanlearn.readers.scan import Frame, Header, ReadSettings, Scan, Undecodable

SIZES = {"train": 7, "val": 2, "test": 3}


def draw(shape: tuple[int, ...], dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


def write(path: Path, *row: int, labels: int = 1, dtype: Any = np.uint8) -> dict[str, np.ndarray]:
    arrays = {}
    for split, size in SIZES.items():
        arrays[f"{split}_images"] = draw((size, *row), dtype)
        arrays[f"{split}_labels"] = draw((size, labels)) % 3
    np.savez_compressed(path, allow_pickle=False, **arrays)
    return arrays


def read_header(path: Path, row: str) -> Header:
    return READER.header(path / row, ReadSettings(), b"")


def read_frames(
    path: Path, row: str, frames: range, *, empty_below: float = 0.0
) -> Iterator[Frame]:
    return READER.frames(path / row, frames, ReadSettings(empty_below=empty_below))


def pixels(path: Path, row: str, frames: range = range(1), **chosen: float) -> list[np.ndarray]:
    scans = [frame.scan for frame in read_frames(path, row, frames, **chosen)]
    assert all(isinstance(scan, Scan) for scan in scans)
    return [scan.pixels for scan in scans if isinstance(scan, Scan)]


@pytest.mark.parametrize("side", [28, 224])
def test_rows_become_scans_with_label_and_split(tmp_path: Path, side: int) -> None:
    arrays = write(tmp_path / "m.npz", side, side)
    table = list_rows(tmp_path / "m.npz")
    assert table.column_names == ["path", "label", "split"]
    assert table["split"].to_pylist() == ["train"] * 7 + ["val"] * 2 + ["test"] * 3
    labels = np.concatenate([arrays[f"{split}_labels"][:, 0] for split in SIZES])
    assert table["label"].to_pylist() == [str(label) for label in labels]
    for row, split, number in ((8, "val", 1), (3, "train", 3)):
        (found,) = pixels(tmp_path / "m.npz", table["path"][row].as_py())
        np.testing.assert_array_equal(found[0], arrays[f"{split}_images"][number])


def test_several_labels_become_several_columns(tmp_path: Path) -> None:
    arrays = write(tmp_path / "m.npz", 8, 8, labels=14)
    table = list_rows(tmp_path / "m.npz")
    assert table.column_names == ["path", *(f"label_{k}" for k in range(14)), "split"]
    assert table["label_13"][0].as_py() == str(arrays["train_labels"][0, 13])


def test_colour_and_sixteen_bit_are_told_by_the_header(tmp_path: Path) -> None:
    arrays = write(tmp_path / "c.npz", 28, 28, 3)
    header = read_header(tmp_path / "c.npz", "test/0000000")
    assert (header.is_colour, header.is_deep, header.num_frames) == (True, False, 1)
    (found,) = pixels(tmp_path / "c.npz", "test/0000002")
    np.testing.assert_array_equal(found, arrays["test_images"][2].transpose(2, 0, 1))
    write(tmp_path / "d.npz", 28, 28, dtype=np.uint16)
    assert read_header(tmp_path / "d.npz", "test/0000000").is_deep
    assert pixels(tmp_path / "d.npz", "test/0000000")[0].dtype == np.uint16


def test_volumes_become_slices_and_empty_ones_are_left_out(tmp_path: Path) -> None:
    arrays = write(tmp_path / "v.npz", 6, 10, 12)
    path = tmp_path / "v.npz"
    assert read_header(path, "val/0000000").num_frames == 6
    found = pixels(path, "val/0000001", range(2, 5))
    np.testing.assert_array_equal(np.concatenate(found), arrays["val_images"][1, 2:5])
    images = arrays["val_images"]
    images[1, 3] = 0
    np.savez(tmp_path / "e.npz", val_images=images)
    numbers = [
        frame.number
        for frame in read_frames(tmp_path / "e.npz", "val/0000001", range(6), empty_below=0.1)
    ]
    assert numbers == [1, 2, 3, 5, 6]


def test_rows_in_any_order_are_the_same(tmp_path: Path) -> None:
    images = write(tmp_path / "m.npz", 16, 16)["train_images"]
    for number in (4, 4, 1, 6, 0, 5):
        (found,) = pixels(tmp_path / "m.npz", f"train/{number:07d}")
        np.testing.assert_array_equal(found[0], images[number])


def test_memory_does_not_grow_with_the_array(tmp_path: Path) -> None:
    images = np.zeros((2000, 128, 128), np.uint8)
    images[-1] = 7
    np.savez_compressed(tmp_path / "m.npz", train_images=images)
    del images
    tracemalloc.start()
    (found,) = pixels(tmp_path / "m.npz", "train/0001999")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found == 7).all()
    assert peak < 6e6


@pytest.mark.parametrize("row", [(28, 28), (28, 28, 3), (4, 20, 24)])
def test_file_is_packed_with_its_labels(tmp_path: Path, row: tuple[int, ...]) -> None:
    arrays = write(tmp_path / "m.npz", *row)
    settings = PackSettings(canvas=32, workers=1, summary=False)
    archive = pack(tmp_path / "m.npz", tmp_path / "a", settings=settings)
    num_slices = 4 if row[0] == 4 else 1
    assert len(archive) == sum(SIZES.values()) * num_slices
    assert archive.info["patients"] == sum(SIZES.values())
    assert not archive.patients_known
    assert archive.shape[0] == (3 if row[-1] == 3 else 1)
    assert archive.labels("split").tolist().count("val") == SIZES["val"] * num_slices
    batch = archive.gather(np.array([len(archive) - 1]))
    top, left, bottom, right = batch.valid_box[0].tolist()
    found = batch.pixels[0, :, top:bottom, left:right].numpy()
    last = arrays["test_images"][-1]
    expected = (
        np.moveaxis(last, -1, 0) if row[-1] == 3 else last[-1:] if row[0] == 4 else last[None]
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.long
def test_processes_share_the_rows_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "m.npz", train_images=draw((500, 32, 32)))
    alone = pack(tmp_path / "m.npz", tmp_path / "a", settings=PackSettings(canvas=32, workers=1))
    monkeypatch.setattr(pool, "_TIMED_ITEMS", 3)
    monkeypatch.setattr(pool, "_SECONDS_WORTH_PROCESSES", 0.0)
    both = pack(tmp_path / "m.npz", tmp_path / "b", settings=PackSettings(canvas=32, workers=2))
    assert both.content_hash == alone.content_hash


def test_images_without_labels_have_their_split_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", test_images=draw((3, 8, 8)))
    assert list_rows(tmp_path / "m.npz").column_names == ["path", "split"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": draw((3, 8, 8))}, r"holds no train_images, .*\(x.npy\)"),
        ({"train_images": draw((3, 8))}, r"images of shape \(3, 8\), neither"),
        ({"train_images": draw((3, 8, 8, 8, 2))}, "neither"),
        ({"train_images": draw((3, 8, 8), np.float32)}, "float32; save them as"),
        ({"train_images": draw((0, 8, 8))}, "claims 0 images"),
        ({"train_images": np.asfortranarray(draw((3, 8, 8)))}, "Fortran order"),
        (
            {"train_images": draw((3, 8, 8)), "train_labels": draw((2, 1))},
            r"\(2, 1\) labels in train_labels.npy for 3 images",
        ),
        (
            {"train_images": draw((3, 8, 8)), "train_labels": draw((3, 1), np.float32)},
            "labels of float32",
        ),
        (
            {
                "train_images": draw((3, 8, 8)),
                "test_images": draw((3, 8, 8)),
                "train_labels": draw((3, 1)),
            },
            "different label columns",
        ),
    ],
)
def test_what_is_not_as_medmnist_has_it_is_one_clear_sentence(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(ScanlearnError, match=message):
        list_rows(tmp_path / "m.npz")


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    objects = np.empty(3, object)
    objects[:] = [print, {}, None]
    for name in ("train_images", "train_labels"):
        arrays = {"train_images": draw((3, 8, 8)), name: objects}
        np.savez(tmp_path / "m.npz", **arrays)
        with pytest.raises(ScanlearnError, match="pickled objects"):
            list_rows(tmp_path / "m.npz")


def _claiming(path: Path, shape: tuple[int, ...], content: bytes) -> Path:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("train_images.npy", header.getvalue() + content)
    return path


@pytest.mark.parametrize(
    ("limits", "shape", "content", "message"),
    [
        ({}, (10**9, 1000, 1000), b"little", "which is not what it holds"),
        ({"MAX_ROW_BYTES": 50}, (1, 8, 8), bytes(64), "claims 64 bytes an image"),
        ({"MAX_ROWS": 50}, (64, 1, 1), bytes(64), "claims 64 images"),
    ],
)
def test_claims_beyond_the_content_or_the_limits_are_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    limits: dict[str, int], shape: tuple[int, ...], content: bytes, message: str,
) -> None:  # fmt: skip
    for name, most in limits.items():
        monkeypatch.setattr(medmnist, name, most)
    path = _claiming(tmp_path / "m.npz", shape, content)
    with pytest.raises(ScanlearnError, match=message):
        list_rows(path)


def test_damage_costs_the_rows_behind_it_alone_and_is_found_once(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    images = draw((200, 32, 32)) % 9
    np.savez_compressed(path, train_images=images)
    raw = bytearray(path.read_bytes())
    middle = len(raw) // 2
    raw[middle : middle + 2000] = bytes(2000)
    path.write_bytes(raw)
    outcomes = []
    for number in range(200):
        try:
            outcomes.append(bool((pixels(path, f"train/{number:07d}")[0] == images[number]).all()))
        except Undecodable:
            outcomes.append(False)
    good = outcomes.index(False)
    assert 50 < good < 110
    assert not any(outcomes[good + 20 :])


@pytest.mark.parametrize("row", ["train/0000007", "train/-1", "other/0000000", "train", "train/x"])
def test_row_that_is_not_there_is_refused(tmp_path: Path, row: str) -> None:
    write(tmp_path / "m.npz", 8, 8)
    with pytest.raises(Undecodable):
        list(read_frames(tmp_path / "m.npz", row, range(1)))


@pytest.mark.parametrize("raw", [b"", b"PK", b"no npz at all"])
def test_broken_file_is_one_clear_sentence(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "m.npz").write_bytes(raw)
    with pytest.raises(ScanlearnError, match="damaged or not an npz file"):
        list_rows(tmp_path / "m.npz")
