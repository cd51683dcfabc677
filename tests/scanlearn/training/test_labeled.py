from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from scanlearn.core import ScanlearnError
from scanlearn.scans.archive import Archive, ArchiveWriter
from scanlearn.training.labeled import LabeledProbe

Labeled = Callable[..., Archive]


@pytest.fixture
def labeled(tmp_path: Path) -> Labeled:
    """Returns a maker of archives with a label for each scan; two scans are one patient's."""

    def make(
        labels: Sequence[str | None], *, name: str = "a", patients_known: bool = True
    ) -> Archive:
        with ArchiveWriter(
            tmp_path / name,
            shape=(1, 8, 8),
            dtype=np.uint8,
            label_columns=("grade",),
            patients_known=patients_known,
        ) as writer:
            for index, label in enumerate(labels):
                pixels = np.full((1, 8, 8), index % 256, np.uint8)
                patient = f"{name}{index // 2}" if patients_known else f"{name}{index}.png"
                writer.add(
                    pixels,
                    scan_id=f"{name}{index}.png",
                    patient=patient,
                    labels={"grade": label},
                )
            return writer.close()

    return make


def features_of(probe: LabeledProbe, signal: float, d: int = 6) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal((len(probe.y), d))
    noise[:, 0] += signal * probe.y
    return noise.astype(np.float32)


def test_a_patient_is_in_one_fold_and_every_fold_has_all_classes(labeled: Labeled) -> None:
    probe = LabeledProbe.of(labeled(["0", "0", "1", "1"] * 15), "grade")
    for patient in range(30):
        assert len(set(probe.fold_of[2 * patient : 2 * patient + 2])) == 1
    for fold in range(5):
        assert set(probe.y[probe.fold_of == fold]) == {0, 1}


def test_folds_are_the_same_every_time(labeled: Labeled) -> None:
    archive = labeled(["0", "1", "0", "1"] * 12)
    first, second = (LabeledProbe.of(archive, "grade") for _ in range(2))
    np.testing.assert_array_equal(first.fold_of, second.fold_of)


def test_a_class_that_features_show_is_found(labeled: Labeled) -> None:
    probe = LabeledProbe.of(labeled(["0", "0", "1", "1"] * 30), "grade")
    score = probe.score(features_of(probe, 8))
    assert score.knn_auroc > 0.97
    assert score.linear_auroc > 0.97


def test_labels_that_features_know_nothing_of_score_a_half(labeled: Labeled) -> None:
    probe = LabeledProbe.of(labeled(["0", "0", "1", "1"] * 100), "grade")
    score = probe.score(features_of(probe, 0))
    assert score.knn_auroc == pytest.approx(0.5, abs=0.1)
    assert score.linear_auroc == pytest.approx(0.5, abs=0.1)


def test_scans_of_a_patient_are_never_on_both_sides(labeled: Labeled) -> None:
    # Features that name the patient alone would score 1 if a patient were on both sides.
    random = np.random.default_rng(1)
    labels = np.repeat(random.integers(0, 2, 100).astype(str), 2).tolist()
    probe = LabeledProbe.of(labeled(labels), "grade")
    names = random.standard_normal((100, 8)).repeat(2, axis=0).astype(np.float32)
    score = probe.score(names)
    assert score.knn_auroc == pytest.approx(0.5, abs=0.15)


def test_the_score_is_the_mean_of_the_folds(labeled: Labeled) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    probe = LabeledProbe.of(labeled(["0", "0", "1", "1"] * 15), "grade")
    features = features_of(probe, 1).astype(np.float64)
    aurocs = []
    for fold in range(5):
        train, test = probe.fold_of != fold, probe.fold_of == fold
        mean, std = features[train].mean(axis=0), features[train].std(axis=0)
        fitted = LogisticRegression(C=0.01).fit((features[train] - mean) / std, probe.y[train])
        found = fitted.predict_proba((features[test] - mean) / std)[:, 1]
        aurocs.append(roc_auc_score(probe.y[test], found))
    assert probe.score(features.astype(np.float32)).linear_auroc == pytest.approx(np.mean(aurocs))


def test_more_than_two_classes_are_scored_one_against_the_rest(labeled: Labeled) -> None:
    probe = LabeledProbe.of(labeled(["a", "a", "b", "b", "c", "c"] * 12), "grade")
    assert probe.classes == ("a", "b", "c")
    features = features_of(probe, 0) + 6 * np.eye(6, dtype=np.float32)[probe.y]
    score = probe.score(features)
    assert score.knn_auroc > 0.97
    assert score.linear_auroc > 0.97


def test_blank_labels_are_left_out(labeled: Labeled) -> None:
    probe = LabeledProbe.of(labeled([None, " ", "nan", "0", "1", "1"] * 6), "grade")
    assert len(probe.rows) == 18
    assert set(probe.rows % 6) == {3, 4, 5}


def test_few_patients_make_few_folds(labeled: Labeled) -> None:
    probe = LabeledProbe.of(labeled(["0"] * 20 + ["1"] * 4), "grade")
    assert probe.fold_of.max() == 1
    assert "2 folds" in probe.in_words()
    assert "0: 20, 1: 4" in probe.in_words()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["1"] * 8, "holds one class only, '1'"),
        ([None] * 8, "holds no label"),
        ([f"0.{index}" for index in range(30)], "30 different values"),
        (["0"] * 8 + ["1"] * 2, "class '1' of 'grade' has one patient only"),
    ],
)
def test_labels_that_cannot_be_probed_are_refused_in_words(
    labeled: Labeled, labels: list[str | None], words: str
) -> None:
    with pytest.raises(ScanlearnError, match=words):
        LabeledProbe.of(labeled(labels), "grade")


def test_a_missing_column_is_refused_with_the_nearest_name(labeled: Labeled) -> None:
    with pytest.raises(ScanlearnError, match="did you mean 'grade'"):
        LabeledProbe.of(labeled(["0", "1"]), "grades")


def test_shared_patients_are_warned_of(labeled: Labeled) -> None:
    labels = ["0", "0", "1", "1"] * 3
    probe = LabeledProbe.of(labeled(labels), "grade")
    (text,) = probe.warnings(probe.archive)
    assert "6 of its patients are in the training archive too, 'a0'" in text
    assert probe.warnings(labeled(labels, name="b")) == ()


def test_without_patients_shared_scans_are_warned_of(labeled: Labeled) -> None:
    labels = ["0", "0", "1", "1"] * 3
    probe = LabeledProbe.of(labeled(labels, patients_known=False), "grade")
    unknown, shared = probe.warnings(probe.archive)
    assert "no patient column" in unknown
    assert "12 of its scans" in shared
