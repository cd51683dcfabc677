from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from scanlearn.errors import ScanlearnError
from scantune.labels.labeled_set import LabeledSet, lone_classes
from scantune.labels.truth import Truth
from scantune.splits import (
    FEWEST_PATIENTS,
    Fold,
    assert_disjoint,
    budget_rows,
    given_split,
    hold_out,
    patient_folds,
)


@pytest.mark.parametrize("seed", range(3))
def test_no_patient_is_on_both_sides_and_every_scan_is_tested_once(labeled: Any, seed: int) -> None:
    data = labeled(seed=seed)
    folds = patient_folds(data.truth, data.patients, 5, seed)
    for fold in folds:
        assert not set(data.patients[fold.train]) & set(data.patients[fold.test])
        assert len(fold.train) + len(fold.test) == len(data)
    tested = np.concatenate([fold.test for fold in folds])
    assert sorted(tested) == list(range(len(data)))


def test_a_leaked_patient_is_caught() -> None:
    with pytest.raises(AssertionError, match="1 patients"):
        assert_disjoint(Fold(np.array([0, 1]), np.array([2])), np.array([0, 1, 1]))


@pytest.mark.parametrize(
    ("y", "patients", "folds", "said"),
    [
        ([0, 1, 0, 1], [0, 1, 2, 2], 5, "there are 3"),
        ([0] * 9 + [1], list(range(10)), 3, "only one class to train on"),
    ],
)
def test_folds_of_too_few_patients_are_refused(
    y: list[int], patients: list[int], folds: int, said: str
) -> None:
    with pytest.raises(ScanlearnError, match=said):
        patient_folds(Truth.of_classes(np.array(y), 2), np.array(patients), folds, 0)


@pytest.mark.parametrize("budget", [0, 1])
def test_a_budget_that_leaves_one_class_is_refused(budget: int) -> None:
    truth, rows = Truth.of_classes(np.array([0, 1, 0, 1]), 2), np.arange(4)
    with pytest.raises(ScanlearnError, match="budget of"):
        budget_rows(rows, truth, rows, budget, 0)


@pytest.mark.parametrize(
    ("split", "said"),
    [
        (["train", "train"], "no labeled scan as test"),
        (["test", "test"], "as train"),
        (["train", "test"], "only one class to train on"),
    ],
)
def test_a_split_with_an_empty_side_or_one_class_is_refused(split: list[str], said: str) -> None:
    truth, rows = Truth.of_classes(np.array([0, 1]), 2), np.arange(2)
    with pytest.raises(ScanlearnError, match=said):
        given_split(np.array(split), truth, rows, rows)


def test_folds_are_stratified(labeled: Any) -> None:
    data = labeled(patients=200, classes=3)
    overall = np.bincount(data.truth.classes) / len(data)
    for fold in patient_folds(data.truth, data.patients, 5, 0):
        np.testing.assert_allclose(
            np.bincount(data.truth.classes[fold.test]) / len(fold.test), overall, atol=0.06
        )
        assert abs(len(fold.test) - len(data) / 5) <= 0.1 * len(data)


def test_a_rare_class_is_in_every_fold_when_its_patients_suffice() -> None:
    y = np.zeros(100, dtype=int)
    y[:5] = 1
    for seed in range(10):
        folds = patient_folds(Truth.of_classes(y, 2), np.arange(100), 5, seed)
        assert all(y[fold.test].sum() == 1 for fold in folds)


def test_folds_depend_on_the_seed_alone(labeled: Any) -> None:
    data = labeled()
    first, again, other = (
        [fold.test.tolist() for fold in patient_folds(data.truth, data.patients, 5, seed)]
        for seed in (0, 0, 1)
    )
    assert first == again != other


def test_budgets_are_nested(labeled: Any) -> None:
    data = labeled(patients=150)
    fold = patient_folds(data.truth, data.patients, 5, 0)[0]
    for seed in range(3):
        subsets = [
            set(budget_rows(fold.train, data.truth, data.patients, budget, seed).rows.tolist())
            for budget in (10, 50, 100, "all")
        ]
        for smaller, larger in pairwise(subsets):
            assert smaller < larger
        assert subsets[-1] == set(fold.train.tolist())


