"""The simulation behind `benchmarks/intervals.py`, and a short run of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score


@pytest.mark.parametrize(("auroc", "effect"), [(0.7, 0.0), (0.85, 0.0), (0.85, -2.0)])
def test_the_best_linear_score_has_the_auroc_that_a_setting_names(
    coverage: Any, auroc: float, effect: float
) -> None:
    cohort = coverage.Cohort(
        coverage.Setting("many", 12_000, 0.4, auroc, 5, 1), np.random.default_rng(0)
    )
    features = cohort.features(effect)
    best = LinearDiscriminantAnalysis().fit(features, cohort.y).decision_function(features)
    expected = auroc + coverage.SEED_SD * effect
    assert roc_auc_score(cohort.y, best) == pytest.approx(expected, abs=0.015)


def test_networks_find_the_same_patients_hard_and_look_another_way(coverage: Any) -> None:
    setting = coverage.Setting("two", 5_000, 0.4, 0.85, 3, 1)
    cohort = coverage.Cohort(setting, np.random.default_rng(0))
    ill = cohort.y == 1
    first, second = (
        LinearDiscriminantAnalysis().fit(each, cohort.y).decision_function(each)
        for each in (cohort.features(0.0), cohort.features(0.0))
    )
    assert np.corrcoef(first[ill], second[ill])[0, 1] == pytest.approx(0.5, abs=0.05)


def test_patients_are_clustered_and_of_one_class(coverage: Any) -> None:
    setting = coverage.Setting("some", 100, 0.2, 0.85, 3, 1)
    labeled = coverage.Cohort(setting, np.random.default_rng(0)).labeled
    sizes = np.bincount(labeled.patients)
    assert (sizes.min(), sizes.max()) == (1, 2)
    of_patient = [set(labeled.truth.classes[labeled.patients == one]) for one in range(100)]
    assert {len(classes) for classes in of_patient} == {1}
    assert sum(classes == {1} for classes in of_patient) == 20


def test_every_model_that_is_fitted_is_scored_on_unseen_patients(coverage: Any) -> None:
    setting = coverage.Setting("knn", 60, 0.4, 0.85, 3, 2, 1, "knn")
    cohort = coverage.Cohort(setting, np.random.default_rng(0))
    network = cohort.network()
    assert network.estimate.per_fold.shape == (2, 5)
    assert network.estimate.refits is not None
    assert 0.6 < network.true < 0.95
    assert network.estimate.auroc == pytest.approx(network.true, abs=0.2)


@pytest.mark.long
def test_refitted_intervals_cover_what_they_say_and_fixed_ones_less(coverage: Any) -> None:
    repetitions = 60
    setting = coverage.Setting("long", 100, 0.4, 0.85, 20, 1, 1, "knn")
    found = {way: shares for _, way, shares in coverage.fitted(setting, repetitions)}
    # Three standard errors of a share of .05 on top of .93 to .97.
    slack = 3 * (0.05 * 0.95 / repetitions) ** 0.5
    for name in ("arm", "difference"):
        assert getattr(found["refitted"], name) >= 0.93 - slack
        assert getattr(found["refitted"], name) >= getattr(found["fixed"], name)
    assert found["refitted"].arm_width > 1.05 * found["fixed"].arm_width
    assert found["refitted"].called <= 0.07 + slack


@pytest.mark.parametrize(("sides", "auroc"), [((5, 15), 0.98), ((30, 30), 0.8)])
def test_limits_hold_the_truth_with_few_patients(
    coverage: Any, sides: tuple[int, int], auroc: float
) -> None:
    arm, same, other, width = coverage.few(sides, auroc, 200)
    assert min(arm, same, other) >= 0.92 - 3 * (0.05 * 0.95 / 200) ** 0.5
    assert 0.1 < width < 0.6
