from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from scanlearn.palette import NUM_HUES, hue
from scantune.evaluation.figures import draw_figures, figure_note, figure_sheet
from scantune.evaluation.results import score_table
from scantune.labels.labeled_set import LabeledSet
from scantune.labels.truth import Truth
from scantune.scores import Scores
from scantune.scoring import score_features


def scored(data: LabeledSet, *learners: str) -> Scores:
    features = np.random.default_rng(0).normal(size=(len(data), 4)) + data.truth.classes[:, None]
    return score_features(features, data, learners=learners or ("knn",), folds=2, label_seeds=1)


@pytest.mark.parametrize("classes", [2, 7])
def test_figures_are_the_same_each_time_and_give_each_class_a_colour(
    labeled: Callable[..., LabeledSet], classes: int
) -> None:
    scores = scored(labeled(patients=70, classes=classes))
    rows = score_table(scores)
    (drawn,) = draw_figures(scores, rows)
    assert (drawn,) == draw_figures(scores, rows)
    assert [re.findall(r'aria-label="([^"]*)"', panel)[0] for panel in drawn.panels] == [
        *("ROC", "Precision and recall", "Calibration", "Confusion")
    ]
    # Of two classes the second has a curve, of seven the six commonest.
    curves = 1 if classes == 2 else NUM_HUES
    roc, precision, calibration, confusion = drawn.panels
    for panel in (roc, precision, calibration):
        assert panel.count("<polyline") == curves
        assert all(hue(index) in panel for index in range(curves))
    assert roc.count("<polygon") == precision.count("<polygon") == (1 if classes == 2 else 0)
    assert confusion.count("<rect") == classes**2
    assert ("commonest of 7 classes" in figure_note(scores)) == (classes == 7)


def test_curves_are_those_of_the_statistics(labeled: Callable[..., LabeledSet]) -> None:
    scores = scored(labeled(patients=70))
    rows = score_table(scores)
    roc = draw_figures(scores, rows)[0].panels[0]
    (points,) = re.findall(r'<polyline points="([^"]*)"', roc)
    heights = [float(point.split(",")[1]) for point in points.split()]
    assert len(heights) == 101
    assert heights == sorted(heights, reverse=True)
    assert f"AUROC {rows[0].classes[0].auroc:.3f}" in roc


def test_class_missing_from_every_fold_is_drawn_without_a_curve(
    labeled: Callable[..., LabeledSet],
) -> None:
    data = labeled(patients=40, split=True)
    y = np.where(np.asarray(data.split) == "test", 0, data.truth.classes)
    scores = scored(replace(data, truth=Truth.of_classes(y, 2)))
    (drawn,) = draw_figures(scores, score_table(scores))
    assert "<polyline" not in drawn.panels[0]
    assert "nan" not in "".join(drawn.panels)


def test_findings_have_a_forest_where_classes_have_a_confusion(finding_scores: Scores) -> None:
    rows = score_table(finding_scores)
    (drawn,) = draw_figures(finding_scores, rows)
    forest = drawn.panels[3]
    assert "<rect" not in forest
    assert forest.count("<circle") == len(rows[0].classes)
    for place, line in enumerate(rows[0].classes):
        assert hue(place) in forest
        ends = f" ({line.low:.3f} to {line.high:.3f})" if not line.note else f", {line.note}"
        assert f"{line.name}: {line.auroc:.3f}{ends}" in forest
    assert "nan" not in forest


def test_a_finding_that_nobody_has_is_called_undefined(finding_scores: Scores) -> None:
    matrix = finding_scores.truth.matrix.copy()
    matrix[:, 2] = np.minimum(matrix[:, 2], 0)
    none = replace(finding_scores, truth=Truth(matrix, "multilabel"))
    (drawn,) = draw_figures(none, score_table(none))
    assert drawn.panels[3].count("undefined") == 1
    assert "nan" not in "".join(drawn.panels)


def test_the_sheet_has_a_row_of_panels_for_each_learner_and_needs_no_variables(
    labeled: Callable[..., LabeledSet],
) -> None:
    scores = scored(labeled(patients=30), "knn", "linear")
    figures = draw_figures(scores, score_table(scores))
    sheet = figure_sheet(figures, "a <title>", scores)
    root = ElementTree.fromstring(sheet)
    assert len(root.findall("{http://www.w3.org/2000/svg}svg")) == 8
    assert "a <title>" in str(root.attrib["aria-label"])
    assert "var(--hue" not in sheet
    one = ElementTree.fromstring(figure_sheet(figures[:1], "t", scores))
    assert float(one.attrib["height"]) < float(root.attrib["height"])
