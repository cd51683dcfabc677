from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from scanlearn.features.auroc import auroc
from scantune.labels.labeled_set import LabeledSet
from scantune.scores import Scores
from scantune.scoring import score_features
from scantune.statistics.delong import (
    class_difference,
    class_interval,
    correlated_aurocs,
    delong_difference,
    delong_interval,
)


def drawn(seed: int = 0, patients: int = 30, models: int = 3) -> tuple[np.ndarray, ...]:
    """Tied scores of correlated models; patients with one to four scans, of one class or both."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    rng.shuffle(owner)
    positives = rng.random(len(owner)) < rng.random(patients)[owner]
    common = rng.normal(size=patients)[owner] + rng.normal(size=len(owner)) + positives
    scores = common[:, None] + rng.normal(size=(len(owner), models))
    return scores.round(1), positives, owner


def kernel(positive: float, negative: float) -> float:
    return 1.0 if positive > negative else 0.5 if positive == negative else 0.0


def by_loops(
    scores: np.ndarray, positives: np.ndarray, patients: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Obuchowski's formulas over all pairs of scans, one pair of models at a time."""
    x, y = np.flatnonzero(positives), np.flatnonzero(~positives)
    models = scores.shape[1]
    v10 = {(r, i): np.mean([kernel(scores[i, r], scores[j, r]) for j in y])
           for r in range(models) for i in x}  # fmt: skip
    v01 = {(r, j): np.mean([kernel(scores[i, r], scores[j, r]) for i in x])
           for r in range(models) for j in y}  # fmt: skip
    aurocs = np.array([np.mean([v10[r, i] for i in x]) for r in range(models)])
    everyone = np.unique(patients)

    def total(table: dict[tuple[int, int], float], rows: np.ndarray, r: int, who: int) -> float:
        return sum(table[r, row] - aurocs[r] for row in rows if patients[row] == who)

    i10, i01 = len(np.unique(patients[x])), len(np.unique(patients[y]))
    covariance = np.empty((models, models))
    for r in range(models):
        for s in range(models):
            s10 = s01 = s11 = s11_other = 0.0
            for who in everyone:
                s10 += total(v10, x, r, who) * total(v10, x, s, who)
                s01 += total(v01, y, r, who) * total(v01, y, s, who)
                s11 += total(v10, x, r, who) * total(v01, y, s, who)
                s11_other += total(v10, x, s, who) * total(v01, y, r, who)
            s10 *= i10 / ((i10 - 1) * len(x))
            s01 *= i01 / ((i01 - 1) * len(y))
            both = (s11 + s11_other) * len(everyone) / (len(everyone) - 1)
            covariance[r, s] = s10 / len(x) + s01 / len(y) + both / (len(x) * len(y))
    return aurocs, covariance


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_covariances_are_those_of_a_count_over_all_pairs(seed: int) -> None:
    scores, positives, patients = drawn(seed)
    found = correlated_aurocs(scores, positives, patients)
    aurocs, covariance = by_loops(scores, positives, patients)
    np.testing.assert_allclose(found.aurocs, aurocs, rtol=1e-12)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-10)
    alone = np.arange(len(scores))
    found, (_, covariance) = (
        correlated_aurocs(scores, positives),
        by_loops(scores, positives, alone),
    )
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-10)


def test_aurocs_are_those_of_the_metric() -> None:
    scores, positives, patients = drawn()
    found = correlated_aurocs(scores, positives, patients)
    expected = [auroc(column, positives) for column in scores.T]
    np.testing.assert_allclose(found.aurocs, expected, rtol=1e-12)


def test_variance_is_delongs_where_each_patient_has_one_scan() -> None:
    scores, positives, _ = drawn()
    x, y = scores[positives], scores[~positives]
    wins = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])
    s10 = np.cov(wins.mean(axis=1), rowvar=False)
    s01 = np.cov(wins.mean(axis=0), rowvar=False)
    own = np.random.default_rng(0).permutation(len(scores))
    found = correlated_aurocs(scores, positives, own)
    np.testing.assert_allclose(found.covariance, s10 / len(x) + s01 / len(y), rtol=1e-12)


