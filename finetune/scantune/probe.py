"""Learners on frozen features: k nearest neighbours and a linear probe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int, Shaped

from scanlearn.core import ScanlearnError
from scanlearn.metrics import macro_auroc
from scantune.clinical import thresholds_of
from scantune.labels import LabeledSet
from scantune.logistic import PenaltyPath, principal_axes
from scantune.scores import Scores
from scantune.splits import Budget, Fold, budget_rows, given_split, patient_folds

Learner = Literal["knn", "linear"]

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
    """

    scores: Float[np.ndarray, "u k"]
    validation: Float[np.ndarray, "t k"]
    chosen_c: float


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
    z, z_test = principal_axes(train, test)
    chosen, validation = _choose_c(z, y, patients, num_classes, seed)
    scores = PenaltyPath(z, y, num_classes).fit(chosen).predict(z_test)
    return LinearFit(scores, validation, chosen)


def score_features(
    features: Shaped[np.ndarray, "n d"],
    labeled: LabeledSet,
    *,
    learners: Sequence[str] = ("knn", "linear"),
    budgets: Sequence[Budget] = ("all",),
    folds: int = 5,
    label_seeds: int = 3,
    on_fit: Callable[[], object] | None = None,
) -> Scores:
    """Returns out-of-fold scores for every learner, label budget, label seed and fold.

    Folds and subsets depend on labels, patients and the label seed alone: arms that share a
    labeled set share them. With a given split there is one fold and only the subsets vary.

    Args:
        features: ``[n d]``, a row per scan of ``labeled``.
        labeled: Classes and patients of the scans.
        learners: Of "knn" and "linear".
        budgets: Scans in the training fold, or "all".
        folds: Patient-level folds; not used where the split is given.
        label_seeds: Repetitions, seeded 0, 1, ...: other folds, other subsets.
        on_fit: Called after each model, ``len(learners) * len(budgets) * label_seeds * folds``
            times, to show progress.

    Raises:
        ScanlearnError: If a feature is not finite, an option is unknown, or folds cannot be made.
    """
    _check_request(features, labeled, learners, budgets, label_seeds)
    plan = [_folds_of(labeled, folds, seed) for seed in range(label_seeds)]
    n, k, num_folds = len(labeled), len(labeled.classes), len(plan[0])
    fold_of = np.full((label_seeds, n), -1, dtype=np.int64)
    values = np.full((len(learners), len(budgets), label_seeds, n, k), np.nan)
    thresholds = np.full((len(learners), len(budgets), label_seeds, num_folds, k), np.nan)
    used = np.zeros((2, len(budgets), label_seeds, num_folds), dtype=np.int64)
    short: dict[Budget, int] = {}
    for seed, parts in enumerate(plan):
        for number, fold in enumerate(parts):
            fold_of[seed, fold.test] = number
            for place, budget in enumerate(budgets):
                subset = budget_rows(fold.train, labeled.y, labeled.patients, budget, seed)
                used[:, place, seed, number] = subset.num_scans, subset.num_patients
                if subset.is_short:
                    short[budget] = max(short.get(budget, 0), subset.num_scans)
                for index, learner in enumerate(learners):
                    answer = _fit(learner, features, labeled, subset.rows, fold.test, seed)
                    values[index, place, seed, fold.test], validation = answer
                    thresholds[index, place, seed, number] = thresholds_of(
                        validation, labeled.y[subset.rows]
                    )
                    if on_fit is not None:
                        on_fit()
    return Scores(
        learners=tuple(learners),
        budgets=tuple(str(budget) for budget in budgets),
        classes=labeled.classes,
        y=labeled.y,
        patients=labeled.patients,
        fold_of=fold_of,
        values=values,
        thresholds=thresholds,
        train_scans=used[0],
        train_patients=used[1],
        notes=tuple(
            f"a budget of {budget} labels is larger than the training folds (at most {most} "
            "scans) and equals all"
            for budget, most in short.items()
        ),
    )


def _check_request(
    features: Shaped[np.ndarray, "n d"],
    labeled: LabeledSet,
    learners: Sequence[str],
    budgets: Sequence[Budget],
    label_seeds: int,
) -> None:
    if len(features) != len(labeled):
        raise ValueError(f"{len(features)} rows of features for {len(labeled)} labeled scans")
    broken = ~np.isfinite(features).all(axis=1)
    if broken.any():
        raise ScanlearnError(
            f"the features of {int(broken.sum())} of {len(features)} scans are not finite, first "
            f"in row {int(labeled.rows[np.argmax(broken)]) + 1}; the backbone's weights are broken"
        )
    for learner in learners:
        if learner not in get_args(Learner):
            raise ScanlearnError(
                f"learner '{learner}' is unknown; give {' or '.join(get_args(Learner))}"
            )
    for budget in budgets:
        if budget != "all" and (not isinstance(budget, int) or budget < 1):
            raise ScanlearnError(
                f"label budget '{budget}' is no count of scans; give 1 or more, or all"
            )
    for kind, number in (
        ("learners", len(learners)),
        ("budgets", len(budgets)),
        ("label_seeds", label_seeds),
    ):
        if number < 1:
            raise ScanlearnError(f"{kind} is empty; give at least one")


def _folds_of(labeled: LabeledSet, folds: int, seed: int) -> tuple[Fold, ...]:
    if labeled.split is not None:
        return (given_split(labeled.split, labeled.y, labeled.patients, labeled.rows + 1),)
    return patient_folds(labeled.y, labeled.patients, folds, seed)


def _fit(
    learner: str,
    features: Shaped[np.ndarray, "n d"],
    labeled: LabeledSet,
    rows: Int[np.ndarray, " t"],
    test: Int[np.ndarray, " u"],
    seed: int,
) -> tuple[Float[np.ndarray, "u k"], Float[np.ndarray, "t k"]]:
    """Returns the scores of the test scans, and those of the training scans in inner folds."""
    k, y, patients = len(labeled.classes), labeled.y[rows], labeled.patients[rows]
    if learner == "knn":
        votes = fit_knn(features[rows], y, features[test], k)
        return votes, _validate_knn(features[rows], y, patients, k, seed)
    fit = fit_linear(features[rows], y, patients, features[test], k, seed=seed)
    return fit.scores, fit.validation


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


def _validate_knn(
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
