from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np
import pyarrow as pa

from scanlearn.scans.manifest import Manifest
from scanlearn.scans.prepare import Job, Plan, Refused
from scanlearn.scans.survey import Survey
from scanlearn.scans.tasks import (
    bytes_per_chunk,
    frames_per_chunk,
    num_scans,
    pieces,
    scan_id,
    tasks,
)


def surveyed(*num_frames: int) -> Survey:
    return Survey(array("I", num_frames), False, (), False, False)


def planned(side: int) -> Plan:
    return Plan((side, side), 1, np.dtype(np.uint8))


def test_long_files_are_cut_into_pieces_of_four_mebibytes() -> None:
    found = list(pieces(surveyed(1, 5, 2), planned(1024)))
    assert found == [
        (0, range(1), 1),
        (1, range(4), 5),
        (1, range(4, 5), 5),
        (2, range(2), 2),
    ]


def test_every_row_of_a_table_gets_its_jobs_or_one_refusal() -> None:
    columns = {"path": ["a", None, "b", "a"], "patient": ["p", "p", None, "q"]}
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    manifest = Manifest(Path("/r"), table, (), patients_known=True)
    found = list(tasks(manifest, surveyed(5, 1, 1, 5), planned(1024)))
    assert [job for job, _ in found] == [
        Job(Path("/r/a"), range(4), 5),
        Job(Path("/r/a"), range(4, 5), 5),
        Refused("the table gives no path"),
        Refused("the table gives no patient"),
        Refused("an earlier row of the table has the same path"),
    ]
    assert [row[0] for _, row in found] == ["a", "a", None, "b", "a"]


def test_processes_are_given_at_most_four_mebibytes_at_a_time() -> None:
    assert frames_per_chunk(planned(32)) == 64
    assert frames_per_chunk(planned(256)) == 64
    assert frames_per_chunk(planned(1024)) == 4
    assert frames_per_chunk(planned(4096)) == 1


def test_memory_of_a_chunk_holds_the_largest_piece_of_work() -> None:
    for side in (32, 256, 1024, 4096):
        longest = max(len(frames) for _, frames, _ in pieces(surveyed(10_000), planned(side)))
        assert bytes_per_chunk(planned(side)) >= longest * side * side
    assert bytes_per_chunk(planned(256)) < 5 * 2**20


def test_piece_of_work_counts_for_the_scans_it_may_give() -> None:
    assert num_scans(Job(Path("a"), range(3, 7), 9)) == 4
    assert num_scans(Refused("unread")) == 1


def test_scan_of_several_is_named_by_its_number() -> None:
    assert scan_id("3fa9", None) == "3fa9"
    assert scan_id("3fa9", 3) == "3fa9#3"
