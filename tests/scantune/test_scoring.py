from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from scanlearn.errors import ScanlearnError
from scantune.evaluation.results import score_table
from scantune.labels.labeled_set import scorable
from scantune.labels.truth import Truth
from scantune.learners.by_name import frozen_learner
from scantune.learners.learner import Fit
from scantune.scoring import score_features, score_learners
from scantune.splits import budget_rows, folds_of, patient_groups
from scantune.statistics.intervals import arm_interval, estimate, patient_weights


def test_every_scan_is_scored_once_under_each_label_seed(informative: Any, labeled: Any) -> None:
    data = labeled()
    scores = score_features(informative(data), data, budgets=(20, "all"), label_seeds=2)
    assert scores.values.shape == (2, 2, 2, len(data), 2)
    assert np.isfinite(scores.values).all()
    np.testing.assert_allclose(scores.values.sum(axis=-1), 1)
    assert sorted(np.unique(scores.fold_of)) == [0, 1, 2, 3, 4]
    assert (scores.train_scans[0] >= 20).all()
    assert (scores.train_scans[0] <= 22).all()
    assert (scores.train_patients < scores.train_scans).all()


def test_folds_and_subsets_are_the_same_for_every_backbone(informative: Any, labeled: Any) -> None:
    data = labeled()
    first, second = (
        score_features(informative(data, seed=seed), data, learners=("knn",), budgets=(20, "all"))
        for seed in (0, 1)
    )
    assert first.design_hash() == second.design_hash()
    assert not np.array_equal(first.values, second.values)


def test_the_same_call_gives_the_same_scores(informative: Any, labeled: Any) -> None:
    data = labeled(patients=30)
    features = informative(data)
    first, second = (score_features(features, data, label_seeds=1, folds=3) for _ in range(2))
    np.testing.assert_array_equal(first.values, second.values)


def test_a_budget_beyond_the_fold_is_said_and_equals_all(informative: Any, labeled: Any) -> None:
    data = labeled()
    scores = score_features(informative(data), data, budgets=(9999, "all"), label_seeds=1)
    np.testing.assert_array_equal(scores.of("linear", 9999), scores.of("linear", "all"))
    assert "9999 labels is larger" in scores.notes[0]


def test_several_classes_are_scored(informative: Any, labeled: Any) -> None:
    data = labeled(patients=120, classes=4)
    scores = score_features(informative(data, strength=4.0), data, label_seeds=1)
    weights = patient_weights(scores, replicates=50)
    for learner in ("knn", "linear"):
        found = estimate(scores, learner, "all", weights)
        assert 0.75 < found.auroc < 1.0
        assert found.undefined == 0


@pytest.mark.parametrize("learner", ["knn", "linear"])
def test_shuffled_labels_give_half_within_the_interval(
    informative: Any, labeled: Any, learner: str
) -> None:
    inside = 0
    for seed in range(8):
        data = labeled(patients=100, seed=seed)
        features = informative(data, strength=2.0, seed=seed)
        # Whole patients are shuffled: what their scans share stays together.
        order = np.random.default_rng(seed).permutation(data.patients.max() + 1)
        majority = np.array(
            [
                data.truth.classes[data.patients == p].mean() > 0.5
                for p in range(data.patients.max() + 1)
            ]
        )
        drawn = majority[order][data.patients].astype(int)
        shuffled = replace(data, truth=Truth.of_classes(drawn, 2))
        scores = score_features(features, shuffled, learners=(learner,), label_seeds=2)
        found = arm_interval([estimate(scores, learner, "all", patient_weights(scores))])
        inside += found.low <= 0.5 <= found.high
        assert abs(found.estimate - 0.5) < 0.2
    assert inside >= 6


def test_progress_is_told_once_for_each_model(informative: Any, labeled: Any) -> None:
    data, told = labeled(), []
    score_features(
        informative(data),
        data,
        budgets=(20, "all"),
        folds=3,
        label_seeds=2,
        on_fit=lambda: told.append(1),
    )
    assert len(told) == 2 * 2 * 3 * 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"learners": ("forest",)}, "learner 'forest' is unknown; choose from knn, ncm, linear"),
        ({"budgets": ("some",)}, "budgets: 'some'"),
        ({"budgets": (0,)}, "budgets: '0'"),
        ({"label_seeds": 0}, "label_seeds is empty"),
        ({"learners": ()}, "learners is empty"),
    ],
)
def test_an_unknown_option_is_one_sentence(
    informative: Any, labeled: Any, options: Any, said: str
) -> None:
    data = labeled()
    with pytest.raises(ScanlearnError, match=said):
        score_features(informative(data), data, **options)


