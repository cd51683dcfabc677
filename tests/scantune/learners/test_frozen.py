from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scantune import splits as validation
from scantune.labels.truth import Truth
from scantune.learners.by_name import frozen_learner
from scantune.learners.frozen import C_GRID, fit_knn, fit_linear, validate_knn
from scantune.learners.learner import LabeledFeatures, probabilities
from scantune.learners.table import FROZEN_LEARNERS


def test_knn_is_the_weighted_vote_of_the_nearest_by_cosine() -> None:
    rng = np.random.default_rng(0)
    train, test, y = rng.normal(size=(30, 4)), rng.normal(size=(5, 4)), rng.integers(0, 3, 30)
    found = fit_knn(train, Truth.of_classes(y, 3), test, neighbours=7)
    for row, scan in enumerate(test):
        cosines = [scan @ t / np.linalg.norm(scan) / np.linalg.norm(t) for t in train]
        votes = np.zeros(3)
        for index in sorted(range(30), key=lambda i: -cosines[i])[:7]:
            votes[y[index]] += np.exp(cosines[index] / 0.07)
        np.testing.assert_allclose(found[row], votes / votes.sum())


@pytest.mark.parametrize("order", [1, -1])
def test_copies_of_a_scan_share_the_last_places_whatever_their_order(order: int) -> None:
    # One scan is nearest; 30 copies of another, sorted by class, share the other 4 places.
    near, copies = np.array([[1.0, 0.1]]), np.tile([[1.0, 1.0]], (30, 1))
    train = np.concatenate([near, copies])[::order]
    y = np.concatenate([[1], np.repeat([0, 1], [20, 10])])[::order]
    votes = fit_knn(train, Truth.of_classes(y, 2), np.array([[1.0, 0.0]]), neighbours=5)
    weights = np.exp(np.array([1 / np.sqrt(1.01), 1 / np.sqrt(2)]) / 0.07)
    expected = weights @ [[0, 1], [4 * 20 / 30, 4 * 10 / 30]] / (weights @ [1, 4])
    np.testing.assert_allclose(votes, expected[None], rtol=1e-6)


def test_knn_does_not_see_the_length_of_a_feature() -> None:
    rng = np.random.default_rng(1)
    train, test, y = rng.normal(size=(30, 4)), rng.normal(size=(5, 4)), rng.integers(0, 2, 30)
    scaled = train * rng.uniform(0.1, 9, (30, 1))
    truth = Truth.of_classes(y, 2)
    np.testing.assert_allclose(fit_knn(train, truth, test), fit_knn(scaled, truth, test))


def test_knn_takes_fewer_neighbours_where_there_are_fewer_scans() -> None:
    found = fit_knn(np.eye(3), Truth.of_classes(np.array([0, 1, 1]), 2), np.eye(3))
    assert found.shape == (3, 2)
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_knn_of_zero_features_knows_nothing() -> None:
    found = fit_knn(np.zeros((4, 3)), Truth.of_classes(np.array([0, 1, 0, 1]), 2), np.zeros((2, 3)))
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
        fit_linear(LabeledFeatures(f[train], data.truth[train], data.patients[train]), f[test])
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
    real = validation.patient_folds

    def spy(truth: Truth, patients: np.ndarray, folds: int, seed: int) -> Any:
        parts = real(truth, patients, folds, seed)
        seen.append((patients, parts))
        return parts

    monkeypatch.setattr(validation, "patient_folds", spy)
    features = informative(data)
    fit_linear(LabeledFeatures(features[train], data.truth[train], data.patients[train]), features)
    ((patients, parts),) = seen
    assert set(patients) == set(data.patients[train])
    for part in parts:
        assert not set(patients[part.train]) & set(patients[part.test])


def test_one_strong_axis_among_noise_chooses_a_strong_penalty(labeled: Any) -> None:
    data = labeled(patients=120)
    rng = np.random.default_rng(3)
    features = rng.normal(size=(len(data), 300))
    features[:, 0] += 0.7 * data.truth.classes
    (strong,) = fit_linear(LabeledFeatures(features, data.truth, data.patients), features).chosen_c
    assert strong <= 0.1
    assert strong in C_GRID


