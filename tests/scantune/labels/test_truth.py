from __future__ import annotations

import numpy as np
import pytest

from scantune.labels.truth import Task, Truth


def test_classes_come_back_from_their_table() -> None:
    y = np.array([2, 0, 1, 2])
    truth = Truth.of_classes(y, 3)
    assert truth.classes.tolist() == y.tolist()
    assert truth[np.array([0, 3])].classes.tolist() == [2, 2]
    assert (len(truth), truth.num_classes) == (4, 3)


@pytest.mark.parametrize(
    ("task", "asked"), [("multiclass", [1]), ("ordinal", [1]), ("multilabel", [0, 1])]
)
def test_only_classes_that_exclude_each_other_are_one_question(
    task: Task, asked: list[int]
) -> None:
    assert list(Truth(np.eye(2, dtype=np.int8), task).asked) == asked


def test_unknown_is_neither_positive_nor_negative() -> None:
    truth = Truth(np.array([[1, -1], [0, 1], [-1, 1]], np.int8), "multilabel")
    assert truth.known(0).tolist() == [True, True, False]
    assert truth.positives(0).tolist() == [True, False, False]
    assert truth.has_contrast()
    assert not truth[np.array([0, 2])].has_contrast()


def test_findings_have_no_single_class() -> None:
    with pytest.raises(AssertionError, match="exclude"):
        _ = Truth(np.eye(2, dtype=np.int8), "multilabel").classes


def test_what_a_program_made_stays_marked_in_every_part() -> None:
    truth = Truth(
        np.array([[1, 0], [-1, 1], [0, 1]], np.int8), "multilabel", np.array([False, True, True])
    )
    assert truth.is_real.tolist() == [True, False, False]
    assert truth[np.array([2, 0])].is_real.tolist() == [False, True]
    assert truth.of_finding(0).is_real.tolist() == [True, False]
    assert Truth.of_classes(np.array([0, 1]), 2).is_real.all()


def test_one_finding_is_two_classes_of_the_scans_where_it_is_known() -> None:
    truth = Truth(np.array([[1, 0], [-1, 1], [0, 1]], np.int8), "multilabel")
    assert truth.of_finding(0).classes.tolist() == [1, 0]
    assert truth.of_finding(0).task == "multiclass"