def test_features_that_are_not_finite_are_refused_with_their_row(
    informative: Any, labeled: Any
) -> None:
    data = labeled()
    features = informative(data)
    features[6, 3] = np.nan
    with pytest.raises(ScanlearnError, match=r"1 of \d+ scans are not finite, first in row 7"):
        score_features(features, data)


@pytest.mark.long
def test_a_thousand_scans_are_scored_in_under_forty_seconds(informative: Any, labeled: Any) -> None:
    data = labeled(patients=500)
    rng = np.random.default_rng(0)
    features = informative(data, d=64) @ rng.normal(size=(64, 512))
    features = np.maximum(features + rng.normal(size=features.shape), 0)
    start = time.process_time()
    score_features(features, data, budgets=(50, 100, "all"))
    assert time.process_time() - start < 40


def test_test_labels_enter_nothing(informative: Any, labeled: Any) -> None:
    data = labeled(split=True, patients=80)
    assert data.split is not None
    features = informative(data)
    y = np.where(data.split == "test", 1 - data.truth.classes, data.truth.classes)
    flipped = replace(data, truth=Truth.of_classes(y, 2))
    options: dict[str, Any] = {"budgets": (30, "all"), "label_seeds": 2}
    first, second = (score_features(features, one, **options) for one in (data, flipped))
    np.testing.assert_array_equal(first.values, second.values)


def test_a_class_of_one_patient_is_refused_before_anything_is_fitted(labeled: Any) -> None:
    data = labeled(patients=30, classes=3)
    y = np.where(data.patients == 4, 2, data.truth.classes % 2)
    with pytest.raises(ScanlearnError, match="target: only one patient has class 2, so no fold"):
        scorable(replace(data, truth=Truth.of_classes(y, 3)))


def test_a_finding_of_one_patient_is_masked_and_said(informative: Any, labeled: Any) -> None:
    data = labeled(patients=30, classes=2)
    matrix = data.truth.matrix.copy()
    matrix[:, 1] = data.patients == 4
    found = scorable(replace(data, truth=Truth(matrix, "multilabel")))
    assert found.notes == (
        "only one patient has 1: no fold can both train on that and test it, so these scans are "
        "masked",
    )
    assert found.unknown == {"0": 0, "1": int((data.patients == 4).sum())}
    assert found.counts["1"] == 0
    scores = score_features(informative(data), found, label_seeds=1, folds=3)
    assert estimate(scores, "linear", "all", patient_weights(scores)).undefined == 3


def test_a_given_split_may_test_the_only_patient_of_a_class(labeled: Any) -> None:
    data = labeled(patients=30, classes=2, split=True)
    y = (data.patients == 4).astype(int)
    given = replace(data, truth=Truth.of_classes(y, 2))
    assert scorable(given) is given


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_one_sentence(labeled: Any, value: float) -> None:
    data = labeled()

    def astray(rows: np.ndarray, test: np.ndarray, seed: int) -> Fit:
        scores = np.full((len(test), 2), 0.5)
        scores[:2, 1] = value
        return Fit(scores, np.full((len(rows), 2), np.nan))

    with pytest.raises(ScanlearnError, match=r"net with all labels, fold 0: 2 of .* not finite"):
        score_learners({"net": astray}, data)


def test_synthetic_scans_train_and_are_neither_tested_nor_validated_nor_counted(
    informative: Any, labeled: Any
) -> None:
    data = labeled(patients=80)
    synthetic = np.random.default_rng(0).random(len(data)) < 0.3
    marked = replace(data, truth=replace(data.truth, synthetic=synthetic))
    features = informative(data)
    scores = score_features(features, marked, label_seeds=2, budgets=(20, "all"))
    assert (scores.fold_of[:, synthetic] == -1).all()
    assert (scores.fold_of[:, ~synthetic] >= 0).all()
    assert np.isnan(scores.values[..., synthetic, :]).all()
    assert scores.train_scans[1].max() <= marked.num_scans
    without = data[np.flatnonzero(~synthetic)]
    plain = score_features(features[~synthetic], without, label_seeds=2, budgets=(20, "all"))
    assert not np.array_equal(plain.values, scores.values[..., ~synthetic, :])
    np.testing.assert_array_equal(plain.train_scans, scores.train_scans)
    np.testing.assert_array_equal(plain.fold_of, scores.fold_of[:, ~synthetic])


def test_one_patient_cannot_be_trained_on_and_tested(labeled: Any) -> None:
    data = labeled(patients=12)
    one = replace(data, patients=np.zeros_like(data.patients))
    with pytest.raises(ScanlearnError, match="labeled scans are of one patient, who cannot be"):
        scorable(one)