def test_hanley_and_mcneils_ratings_give_the_published_interval() -> None:
    # Hanley and McNeil 1982, table I: 109 CT images rated 1 (surely normal) to 5; 58 normal ones
    # with 33, 6, 6, 11, 2 in the ratings, 51 abnormal ones with 3, 2, 2, 11, 33.
    # An abnormal image of rating 1 ..5 is above, ties half, 16.5, 36, 42, 50.5, 57 of 58 normal:
    # A = (3 * 16.5 + 2 * 36 + 2 * 42 + 11 * 50.5 + 33 * 57) / (51 * 58) = 2642 / 2958 = .8932.
    # A normal one of rating 1 .. 5 is below 49.5, 47, 45, 38.5, 16.5 of 51 abnormal.
    # Squares: 3 * 16.5^2 + 2 * 36^2 + 2 * 42^2 + 11 * 50.5^2 + 33 * 57^2 = 142206.5 and
    # 33 * 49.5^2 + 6 * 47^2 + 6 * 45^2 + 11 * 38.5^2 + 2 * 16.5^2 = 123111.5, hence
    # S10 = (142206.5 / 58^2 - 51 A^2) / 50 and S01 = (123111.5 / 51^2 - 58 A^2) / 57.
    normal, abnormal = [33, 6, 6, 11, 2], [3, 2, 2, 11, 33]
    ratings = np.repeat([1.0, 2, 3, 4, 5] * 2, normal + abnormal)
    positives = np.repeat([False, True], [58, 51])
    a = Fraction(2642, 2958)
    s10 = (Fraction(284413, 2 * 58**2) - 51 * a**2) / 50
    s01 = (Fraction(246223, 2 * 51**2) - 58 * a**2) / 57
    found = delong_interval(ratings[:, None], positives)
    assert found.estimate == pytest.approx(float(a))
    assert found.variance == pytest.approx(float(s10 / 51 + s01 / 58), rel=1e-12)
    assert found.variance**0.5 == pytest.approx(0.0307, abs=5e-5)
    half = stats.norm.ppf(0.975) * found.variance**0.5
    published = (found.estimate - half, found.estimate + half)
    assert published == pytest.approx((0.83295, 0.95339), abs=5e-6)
    # Ours lies lower: a score interval, skewed away from 1.
    assert published[0] - 0.02 < found.low < published[0]
    assert published[1] - 0.02 < found.high < published[1]


def test_a_paired_test_worked_by_hand() -> None:
    # Positives 5 3 1 and negatives 4 2 0 by the first model: V10 = 1, 2/3, 1/3 and V01 = 1/3, 2/3,
    # 1, A = 2/3, S10 = S01 = 1/9. The second: positives 5 3 2 and negatives 4 1 0: V10 = 1, 2/3,
    # 2/3 and V01 = 1/3, 1, 1, A = 7/9, S10 = 1/27, S01 = 4/27; covariances of V10: (1/3 * 2/9 + 0
    # + 1/3 * 1/9) / 2 = 1/18, of V01: (1/3 * 4/9 + 0 + 1/3 * 2/9) / 2 = 1/9.
    # Variance of the difference: (1/9 + 1/27 - 2/18 + 1/9 + 4/27 - 2/9) / 3 = (2/27) / 3 = 2/81.
    first = np.array([5.0, 3, 1, 4, 2, 0])[:, None]
    second = np.array([5.0, 3, 2, 4, 1, 0])[:, None]
    positives = np.array([True, True, True, False, False, False])
    few = delong_difference(first, second, positives)
    assert few.estimate == pytest.approx(-1 / 9)
    assert few.variance == pytest.approx(2 / 81)
    # Three patients of a class are too few for a test.
    assert np.isnan([few.low, few.high, few.p]).all()
    # Each twice, as other patients: sums of squares double, S is over 5 and the variance over 6.
    twice = (np.concatenate([part, part]) for part in (first, second, positives))
    found = delong_difference(*twice)
    assert found.estimate == pytest.approx(-1 / 9)
    variance = 2 / 81 * (2 * 2 / 5) * 3 / 6
    assert found.variance == pytest.approx(variance)
    assert found.p == pytest.approx(2 * stats.t.sf((1 / 9) / variance**0.5, 5))
    half = stats.t.ppf(0.975, 5) * variance**0.5
    assert (found.low, found.high) == pytest.approx((-1 / 9 - half, -1 / 9 + half))


def test_a_clustered_variance_worked_by_hand() -> None:
    # Positives 5 3 1, negatives 4 2 0 as above. Patient 0 has 5 and 3, patient 1 has 1 and 4,
    # patient 2 has 2 and 0. Deviations of V10 from 2/3: 1/3, 0, -1/3; of V01: -1/3, 0, 1/3.
    # Sums by patient: positives 1/3, -1/3, none; negatives none, -1/3, 1/3. I10 = I01 = 2, I = 3:
    # S10 = S01 = 2 * (2/9) / 3 = 4/27, S11 = 3/2 * (1/9) = 1/6.
    # Variance: 4/81 + 4/81 + 2 * (1/6) / 9 = 8/81 + 3/81 = 11/81.
    scores = np.array([5.0, 3, 1, 4, 2, 0])[:, None]
    positives = np.array([True, True, True, False, False, False])
    patients = np.array([0, 0, 1, 1, 2, 2])
    assert delong_interval(scores, positives, patients).variance == pytest.approx(11 / 81)


def test_swapping_the_classes_mirrors_the_auroc_and_keeps_its_variance() -> None:
    scores, positives, patients = drawn(4)
    found = correlated_aurocs(scores, positives, patients)
    mirrored = correlated_aurocs(scores, ~positives, patients)
    np.testing.assert_allclose(mirrored.aurocs, 1 - found.aurocs)
    np.testing.assert_allclose(mirrored.covariance, found.covariance)


