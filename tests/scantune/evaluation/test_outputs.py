from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from scanlearn.archive.reader import Archive
from scanlearn.errors import ScanlearnError
from scantune.evaluation.outputs import MACRO, check_output, write
from scantune.evaluation.results import Evaluation, score_table
from scantune.labels.labeled_set import LabeledSet
from scantune.scores import Scores
from scantune.statistics.metrics import METRICS, UNDEFINED


@pytest.fixture(scope="module")
def folder(
    evaluation: Evaluation, scan_archive: Archive, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("new") / "out"
    write(evaluation, [scan_archive], path)
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def of_findings(scores: Scores, archive: Archive) -> Evaluation:
    rows = np.arange(len(scores.truth)) % len(archive)
    data = LabeledSet("findings", scores.classes, scores.truth, scores.patients, rows)
    return Evaluation({}, score_table(scores), data, scores, ())


def test_metrics_hold_the_table_and_what_was_evaluated(
    evaluation: Evaluation, folder: Path
) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["inputs"] == {"target": "finding"}
    assert metrics["blank"] == 1
    assert sum(metrics["counts"].values()) == metrics["scans"] == metrics["tested_scans"]
    assert [row["auroc"] for row in metrics["table"]] == [row.auroc for row in evaluation.table]
    assert metrics["table"][0]["macro"]["brier"] == evaluation.table[0].macro["brier"]
    assert metrics["notes"] == ["read me"]


def test_metrics_name_no_number_of_unknown_patients(
    evaluation: Evaluation, scan_archive: Archive, tmp_path: Path
) -> None:
    data = replace(evaluation.labeled, is_unknown=np.ones(len(evaluation.labeled), np.bool_))
    write(replace(evaluation, labeled=data), [scan_archive], tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["patients"] is None
    assert metrics["tested_patients"] is None
    assert metrics["unknown_patients"] == metrics["scans"] == 39
    assert metrics["counted"].startswith("39 scans, patients unknown")
    assert "patients unknown" in (tmp_path / "out" / "figures.svg").read_text()


def test_two_classes_of_an_earlier_release_are_the_same_task(tmp_path: Path) -> None:
    def inputs(task: str) -> dict[str, dict[str, object]]:
        return {"labels": {"task": task, "classes": ["0", "1"]}}

    (tmp_path / "metrics.json").write_text(json.dumps({"inputs": inputs("multiclass")}))
    check_output(tmp_path, inputs("binary"))
    with pytest.raises(ScanlearnError, match="other inputs"):
        check_output(tmp_path, inputs("ordinal"))


def test_every_key_of_the_metrics_is_documented(folder: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text()
    metrics = json.loads((folder / "metrics.json").read_text())
    (row, *_) = metrics["table"]
    keys = {*metrics, *row, *row["macro"], *row["classes"][0], *row["classes"][0]["scores"]}
    assert not {key for key in keys if f"`{key}`" not in text}
    assert all(metric.title.lower() in text.lower() for metric in METRICS)


def test_nothing_written_holds_a_path_or_a_patients_name(
    folder: Path, scan_archive: Archive
) -> None:
    files = sorted(path.name for path in folder.iterdir())
    assert files == [
        *("classes.csv", "evaluation.html", "figures.svg", "metrics.json", "predictions.csv"),
        "scores.npz",
    ]
    for name in files:
        content = (folder / name).read_bytes()
        assert b"person" not in content
        assert str(scan_archive.path).encode() not in content


def test_predictions_give_back_the_auroc_of_every_fold(
    evaluation: Evaluation, folder: Path
) -> None:
    rows = rows_of(folder / "predictions.csv")
    assert len(rows) == 2 * 2 * 2 * len(evaluation.labeled)
    assert len({row["patient"] for row in rows}) == evaluation.labeled.num_patients
    for one in evaluation.table:
        for seed, folds in enumerate(one.per_fold):
            for fold, auroc in enumerate(folds):
                key = (one.learner, one.budget, str(seed), str(fold))
                kept = [
                    row
                    for row in rows
                    if (row["learner"], row["budget"], row["label_seed"], row["fold"]) == key
                ]
                truth = [row["label"] == "1" for row in kept]
                found = roc_auc_score(truth, [float(row["score_1"]) for row in kept])
                assert found == pytest.approx(auroc, abs=1e-12)


def test_predictions_of_findings_have_a_truth_each_blank_where_unknown(
    finding_scores: Scores, scan_archive: Archive, tmp_path: Path
) -> None:
    found = of_findings(finding_scores, scan_archive)
    write(found, [scan_archive], tmp_path)
    rows = rows_of(tmp_path / "predictions.csv")
    blank = sum(row["label_Edema"] == "" for row in rows)
    # Each scan is tested under both label seeds.
    assert blank == 2 * found.table[0].classes[0].unknown > 0
    kept = [
        row for row in rows if row["label_Edema"] and (row["label_seed"], row["fold"]) == ("1", "0")
    ]
    truth = [int(row["label_Edema"]) for row in kept]
    auroc = roc_auc_score(truth, [float(row["score_Edema"]) for row in kept])
    at = finding_scores.test_rows(1, 0, 0)
    own = finding_scores.values[0, 0, 1, at, 0], finding_scores.truth.positives(0)[at]
    assert auroc == pytest.approx(roc_auc_score(own[1], own[0]))


def test_classes_have_a_row_each_and_one_for_their_macro(
    finding_scores: Scores, scan_archive: Archive, tmp_path: Path
) -> None:
    found = of_findings(finding_scores, scan_archive)
    write(found, [scan_archive], tmp_path)
    *rows, macro = rows_of(tmp_path / "classes.csv")
    assert [row["class"] for row in rows] == ["Edema", "Effusion", "Hernia"]
    assert macro["class"] == MACRO
    assert float(macro["auroc"]) == pytest.approx(found.table[0].auroc, abs=1e-6)
    for row, one in zip(rows, found.table[0].classes, strict=True):
        counts = [int(row[name]) for name in ("positives", "negatives", "unknown")]
        assert counts == [one.scans, one.negatives, one.unknown]
        assert sum(counts) == 120
        low, value, high = (float(row[f"sensitivity{end}"]) for end in ("_low", "", "_high"))
        assert low <= value <= high


def test_one_class_against_another_has_no_macro_row(folder: Path) -> None:
    rows = rows_of(folder / "classes.csv")
    assert [row["class"] for row in rows] == ["1"] * 4


def test_worst_errors_are_drawn_when_asked_for_and_gone_when_not(
    evaluation: Evaluation, scan_archive: Archive, tmp_path: Path
) -> None:
    sheet = tmp_path / "worst_errors.png"
    write(evaluation, [scan_archive], tmp_path, worst=3)
    assert sheet.read_bytes()[:4] == b"\x89PNG"
    assert "Worst errors" in (tmp_path / "evaluation.html").read_text()
    write(evaluation, [scan_archive], tmp_path)
    assert not sheet.exists()
    assert "Worst errors" not in (tmp_path / "evaluation.html").read_text()


def test_an_undefined_auroc_is_null_in_json_and_blank_in_the_table(
    evaluation: Evaluation, scan_archive: Archive, tmp_path: Path
) -> None:
    nan = float("nan")
    one = evaluation.table[-1].classes[0]
    one = replace(one, scores=one.scores | {"auroc": nan}, intervals={"auroc": UNDEFINED})
    row = replace(evaluation.table[-1], auroc=nan, per_fold=((nan, 0.5),), classes=(one,))
    write(replace(evaluation, table=(row,)), [scan_archive], tmp_path)
    (found,) = json.loads((tmp_path / "metrics.json").read_text())["table"]
    assert found["auroc"] is None
    assert found["per_fold"] == [[None, 0.5]]
    (line,) = rows_of(tmp_path / "classes.csv")
    assert line["auroc"] == line["auroc_low"] == ""
    assert "undefined" in (tmp_path / "evaluation.html").read_text()


def test_an_output_of_something_else_is_kept(
    evaluation: Evaluation, scan_archive: Archive, tmp_path: Path
) -> None:
    check_output(tmp_path, {"target": "finding"})
    write(evaluation, [scan_archive], tmp_path)
    check_output(tmp_path, {"target": "finding"})
    with pytest.raises(ScanlearnError, match="holds the evaluation of other inputs"):
        check_output(tmp_path, {"target": "other"})
    (tmp_path / "metrics.json").write_text("no json")
    with pytest.raises(ScanlearnError, match="other inputs"):
        check_output(tmp_path, {"target": "finding"})
