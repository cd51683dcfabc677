from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scanlearn.errors import ScanlearnError
from scantune.scores import Scores, are_kept
from scantune.scoring import score_features


@pytest.fixture
def scores(labeled: Any) -> Scores:
    data = labeled(split=True)
    features = np.random.default_rng(0).normal(size=(len(data), 4))
    return score_features(features, data, learners=("knn",), budgets=(10, 9999), label_seeds=2)


def test_scores_come_back_as_they_were_saved(scores: Scores, tmp_path: Path) -> None:
    scores.save(tmp_path / "scores.npz")
    loaded = Scores.load(tmp_path / "scores.npz")
    for name in ("learners", "budgets", "classes", "notes"):
        assert getattr(loaded, name) == getattr(scores, name)
    arrays = ("patients", "fold_of", "values", "thresholds", "train_scans", "train_patients")
    for name in arrays:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(scores, name))
    np.testing.assert_array_equal(loaded.truth.matrix, scores.truth.matrix)
    assert loaded.truth.task == scores.truth.task
    assert loaded.design_hash() == scores.design_hash()
    assert [path.name for path in tmp_path.iterdir()] == ["scores.npz"]


def test_refits_come_back_and_older_files_have_none(labeled: Any, tmp_path: Path) -> None:
    data = labeled(patients=30)
    features = np.random.default_rng(0).normal(size=(len(data), 4))
    folded = score_features(features, data, learners=("knn",), folds=2, label_seeds=1)
    for each in (folded, replace(folded, refits=None)):
        each.save(tmp_path / "scores.npz")
        loaded = Scores.load(tmp_path / "scores.npz")
        assert (loaded.refits is None) == (each.refits is None)
        assert loaded.design_hash() == folded.design_hash()
        if loaded.refits is not None:
            np.testing.assert_array_equal(loaded.refits, each.refits)


def test_scores_without_notes_come_back_too(make_scores: Any, tmp_path: Path) -> None:
    plain = make_scores(np.array([0, 1]), np.arange(2), np.array([0.2, 0.7]))
    plain.save(tmp_path / "scores.npz")
    assert Scores.load(tmp_path / "scores.npz").notes == ()


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(
    scores: Scores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scores.npz"
    scores.save(path)
    before = path.read_bytes()

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="disk full"):
        scores.save(path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["scores.npz"]


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "scores.npz", format=np.array(99))
    with pytest.raises(ScanlearnError, match="format 99"):
        Scores.load(tmp_path / "scores.npz")


def test_scores_of_an_earlier_format_are_refused_and_made_again(
    scores: Scores, tmp_path: Path
) -> None:
    path = tmp_path / "scores.npz"
    assert not are_kept(path)
    scores.save(path)
    assert are_kept(path)
    np.testing.assert_array_equal(Scores.load(path).is_learned(10), scores.is_learned(10))
    with np.load(path) as file:
        fields = dict(file) | {"format": np.array(3)}
    np.savez(path, **fields)
    assert not are_kept(path)
    with pytest.raises(ScanlearnError, match=r"format 3, and its scores differ .* delete"):
        Scores.load(path)


def test_patients_who_only_train_are_not_tested(scores: Scores) -> None:
    assert len(scores.tested_patients) < len(np.unique(scores.patients))
    assert np.isnan(scores.values[..., scores.fold_of[0] < 0, :]).all()
    assert np.isfinite(scores.values[..., scores.fold_of[0] >= 0, :]).all()


def test_an_unscored_cell_is_an_error_that_lists_what_there_is(scores: Scores) -> None:
    assert scores.of("knn", 10).shape == scores.of("knn", "10").shape
    with pytest.raises(ValueError, match="'linear' was not scored; there are knn"):
        scores.of("linear", 10)
    with pytest.raises(ValueError, match="budget '50'"):
        scores.of("knn", 50)


def test_the_design_hash_sees_labels_and_folds(make_scores: Any) -> None:
    y, patients, values = np.array([0, 1, 0, 1]), np.arange(4), np.linspace(0, 1, 4)
    folds = np.array([[0, 0, 1, 1]])
    base = make_scores(y, patients, values, folds).design_hash()
    assert make_scores(y, patients, values[::-1], folds).design_hash() == base
    assert make_scores(1 - y, patients, values, folds).design_hash() != base
    assert make_scores(y, patients, values, folds[:, ::-1]).design_hash() != base


def test_an_edited_file_is_refused(scores: Scores, tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    replace(scores, made_from="these weights").save(path)
    with np.load(path) as file:
        fields = dict(file)
    edits: list[dict[str, Any]] = [
        {**fields, "values": fields["values"][::-1] + 0.1},
        {**fields, "made_from": np.array("others")},
        {**fields, "patients": fields["patients"][::-1]},
        {name: value for name, value in fields.items() if name != "digest"},
        {name: value for name, value in fields.items() if name not in ("digest", "made_from")},
        {name: value for name, value in fields.items() if name != "values"},
    ]
    for edited in edits:
        np.savez(path, **edited)
        with pytest.raises(ScanlearnError, match=r"scores\.npz: is damaged .* delete the file"):
            Scores.load(path)


def test_every_flipped_bit_is_refused_or_changes_nothing(scores: Scores, tmp_path: Path) -> None:
    path, rng = tmp_path / "scores.npz", random.Random(0)
    scores.save(path)
    whole, refused = path.read_bytes(), 0
    for _ in range(60):
        at, changed = rng.randrange(len(whole)), bytearray(whole)
        changed[at] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            loaded = Scores.load(path)
        except ScanlearnError:
            refused += 1
        else:
            np.testing.assert_array_equal(loaded.values, scores.values)
            assert loaded.design_hash() == scores.design_hash()
    assert refused > 40
