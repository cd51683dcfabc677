from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from scanlearn.scans.aligned import AlignedWriter

SCHEMA = pa.schema(
    [
        pa.field("pixels", pa.list_(pa.uint8(), 9)),
        pa.field("name", pa.string()),
        pa.field("label:a", pa.string()),
    ]
)


def batch(rows: int) -> pa.RecordBatch:
    pixels = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(9 * rows).astype(np.uint8)), 9)
    names = pa.array(["n" * number for number in range(rows)])
    return pa.RecordBatch.from_arrays([pixels, names, pa.nulls(rows, pa.string())], schema=SCHEMA)


def write(path: Path, *rows: int) -> Path:
    with pa.OSFile(str(path), "wb") as sink:
        writer = AlignedWriter(sink, SCHEMA)
        for number in rows:
            writer.write_batch(batch(number))
        writer.close()
    return path


def test_first_column_of_every_batch_begins_at_a_multiple_of_64(tmp_path: Path) -> None:
    path = write(tmp_path / "a.arrow", 1, 2, 3, 5, 8, 13, 21)
    with pa.memory_map(str(path)) as source:
        start = source.read_buffer().address
        file = pa.ipc.open_file(source)
        assert file.num_record_batches == 7
        for number in range(7):
            values = file.get_batch(number).column("pixels").flatten().to_numpy()
            assert (values.ctypes.data - start) % 64 == 0


def test_any_reader_finds_the_batches_as_they_were(tmp_path: Path) -> None:
    path = write(tmp_path / "a.arrow", 3, 4)
    assert pa.ipc.open_file(path).read_all() == pa.Table.from_batches([batch(3), batch(4)])


def test_same_batches_are_the_same_bytes(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a.arrow", 3, 4), write(tmp_path / "b.arrow", 3, 4)
    assert one.read_bytes() == other.read_bytes()
