from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from scantune.figures import draw_figures
from scantune.labels import LabeledSet
from scantune.probe import score_features
from scantune.truth import Truth


@pytest.mark.parametrize("classes", [2, 7])
def test_figures_are_one_picture_the_same_each_time(
    labeled: Callable[..., LabeledSet], classes: int
) -> None:
    data = labeled(patients=70, classes=classes)
    features = np.random.default_rng(0).normal(size=(len(data), 4)) + data.truth.classes[:, None]
    scores = score_features(features, data, learners=("knn",), folds=2, label_seeds=1)
    drawn = draw_figures(scores, "finding")
    assert drawn == draw_figures(scores, "finding")
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
    assert draw_figures(scores, "finding")[:4] == b"\x89PNG"
