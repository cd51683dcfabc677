from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from scantune.delong import delong_difference, delong_interval
from scantune.fixed_test import class_difference, class_interval
from scantune.labels import LabeledSet
from scantune.probe import score_features
from scantune.scores import Scores


def scored(data: LabeledSet, seed: int = 3) -> Scores:
    features = np.random.default_rng(seed).normal(size=(len(data), 4))
    features += data.truth.classes[:, None]
    return score_features(
        features, data, learners=("linear",), budgets=(60,), folds=2, label_seeds=3
    )


def test_the_interval_is_delongs_of_the_mean_over_label_seeds(
    labeled: Callable[..., LabeledSet],
) -> None:
    data = labeled(patients=80, split=True)
    scores = scored(data)
    rows = scores.test_rows(0, 0)
    tested = scores.of("linear", 60)[:, rows, 1].T
    assert tested.shape == (len(rows), 3)
    expected = delong_interval(tested, data.truth.positives(1)[rows], data.patients[rows])
    assert class_interval(scores, "linear", 60, 1) == expected


def test_scans_of_which_a_class_is_unknown_are_left_out(labeled: Callable[..., LabeledSet]) -> None:
    scores = scored(labeled(patients=80, split=True))
    rows = scores.test_rows(0, 0)
    known = class_interval(scores, "linear", 60, 1)
    scores.truth.matrix[rows[:10], 1] = -1
    tested = scores.of("linear", 60)[:, rows[10:], 1].T
    expected = delong_interval(
        tested, scores.truth.positives(1)[rows[10:]], scores.patients[rows[10:]]
    )
    assert class_interval(scores, "linear", 60, 1) == expected
    assert expected != known


def test_the_difference_is_paired_over_all_networks(labeled: Callable[..., LabeledSet]) -> None:
    data = labeled(patients=80, split=True)
    first, second = [scored(data, 1), scored(data, 2)], [scored(data, 3)]
    rows = first[0].test_rows(0, 0)
    columns = [
        np.concatenate([one.of("linear", 60)[:, rows, 1] for one in arm]).T
        for arm in (first, second)
    ]
    positives = data.truth.positives(1)[rows]
    expected = delong_difference(*columns, positives, data.patients[rows])
    assert class_difference(first, second, "linear", 60, 1) == expected
    assert 0 < expected.p < 1
    assert class_difference(first, first, "linear", 60, 1).p == 1.0


def test_folds_have_no_fixed_test_set(labeled: Callable[..., LabeledSet]) -> None:
    scores = scored(labeled(patients=40))
    assert np.isnan(class_interval(scores, "linear", 60, 1).low)
    assert np.isnan(class_difference([scores], [scores], "linear", 60, 1).p)


def test_label_seeds_that_test_other_scans_have_none(labeled: Callable[..., LabeledSet]) -> None:
    scores = scored(labeled(patients=80, split=True))
    moved = scores.fold_of.copy()
    moved[1, scores.test_rows(0, 0)[0]] = -1
    assert np.isnan(class_interval(replace(scores, fold_of=moved), "linear", 60, 1).variance)
    assert class_interval(scores, "linear", 60, 1).variance == pytest.approx(0.002, abs=0.002)