def test_what_one_patient_alone_is_known_to_be_without_is_masked_too(labeled: Any) -> None:
    data = labeled(patients=12)
    matrix = np.where(np.arange(2) == 0, data.truth.matrix, 1).astype(np.int8)
    matrix[:, 1] = np.where(data.patients % 2, 1, -1)
    matrix[data.patients == 4, 1] = 0
    found = scorable(replace(data, truth=Truth(matrix, "multilabel")))
    assert "only one patient is known to be without 1" in found.notes[0]
    assert not (found.truth.matrix[:, 1] == 0).any()
    assert found.counts == {"0": data.counts["0"], "1": int((data.patients % 2).sum())}


def test_a_class_without_a_training_scan_is_refused_not_scored_one_half(labeled: Any) -> None:
    data = labeled(patients=40, classes=3, split=True)
    y = data.truth.classes.copy()
    y[(data.split == "train") & (y == 2)] = 0
    given = replace(data, truth=Truth.of_classes(y, 3))
    tested = int(((data.split == "test") & (y == 2)).sum())
    with pytest.raises(ScanlearnError, match=f"{tested} scans of class 2 .* none is marked train"):
        score_features(np.zeros((len(data), 2)), given)
    y[y == 2] = 1
    untested = replace(data, truth=Truth.of_classes(y, 3))
    assert score_features(np.eye(3)[y], untested, label_seeds=1).values.shape[-1] == 3


def drawn_findings(labeled: Any) -> Any:
    """Three findings of one scan of each patient, too many for a budget of two scans."""
    data = labeled(patients=60)
    rng = np.random.default_rng(0)
    drawn = rng.random((len(data), 3)) < [0.5, 0.4, 0.1]
    truth = Truth(drawn.astype(np.int8), "multilabel")
    return replace(data, truth=truth, classes=("a", "b", "c"), patients=np.arange(len(data)))


@pytest.mark.parametrize("is_exclusive", [False, True])
@pytest.mark.parametrize("learner", ["knn", "ncm", "linear"])
def test_a_class_that_a_subset_does_not_teach_is_left_out_and_counted(
    informative: Any, labeled: Any, learner: str, is_exclusive: bool
) -> None:
    data = drawn_findings(labeled)
    if is_exclusive:
        y = np.where(data.truth.matrix[:, 2] == 1, 2, data.truth.matrix[:, 0])
        data = replace(data, truth=Truth.of_classes(y, 3))
    budget = 2
    features = np.random.default_rng(1).normal(size=(len(data), 6)) + data.truth.matrix[:, :1]
    options: dict[str, Any] = {"budgets": (budget,), "folds": 3, "label_seeds": 2}
    scores = score_features(features, data, learners=(learner,), **options)
    weights = patient_weights(scores, replicates=20)
    result = estimate(scores, learner, budget, weights)
    values, undefined, by_fold = scores.of(learner, budget), 0, []
    for seed, fold in np.ndindex(2, 3):
        train = folds_of(data, 3, seed)[fold].train
        subset = budget_rows(train, data.truth, data.patients, budget, seed).rows
        rows, aurocs = np.flatnonzero(scores.fold_of[seed] == fold), []
        for code in range(3):
            taught = data.truth.matrix[subset, code]
            if taught.any() and not taught.all():
                y_true = data.truth.matrix[rows, code]
                aurocs.append(roc_auc_score(y_true, values[seed, rows, code]))
            else:
                undefined += 1
        by_fold.append(np.mean(aurocs))
    assert undefined > 0
    assert result.undefined == undefined
    assert result.auroc == pytest.approx(np.mean(by_fold))
    (row,) = score_table(scores)
    assert row.undefined == undefined == sum(line.undefined for line in row.classes)
    (note,) = [note for note in scores.notes if "undefined there" in note]
    assert note.startswith("with 2 labels some training subsets have no scan with a class")
    for line in row.classes:
        assert (f"{line.name} ({line.undefined} of 6)" in note) == (line.undefined > 0)


def test_one_score_for_all_scans_and_trouble_of_a_learner_are_said(labeled: Any) -> None:
    data = labeled()

    def dull(rows: np.ndarray, test: np.ndarray, seed: int) -> Fit:
        nothing = np.full((len(rows), 2), np.nan)
        return Fit(np.full((len(test), 2), 0.5), nothing, caveats=("it was troubled",) * (seed > 0))

    notes = score_learners({"net": dull}, data, folds=3, label_seeds=2).notes
    assert notes[0].startswith("net: in 6 of 6 fits all test scans have the same score for a class")
    assert notes[1:] == ("net: in 3 of 6 fits it was troubled",)


