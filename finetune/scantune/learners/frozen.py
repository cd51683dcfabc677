"""Learners on frozen features: k nearest neighbours and a linear probe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.special import logit

from scanlearn.features.auroc import macro_auroc
from scanlearn.features.labelfree import unit_rows
from scantune.labels.truth import Truth
from scantune.learners.learner import Fit, LabeledFeatures, Learner, LearnerInputs
from scantune.learners.logistic import PenaltyPath, PrincipalAxes
from scantune.learners.weighting import PLAIN, ProbeRows
from scantune.splits import inner_folds

NEIGHBOURS = 20
KNN_TEMPERATURE = 0.07
# Cosines that differ by no more than rounding in float32 are equal.
_ROUNDING = 1e-6
C_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True)
class LinearFit(Fit):
    """A fitted linear probe's answer; a class it never saw has a probability of 0.

    Args:
        chosen_c: The inverse regularisation strength that the training patients chose: one, or one
            for each finding.
        weights: ``[d k]`` on features as they are given.
        intercepts: ``[k]``; `probabilities` of both gives the scores.
    """

    chosen_c: tuple[float, ...]
    weights: Float[np.ndarray, "d k"]
    intercepts: Float[np.ndarray, " k"]


def build_knn(inputs: LearnerInputs) -> Learner:
    """Returns nearest neighbours on the features."""

    def learn(rows: Int[np.ndarray, " t"], test: Int[np.ndarray, " u"], seed: int) -> Fit:
        train, tested = inputs.train(rows), inputs.features[test]

        def refit(kept: Bool[np.ndarray, " t"]) -> Float[np.ndarray, "u k"]:
            return fit_knn(train.features[kept], train.truth[kept], tested)

        votes = fit_knn(train.features, train.truth, tested)
        return Fit(votes, validate_knn(train, seed), refit=refit)

    return learn


def build_linear(inputs: LearnerInputs) -> Learner:
    """Returns the linear probe on the features."""
    return linear_learner(partial(fit_linear, rows=inputs.config.probe_rows), inputs)


def linear_learner(fit: Callable[..., LinearFit], inputs: LearnerInputs) -> Learner:
    """Returns a learner from a function of the signature of `fit_linear`."""

    def learn(rows: Int[np.ndarray, " t"], test: Int[np.ndarray, " u"], seed: int) -> Fit:
        return fit(inputs.train(rows), inputs.features[test], seed=seed)

    return learn


def fit_knn(
    train: Shaped[np.ndarray, "t d"],
    truth: Truth,
    test: Shaped[np.ndarray, "u d"],
    *,
    neighbours: int = NEIGHBOURS,
) -> Float[np.ndarray, "u k"]:
    """Returns each class's share of the votes of the nearest training scans.

    Neighbours are the nearest by cosine, at most as many as there are training scans; a vote
    weighs exp(cosine / 0.07). Scans equally far away share the last places: the order of rows
    decided among copies of a scan, for the first class where rows are sorted by class. On a finding
    the nearest scans of which it is known vote.

    Source: Wu et al. 2018 (instance discrimination), section 3.4; k = 20 and the temperature are
    those of DINO's ``eval_knn.py``.
    """
    similarity = unit_rows(test) @ unit_rows(train).T
    member = truth.matrix == 1
    if (truth.matrix >= 0).all():
        return _vote(similarity, member, neighbours)
    known = [truth.known(code) for code in range(truth.num_classes)]
    shares = [
        _vote(similarity[:, rows], member[rows, code : code + 1], neighbours)
        for code, rows in enumerate(known)
    ]
    return np.concatenate(shares, axis=1)


def _vote(
    similarity: Float[np.ndarray, "u t"], member: Bool[np.ndarray, "t k"], neighbours: int
) -> Float[np.ndarray, "u k"]:
    scores = np.zeros((len(similarity), member.shape[1]))
    if not len(member):
        # Of a finding that is known of no training scan nothing can be said: 0 for every scan.
        return scores
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :neighbours]
    near = np.take_along_axis(similarity, nearest, axis=1)
    is_last = near <= near[:, -1:] + _ROUNDING
    tied = np.abs(similarity - near[:, -1:]) <= _ROUNDING
    # The nearest neighbour weighs 1: a common factor leaves the shares as they are.
    votes = np.exp((near - near[:, :1]) / KNN_TEMPERATURE)
    last_votes = votes[:, -1] * is_last.sum(axis=1)
    votes[is_last] = 0
    for code in range(member.shape[1]):
        scores[:, code] = (votes * member[nearest, code]).sum(axis=1)
    scores += (last_votes / tied.sum(axis=1))[:, None] * (tied @ member.astype(np.float64))
    return np.asarray(scores / (votes.sum(axis=1) + last_votes)[:, None])


def validate_knn(train: LabeledFeatures, seed: int) -> Float[np.ndarray, "t k"]:
    """Returns the votes that each training scan gets from patients of other inner folds."""
    validation = np.full(train.truth.matrix.shape, np.nan)
    for fold in inner_folds(train.truth, train.patients, seed):
        voters = train[fold.train]
        votes = fit_knn(voters.features, voters.truth, train.features[fold.test])
        validation[fold.test] = np.where(voters.truth.contrast, votes, np.nan)
    return validation


def fit_linear(
    train: LabeledFeatures,
    test: Shaped[np.ndarray, "u d"],
    *,
    seed: int = 0,
    rows: ProbeRows = PLAIN,
) -> LinearFit:
    """Returns the class probabilities of L2-regularised logistic regression.

    Features are standardised by the training scans. C is the one of ``C_GRID`` with the best
    AUROC in inner folds of the training patients, the smaller one of equals. Test features enter
    nothing but the prediction. Each finding has a regression of its own.

    Args:
        train: Of at least two classes; its patients make the inner folds.
        seed: Of the inner folds, and of mixtures.
    """
    return fit_each_finding(partial(_regress, seed=seed, rows=rows), train, test)


def fit_each_finding(
    fit: Callable[[LabeledFeatures, Shaped[np.ndarray, "u d"]], LinearFit],
    train: LabeledFeatures,
    test: Shaped[np.ndarray, "u d"],
) -> LinearFit:
    """Returns the fit of classes that exclude each other; of findings one of each, joined.

    A finding is fitted as two classes on the scans of which it is known. One that is the same in
    all of them is given the share of its positives, 0 or 1.
    """
    if train.truth.is_exclusive:
        return fit(train, test)
    fits = [_fit_finding(fit, train, code, test) for code in range(train.truth.num_classes)]

    def refit(kept: Bool[np.ndarray, " t"]) -> Float[np.ndarray, "u k"]:
        return np.column_stack([each.refit(kept) for each in fits if each.refit is not None])

    return LinearFit(
        refit=refit if all(each.refit is not None for each in fits) else None,
        scores=np.column_stack([each.scores for each in fits]),
        validation=np.column_stack([each.validation for each in fits]),
        chosen_c=tuple(c for each in fits for c in each.chosen_c),
        weights=np.column_stack([each.weights for each in fits]),
        intercepts=np.concatenate([each.intercepts for each in fits]),
        caveats=tuple({caveat: None for each in fits for caveat in each.caveats}),
    )


def _fit_finding(
    fit: Callable[[LabeledFeatures, Shaped[np.ndarray, "u d"]], LinearFit],
    train: LabeledFeatures,
    code: int,
    test: Shaped[np.ndarray, "u d"],
) -> LinearFit:
    """Returns the fit of one finding, ``k`` = 1."""
    truth, known = train.truth, train.truth.known(code)
    # Of a finding that is known of no training scan nothing can be said: 0 for every scan.
    share = float(truth.positives(code)[known].mean()) if known.any() else 0.0
    validation = np.full((len(truth), 1), np.nan)
    if share in (0.0, 1.0):
        weights, intercepts = np.zeros((test.shape[1], 1)), np.array([logit(share)])
        same = np.full((len(test), 1), share)
        return LinearFit(same, validation, (), weights, intercepts, refit=lambda _: same)
    two_classes = fit(replace(train[known], truth=truth.of_finding(code)), test)

    def refit(kept: Bool[np.ndarray, " t"]) -> Float[np.ndarray, "u 1"]:
        positives = truth.positives(code)[kept & known]
        if positives.all() or not positives.any():
            return np.full((len(test), 1), float(positives.any()))
        assert two_classes.refit is not None, "learners of classes refit, or none of them does"
        return two_classes.refit(kept[known])[:, 1:]

    validation[known] = two_classes.validation[:, 1:]
    weights, intercepts = two_classes.weights, two_classes.intercepts
    return LinearFit(
        scores=two_classes.scores[:, 1:],
        validation=validation,
        chosen_c=two_classes.chosen_c,
        weights=weights[:, 1:] - weights[:, :1],
        intercepts=intercepts[1:] - intercepts[:1],
        refit=None if two_classes.refit is None else refit,
        caveats=two_classes.caveats,
    )


def _regress(
    train: LabeledFeatures, test: Shaped[np.ndarray, "u d"], *, seed: int, rows: ProbeRows
) -> LinearFit:
    axes = PrincipalAxes.of(train.features)
    z = replace(train, features=axes.project(train.features))
    chosen, validation = _choose_c(z, seed, rows)
    path = _path(z, seed, rows).fit(chosen)
    weights, intercepts = path.coefficients()
    weights = axes.matrix @ weights
    tested = axes.project(test)

    def refit(kept: Bool[np.ndarray, " t"]) -> Float[np.ndarray, "u k"]:
        return _path(z[kept], seed, rows).fit(chosen).predict(tested)

    return LinearFit(
        refit=refit,
        scores=path.predict(tested),
        validation=validation,
        chosen_c=(chosen,),
        weights=weights,
        intercepts=intercepts - axes.mean @ weights,
        caveats=() if path.converged else ("the logistic regression did not converge",),
    )


def _path(z: LabeledFeatures, seed: int, rows: ProbeRows) -> PenaltyPath:
    k = z.truth.num_classes
    if rows == PLAIN:
        return PenaltyPath(z.features, z.truth.classes, k)
    features, y, shares = rows.of(z.features, z.truth, seed)
    return PenaltyPath(features, y, k, shares)


def _choose_c(
    z: LabeledFeatures, seed: int, rows: ProbeRows
) -> tuple[float, Float[np.ndarray, "t k"]]:
    """Returns the C with the best mean AUROC over inner folds of the training patients.

    Also ``[t k]`` the probabilities that the inner folds' models gave at that C; NaN without folds.
    """
    truth, asked = z.truth, list(z.truth.asked)
    folds = inner_folds(truth, z.patients, seed)
    aurocs = np.full((len(folds), len(C_GRID)), np.nan)
    validation = np.full((len(C_GRID), *truth.matrix.shape), np.nan)
    for number, fold in enumerate(folds):
        path, taught = _path(z[fold.train], seed, rows), truth[fold.train].contrast
        test_truth = np.where(taught, truth.matrix[fold.test], np.int8(-1))[:, asked]
        for place, c in enumerate(C_GRID):
            scores = path.fit(c).predict(z.features[fold.test])
            validation[place, fold.test] = np.where(taught, scores, np.nan)
            aurocs[number, place] = macro_auroc(scores[:, asked], test_truth).auroc
    aurocs = aurocs[~np.isnan(aurocs).any(axis=1)]
    # Too few patients to choose by: the middle of the grid.
    best = len(C_GRID) // 2
    if len(aurocs):
        best = int(np.argmax(np.round(aurocs.mean(axis=0), 12)))
    return C_GRID[best], validation[best]
