from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scanlearn.core import ScanlearnError
from scanlearn.scans.archive import Archive, ArchiveWriter
from scantune.evaluation_results import Evaluation, check_output, say_table, score_table, write
from scantune.labels import LabeledSet, read_labels
from scantune.probe import score_features


@pytest.fixture
def archive(tmp_path: Path, labeled: Callable[..., LabeledSet]) -> Archive:
    data = labeled(patients=20)
    with ArchiveWriter(
        tmp_path / "archive", shape=(1, 8, 8), dtype=np.uint8, label_columns=("finding",)
    ) as writer:
        for row, (y, patient) in enumerate(zip(data.truth.classes, data.patients, strict=True)):
            writer.add(
                np.full((1, 8, 8), row, np.uint8),
                scan_id=f"{row}.png",
                patient=f"person-{patient}",
                labels={"finding": None if row == 3 else str(y)},
            )
        return writer.close()


@pytest.fixture
def evaluation(archive: Archive) -> Evaluation:
    data = read_labels(archive, "finding")
    features = np.random.default_rng(0).normal(size=(len(data), 4)) + data.truth.classes[:, None]
    scores = score_features(features, data, budgets=(10, "all"), folds=2, label_seeds=2)
    return Evaluation({"target": "finding"}, score_table(scores), data, scores, ("read me",))


def test_metrics_hold_the_table_and_what_was_evaluated(
    evaluation: Evaluation, archive: Archive, tmp_path: Path
) -> None:
    write(evaluation, archive, tmp_path / "new" / "out")
    metrics = json.loads((tmp_path / "new" / "out" / "metrics.json").read_text())
    assert metrics["inputs"] == {"target": "finding"}
    assert metrics["blank"] == 1
    assert sum(metrics["counts"].values()) == metrics["scans"]
    assert [row["auroc"] for row in metrics["table"]] == [row.auroc for row in evaluation.table]
    assert metrics["notes"] == ["read me"]
    assert str(tmp_path) not in json.dumps(metrics)


def test_predictions_hold_every_score_and_no_patients_name(
    evaluation: Evaluation, archive: Archive, tmp_path: Path
) -> None:
    write(evaluation, archive, tmp_path / "out")
    text = (tmp_path / "out" / "predictions.csv").read_text()
    assert "person" not in text
    rows = list(csv.DictReader(text.splitlines()))
    scores = evaluation.scores
    assert len(rows) == 2 * 2 * 2 * len(scores.truth.classes)
    assert len({row["patient"] for row in rows}) == evaluation.labeled.num_patients
    first = rows[0]
    assert first["scan"] == "0.png"
    assert float(first["score_1"]) == pytest.approx(scores.of("knn", 10)[0, 0, 1], rel=1e-5)


def test_an_undefined_auroc_is_null_in_json(
    evaluation: Evaluation, archive: Archive, tmp_path: Path
) -> None:
    from dataclasses import replace

    row = replace(evaluation.table[0], auroc=float("nan"), per_fold=((float("nan"), 0.5),))
    write(replace(evaluation, table=(row,)), archive, tmp_path)
    (found,) = json.loads((tmp_path / "metrics.json").read_text())["table"]
    assert found["auroc"] is None
    assert found["per_fold"] == [[None, 0.5]]


def test_an_output_of_something_else_is_kept(
    evaluation: Evaluation, archive: Archive, tmp_path: Path
) -> None:
    check_output(tmp_path, {"target": "finding"})
    write(evaluation, archive, tmp_path)
    check_output(tmp_path, {"target": "finding"})
    with pytest.raises(ScanlearnError, match="already holds the evaluation of something else"):
        check_output(tmp_path, {"target": "other"})
    (tmp_path / "metrics.json").write_text("no json")
    with pytest.raises(ScanlearnError, match="already holds"):
        check_output(tmp_path, {"target": "finding"})


def test_the_table_is_said_with_its_notes(
    evaluation: Evaluation, capsys: pytest.CaptureFixture[Any]
) -> None:
    say_table(evaluation)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == (1 + 4) + (1 + 2 + 1) + 1
    assert lines[0].split()[:2] == ["learner", "labels"]
    assert f"{evaluation.table[0].auroc:.3f}" in lines[1]
    assert lines[-1] == "note: read me"
