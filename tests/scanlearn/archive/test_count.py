from __future__ import annotations

import numpy as np
import pytest

from scanlearn.archive.count import Count, unknown_patients


@pytest.mark.parametrize(
    ("patients", "unknown", "words", "known", "units"),
    [
        (["p", "p", "q"], [], "3 scans of 2 patients", 2, "patients"),
        (["p"], [], "1 scan of 1 patient", 1, "patients"),
        (["a", "b"], [0, 1], "2 scans, patients unknown; each scan counted as one", None, "scans"),
        (["a", "a"], [0, 1], "2 scans, patients unknown; each file counted as one", None, "files"),
        (
            ["p", "p", "a", "b"],
            [2, 3],
            "4 scans: 2 of 1 patient, patients of 2 unknown; each scan of these counted as one",
            1,
            "patients",
        ),
    ],
)
def test_a_count_says_what_is_known(
    patients: list[str], unknown: list[int], words: str, known: int | None, units: str
) -> None:
    count = Count.of(np.array(patients), np.isin(np.arange(len(patients)), unknown))
    assert (count.in_words, count.known_patients, count.units) == (words, known, units)


def test_a_scan_whose_file_stands_for_its_patient_is_of_nobody() -> None:
    scans, patients = np.array(["f1", "f2#0", "f2#1", "f3"]), np.array(["f1", "f2", "f2", "p"])
    for is_known in (True, False):
        found = unknown_patients(scans, patients, is_known=is_known)
        assert found.tolist() == [True, True, True, False]
    named = np.array(["p", "q", "r", "s"])
    assert not unknown_patients(scans, named, is_known=True).any()
    assert unknown_patients(scans, named, is_known=False).all()
