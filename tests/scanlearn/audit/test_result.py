from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scanlearn.archive.identity import Identities
from scanlearn.archive.reader import Archive
from scanlearn.audit.result import (
    IDENTICAL,
    NEAR,
    PAIR,
    PATIENT,
    Audit,
    Comparison,
    ScanSet,
    issuer_notes,
    why_patients_not_compared,
)


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
    note = "The patients of labels are unknown: each scan counts as a patient of its own."
    within = comparison([], first="labels", num_patients=None, notes=(note,), num_blank=3)
    lines = list(Audit((found, within)).lines())
    assert lines[0].split() == ["patients", "identical", "near", "proposed"]
    assert lines[1].split() == ["archive", "and", "labels", "1", "2", "2", "7"]
    assert lines[2].split() == ["within", "labels", "?", "0", "0", "7"]
    assert "1 mirrored" in lines[3]
    assert "3 scans have almost no contrast" in lines[4]
    assert lines[5] == note
    assert "invalid" in lines[6]
    assert len(lines) == 7


def test_the_verdict_follows_what_was_found() -> None:
    assert Audit((comparison([]),)).verdict() == "No leak was found."
    near = comparison([(NEAR, 8, 6, 1, 0.99, True)])
    assert "check the 1 near" in Audit((near,)).verdict()


Write = Callable[..., Archive]
ONE, OTHER = (Identities(letter * 32, "north") for letter in (b"a", b"b"))


@pytest.fixture
def pixels(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (4, 1, 8, 8)).astype(np.uint8)


def test_folds_part_patients_and_test_every_scan(pixels: np.ndarray, write_archive: Write) -> None:
    archive = write_archive(pixels, patients=["p", "q", "p", "r"])
    found = ScanSet.labeled("labels", archive, rows=np.array([1, 2, 3]))
    assert found.groups.tolist() == [0, 1, 2]
    assert found.is_tested.all()
    whole = ScanSet.labeled("labels", archive)
    assert whole.groups.tolist() == [0, 1, 0, 2]
    assert whole.rows.tolist() == [0, 1, 2, 3]


def test_each_scan_stands_alone_where_patients_are_unknown(
    pixels: np.ndarray, write_archive: Write
) -> None:
    archive = write_archive(pixels, patients=["p", "p", "p", "p"], patients_known=False)
    assert ScanSet.labeled("labels", archive).groups.tolist() == [0, 1, 2, 3]


def test_a_split_says_what_is_tested(pixels: np.ndarray, write_archive: Write) -> None:
    split = np.array(["train", "test", "val", "test"])
    found = ScanSet.labeled("labels", write_archive(pixels), split=split)
    assert found.is_tested.tolist() == [False, True, False, True]
    assert len(np.unique(found.groups)) == 3
    assert found.groups[1] == found.groups[3]


def test_unlabeled_scans_are_never_tested(pixels: np.ndarray, write_archive: Write) -> None:
    found = ScanSet.unlabeled("archive", write_archive(pixels))
    assert not found.is_tested.any()
    assert len(np.unique(found.groups)) == 1


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"identities": ONE}, {"identities": ONE}, ""),
        ({"identities": ONE}, {"identities": OTHER}, "under different keys"),
        ({"identities": ONE}, {}, "without a key"),
        ({"identities": ONE}, {"identities": ONE, "patients_known": False}, "labels are unknown"),
        ({"synthetic_phantom": True}, {"identities": ONE}, "synthetic"),
    ],
)
def test_patients_are_compared_under_one_key_or_not_at_all(
    pixels: np.ndarray,
    write_archive: Write,
    one: dict[str, object],
    other: dict[str, object],
    expected: str,
) -> None:
    first = ScanSet.unlabeled("archive", write_archive(pixels, "a", **one))
    second = ScanSet.labeled("labels", write_archive(pixels, "b", **other))
    told = why_patients_not_compared(first, second)
    assert told.startswith("Patient overlap of archive and labels") == bool(expected)
    assert expected in told


def test_other_issuers_are_told(pixels: np.ndarray, write_archive: Write) -> None:
    south = Identities(ONE.key, "south")
    sets = [
        ScanSet.labeled(str(number), write_archive(pixels, str(number), identities=whose))
        for number, whose in enumerate((ONE, ONE, south))
    ]
    assert issuer_notes(sets[0], sets[1]) == ()
    assert "different issuers" in issuer_notes(sets[0], sets[2])[0]
