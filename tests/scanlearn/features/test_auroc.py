from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from scanlearn.features.auroc import (
    asked_classes,
    auroc,
    auroc_replicates,
    macro_auroc,
    macro_auroc_replicates,
    mean_of_defined,
    one_hot,
)


def count_pairs(scores: np.ndarray, positives: np.ndarray, weights: np.ndarray) -> float:
    """The definition, pair by pair."""
    wins = total = 0.0
    for i in np.flatnonzero(positives):
        for j in np.flatnonzero(~positives):
            pair = weights[i] * weights[j]
            total += pair
            wins += pair * (1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0)
    return wins / total


def draw(seed: int, n: int = 60, levels: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with many ties, labels and weights of which some are 0."""
    rng = np.random.default_rng(seed)
    positives = rng.random(n) < 0.4
    scores = rng.integers(0, levels, n) + 1.0 * positives
    return scores, positives, rng.integers(0, 4, n)


@pytest.mark.parametrize("seed", range(5))
def test_auroc_counts_pairs_and_half_of_ties(seed: int) -> None:
    scores, positives, weights = draw(seed)
    ones = np.ones(len(scores))
    assert auroc(scores, positives) == pytest.approx(count_pairs(scores, positives, ones))
    assert auroc(scores, positives, weights) == pytest.approx(
        count_pairs(scores, positives, weights)
    )


@pytest.mark.parametrize("seed", range(5))
def test_auroc_equals_that_of_scikit_learn(seed: int) -> None:
    scores, positives, weights = draw(seed, n=500, levels=40)
    assert auroc(scores, positives) == pytest.approx(roc_auc_score(positives, scores))
    expected = roc_auc_score(positives, scores, sample_weight=weights)
    assert auroc(scores, positives, weights) == pytest.approx(expected)


def test_auroc_of_a_perfect_and_of_a_constant_score() -> None:
    positives = np.array([False, True, False, True])
    assert auroc(positives.astype(float), positives) == 1.0
    assert auroc(-positives.astype(float), positives) == 0.0
    assert auroc(np.zeros(4), positives) == 0.5


def test_replicates_equal_a_loop_over_scikit_learn() -> None:
    scores, positives, _ = draw(0, n=120, levels=30)
    weights = np.random.default_rng(1).multinomial(120, np.full(120, 1 / 120), size=50)
    expected = [roc_auc_score(positives, scores, sample_weight=row) for row in weights]
    np.testing.assert_allclose(auroc_replicates(scores, positives, weights), expected, atol=1e-12)


def test_replicates_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, positives, _ = draw(2)
    weights = np.random.default_rng(3).integers(0, 3, (40, len(scores)))
    whole = auroc_replicates(scores, positives, weights)
    monkeypatch.setattr("scanlearn.features.auroc._BLOCK_WEIGHTS", 130)
    np.testing.assert_array_equal(auroc_replicates(scores, positives, weights), whole)


def test_a_replicate_without_positives_is_undefined() -> None:
    scores, positives = np.array([1.0, 2.0, 3.0]), np.array([False, False, True])
    values = auroc_replicates(scores, positives, np.array([[1, 1, 0], [0, 0, 2], [1, 0, 1]]))
    assert np.isnan(values[:2]).all()
    assert values[2] == 1.0


def test_one_class_only_is_undefined_and_no_crash() -> None:
    assert np.isnan(auroc(np.arange(3.0), np.ones(3, dtype=bool)))
    assert np.isnan(auroc(np.arange(3.0), np.zeros(3, dtype=bool)))


def test_a_nan_score_is_an_error_that_names_the_row() -> None:
    with pytest.raises(ValueError, match="row 1 is NaN"):
        auroc(np.array([0.0, np.nan]), np.array([True, False]))


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="same n"):
        auroc_replicates(np.zeros(3), np.zeros(3, dtype=bool), np.ones((2, 4)))


def test_macro_auroc_is_the_mean_over_classes_against_the_rest() -> None:
    rng = np.random.default_rng(4)
    y = rng.integers(0, 4, 300)
    scores = rng.dirichlet(np.ones(4), 300) + 0.3 * np.eye(4)[y]
    scores /= scores.sum(axis=1, keepdims=True)
    found = macro_auroc(scores, one_hot(y, 4))
    expected = roc_auc_score(y, scores, multi_class="ovr", average="macro")
    assert found.auroc == pytest.approx(expected)
    assert found.auroc == pytest.approx(found.per_class.mean())
    assert found.undefined == 0


def test_a_class_without_positives_is_left_out_and_counted() -> None:
    rng = np.random.default_rng(5)
    y, scores = rng.integers(0, 2, 50), rng.random((50, 3))
    found = macro_auroc(scores, one_hot(y, 3))
    assert found.undefined == 1
    assert np.isnan(found.per_class[2])
    assert found.auroc == pytest.approx(np.mean([auroc(scores[:, c], y == c) for c in (0, 1)]))


def test_two_classes_are_one_question() -> None:
    assert [list(asked_classes(k)) for k in (1, 2, 3)] == [[0], [1], [0, 1, 2]]


def test_scans_of_which_a_finding_is_unknown_are_left_out_of_it() -> None:
    rng = np.random.default_rng(6)
    truth = rng.integers(-1, 2, (80, 2)).astype(np.int8)
    scores, weights = rng.random((80, 2)), rng.integers(0, 3, (9, 80))
    expected = []
    for column in (0, 1):
        known = truth[:, column] >= 0
        expected.append(
            auroc_replicates(scores[known, column], truth[known, column] == 1, weights[:, known])
        )
    found = macro_auroc_replicates(scores, truth, weights)
    np.testing.assert_allclose(found, np.mean(expected, axis=0))


def test_the_mean_of_what_is_defined_leaves_nan_where_nothing_is() -> None:
    nan = float("nan")
    found = mean_of_defined(np.array([[1.0, nan, nan], [3.0, 5.0, nan]]))
    np.testing.assert_array_equal(found, [2.0, 5.0, nan])


def test_macro_replicates_leave_out_what_a_resample_lost() -> None:
    rng = np.random.default_rng(7)
    y, scores = np.arange(30) % 3, rng.random((30, 3))
    weights = np.ones((3, 30), dtype=int)
    weights[1, y == 2] = 0
    weights[2, y > 0] = 0
    truth = one_hot(y, 3)
    values = macro_auroc_replicates(scores, truth, weights)
    assert values[0] == pytest.approx(macro_auroc(scores, truth).auroc)
    kept = y < 2
    without = np.mean([auroc(scores[kept, c], y[kept] == c) for c in (0, 1)])
    assert values[1] == pytest.approx(without)
    assert np.isnan(values[2])
