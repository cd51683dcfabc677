"""Nearest class mean on frozen features: the classifier without anything to tune."""

from __future__ import annotations

from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from scantune.learners.frozen import LinearFit, fit_each_finding, linear_learner
from scantune.learners.learner import LabeledFeatures, Learner, LearnerInputs, probabilities
from scantune.learners.logistic import is_alive
from scantune.splits import inner_folds

# Limits of the temperature, by its natural logarithm: lower ones make ties of 0 and 1.
_LOG_TEMPERATURES = (-3.0, 7.0)


def build(inputs: LearnerInputs) -> Learner:
    """Returns the nearest class mean on the features."""
    return linear_learner(fit_ncm, inputs)


def fit_ncm(train: LabeledFeatures, test: Shaped[np.ndarray, "u d"], *, seed: int = 0) -> LinearFit:
    """Returns class probabilities by the distance to the mean of each class.

    Features are standardised by the training scans. The probabilities are the softmax of the
    negative squared distances, averaged over the features and divided by a temperature; this is
    a linear classifier. The temperature has the lowest log loss in inner folds of the training
    patients; 1 where they are too few. A finding has two means: of scans with and
    without it. A class without a training scan has a probability of 0.

    Source: Mensink et al. 2013 (TPAMI 35, 2624-2637); the softmax is Snell et al. 2017 (arXiv
    1703.05175), equation 2, the linear form their section 2.4; the temperature Guo et al. 2017
    (arXiv 1706.04599), section 4.2.
    """
    return fit_each_finding(partial(_fit_classes, seed=seed), train, test)


def _fit_classes(
    train: LabeledFeatures, test: Shaped[np.ndarray, "u d"], *, seed: int
) -> LinearFit:
    logits = np.full(train.truth.matrix.shape, np.nan)
    for fold in inner_folds(train.truth, train.patients, seed):
        weights, intercepts = _linear_form(train[fold.train])
        logits[fold.test] = train.features[fold.test] @ weights + intercepts
    temperature = _temperature(logits, train.truth.classes)
    weights, intercepts = (part / temperature for part in _linear_form(train))

    def refit(kept: Bool[np.ndarray, " t"]) -> Float[np.ndarray, "u k"]:
        weights, intercepts = _linear_form(train[kept])
        return probabilities((test @ weights + intercepts) / temperature, is_exclusive=True)

    return LinearFit(
        refit=refit,
        scores=probabilities(test @ weights + intercepts, is_exclusive=True),
        validation=np.where(
            np.isneginf(logits), np.nan, probabilities(logits / temperature, is_exclusive=True)
        ),
        chosen_c=(),
        weights=weights,
        intercepts=intercepts,
    )


def _linear_form(
    train: LabeledFeatures,
) -> tuple[Float[np.ndarray, "d k"], Float[np.ndarray, " k"]]:
    """Returns weights and intercepts whose logits are the negative mean squared distances.

    What all classes of a scan share, the scan's own square, is left out.
    """
    features = np.asarray(train.features, np.float64)
    mean, std = features.mean(axis=0), features.std(axis=0)
    alive = is_alive(features, std)
    scale = np.divide(1.0, std, out=np.zeros_like(std), where=alive)
    members = train.truth.matrix == 1
    counts = members.sum(axis=0)
    means = (members.T @ ((features - mean) * scale)) / np.maximum(counts, 1)[:, None]
    num_alive = max(1, int(alive.sum()))
    weights = (2 / num_alive) * (means * scale).T
    intercepts = -(means**2).sum(axis=1) / num_alive - mean @ weights
    return weights, np.where(counts > 0, intercepts, -np.inf)


def _temperature(logits: Float[np.ndarray, "t k"], classes: Int[np.ndarray, " t"]) -> float:
    """Returns the temperature of the lowest log loss on scans with a logit for their class."""
    rows = np.flatnonzero(np.isfinite(logits[np.arange(len(logits)), classes]))
    if not len(rows):
        return 1.0
    logits, classes = logits[rows], classes[rows]

    def log_loss(log_temperature: float) -> float:
        log_p = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(log_p[np.arange(len(classes)), classes].mean())

    best = minimize_scalar(log_loss, bounds=_LOG_TEMPERATURES, method="bounded")
    return float(np.exp(best.x))
