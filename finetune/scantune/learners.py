"""Learners on frozen features: k nearest neighbours and a linear probe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from scanlearn.core import ScanlearnError
from scanlearn.metrics import macro_auroc
from scantune.logistic import PenaltyPath, PrincipalAxes
from scantune.splits import Fold, patient_folds

NEIGHBOURS = 20
KNN_TEMPERATURE = 0.07
C_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
INNER_FOLDS = 5


@dataclass(frozen=True)
class LinearFit:
    """A fitted linear probe's answer.

    Args:
        scores: ``[u k]`` probability of each class; 0 for a class it never saw.
        validation: ``[t k]`` the same of the training scans, by models of inner folds that never
            saw their patient; NaN where there are too few patients.
        chosen_c: The inverse regularisation strength that the training patients chose.
        weights: ``[d k]`` on features as they are given.
        intercepts: ``[k]``; the softmax of both gives the scores.
    """

    scores: Float[np.ndarray, "u k"]
    validation: Float[np.ndarray, "t k"]
    chosen_c: float
    weights: Float[np.ndarray, "d k"]
    intercepts: Float[np.ndarray, " k"]


def fit_knn(
    train: Shaped[np.ndarray, "t d"],
    y: Int[np.ndarray, " t"],
    test: Shaped[np.ndarray, "u d"],
    num_classes: int,
    *,
    neighbours: int = NEIGHBOURS,
) -> Float[np.ndarray, "u k"]:
    """Returns each class's share of the votes of the nearest training scans.

    Neighbours are the nearest by cosine, at most as many as there are training scans; a vote
    weighs exp(cosine / 0.07).

    Args:
        train: ``[t d]`` features to vote.
        y: ``[t]`` their classes.
        test: ``[u d]`` features to score.
        num_classes: k.
        neighbours: Voters for each scan.

    Source: Wu et al. 2018 (instance discrimination), section 3.4; k = 20 and the temperature are
    those of DINO's ``eval_knn.py``.
    """
    similarity = _unit_rows(test) @ _unit_rows(train).T
    k = min(neighbours, similarity.shape[1])
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    near = np.take_along_axis(similarity, nearest, axis=1)
    # The nearest neighbour weighs 1: a common factor leaves the shares as they are.
    votes = np.exp((near - near[:, :1]) / KNN_TEMPERATURE)
    scores = np.zeros((len(test), num_classes))
    for code in range(num_classes):
        scores[:, code] = (votes * (y[nearest] == code)).sum(axis=1)
    scores /= scores.sum(axis=1, keepdims=True)
    return scores


def validate_knn(
    features: Shaped[np.ndarray, "t d"],
    y: Int[np.ndarray, " t"],
    patients: Int[np.ndarray, " t"],
    num_classes: int,
    seed: int,
) -> Float[np.ndarray, "t k"]:
    """Returns the votes that each training scan gets from patients of other inner folds."""
    validation = np.full((len(y), num_classes), np.nan)
    for part in _inner_folds(y, patients, seed):
        votes = fit_knn(features[part.train], y[part.train], features[part.test], num_classes)
        validation[part.test] = votes
    return validation


def fit_linear(
    train: Shaped[np.ndarray, "t d"],
    y: Int[np.ndarray, " t"],
    patients: Int[np.ndarray, " t"],
    test: Shaped[np.ndarray, "u d"],
    num_classes: int,
    *,
    seed: int = 0,
) -> LinearFit:
    """Returns the class probabilities of L2-regularised logistic regression.

    Features are standardised by the training scans. C is the one of ``C_GRID`` with the best
    AUROC in inner folds of the training patients, the smaller one of equals. Test features enter
    nothing but the prediction.

    Args:
        train: ``[t d]`` features to fit on.
        y: ``[t]`` their classes, at least two.
        patients: ``[t]`` their patients, for the inner folds.
        test: ``[u d]`` features to score.
        num_classes: k.
        seed: Seed of the inner folds.
    """
    axes = PrincipalAxes.of(train)
    z = axes.project(train)
    chosen, validation = _choose_c(z, y, patients, num_classes, seed)
    path = PenaltyPath(z, y, num_classes).fit(chosen)
    weights, intercepts = path.coefficients()
    weights = axes.matrix @ weights
    return LinearFit(
        scores=path.predict(axes.project(test)),
        validation=validation,
        chosen_c=chosen,
        weights=weights,
        intercepts=intercepts - axes.mean @ weights,
    )


def _unit_rows(features: Shaped[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    features = np.asarray(features, dtype=np.float64)
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(norm > 0, norm, 1.0)


def _choose_c(
    z: Float[np.ndarray, "t e"],
    y: Int[np.ndarray, " t"],
    patients: Int[np.ndarray, " t"],
    num_classes: int,
    seed: int,
) -> tuple[float, Float[np.ndarray, "t k"]]:
    """Returns the C with the best mean AUROC over inner folds of the training patients.

    Also ``[t k]`` the probabilities that the inner folds' models gave at that C; NaN without folds.
    """
    parts = _inner_folds(y, patients, seed)
    scored = np.full((len(parts), len(C_GRID)), np.nan)
    validation = np.full((len(C_GRID), len(y), num_classes), np.nan)
    for number, part in enumerate(parts):
        path = PenaltyPath(z[part.train], y[part.train], num_classes)
        for place, c in enumerate(C_GRID):
            validation[place, part.test] = path.fit(c).predict(z[part.test])
            found = macro_auroc(validation[place, part.test], y[part.test])
            scored[number, place] = found.auroc
    scored = scored[~np.isnan(scored).any(axis=1)]
    # Too few patients to choose by: the middle of the grid.
    best = len(C_GRID) // 2
    if len(scored):
        best = int(np.argmax(np.round(scored.mean(axis=0), 12)))
    return C_GRID[best], validation[best]


def _inner_folds(
    y: Int[np.ndarray, " t"], patients: Int[np.ndarray, " t"], seed: int
) -> tuple[Fold, ...]:
    """Returns folds of the training patients; none where there are too few."""
    try:
        return patient_folds(y, patients, min(INNER_FOLDS, len(np.unique(patients))), seed)
    except ScanlearnError:
        return ()
