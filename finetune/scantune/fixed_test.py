"""DeLong's statistics of a given split, whose one test set every model scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from scantune.delong import (
    DelongDifference,
    DelongInterval,
    delong_difference,
    delong_interval,
)
from scantune.scores import Scores


def class_interval(scores: Scores, learner: str, budget: str | int, code: int) -> DelongInterval:
    """Returns the interval of a class's AUROC, mean over label seeds, its patients clustered.

    It speaks of the models at hand: test patients are drawn, label subsets are not. NaN where folds
    test different scans.

    Args:
        scores: Scores of every scan.
        learner: One of its learners.
        budget: One of its label budgets.
        code: The class.
    """
    rows = _fixed_rows(scores, code)
    if rows is None:
        return DelongInterval(*[float("nan")] * 4)
    positives = scores.truth.positives(code)[rows]
    return delong_interval(
        _columns([scores], learner, budget, code, rows), positives, scores.patients[rows]
    )


def class_difference(
    first: Sequence[Scores], second: Sequence[Scores], learner: str, budget: str | int, code: int
) -> DelongDifference:
    """Returns the paired difference of two arms' mean AUROC of a class, and its test.

    It speaks of the networks at hand and not of their recipes: pretraining seeds are not drawn.
    NaN where folds test different scans.

    Args:
        first: One arm, a `Scores` for each pretraining seed.
        second: The other, of the same labeled set and split.
        learner: One of their learners.
        budget: One of their label budgets.
        code: The class.
    """
    rows = _fixed_rows(first[0], code)
    if rows is None:
        return DelongDifference(*[float("nan")] * 5)
    return delong_difference(
        _columns(first, learner, budget, code, rows),
        _columns(second, learner, budget, code, rows),
        first[0].truth.positives(code)[rows],
        first[0].patients[rows],
    )


def _fixed_rows(scores: Scores, code: int) -> Int[np.ndarray, " u"] | None:
    """Returns the known rows of a class that all models test; None where they differ."""
    if scores.num_folds > 1 or (scores.fold_of != scores.fold_of[0]).any():
        return None
    return scores.test_rows(0, 0, code)


def _columns(
    networks: Sequence[Scores],
    learner: str,
    budget: str | int,
    code: int,
    rows: Int[np.ndarray, " u"],
) -> Float[np.ndarray, "u a"]:
    """Returns a class's scores by each network and label seed."""
    return np.concatenate([one.of(learner, budget)[:, rows, code] for one in networks]).T
