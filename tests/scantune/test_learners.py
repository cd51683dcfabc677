from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scantune import learners
from scantune.learners import C_GRID, fit_knn, fit_linear, validate_knn


def test_knn_is_the_weighted_vote_of_the_nearest_by_cosine() -> None:
    rng = np.random.default_rng(0)
    train, test, y = rng.normal(size=(30, 4)), rng.normal(size=(5, 4)), rng.integers(0, 3, 30)
    found = fit_knn(train, y, test, 3, neighbours=7)
    for row, scan in enumerate(test):
        cosines = [scan @ t / np.linalg.norm(scan) / np.linalg.norm(t) for t in train]
        votes = np.zeros(3)
        for index in sorted(range(30), key=lambda i: -cosines[i])[:7]:
            votes[y[index]] += np.exp(cosines[index] / 0.07)
        np.testing.assert_allclose(found[row], votes / votes.sum())


def test_knn_does_not_see_the_length_of_a_feature() -> None:
    rng = np.random.default_rng(1)
    train, test, y = rng.normal(size=(30, 4)), rng.normal(size=(5, 4)), rng.integers(0, 2, 30)
    scaled = train * rng.uniform(0.1, 9, (30, 1))
    np.testing.assert_allclose(fit_knn(train, y, test, 2), fit_knn(scaled, y, test, 2))


def test_knn_takes_fewer_neighbours_where_there_are_fewer_scans() -> None:
    found = fit_knn(np.eye(3), np.array([0, 1, 1]), np.eye(3), 2)
    assert found.shape == (3, 2)
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_knn_of_zero_features_knows_nothing() -> None:
    found = fit_knn(np.zeros((4, 3)), np.array([0, 1, 0, 1]), np.zeros((2, 3)), 2)
    np.testing.assert_allclose(found, 0.5)


def test_test_features_enter_nothing_but_their_own_prediction(
    informative: Any, labeled: Any
) -> None:
    data = labeled(split=True, patients=80)
    features = informative(data)
    train, test = np.flatnonzero(data.split == "train"), np.flatnonzero(data.split == "test")
    changed = features.copy()
    changed[test[0]] = 1e6
    fits = [
        fit_linear(f[train], data.y[train], data.patients[train], f[test], 2)
        for f in (features, changed)
    ]
    assert fits[0].chosen_c == fits[1].chosen_c
    np.testing.assert_allclose(fits[0].scores[1:], fits[1].scores[1:], rtol=1e-10)


def test_c_is_chosen_in_inner_folds_of_the_training_patients(
    informative: Any, labeled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = labeled(patients=80)
    train = np.flatnonzero(data.patients < 60)
    seen = []
    real = learners.patient_folds

    def spy(y: np.ndarray, patients: np.ndarray, folds: int, seed: int) -> Any:
        parts = real(y, patients, folds, seed)
        seen.append((patients, parts))
        return parts

    monkeypatch.setattr(learners, "patient_folds", spy)
    features = informative(data)
    fit_linear(features[train], data.y[train], data.patients[train], features, 2)
    ((patients, parts),) = seen
    assert set(patients) == set(data.patients[train])
    for part in parts:
        assert not set(patients[part.train]) & set(patients[part.test])


def test_one_strong_axis_among_noise_chooses_a_strong_penalty(labeled: Any) -> None:
    data = labeled(patients=120)
    rng = np.random.default_rng(3)
    features = rng.normal(size=(len(data), 300))
    features[:, 0] += 0.7 * data.y
    strong = fit_linear(features, data.y, data.patients, features, 2).chosen_c
    assert strong <= 0.1
    assert strong in C_GRID


def test_too_few_patients_to_choose_by_take_the_middle_of_the_grid() -> None:
    features = np.random.default_rng(0).normal(size=(4, 3))
    fit = fit_linear(features, np.array([0, 1, 1, 1]), np.array([0, 1, 1, 1]), features, 2)
    assert fit.chosen_c == C_GRID[len(C_GRID) // 2]


def test_scores_are_the_softmax_of_weights_on_the_features_as_given(
    informative: Any, labeled: Any
) -> None:
    for classes in (2, 3):
        data = labeled(patients=80, classes=classes)
        features = informative(data) * 7 + 3
        fit = fit_linear(features, data.y, data.patients, features, classes)
        logits = features @ fit.weights + fit.intercepts
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), fit.scores)


def test_validation_votes_come_from_other_patients(informative: Any, labeled: Any) -> None:
    data = labeled(patients=60)
    features = np.eye(data.patients.max() + 1)[data.patients]
    # A patient's own scans would tell the class; those of others are all equally far away.
    votes = validate_knn(features, data.y, data.patients, 2, 0)
    assert np.isfinite(votes).all()
    own = fit_knn(features, data.y, features, 2)
    assert (own.argmax(1) == data.y).mean() > 0.9
    assert (votes.argmax(1) == data.y).mean() < 0.7
