from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scantune.labels import LabeledSet
from scantune.tuning.validation import FEWEST_PATIENTS, hold_out


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
