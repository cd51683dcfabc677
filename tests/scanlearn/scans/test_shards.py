from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from scanlearn.scans.shards import Row, ShardReader, ShardWriter, scans_per_batch

SHAPE = (1, 4, 3)


@pytest.fixture
def pixels(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 65536, (300, *SHAPE)).astype(np.uint16)


@pytest.fixture
def folder(tmp_path: Path, pixels: np.ndarray) -> Path:
    with ShardWriter(tmp_path, SHAPE, np.dtype(np.uint16), has_mask=True) as writer:
        for index, one in enumerate(pixels):
            writer.add(
                Row(
                    pixels=one,
                    valid_box=np.array((0, 0, 4, 3), np.int32),
                    spacing_mm=np.array((1, 2), np.float32),
                    value_range=np.array((0, index + 1), np.float32),
                    mask=one[0] % 2 == 0,
                    scan_id=str(index),
                    patient="p",
                )
            )
    return tmp_path


def test_views_show_what_was_written(folder: Path, pixels: np.ndarray) -> None:
    reader = ShardReader(folder, SHAPE, np.dtype(np.uint16))
    first, second = reader.view(0), reader.view(1)
    np.testing.assert_array_equal(np.concatenate([first.pixels, second.pixels]), pixels)
    assert first.mask is not None
    np.testing.assert_array_equal(first.mask, pixels[:256, 0] % 2 == 0)
    assert second.value_range[3].tolist() == [0, 260]
    assert second.spacing_mm[0].tolist() == [1, 2]


def test_pixels_are_viewed_in_the_memory_map_not_copied(folder: Path) -> None:
    path = folder / "shards/00000.arrow"
    with pa.memory_map(str(path)) as source:
        everything = source.read_buffer(path.stat().st_size)
        batch = pa.ipc.open_file(source).get_batch(0)
        start = batch.column("pixels").storage.flatten().buffers()[1].address - everything.address
    assert 0 < start < path.stat().st_size
    view = ShardReader(folder, SHAPE, np.dtype(np.uint16)).view(0)
    assert not view.pixels.flags.owndata
    assert not view.pixels.flags.writeable
    maps = Path("/proc/self/maps").read_text().splitlines()
    mapped = [line.split("-", 1) for line in maps if line.endswith(str(path))]
    spans = [(int(low, 16), int(rest.split(" ", 1)[0], 16)) for low, rest in mapped]
    assert any(low <= view.pixels.ctypes.data < high for low, high in spans)
    assert view.mask is not None
    assert any(low <= view.mask.ctypes.data < high for low, high in spans)


def test_a_view_is_made_once_and_kept(folder: Path) -> None:
    reader = ShardReader(folder, SHAPE, np.dtype(np.uint16))
    assert reader.view(1) is reader.view(1)


@pytest.mark.parametrize(
    ("shape", "dtype", "rows"),
    [
        ((1, 226, 226), np.uint8, 256),
        ((3, 1024, 1024), np.uint16, 16),
        ((3, 9999, 9999), np.uint16, 1),
    ],
)
def test_batches_of_large_scans_are_smaller(
    shape: tuple[int, int, int], dtype: type, rows: int
) -> None:
    assert scans_per_batch(shape, np.dtype(dtype)) == rows
