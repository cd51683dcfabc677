from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from scanlearn.scans.archive import Archive
from scanlearn.scans.identity import Identities
from scanlearn.scans.scan_set import ScanSet, hindrance, issuer_notes

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
        ({"identities": ONE}, {"identities": ONE, "patients_known": False}, "labels are not known"),
        ({"synthetic_phantom": True}, {"identities": ONE}, "nobody"),
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
    told = hindrance(first, second)
    assert told.startswith("Patients of archive and labels") == bool(expected)
    assert expected in told


def test_other_issuers_are_told(pixels: np.ndarray, write_archive: Write) -> None:
    south = Identities(ONE.key, "south")
    sets = [
        ScanSet.labeled(str(number), write_archive(pixels, str(number), identities=whose))
        for number, whose in enumerate((ONE, ONE, south))
    ]
    assert issuer_notes(sets[0], sets[1]) == ()
    assert "different issuers" in issuer_notes(sets[0], sets[2])[0]
