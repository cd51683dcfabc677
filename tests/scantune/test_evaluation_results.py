from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scantune.agreement import Agreement
from scantune.evaluation_results import Evaluation, say_table, score_table
from scantune.scores import Scores


def said(evaluation: Evaluation, capsys: pytest.CaptureFixture[Any]) -> list[str]:
    say_table(evaluation)
    lines: list[str] = capsys.readouterr().out.splitlines()
    return lines


def test_the_table_is_said_with_its_notes(
    evaluation: Evaluation, capsys: pytest.CaptureFixture[Any]
) -> None:
    lines = said(evaluation, capsys)
    assert len(lines) == (1 + 4) + (1 + 2 + 1) + 1
    assert lines[0].split()[:2] == ["learner", "labels"]
    assert f"{evaluation.table[0].auroc:.3f}" in lines[1]
    assert lines[-1] == "note: read me"


def test_a_kappa_of_grades_is_said(
    evaluation: Evaluation, capsys: pytest.CaptureFixture[Any]
) -> None:
    row = replace(evaluation.table[-1], agreement=Agreement(0.71, 0.6, 0.8, 0))
    lines = said(replace(evaluation, table=(row,)), capsys)
    assert any("quadratic kappa 0.710  0.600 to 0.800" in line for line in lines)


def test_only_ordered_classes_have_a_kappa(evaluation: Evaluation) -> None:
    assert all(row.agreement is None for row in evaluation.table)
    truth = replace(evaluation.scores.truth, task="ordinal")
    graded = score_table(replace(evaluation.scores, truth=truth))
    assert all(row.agreement is not None for row in graded)


def test_findings_have_a_row_each_and_a_macro_over_what_is_defined(
    finding_scores: Scores,
) -> None:
    (row,) = score_table(finding_scores)
    assert [one.name for one in row.classes] == ["Edema", "Effusion", "Hernia"]
    hernia = row.classes[2]
    assert hernia.scans == 1
    # One scan has it: each label seed defines its AUROC in one of two folds.
    assert hernia.undefined == row.undefined == 2
    assert row.macro.auprc == pytest.approx(np.mean([one.scores.auprc for one in row.classes]))
    known = [one.scans + one.negatives for one in row.classes]
    assert [one.unknown for one in row.classes] == [120 - number for number in known]
    assert row.classes[0].unknown > 0
    assert row.num_sure == sum(one.low > 0.5 or one.high < 0.5 for one in row.classes)


def test_macro_leaves_out_what_no_model_defines(finding_scores: Scores) -> None:
    matrix = finding_scores.truth.matrix.copy()
    matrix[:, 2] = np.minimum(matrix[:, 2], 0)
    none = replace(finding_scores, truth=replace(finding_scores.truth, matrix=matrix))
    (row,) = score_table(none)
    assert np.isnan(row.classes[2].scores.auprc)
    assert row.macro.auprc == pytest.approx(np.mean([one.scores.auprc for one in row.classes[:2]]))
