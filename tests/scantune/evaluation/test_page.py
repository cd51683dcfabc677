from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from scanlearn import svg
from scantune.evaluation.figures import LearnerFigures, draw_figures
from scantune.evaluation.page import evaluation_page
from scantune.evaluation.results import (
    Evaluation,
    ReferenceScore,
    interval_notes,
    say_table,
    score_table,
)
from scantune.labels.labeled_set import Design
from scantune.scores import Scores
from scantune.wording import DESIGNS

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


@pytest.mark.parametrize(("auroc", "is_said"), [(0.999, True), (0.1, False)])
def test_a_reference_that_is_not_beaten_is_said(
    evaluation: Evaluation, auroc: float, is_said: bool
) -> None:
    reference = ReferenceScore("thumbnail", auroc, 0.0, 1.0, 0.0, -1.0, 1.0, 1.0)
    table = tuple(replace(row, references=(reference,)) for row in evaluation.table)
    compared = replace(evaluation, table=table, references={"thumbnail": {"kind": "thumbnail"}})
    text = words(evaluation_page(compared, FIGURES))
    assert ("no evidence that the backbone tells more than thumbnail does" in text) == is_said


def test_the_tables_of_classes_sort_and_keep_their_mean_last(
    evaluation: Evaluation, finding_scores: Scores
) -> None:
    page = evaluation_page(of_findings(evaluation, finding_scores), FIGURES)
    assert "script-src 'sha256-" in page
    assert page.count('<table class="sorted">') == 1
    foot = page[page.index("<tfoot>") : page.index("</tfoot>")]
    assert "Macro average" in foot


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
    assert "alert(1)</script>" not in page
    assert page.count("<script") == 1
    assert "alert" not in page[page.index("<script") :]


@pytest.mark.parametrize("kind", ["thumbnail", "random", "loaded"])
def test_the_backbone_is_told_in_words(evaluation: Evaluation, kind: str) -> None:
    backbone = {"kind": kind, "size": 64, "weights": "ab" * 32}
    if kind != "thumbnail":
        backbone["architecture"] = "resnet18"
    text = words(evaluation_page(replace(evaluation, inputs={"backbone": backbone}), FIGURES))
    told = {
        "thumbnail": "thumbnail at 64 px.",
        "random": "resnet18 with random weights at 64 px.",
        "loaded": "resnet18 at 64 px.",
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
    assert f"Tested on 2 folds of patients: {len(scores.truth) - 10} scans of" in text


UNKNOWN = "39 scans, patients unknown; each scan counted as one"
PARTLY = "39 scans: 29 of 15 patients, patients of 10 unknown; each scan of these counted as one"


@pytest.mark.parametrize(("num_unknown", "told"), [(39, UNKNOWN), (10, PARTLY)])
def test_what_is_unknown_of_patients_is_said_and_no_more_claimed(
    evaluation: Evaluation, num_unknown: int, told: str
) -> None:
    data = evaluation.labeled
    is_unknown = np.arange(len(data)) >= len(data) - num_unknown
    patients = np.where(is_unknown, 1000 + np.arange(len(data)), data.patients)
    data = replace(data, is_unknown=is_unknown, patients=patients)
    text = words(evaluation_page(replace(evaluation, labeled=data), FIGURES))
    assert told in text
    assert "No model scores a scan of a patient" not in text
    assert "scans of one person may train a model and be scored by it" in text
    assert ("Training patients" in text) == (num_unknown < 39)


@pytest.mark.parametrize("design", ["folds", "split", "test"])
def test_each_design_is_told_in_its_own_sentences(evaluation: Evaluation, design: Design) -> None:
    data = evaluation.labeled
    side = np.where(np.arange(len(data)) % 4 < 2, "train", "test")
    sources = (side == "test").astype(np.int64)
    data = replace(
        data,
        split=None if design == "folds" else side,
        sources=sources if design == "test" else None,
    )
    text = words(evaluation_page(replace(evaluation, labeled=data), FIGURES))
    for each, told in DESIGNS.items():
        assert (told.covers.format(units="patients") in text) == (each == design)
    assert DESIGNS[design].separate in text


def test_what_was_evaluated_has_its_names_beside_the_hashes(evaluation: Evaluation) -> None:
    inputs = {
        "backbone": {"kind": "loaded", "architecture": "resnet18", "weights": "ab" * 32},
        "labels": {"archive": "cd" * 32, "task": "binary"},
    }
    named = {"data set": "nih1000", "backbone": "weak", "method": "dino", "scale": "s = 0.5"}
    text = words(evaluation_page(replace(evaluation, inputs=inputs, named=named), FIGURES))
    assert "weak, resnet18." in text
    for row in ("data set nih1000 (cdcdcdcdcdcd)", "backbone weak (abababababab)", "method dino"):
        assert row in text
    assert "scale s = 0.5" in text
    assert text.count("cdcdcdcdcdcd") == text.count("abababababab") == 1


def test_references_stand_below_each_row_with_the_difference(evaluation: Evaluation) -> None:
    reference = ReferenceScore("untrained", 0.7, 0.6, 0.8, 0.05, -0.01, 0.11, 0.1)
    silent = replace(reference, name="thumbnail", difference_low=np.nan, note="too few patients")
    table = [replace(row, references=(silent, reference)) for row in evaluation.table]
    kinds = {"untrained": {"kind": "random", "architecture": "resnet18", "size": 32}}
    found = replace(evaluation, table=tuple(table), references=kinds)
    text = words(evaluation_page(found, FIGURES))
    row = r"untrained 0\.700 0\.600 to 0\.800 .{0,60}?\+0\.050 −0\.010 to \+0\.110"
    assert len(re.findall(row, text)) == text.count("+0.050 too few patients") == len(table)
    assert "untrained is resnet18 with random weights at 32 px" in text


def test_too_few_patients_have_no_interval_but_a_reason_everywhere(
    evaluation: Evaluation, finding_scores: Scores, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = of_findings(evaluation, finding_scores)
    (row,) = whole.table
    reason = "too few patients to say: 1 with Hernia, where at least 5 are needed"
    hernia = row.classes[2]
    assert np.isnan([row.low, row.high, hernia.low, hernia.high]).all()
    assert (row.note, hernia.note, row.classes[1].note) == (reason, reason, "")
    assert row.as_json()["note"] == row.as_json()["classes"][2]["note"] == reason
    assert 0 < row.classes[1].low < row.classes[1].auroc < row.classes[1].high < 1
    notes = interval_notes(whole.table)
    assert notes == (f"linear probe: {reason}",)
    noted = replace(whole, notes=notes)
    page = evaluation_page(noted, draw_figures(finding_scores, whole.table))
    assert reason in words(page)
    assert "nan" not in words(page).split()
    say_table(noted)
    assert reason in capsys.readouterr().out
