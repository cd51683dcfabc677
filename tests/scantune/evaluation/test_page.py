from __future__ import annotations

import re
from dataclasses import replace

import pytest

from scanlearn import svg
from scantune.evaluation.figures import LearnerFigures
from scantune.evaluation.page import evaluation_page
from scantune.evaluation.results import Evaluation, score_table
from scantune.scores import Scores

FIGURES = (LearnerFigures("linear", (svg.figure(1, 1, "ROC", []),)),)


def words(page: str) -> str:
    """The text of the page, tags left out."""
    body = page[page.index("<body>") :]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def of_findings(evaluation: Evaluation, scores: Scores) -> Evaluation:
    labeled = replace(
        evaluation.labeled, classes=scores.classes, truth=scores.truth, patients=scores.patients
    )
    return replace(evaluation, table=score_table(scores), scores=scores, labeled=labeled)


def test_the_page_holds_its_pictures_and_loads_nothing(evaluation: Evaluation) -> None:
    page = evaluation_page(evaluation, FIGURES, b"\x89PNG worst")
    assert len(re.findall(r'src="data:image/png;base64,', page)) == 1
    assert 'aria-label="ROC"' in page
    assert not re.search(r"(https?:)?//", page.replace("data:image/png;base64,", ""))


def test_scans_are_shown_only_when_given(evaluation: Evaluation) -> None:
    page = evaluation_page(evaluation, FIGURES)
    assert "<img" not in page
    assert "Worst errors" not in page


def test_every_learner_and_budget_has_its_auroc_and_interval(evaluation: Evaluation) -> None:
    text = words(evaluation_page(evaluation, FIGURES))
    for row in evaluation.table:
        assert f"{row.auroc:.3f} {row.low:.3f} to {row.high:.3f}" in text
    assert "read me" in text
    assert "finding" in text


def test_each_class_has_its_row_with_a_macro_and_a_count(
    evaluation: Evaluation, finding_scores: Scores
) -> None:
    found = of_findings(evaluation, finding_scores)
    text = words(evaluation_page(found, FIGURES))
    for one in found.table[0].classes:
        assert f"{one.name} " in text
    assert "Macro average" in text
    assert f"{found.table[0].num_sure} of 3 AUROC intervals exclude .5" in text
    assert f"{found.table[0].classes[0].unknown} unknown" in text
    assert "scans with an unknown label, masked for that finding: Edema" in text


def test_what_a_table_calls_its_classes_cannot_run(evaluation: Evaluation) -> None:
    row = evaluation.table[-1]
    named = replace(row.classes[0], name="<script>alert(1)</script>")
    page = evaluation_page(replace(evaluation, table=(replace(row, classes=(named,)),)), FIGURES)
    assert "<script>" not in page


@pytest.mark.parametrize("kind", ["thumbnail", "random", "loaded"])
def test_the_backbone_is_told_in_words(evaluation: Evaluation, kind: str) -> None:
    backbone = {"kind": kind, "size": 64, "weights": "ab" * 32}
    if kind != "thumbnail":
        backbone["architecture"] = "resnet18"
    text = words(evaluation_page(replace(evaluation, inputs={"backbone": backbone}), FIGURES))
    told = {
        "thumbnail": "thumbnail at 64 px;",
        "random": "resnet18 with random weights at 64 px;",
        "loaded": "resnet18 at 64 px;",
    }
    assert told[kind] in text
    assert "abababababab" in text
    assert "ab" * 32 not in text


def test_scans_that_only_train_are_counted_apart(evaluation: Evaluation) -> None:
    assert "Labeled scans by class" in evaluation_page(evaluation, FIGURES)
    fold_of = evaluation.scores.fold_of.copy()
    fold_of[:, :10] = -1
    scores = replace(evaluation.scores, fold_of=fold_of)
    text = words(evaluation_page(replace(evaluation, scores=scores), FIGURES))
    negatives = int((scores.truth.classes[:10] == 0).sum())
    assert f"Training scans by class Class scans 0 {negatives} " in text
    assert f"{len(scores.truth) - 10} of them tested" in text