def test_a_budget_takes_whole_patients_until_it_is_reached(labeled: Any) -> None:
    data = labeled(patients=150)
    train = np.arange(len(data))
    for budget in (7, 50, 99):
        subset = budget_rows(train, data.truth, data.patients, budget, 0)
        whole = np.flatnonzero(np.isin(data.patients, data.patients[subset.rows]))
        assert subset.rows.tolist() == whole.tolist()
        assert budget <= subset.num_scans <= budget + 2
        assert subset.num_patients == len(np.unique(data.patients[subset.rows]))
        assert not subset.is_short


def test_a_budget_counts_scans_and_not_their_findings() -> None:
    rng = np.random.default_rng(0)
    truth = Truth((rng.random((400, 5)) < 0.5).astype(np.int8), "multilabel")
    for budget in (30, 100, 250):
        subset = budget_rows(np.arange(400), truth, np.arange(400), budget, 0)
        assert subset.num_scans == len(subset.rows) == budget


def test_folds_of_findings_hold_about_as_many_scans() -> None:
    rng = np.random.default_rng(1)
    truth = Truth((rng.random((500, 4)) < (0.05, 0.3, 0.5, 0.9)).astype(np.int8), "multilabel")
    sizes = [len(fold.test) for fold in patient_folds(truth, np.arange(500), 5, 0)]
    assert max(sizes) - min(sizes) <= 10


def test_a_budget_is_stratified(labeled: Any) -> None:
    data = labeled(patients=400, rare=0.2)
    for seed in range(5):
        subset = budget_rows(np.arange(len(data)), data.truth, data.patients, 100, seed)
        assert 0.1 < data.truth.classes[subset.rows].mean() < 0.3


def test_a_small_budget_holds_every_class_it_can() -> None:
    y = np.zeros(400, dtype=int)
    y[:4] = 1
    for seed in range(10):
        subset = budget_rows(np.arange(400), Truth.of_classes(y, 2), np.arange(400), 10, seed)
        assert y[subset.rows].sum() >= 1


def test_subsets_differ_between_seeds(labeled: Any) -> None:
    data = labeled(patients=150)
    rows = [
        budget_rows(np.arange(len(data)), data.truth, data.patients, 50, seed).rows.tolist()
        for seed in (0, 0, 1)
    ]
    assert rows[0] == rows[1] != rows[2]


def test_a_budget_larger_than_the_fold_is_all_of_it_and_said(labeled: Any) -> None:
    data = labeled()
    subset = budget_rows(np.arange(len(data)), data.truth, data.patients, 10_000, 0)
    assert subset.is_short
    assert len(subset.rows) == len(data)


def test_a_given_split_is_taken_as_it_is() -> None:
    split = np.array(["train", "test", "train"])
    fold = given_split(
        split, Truth.of_classes(np.array([0, 1, 1]), 2), np.array([0, 1, 2]), np.arange(3) + 1
    )
    assert fold.train.tolist() == [0, 2]
    assert fold.test.tolist() == [1]


def test_a_patient_in_both_train_and_test_is_refused_with_rows_and_counts() -> None:
    split = np.array(["train", "train", "test", "test"])
    with pytest.raises(ScanlearnError) as caught:
        given_split(
            split,
            Truth.of_classes(np.array([0, 1, 1, 0]), 2),
            np.array([7, 8, 8, 9]),
            np.arange(4) + 1,
        )
    message = str(caught.value)
    assert "row 3 is marked test, but row 2 of the same patient is marked train" in message
    assert "1 of 3 patients" in message


def with_synthetic(real: int = 40, nobody: int = 6) -> tuple[Truth, np.ndarray]:
    """Two real scans of each patient and a synthetic one; then synthetic scans of nobody."""
    patients = np.concatenate([np.repeat(np.arange(real), 3), real + np.arange(nobody)])
    synthetic = np.concatenate([np.tile([False, False, True], real), np.ones(nobody, np.bool_)])
    classes = np.concatenate([np.repeat(np.arange(real) % 2, 3), np.ones(nobody, np.int64)])
    return Truth(Truth.of_classes(classes, 2).matrix, synthetic=synthetic), patients


