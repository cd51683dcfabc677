from __future__ import annotations

import pytest

from scanlearn.archive.count import Count
from scantune.labels.labeled_set import Design
from scantune.learners.table import LEARNERS
from scantune.wording import (
    DESIGNS,
    budget_name,
    design_name,
    dial_text,
    interval_covers,
    is_separate,
    learner_name,
)

KNOWN, UNKNOWN = Count(9, 4), Count(9, 0, 9, 9)


def test_every_learner_has_a_name_in_words() -> None:
    names = [learner_name(learner) for learner in LEARNERS]
    assert len(set(names)) == len(names)
    assert not set(names) & set(LEARNERS)


def test_an_unknown_learner_keeps_its_name() -> None:
    assert learner_name("forest") == "forest"


def test_a_budget_is_told_in_labels() -> None:
    assert [budget_name(budget) for budget in ("all", 50, "50")] == [
        "all labels",
        "50 labels",
        "50 labels",
    ]


@pytest.mark.parametrize(
    ("dials", "text"),
    [
        ({"crop": 0.5, "geometry": 0.5, "photometric": 0.5, "acquisition": 0.0}, "s = 0.5"),
        (
            {"crop": 1.0, "geometry": 1.0, "photometric": 1.0, "acquisition": 1.0},
            "s = 1, acquisition 1",
        ),
        ({"crop": 0.0, "geometry": 1.0}, "crop 0, geometry 1"),
    ],
)
def test_a_dial_is_told_by_its_scale(dials: dict[str, float], text: str) -> None:
    assert dial_text(dials) == text


@pytest.mark.parametrize("design", DESIGNS)
def test_only_known_patients_are_said_to_be_kept_apart(design: Design) -> None:
    assert "patient" in is_separate(design, KNOWN)
    text = is_separate(design, UNKNOWN)
    assert text.startswith("Patients unknown; each scan counted as one: scans of one person may")
    assert "over scans" in interval_covers(design, UNKNOWN)
    assert "over patients" in interval_covers(design, KNOWN)


@pytest.mark.parametrize(
    ("design", "on", "covers", "untested"),
    [
        ("folds", "5 folds of patients", "not speak of another hospital", "Other hospitals"),
        ("split", "the test side of a given split", "only where the split", "test side"),
        ("test", "an external test set", "speak of scans from elsewhere", "other than those of"),
    ],
)
def test_each_design_has_its_own_sentences(
    design: Design, on: str, covers: str, untested: str
) -> None:
    assert design_name(design, KNOWN, 5) == on
    assert covers in interval_covers(design, KNOWN)
    assert untested in DESIGNS[design].untested


def test_patients_that_were_not_compared_are_not_said_to_be_apart() -> None:
    text = is_separate("test", KNOWN, is_compared=False)
    assert text.startswith("Whether a patient of the external test set has training scans was not")
