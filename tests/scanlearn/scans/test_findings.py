from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scanlearn.scans.findings import IDENTICAL, NEAR, PAIR, PATIENT, Audit, Comparison


def comparison(pairs: list[tuple[Any, ...]], **replaced: Any) -> Comparison:
    found = np.array(pairs, PAIR)
    made = Comparison(
        first="archive",
        second="labels",
        num_scans=(1200, 40),
        num_patients=1,
        num_proposed=7,
        num_blank=0,
        notes=(),
        pairs=found,
        first_ids=np.array([f"u{row}" for row in found["first"]]),
        second_ids=np.array([f"l{row}" for row in found["second"]]),
    )
    return replace(made, **replaced)


@pytest.fixture
def found() -> Comparison:
    return comparison(
        [
            (PATIENT, 3, 0, 0, np.nan, True),
            (PATIENT, 3, 1, 0, np.nan, False),
            (IDENTICAL, 8, 0, 0, 1.0, True),
            (IDENTICAL, 9, 5, 0, 1.0, True),
            (NEAR, 8, 6, 1, 0.9931, True),
            (NEAR, 8, 7, 0, 0.9999, False),
        ]
    )


def test_scans_of_test_patients_and_equal_pixels_make_a_result_invalid(found: Comparison) -> None:
    assert found.num_invalid == 2
    assert Audit((found,)).is_invalid


@pytest.mark.parametrize(
    "pair", [(NEAR, 8, 6, 1, 0.99, True), (IDENTICAL, 1, 1, 0, 1.0, False), None]
)
def test_near_duplicates_and_training_scans_do_not(pair: tuple[Any, ...] | None) -> None:
    made = comparison([] if pair is None else [pair])
    assert made.num_invalid == 0
    assert not Audit((made,)).is_invalid


def test_the_table_names_scans_and_what_they_share(found: Comparison, tmp_path: Path) -> None:
    Audit((found,)).write(tmp_path / "new" / "folder")
    text = (tmp_path / "new" / "folder" / "audit.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["kind"] for row in rows] == [*["patient"] * 2, *["identical"] * 2, *["near"] * 2]
    assert [row["is_invalid"] for row in rows] == ["1", "0", "1", "1", "0", "0"]
    assert rows[4] == {
        "kind": "near",
        "first": "archive",
        "first_scan": "u8",
        "second": "labels",
        "second_scan": "l6",
        "turn": "mirrored",
        "correlation": "0.9931",
        "is_invalid": "0",
    }


def test_the_counts_are_plain_json(found: Comparison, tmp_path: Path) -> None:
    Audit((found, comparison([], num_patients=None))).write(tmp_path)
    told = json.loads((tmp_path / "audit.json").read_text())
    assert told["is_invalid"] is True
    first, second = told["comparisons"]
    assert first["near_by_turn"] == {"as it is": 1, "mirrored": 1}
    assert (first["identical"], first["near"], first["invalid_scans"]) == (2, 2, 2)
    assert (second["patients"], second["near"]) == (None, 0)


def test_the_terminal_shows_a_row_per_comparison_then_notes_then_the_verdict(
    found: Comparison,
) -> None:
    note = "Patients of labels are not known: each scan counts as its own."
    within = comparison([], first="labels", num_patients=None, notes=(note,), num_blank=3)
    lines = list(Audit((found, within)).lines())
    assert lines[0].split() == ["patients", "identical", "near", "proposed"]
    assert lines[1].split() == ["archive", "and", "labels", "1", "2", "2", "7"]
    assert lines[2].split() == ["within", "labels", "?", "0", "0", "7"]
    assert "1 mirrored" in lines[3]
    assert "3 scans show nothing" in lines[4]
    assert lines[5] == note
    assert "invalid" in lines[6]
    assert len(lines) == 7


def test_the_verdict_follows_what_was_found() -> None:
    assert Audit((comparison([]),)).verdict() == "Nothing was found."
    near = comparison([(NEAR, 8, 6, 1, 0.99, True)])
    assert "look at the 1 near" in Audit((near,)).verdict()