def test_synthetic_scans_are_never_tested_and_train_where_their_patient_does() -> None:
    truth, patients = with_synthetic()
    folds = patient_folds(truth, patients, 5, 0)
    assert (
        sorted(np.concatenate([fold.test for fold in folds]))
        == np.flatnonzero(truth.is_real).tolist()
    )
    for fold in folds:
        tested = np.isin(patients, patients[fold.test])
        assert fold.train.tolist() == np.flatnonzero(~tested).tolist()


def test_synthetic_scans_change_no_fold() -> None:
    truth, patients = with_synthetic()
    real = np.flatnonzero(truth.is_real)
    without = patient_folds(truth[real], patients[real], 5, 3)
    for fold, plain in zip(patient_folds(truth, patients, 5, 3), without, strict=True):
        assert fold.test.tolist() == real[plain.test].tolist()


def test_no_budget_counts_synthetic_scans() -> None:
    truth, patients = with_synthetic()
    train = patient_folds(truth, patients, 5, 0)[0].train
    smaller: set[int] = set()
    for budget in (10, 20, "all"):
        subset = budget_rows(train, truth, patients, budget, 0)
        real = subset.rows[truth.is_real[subset.rows]]
        assert subset.num_scans == len(real) == (64 if budget == "all" else budget)
        assert subset.num_patients == len(np.unique(patients[real]))
        named = patients[subset.rows[~truth.is_real[subset.rows]]]
        assert set(named) == {*patients[real], *range(40, 46)}
        assert smaller < set(subset.rows.tolist())
        smaller = set(subset.rows.tolist())


def test_a_synthetic_scan_of_a_tested_patient_trains_in_no_given_split() -> None:
    truth, patients = with_synthetic(real=4, nobody=1)
    split = np.where(patients < 2, "train", "test")
    fold = given_split(split, truth, patients, np.arange(13))
    assert fold.train.tolist() == [0, 1, 2, 3, 4, 5, 12]
    assert fold.test.tolist() == [6, 7, 9, 10]


def test_folds_of_findings_are_stratified_by_the_rarest() -> None:
    rng = np.random.default_rng(0)
    matrix = (rng.random((300, 3)) < (0.5, 0.2, 0.04)).astype(np.int8)
    matrix[rng.random(matrix.shape) < 0.1] = -1
    truth = Truth(matrix, "multilabel")
    rare = int(truth.positives(2).sum())
    for fold in patient_folds(truth, np.arange(300), 4, 0):
        assert abs(truth[fold.test].positives(2).sum() - rare / 4) < 1


def test_a_class_of_one_patient_is_found_whatever_programs_drew() -> None:
    truth, patients = with_synthetic(real=3)
    assert lone_classes(truth, patients) == (1,)
    assert lone_classes(Truth.of_classes(np.array([0, 1, 0, 1]), 3), np.arange(4)) == ()


def test_a_fifth_of_the_patients_validates_and_trains_nothing(
    labeled: Callable[..., LabeledSet],
) -> None:
    data = labeled(patients=100, classes=3)
    part = hold_out(data.truth, data.patients, 0)
    assert part is not None
    held_out = set(data.patients[part.test])
    assert not held_out & set(data.patients[part.train])
    assert 15 <= len(held_out) <= 25
    assert sorted([*part.train, *part.test]) == list(range(len(data)))


def test_another_seed_holds_out_others(labeled: Callable[..., LabeledSet]) -> None:
    data = labeled(patients=100)
    parts = [hold_out(data.truth, data.patients, seed) for seed in (0, 0, 1)]
    tests = [part.test for part in parts if part is not None]
    np.testing.assert_array_equal(tests[0], tests[1])
    assert not np.array_equal(tests[0], tests[2])


def test_too_few_patients_are_all_fitted_on(labeled: Callable[..., LabeledSet]) -> None:
    few = labeled(patients=FEWEST_PATIENTS - 1)
    assert hold_out(few.truth, few.patients, 0) is None
    enough = labeled(patients=FEWEST_PATIENTS)
    assert hold_out(enough.truth, enough.patients, 0) is not None


def test_a_class_of_one_patient_cannot_validate(labeled: Callable[..., LabeledSet]) -> None:
    data = labeled(patients=60, rare=0.0)
    data.truth.matrix[0] = [0, 1]
    assert hold_out(data.truth, data.patients, 0) is None