@pytest.mark.parametrize("value", [0, 1])
def test_a_finding_that_no_training_scan_tells_apart_is_masked(labeled: Any, value: int) -> None:
    data = labeled(patients=40, classes=3, split=True)
    matrix = data.truth.matrix.copy()
    matrix[data.split == "train", 2] = value
    found = scorable(replace(data, truth=Truth(matrix, "multilabel")))
    assert (found.truth.matrix[data.split == "test", 2] == -1).all()
    assert (found.truth.matrix[:, :2] == matrix[:, :2]).all()
    assert len(found.notes) == 1
    assert found.notes[0].startswith("2 is the same in all training scans")
    scores = score_features(np.eye(3)[data.truth.classes], found, label_seeds=1)
    alone = replace(found, truth=Truth(found.truth.matrix[:, :2], "multilabel"), classes=("0", "1"))
    weights = patient_weights(scores)
    of_two = score_features(np.eye(3)[data.truth.classes], alone, label_seeds=1)
    assert (
        estimate(scores, "linear", "all", weights).auroc
        == estimate(of_two, "linear", "all", weights).auroc
    )


@pytest.mark.parametrize("learner", ["knn", "ncm", "linear"])
def test_refits_leave_a_group_out_of_training_and_of_test(
    informative: Any, labeled: Any, learner: str
) -> None:
    data = labeled(patients=40)
    features = informative(data)
    options: Any = {"learners": (learner,), "folds": 2, "label_seeds": 1}
    scores = score_features(features, data, **options)
    groups = patient_groups(data.truth, data.patients, 20)
    assert scores.refits is not None
    found = scores.refits[0, 0, :, :, 1]
    assert found.shape == (21, 21)
    assert found[0, 0] == pytest.approx(estimate(scores, learner, "all", np.ones((1, 40))).auroc)
    # By a slow loop: models fixed, group 3 out of the test; then fitted anew without group 7.
    learn = frozen_learner(learner, features, data)
    fixed, anew = [], []
    for fold in folds_of(data, 2, 0):
        fit = learn(fold.train, fold.test, 0)
        assert fit.refit is not None
        without = fit.refit(groups[fold.train] != 7)
        np.testing.assert_allclose(
            fit.refit(np.ones(len(fold.train), dtype=bool)), fit.scores, atol=2e-3
        )
        kept = groups[fold.test] != 3
        y = data.truth.classes[fold.test][kept]
        fixed.append(roc_auc_score(y, fit.scores[kept, 1]))
        anew.append(roc_auc_score(y, without[kept, 1]))
    assert found[0, 4] == pytest.approx(np.mean(fixed))
    assert found[8, 4] == pytest.approx(np.mean(anew))
    assert not np.allclose(found[1:, 0], found[0, 0])


def test_groups_keep_patients_whole_and_hold_classes_alike(labeled: Any) -> None:
    data = labeled(patients=60)
    groups = patient_groups(data.truth, data.patients, 20)
    assert set(groups) == set(range(20))
    assert all(len(set(groups[data.patients == one])) == 1 for one in range(60))
    assert len(set(patient_groups(data.truth[:9], data.patients[:9], 20))) == len(
        set(data.patients[:9])
    )


def test_a_given_split_has_no_refits_and_networks_are_not_refitted(
    informative: Any, labeled: Any
) -> None:
    split = labeled(patients=40, split=True)
    assert score_features(informative(split), split, label_seeds=1).refits is None
    data = labeled(patients=40)
    learn = frozen_learner("knn", informative(data), data)
    network = {"net": lambda *call: replace(learn(*call), refit=None)}
    scores = score_learners(network, data, folds=2, label_seeds=1)
    assert scores.refits_of("net", "all", [1]) is None
    found = estimate(scores, "net", "all", patient_weights(scores))
    assert "models fixed" in arm_interval([found]).note


def test_findings_are_refitted_each_for_itself(informative: Any, labeled: Any) -> None:
    data = labeled(patients=40)
    matrix = np.stack([data.truth.classes, 1 - data.truth.classes], axis=1).astype(np.int8)
    matrix[:8, 0] = -1
    findings = replace(data, truth=Truth(matrix, "multilabel"))
    scores = score_features(
        informative(data), findings, learners=("linear",), folds=2, label_seeds=1
    )
    assert scores.refits is not None
    assert np.isfinite(scores.refits).all()
    both, first = (scores.refits_of("linear", "all", codes) for codes in ([0, 1], [0]))
    assert both is not None
    assert first is not None
    np.testing.assert_allclose(first, scores.refits[0, 0, :, :, 0])
    np.testing.assert_allclose(both, scores.refits[0, 0].mean(axis=-1))