def test_too_few_patients_to_choose_by_take_the_middle_of_the_grid() -> None:
    features = np.random.default_rng(0).normal(size=(4, 3))
    y = np.array([0, 1, 1, 1])
    fit = fit_linear(LabeledFeatures(features, Truth.of_classes(y, 2), y), features)
    assert fit.chosen_c == (C_GRID[len(C_GRID) // 2],)


def test_scores_are_the_softmax_of_weights_on_the_features_as_given(
    informative: Any, labeled: Any
) -> None:
    for classes in (2, 3):
        data = labeled(patients=80, classes=classes)
        features = informative(data) * 7 + 3
        fit = fit_linear(LabeledFeatures(features, data.truth, data.patients), features)
        logits = features @ fit.weights + fit.intercepts
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), fit.scores)


def test_validation_votes_come_from_other_patients(labeled: Any) -> None:
    data = labeled(patients=60)
    features = np.eye(data.patients.max() + 1)[data.patients]
    # A patient's own scans would tell the class; those of others are all equally far away.
    votes = validate_knn(LabeledFeatures(features, data.truth, data.patients), 0)
    assert np.isfinite(votes).all()
    own = fit_knn(features, data.truth, features)
    assert (own.argmax(1) == data.truth.classes).mean() > 0.9
    assert (votes.argmax(1) == data.truth.classes).mean() < 0.7


def findings(data: Any, seed: int = 0) -> Truth:
    """Two findings that the class tells of, each unknown of a fifth of the scans."""
    rng = np.random.default_rng(seed)
    matrix = np.stack([data.truth.classes, rng.integers(0, 2, len(data))], axis=1).astype(np.int8)
    matrix[rng.random(matrix.shape) < 0.2] = -1
    return Truth(matrix, "multilabel")


def test_each_finding_is_a_regression_of_its_own_on_the_scans_that_know_it(
    informative: Any, labeled: Any
) -> None:
    data = labeled(patients=80)
    features, truth = informative(data), findings(data)
    fit = fit_linear(LabeledFeatures(features, truth, data.patients), features)
    for code in (0, 1):
        known = truth.known(code)
        both = Truth.of_classes(truth.positives(code)[known].astype(int), 2)
        alone = fit_linear(LabeledFeatures(features[known], both, data.patients[known]), features)
        np.testing.assert_allclose(fit.scores[:, code], alone.scores[:, 1])
        assert fit.chosen_c[code] == alone.chosen_c[0]
        assert np.isnan(fit.validation[~known, code]).all()
        assert np.isfinite(fit.validation[known, code]).all()
    logits = features @ fit.weights + fit.intercepts
    np.testing.assert_allclose(probabilities(logits, is_exclusive=False), fit.scores)


def test_a_finding_that_every_training_scan_has_is_certain(informative: Any, labeled: Any) -> None:
    data = labeled(patients=80)
    truth = findings(data)
    truth.matrix[:, 1] = 1
    fit = fit_linear(LabeledFeatures(informative(data), truth, data.patients), informative(data))
    assert (fit.scores[:, 1] == 1).all()
    assert np.isnan(fit.validation[:, 1]).all()


def test_scans_of_which_a_finding_is_unknown_do_not_vote_on_it() -> None:
    rng = np.random.default_rng(4)
    train, test = rng.normal(size=(40, 4)), rng.normal(size=(6, 4))
    truth = Truth(rng.integers(-1, 2, (40, 2)).astype(np.int8), "multilabel")
    found = fit_knn(train, truth, test, neighbours=5)
    for code in (0, 1):
        known = truth.known(code)
        both = Truth.of_classes(truth.positives(code)[known].astype(int), 2)
        alone = fit_knn(train[known], both, test, neighbours=5)
        np.testing.assert_allclose(found[:, code], alone[:, 1])


def test_validation_never_falls_on_synthetic_scans(informative: Any, labeled: Any) -> None:
    data = labeled(patients=60)
    synthetic = np.random.default_rng(0).random(len(data)) < 0.4
    marked = replace(data, truth=replace(data.truth, synthetic=synthetic))
    rows = np.arange(len(data))
    for name in FROZEN_LEARNERS:
        learner = frozen_learner(name, informative(data), marked)
        validation = learner(rows, rows[:0], 0).validation
        assert np.isnan(validation[synthetic]).all()
        assert np.isfinite(validation[~synthetic]).all()


def test_a_finding_known_of_no_training_scan_is_0_everywhere() -> None:
    rng = np.random.default_rng(0)
    matrix = np.column_stack([np.arange(40) % 2, np.full(40, -1)]).astype(np.int8)
    truth, features = Truth(matrix, "multilabel"), rng.normal(size=(40, 5))
    fit = fit_linear(LabeledFeatures(features, truth, np.arange(40)), features)
    assert (fit.scores[:, 1] == 0).all()
    assert np.isfinite(fit.scores).all()
