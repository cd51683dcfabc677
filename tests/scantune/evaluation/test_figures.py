from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from scantune.evaluation.figures import COLOURS, draw_figures
from scantune.evaluation.results import score_table
from scantune.labels.labeled_set import LabeledSet
from scantune.labels.truth import Truth
from scantune.scores import Scores
from scantune.scoring import score_features


@pytest.mark.parametrize("classes", [2, 7])
def test_figures_are_one_picture_the_same_each_time(
    labeled: Callable[..., LabeledSet], classes: int
) -> None:
    data = labeled(patients=70, classes=classes)
    features = np.random.default_rng(0).normal(size=(len(data), 4)) + data.truth.classes[:, None]
    scores = score_features(features, data, learners=("knn",), folds=2, label_seeds=1)
    rows = score_table(scores)
    drawn = draw_figures(scores, rows, "finding")
    assert drawn == draw_figures(scores, rows, "finding")
    picture = np.asarray(Image.open(io.BytesIO(drawn)).convert("RGB")).astype(int)
    assert picture.shape[1] == 2040
    # Curves have colours, and of seven classes the six commonest have one each.
    blue = np.abs(picture - [31, 99, 174]).max(axis=-1) < 12
    slate = np.abs(picture[:, :1200] - [77, 90, 112]).max(axis=-1) < 6
    assert blue.sum() > 200
    assert (slate.sum() > 200) == (classes == 7)


def test_class_missing_from_every_fold_is_drawn_without_a_curve(
    labeled: Callable[..., LabeledSet],
) -> None:
    data = labeled(patients=40, split=True)
    y = np.where(np.asarray(data.split) == "test", 0, data.truth.classes)
    flat = replace(data, truth=Truth.of_classes(y, 2))
    features = np.random.default_rng(0).normal(size=(len(y), 3))
    scores = score_features(features, flat, learners=("knn",), label_seeds=1)
    assert draw_figures(scores, score_table(scores), "finding")[:4] == b"\x89PNG"


def pixels(drawn: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(drawn)).convert("RGB")).astype(int)


def test_findings_have_a_forest_where_classes_have_a_confusion(finding_scores: Scores) -> None:
    picture = pixels(draw_figures(finding_scores, score_table(finding_scores), "findings"))
    last = picture[:, 1550:]
    # An interval in the colour of its curve, and none of the confusion's dark blue.
    for colour in COLOURS[:3]:
        own = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        assert (np.abs(last - own).max(axis=-1) < 12).sum() > 50
    assert (np.abs(last - [8, 48, 107]).max(axis=-1) < 20).sum() == 0


def test_a_finding_that_nobody_has_is_called_undefined(finding_scores: Scores) -> None:
    matrix = finding_scores.truth.matrix.copy()
    matrix[:, 2] = np.minimum(matrix[:, 2], 0)
    none = replace(finding_scores, truth=Truth(matrix, "multilabel"))
    assert draw_figures(none, score_table(none), "findings")[:4] == b"\x89PNG"


def test_each_learner_has_a_row_of_panels_as_high_as_the_others(
    labeled: Callable[..., LabeledSet],
) -> None:
    data = labeled(patients=30)
    features = np.random.default_rng(0).normal(size=(len(data), 4)) + data.truth.classes[:, None]
    heights = []
    for learners in (("knn",), ("knn", "linear")):
        scores = score_features(features, data, learners=learners, folds=2, label_seeds=1)
        heights.append(len(pixels(draw_figures(scores, score_table(scores), "finding"))))
    assert heights[1] - heights[0] == pytest.approx(3.55 * 150, abs=1)
