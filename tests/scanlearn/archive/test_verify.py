from __future__ import annotations

import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from scanlearn.archive.layout import Origin, PackedScan, file_hash, write_info
from scanlearn.archive.reader import Archive
from scanlearn.archive.verify import verify
from scanlearn.archive.withdraw import withdraw
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.cli import app
from scanlearn.errors import ScanlearnError

SHARD, TABLE = "shards/00000.arrow", "manifest.parquet"


@pytest.fixture
def path(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Twelve scans of six patients, with masks, a label and a rejected file."""
    path = tmp_path / "a"
    settings: dict[str, Any] = {"label_columns": ("y",), "has_mask": True}
    with ArchiveWriter(path, shape=(1, 16, 16), dtype=np.uint8, **settings) as writer:
        for row in range(12):
            pixels = rng.integers(0, 256, (1, 16, 16)).astype(np.uint8)
            scan = PackedScan(pixels, (0, 0, 16, 9 + row % 3))
            writer.add(scan, Origin(f"scan{row}", f"patient{row // 2}", {"y": str(row % 2)}))
        writer.reject("bad", "file is empty")
        writer.close()
    return path


def without_hashes(path: Path) -> None:
    """Makes of an archive one of an earlier release, which kept no hash of its files."""
    info = json.loads((path / "archive.json").read_text())
    for part in [*info["shards"], info["manifest"]]:
        del part["sha256"]
    for key in ("lists", "sha256"):
        del info[key]
    (path / "archive.json").write_text(json.dumps(info))


def flip(file: Path, at: int, bit: int = 0) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1 << bit
    file.write_bytes(content)


def test_whole_archive_is_said_to_be_so(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert CliRunner().invoke(app, ["verify", str(path)]).exit_code == 0
    assert verify(path).is_whole
    assert "they are as they were written" in capsys.readouterr().out


@pytest.mark.parametrize("name", [SHARD, TABLE, "archive.json", "rejected.csv"])
def test_every_flipped_bit_is_named_with_its_file(path: Path, name: str) -> None:
    rng, file = random.Random(name), path / name
    whole = file.read_bytes()
    spaces = {at for at, byte in enumerate(whole) if name == "archive.json" and byte in b" \n"}
    for at in rng.choices(sorted({*range(len(whole))} - spaces), k=40):
        flip(file, at, rng.randrange(8))
        faults = verify(path).faults
        assert len(faults) == 1, at
        assert faults[0].startswith(str(file)), at
        file.write_bytes(whole)
    flip(file, len(whole) // 2)
    assert CliRunner().invoke(app, ["verify", str(path)]).exit_code == 1


def test_every_file_that_is_wrong_is_named(path: Path) -> None:
    for name in (SHARD, TABLE, "rejected.csv"):
        flip(path / name, 20)
    assert [fault.split(":")[0] for fault in verify(path).faults] == [
        str(path / name) for name in (SHARD, TABLE, "rejected.csv")
    ]
    (path / SHARD).unlink()
    assert f"{path / SHARD}: is missing or cut short" in verify(path).faults


def test_pixels_of_an_archive_without_hashes_are_compared_scan_by_scan(path: Path) -> None:
    without_hashes(path)
    first = verify(path)
    assert first.is_whole
    assert any("no hashes" in note for note in first.notes)
    pixels = Archive(path).gather(np.array([7])).pixels.numpy().tobytes()
    flip(path / SHARD, (path / SHARD).read_bytes().index(pixels))
    (fault,) = verify(path).faults
    assert fault == f"{path / SHARD}: 1 of 12 scans are not as they were packed, first row 7"


def test_folder_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScanlearnError, match="is not an archive"):
        verify(tmp_path)


def test_changed_archive_is_verified_by_its_new_hashes(path: Path) -> None:
    withdraw(path, ["patient0"])
    result = verify(path)
    assert result.is_whole
    assert not result.notes


def test_worker_opens_the_same_scans(path: Path) -> None:
    archive = Archive(path)
    again = pickle.loads(pickle.dumps(archive))
    assert again.gather(np.arange(3)).pixels.equal(archive.gather(np.arange(3)).pixels)


def swap_patients(path: Path) -> None:
    table = pq.read_table(path / TABLE)
    swapped = table.column("patient").to_pylist()[::-1]
    place = table.schema.get_field_index("patient")
    pq.write_table(table.set_column(place, "patient", pa.array(swapped)), path / TABLE)


def drop_scan(path: Path) -> None:
    pq.write_table(pq.read_table(path / TABLE).slice(1), path / TABLE)


def rewrite_shard(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        table = change(pa.ipc.open_file(path / SHARD).read_all())
        with pa.ipc.new_file(path / SHARD, table.schema) as writer:
            writer.write_table(table)

    return write


def smaller_tensors(table: pa.Table) -> pa.Table:
    tensors = pa.fixed_shape_tensor(pa.uint8(), (1, 4, 4))
    flat = pa.array(np.zeros(16 * table.num_rows, np.uint8))
    rows = pa.FixedSizeListArray.from_arrays(flat, type=tensors.storage_type)
    return table.set_column(0, "pixels", pa.ExtensionArray.from_storage(tensors, rows))


def lists(values: list[float], of: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        name = {4: "valid_box", 2: "value_range"}[len(values)]
        column = pa.array([values] * table.num_rows, pa.list_(of, len(values)))
        return table.set_column(table.schema.get_field_index(name), name, column)

    return change


def wrong_digests(table: pa.Table) -> pa.Table:
    place = table.schema.get_field_index("digest")
    column = pa.array(table.column("digest").to_pylist()[::-1], pa.binary(32))
    return table.set_column(place, "digest", column)


def described(**changes: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        info = json.loads((path / "archive.json").read_text())
        write_info(path, info | changes)

    return write


@pytest.mark.parametrize("is_hashed", [True, False])
@pytest.mark.parametrize(
    ("damage", "file", "said"),
    [
        (swap_patients, TABLE, "patient"),
        (drop_scan, TABLE, "does not hold 12 scans"),
        (rewrite_shard(smaller_tensors), SHARD, "pixels"),
        (rewrite_shard(lambda table: table.slice(1)), SHARD, "11 scans, not 12"),
        (rewrite_shard(lambda table: table.drop_columns(["mask"])), SHARD, "mask"),
        (rewrite_shard(lists([0, 0, 17, 3], pa.int32())), SHARD, "outside the canvas"),
        (rewrite_shard(lists([5, 5], pa.float32())), SHARD, "value range"),
        (rewrite_shard(wrong_digests), SHARD, "content_hash"),
        (described(mean=[float("nan")]), "archive.json", "mean"),
        (described(mean=[0.1]), "archive.json", "mean or std"),
        (described(std=[0.1, 0.2]), "archive.json", "mean or std"),
        (described(content_hash="0" * 64), "archive.json", "content_hash"),
        (described(scans=13), "archive.json", "scans"),
        (described(shape=[1, 16, 0]), "archive.json", "shape"),
        (described(shape=[1, 8, 8]), SHARD, "pixels"),
        (described(dtype="uint16"), SHARD, "pixels"),
    ],
)
def test_opening_refuses_what_does_not_fit_together(
    path: Path, damage: Callable[[Path], None], file: str, said: str, is_hashed: bool
) -> None:
    if not is_hashed:
        without_hashes(path)
    damage(path)
    # As one would who repairs the sizes, but not the content.
    info = json.loads((path / "archive.json").read_text())
    for part in [info["manifest"], *info["shards"]]:
        part["bytes"] = (path / part["file"]).stat().st_size
        if is_hashed:
            part["sha256"] = file_hash(path / part["file"])
    write_info(path, info)
    with pytest.raises(ScanlearnError) as error:
        Archive(path)
    assert str(path / file) in str(error.value)
    assert said in str(error.value)


def test_description_that_was_edited_is_refused(path: Path) -> None:
    file = path / "archive.json"
    file.write_text(
        file.read_text().replace('"synthetic_phantom": false', '"synthetic_phantom": true')
    )
    with pytest.raises(ScanlearnError, match=r"archive\.json: was changed after it was written"):
        Archive(path)
