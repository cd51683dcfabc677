from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from scantune.labels.truth import Truth
from scantune.learners import frozen, logistic
from scantune.learners.frozen import C_GRID, fit_linear
from scantune.learners.learner import LabeledFeatures
from scantune.learners.logistic import PenaltyPath, PrincipalAxes

CS = (1e-4, 1e-2, 1.0, 10.0)


def principal_axes(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sides on the axes of the first."""
    axes = PrincipalAxes.of(train)
    return axes.project(train), axes.project(test)


def collinear(
    n: int, d: int, classes: int, seed: int = 0, apart: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Features whose variances span four orders of magnitude, on offsets of their own."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    hidden = rng.normal(size=(n, d)) * np.logspace(0, -2, d)
    hidden[:, :classes] += apart * np.eye(classes)[y]
    return hidden @ rng.normal(size=(d, d)) + rng.normal(size=d), y


def by_scikit_learn(train: np.ndarray, y: np.ndarray, test: np.ndarray, c: float) -> np.ndarray:
    mean, std = train.mean(axis=0), train.std(axis=0)
    model = LogisticRegression(C=c, tol=1e-9, max_iter=100_000).fit((train - mean) / std, y)
    probabilities: np.ndarray = model.predict_proba((test - mean) / std)
    return probabilities


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("d", [10, 90])
def test_every_fit_of_the_path_equals_that_of_scikit_learn(
    classes: int, d: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logistic, "_TOLERANCE", 1e-8)
    monkeypatch.setattr(logistic, "_MAX_STEPS", 10_000)
    x, y = collinear(100, d, classes)
    train, test = x[:70], x[70:]
    z, z_test = principal_axes(train, test)
    path = PenaltyPath(z, y[:70], classes)
    for c in CS:
        expected = by_scikit_learn(train, y[:70], test, c)
        np.testing.assert_allclose(path.fit(c).predict(z_test), expected, atol=2e-4)


@pytest.mark.parametrize(
    ("n", "d", "classes", "apart"),
    [
        *[(200, 60, 2, 1.0), (200, 60, 2, 6.0), (100, 300, 2, 1.0), (100, 300, 4, 1.0)],
        *[(300, 60, 4, 1.0), (300, 60, 4, 6.0), (100, 200, 3, 6.0)],
    ],
)
@pytest.mark.parametrize("units", [0, 4])
def test_no_probability_is_off_by_a_thousandth_at_any_penalty(
    n: int, d: int, classes: int, apart: float, units: int
) -> None:
    x, y = collinear(n + 50, d, classes, apart=apart)
    x *= 10.0 ** np.random.default_rng(1).uniform(-units, units, d)
    scaled = (x - x[:n].mean(axis=0)) / x[:n].std(axis=0)
    z, z_test = principal_axes(x[:n], x[n:])
    path = PenaltyPath(z, y[:n], classes)
    for c in C_GRID:
        # Newton's method with the whole Hessian, as closely as float64 can.
        tight = LogisticRegression(C=c, tol=1e-12, max_iter=500, solver="newton-cholesky")
        expected = tight.fit(scaled[:n], y[:n]).predict_proba(scaled[n:])
        assert np.abs(path.fit(c).predict(z_test) - expected).max() < 1e-3
        assert path.converged


@pytest.mark.parametrize("classes", [2, 3])
def test_a_hard_fit_goes_on_along_axes_of_its_curvature(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nearly as many axes as scans: at weak penalties the classes part slowly.
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, 350)
    x = rng.normal(size=(350, 250)) * np.logspace(0, -3, 250)
    x[:, :classes] += 2 * np.eye(classes)[y]
    x = x @ rng.normal(size=(250, 250))
    z, z_test = principal_axes(x[:300], x[300:])
    steps: list[int] = []
    descend = PenaltyPath._descend

    def counted(*args: Any) -> Any:
        found = descend(*args)
        steps.append(found.nit)
        return found

    monkeypatch.setattr(PenaltyPath, "_descend", counted)
    path = PenaltyPath(z, y[:300], classes)
    quick = [path.fit(c).predict(z_test) for c in C_GRID]
    num_quick = sum(steps)
    steps.clear()
    monkeypatch.setattr(logistic, "_MOST_CURVED", 0)
    path = PenaltyPath(z, y[:300], classes)
    plain = [path.fit(c).predict(z_test) for c in C_GRID]
    assert len(steps) == len(C_GRID)
    assert num_quick < sum(steps) / 2
    np.testing.assert_allclose(quick, plain, atol=1e-3)


def test_a_fit_that_does_not_converge_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = collinear(100, 60, 2)
    monkeypatch.setattr(logistic, "_MAX_STEPS", 1)
    monkeypatch.setattr(frozen, "C_GRID", (10.0,))
    z, _ = principal_axes(x, x)
    assert not PenaltyPath(z, y, 2).fit(10.0).converged
    fit = fit_linear(LabeledFeatures(x, Truth.of_classes(y, 2), np.arange(100)), x)
    assert fit.caveats == ("the logistic regression did not converge",)


def test_axes_come_from_the_training_scans_alone() -> None:
    x, _ = collinear(50, 8, 2)
    other = x[30:].copy()
    other[0] *= 1e6
    z, z_test = principal_axes(x[:30], x[30:])
    z_again, z_other = principal_axes(x[:30], other)
    np.testing.assert_array_equal(z, z_again)
    np.testing.assert_allclose(z_test[1:], z_other[1:], rtol=1e-12)


def test_no_more_axes_than_training_scans() -> None:
    x, _ = collinear(60, 200, 2)
    z, z_test = principal_axes(x[:20], x[20:])
    assert z.shape[1] < 20
    assert z_test.shape == (40, z.shape[1])
    standardised = (x[:20] - x[:20].mean(axis=0)) / x[:20].std(axis=0)
    np.testing.assert_allclose(z @ z.T, standardised @ standardised.T, atol=1e-4)


def test_a_dimension_that_does_not_move_is_left_out() -> None:
    x, y = collinear(60, 5, 2)
    dead = np.full((60, 1), 0.1) + 1e-9 * np.random.default_rng(0).normal(size=(60, 1))
    z, z_test = principal_axes(x[:40], x[40:])
    padded, padded_test = principal_axes(np.hstack([x, dead])[:40], np.hstack([x, 1e9 * dead])[40:])
    plain = PenaltyPath(z, y[:40], 2).fit(1.0).predict(z_test)
    np.testing.assert_allclose(
        PenaltyPath(padded, y[:40], 2).fit(1.0).predict(padded_test), plain, atol=1e-9
    )


def test_constant_features_give_the_class_shares() -> None:
    y = np.array([0, 0, 0, 1])
    z, z_test = principal_axes(np.ones((4, 3)), np.ones((2, 3)))
    probabilities = PenaltyPath(z, y, 2).fit(1.0).predict(z_test)
    np.testing.assert_allclose(probabilities, [[0.75, 0.25]] * 2, atol=1e-6)


def test_a_class_without_training_scans_has_probability_zero() -> None:
    x, y = collinear(60, 5, 2)
    z, z_test = principal_axes(x[:40], x[40:])
    probabilities = PenaltyPath(z, 2 * y[:40], 4).fit(1.0).predict(z_test)
    assert (probabilities[:, [1, 3]] == 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_row_that_counts_for_two_is_a_row_that_stands_twice(classes: int) -> None:
    x, y = collinear(60, 5, classes)
    z, z_test = principal_axes(x[:40], x[40:])
    twice = np.arange(40) % 3 == 0
    weighed = PenaltyPath(z, y[:40], classes, 1.0 + twice).fit(1.0).predict(z_test)
    z_more, y_more = np.concatenate([z, z[twice]]), np.concatenate([y[:40], y[:40][twice]])
    repeated = PenaltyPath(z_more, y_more, classes).fit(1.0).predict(z_test)
    np.testing.assert_allclose(weighed, repeated, atol=2e-3)
    plain = PenaltyPath(z, y[:40], classes).fit(1.0).predict(z_test)
    assert np.abs(weighed - plain).max() > 1e-2