def test_scans_that_repeat_their_patient_add_nothing() -> None:
    # Each scan twice is no more evidence; taken for patients of their own they would halve it.
    scores, positives, _ = drawn(5)
    once = delong_interval(scores, positives)
    twice = [np.concatenate([part, part]) for part in (scores, positives, np.arange(len(scores)))]
    assert delong_interval(*twice).variance == pytest.approx(once.variance)
    assert delong_interval(twice[0], twice[1]).variance == pytest.approx(once.variance / 2, rel=0.1)


def test_the_variance_of_a_mean_counts_what_its_models_share() -> None:
    scores, positives, patients = drawn(6)
    same = np.repeat(scores[:, :1], 3, axis=1)
    one = delong_interval(scores[:, :1], positives, patients)
    assert delong_interval(same, positives, patients).variance == pytest.approx(one.variance)
    assert delong_interval(scores, positives, patients).variance < one.variance * 1.2


def test_equal_scores_do_not_differ() -> None:
    scores, positives, patients = drawn(7)
    found = delong_difference(scores[:, :2], scores[:, 1::-1], positives, patients)
    assert found.p == pytest.approx(1.0)
    assert found.estimate == pytest.approx(0, abs=1e-15)
    counts = [len(set(patients[side])) for side in (positives, ~positives)]
    assert found.variance == pytest.approx(0.09 * (1 / counts[0] ** 2 + 1 / counts[1] ** 2))


def test_a_test_is_antisymmetric_and_ignores_a_monotone_change_of_scale() -> None:
    scores, positives, patients = drawn(8)
    one, other = scores[:, :1], scores[:, 1:]
    found = delong_difference(one, other, positives, patients)
    back = delong_difference(np.exp(other), np.exp(one), positives, patients)
    assert (back.estimate, back.low, back.high) == pytest.approx(
        (-found.estimate, -found.high, -found.low)
    )
    assert back.p == pytest.approx(found.p)


def test_equally_good_models_are_called_different_as_often_as_alpha_says() -> None:
    rng = np.random.default_rng(0)
    positives = np.arange(200) % 3 == 0
    p = []
    for _ in range(1000):
        shared = rng.normal(size=(200, 1)) + positives[:, None]
        pair = shared + 0.7 * rng.normal(size=(200, 2))
        p.append(delong_difference(pair[:, :1], pair[:, 1:], positives).p)
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.02)


def test_several_scans_of_a_patient_keep_the_tests_level_only_where_they_are_clustered() -> None:
    rng = np.random.default_rng(1)
    owner = np.repeat(np.arange(80), 4)
    positives = (np.arange(80) % 2 == 0)[owner]
    clustered, plain = [], []
    for _ in range(600):
        # What a model gets wrong, it gets wrong in all scans of a patient.
        pair = rng.normal(size=(80, 2))[owner] + 0.5 * rng.normal(size=(320, 2))
        pair += positives[:, None]
        clustered.append(delong_difference(pair[:, :1], pair[:, 1:], positives, owner).p)
        plain.append(delong_difference(pair[:, :1], pair[:, 1:], positives).p)
    assert np.mean(np.array(clustered) < 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(np.array(plain) < 0.05) > 0.2


def test_one_sided_truth_and_single_patients_leave_it_undefined() -> None:
    scores = np.arange(4.0)[:, None]
    none = delong_interval(scores, np.zeros(4, dtype=bool))
    assert np.isnan([none.estimate, none.low, none.high, none.variance]).all()
    single = delong_interval(scores, np.array([False, False, False, True]))
    assert single.estimate == 1.0
    assert np.isnan([single.low, single.high, single.variance]).all()
    same_patient = np.array([0, 1, 2, 2])
    positives = np.array([False, False, True, True])
    assert np.isnan(delong_interval(scores, positives, same_patient).variance)
    undefined = delong_difference(scores, scores, np.ones(4, dtype=bool))
    assert np.isnan([undefined.estimate, undefined.p]).all()


def test_an_interval_stays_within_zero_and_one() -> None:
    scores = np.tile([0.0, 1, 3, 2, 4, 5], 2)[:, None]
    positives = np.tile([False, False, False, True, True, True], 2)
    found = delong_interval(scores, positives)
    assert found.estimate == pytest.approx(8 / 9)
    assert 0.4 < found.low < found.estimate < found.high < 1
    perfect = delong_interval(scores, scores[:, 0] > 2)
    assert perfect.high == 1.0
    assert 0.5 < perfect.low < 0.8


def test_missing_scores_and_unequal_lengths_are_refused() -> None:
    positives = np.array([True, False])
    with pytest.raises(ValueError, match="1 scores are NaN"):
        correlated_aurocs(np.array([[0.1], [np.nan]]), positives)
    with pytest.raises(ValueError, match="must be of the same scans"):
        correlated_aurocs(np.array([[0.1]]), positives)


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
    assert class_difference(first, first, "linear", 60, 1).p == pytest.approx(1.0)


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
