from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scanlearn.scans.shard_reader import Items, ShardReader
from scanlearn.scans.shards import Layout, ShardWriter, make_row

SHAPE = (1, 4, 3)
NAMES = ("shards/00000.arrow", "shards/00001.arrow")


@pytest.fixture
def pixels(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 65536, (300, *SHAPE)).astype(np.uint16)


@pytest.fixture
def folder(tmp_path: Path, pixels: np.ndarray) -> Path:
    """Two shards, of 300 scans and of 1, as they are after scans came and went."""
    layout = Layout(SHAPE, np.dtype(np.uint16), has_mask=True)
    for kept, part in (((), pixels), ((300,), pixels[:1])):
        with ShardWriter(tmp_path, layout, kept) as writer:
            for index, one in enumerate(part):
                writer.add(
                    make_row(
                        layout,
                        one,
                        names=(str(index), "p"),
                        place=((0, 0, 4, 3), (1, 2), (0, index + 1)),
                        mask=one[0] % 2 == 0,
                        labels={},
                        tally=None,
                    )
                )
    return tmp_path


def test_rows_of_all_shards_are_copied_in_any_order(folder: Path, pixels: np.ndarray) -> None:
    rows = np.array([300, 0, 299, 256, 255, 0])
    index = ShardReader(folder, NAMES).index
    assert index.masks is not None
    where, out = index.find(rows), np.empty((6, *SHAPE), np.uint16)
    taken = index.pixels.take(*where)
    assert index.pixels.take(*where, out) is out
    np.testing.assert_array_equal(taken.view(np.uint16).reshape(out.shape), pixels[rows % 300])
    np.testing.assert_array_equal(out, pixels[rows % 300])
    masks = index.masks.take(*where).view(np.bool_).reshape(6, 4, 3)
    np.testing.assert_array_equal(masks, pixels[rows % 300, 0] % 2 == 0)


def test_items_too_far_apart_for_one_window_are_copied_all_the_same(
    folder: Path, pixels: np.ndarray
) -> None:
    index = ShardReader(folder, NAMES).index
    rows = np.array([299, 3])
    apart = replace(index.pixels, window=None)
    np.testing.assert_array_equal(
        apart.take(*index.find(rows)), index.pixels.take(*index.find(rows))
    )
    assert Items.at([0, 2**46], [1, 1], 2**20).window is None


def test_small_columns_are_those_of_all_shards(folder: Path) -> None:
    index = ShardReader(folder, NAMES).index
    assert index.first_row.tolist() == [0, 256, 300]
    assert index.facts["value_range"][:, 1].tolist() == [*range(1, 301), 1]
    assert index.facts["spacing_mm"][0].tolist() == [1, 2]
    assert index.facts["valid_box"][300].tolist() == [0, 0, 4, 3]


def test_addresses_lie_in_the_memory_maps_of_the_files(folder: Path) -> None:
    reader = ShardReader(folder, NAMES)
    assert reader.index.masks is not None
    starts = {*reader.index.pixels.starts.tolist(), *reader.index.masks.starts.tolist()}
    maps = Path("/proc/self/maps").read_text().splitlines()
    mapped = [line.split("-", 1) for line in maps if str(folder) in line]
    spans = [(int(low, 16), int(rest.split(" ", 1)[0], 16)) for low, rest in mapped]
    assert len(starts) == 6
    assert all(any(low <= start < high for low, high in spans) for start in starts)
