from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scanlearn.features.auroc import auroc
from scantune.labels.truth import Truth
from scantune.learners.learner import LabeledFeatures, probabilities
from scantune.learners.ncm import fit_ncm


def test_probabilities_are_the_softmax_of_distances_to_class_means() -> None:
    rng = np.random.default_rng(0)
    train, test, y = rng.normal(2, 5, (30, 4)), rng.normal(2, 5, (6, 4)), rng.integers(0, 3, 30)
    # One patient allows no inner folds: the temperature is 1.
    fit = fit_ncm(LabeledFeatures(train, Truth.of_classes(y, 3), np.zeros(30, int)), test)
    standardised = (train - train.mean(axis=0)) / train.std(axis=0)
    for row, scan in enumerate((test - train.mean(axis=0)) / train.std(axis=0)):
        powers = np.zeros(3)
        for code in range(3):
            members = [z for z, label in zip(standardised, y, strict=True) if label == code]
            centre = sum(members) / len(members)
            powers[code] = np.exp(-sum((a - b) ** 2 for a, b in zip(scan, centre, strict=True)) / 4)
        np.testing.assert_allclose(fit.scores[row], powers / powers.sum())
    assert np.isnan(fit.validation).all()


def test_a_class_without_training_scans_has_no_probability(labeled: Any, informative: Any) -> None:
    data = labeled(patients=60)
    features = informative(data)
    fit = fit_ncm(
        LabeledFeatures(features, Truth.of_classes(data.truth.classes, 3), data.patients), features
    )
    assert (fit.scores[:, 2] == 0).all()
    assert np.isfinite(fit.scores).all()
    assert np.isfinite(fit.validation[:, :2]).all()
    assert np.isnan(fit.validation[:, 2]).all()


def test_scores_are_those_of_its_weights_on_the_features_as_given(
    informative: Any, labeled: Any
) -> None:
    data = labeled(patients=80, classes=3)
    features = informative(data) * 7 + 3
    features[:, 0] = 5.0
    fit = fit_ncm(LabeledFeatures(features, data.truth, data.patients), features)
    logits = features @ fit.weights + fit.intercepts
    np.testing.assert_allclose(probabilities(logits, is_exclusive=True), fit.scores)
    assert not fit.weights[0].any()


def test_each_finding_has_two_means_of_the_scans_that_know_it(
    informative: Any, labeled: Any
) -> None:
    data = labeled(patients=80)
    features, rng = informative(data), np.random.default_rng(0)
    matrix = np.stack([data.truth.classes, rng.integers(0, 2, len(data))], axis=1).astype(np.int8)
    matrix[rng.random(matrix.shape) < 0.2] = -1
    truth = Truth(matrix, "multilabel")
    fit = fit_ncm(LabeledFeatures(features, truth, data.patients), features)
    for code in (0, 1):
        known = truth.known(code)
        both = Truth.of_classes(truth.positives(code)[known].astype(int), 2)
        alone = fit_ncm(LabeledFeatures(features[known], both, data.patients[known]), features)
        np.testing.assert_allclose(fit.scores[:, code], alone.scores[:, 1])
        assert np.isnan(fit.validation[~known, code]).all()
    logits = features @ fit.weights + fit.intercepts
    np.testing.assert_allclose(probabilities(logits, is_exclusive=False), fit.scores)


@pytest.mark.parametrize("strength", [0.0, 1.0, 4.0])
def test_the_temperature_fits_the_probabilities_to_other_patients(
    informative: Any, labeled: Any, strength: float
) -> None:
    data = labeled(patients=150)
    features, y = informative(data, strength=strength), data.truth.classes
    fit = fit_ncm(LabeledFeatures(features, data.truth, data.patients), features)
    assert (fit.validation > 0).all()
    log_odds = np.log(fit.validation[:, 1] / fit.validation[:, 0])

    def log_loss(factor: float) -> float:
        return float(np.log1p(np.exp(np.where(y == 1, -factor, factor) * log_odds)).mean())

    assert log_loss(1.0) <= min(log_loss(0.8), log_loss(1.25)) + 1e-4
    if strength:
        assert auroc(fit.validation[:, 1], y == 1) > 0.7
