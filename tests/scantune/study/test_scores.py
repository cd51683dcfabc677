from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scanlearn.archive.layout import Origin, PackedScan
from scanlearn.archive.reader import Archive
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.errors import ScanlearnError
from scanlearn.packing.sources import open_archive
from scantune.evaluation.backbone import EvaluatedBackbone
from scantune.scores import Scores
from scantune.study.facts import data_warnings, task_counts
from scantune.study.folder import open_study
from scantune.study.plan import CompareConfig
from scantune.study.scores import Network, StudyScores, read_tasks

Plan = Callable[..., CompareConfig]


@pytest.fixture
def labels(tmp_path: Path) -> Archive:
    return open_archive("phantom:patients=24,seed=4,size=48x48", cache=tmp_path / "cache")


@pytest.fixture
def square(tmp_path: Path) -> Archive:
    """Labels whose scans look the same however they are framed."""
    with ArchiveWriter(
        tmp_path / "square", shape=(1, 8, 8), dtype=np.uint8, label_columns=("pallor",)
    ) as writer:
        for row in range(24):
            scan = PackedScan(np.full((1, 8, 8), row, np.uint8))
            writer.add(scan, Origin(f"s{row}", f"p{row}", {"pallor": str(row % 2)}))
        return writer.close()


class Counted:
    """Made-up features, and how often they were asked for."""

    def __init__(self, seed: int) -> None:
        self.calls = 0
        self.seed = seed

    def __call__(self) -> EvaluatedBackbone:
        made = EvaluatedBackbone({}, None, None, (16, (0.5,), (0.5,)))
        object.__setattr__(made, "features", self.features)
        return made

    def features(self, _: Archive, rows: np.ndarray) -> np.ndarray:
        self.calls += 1
        return np.random.default_rng(self.seed).normal(size=(len(rows), 8)).astype(np.float32)


def test_features_are_made_once_for_all_tasks_and_not_again(plan: Plan, labels: Archive) -> None:
    config = plan(tasks=["pallor", "lesion"])
    folder, tasks = open_study(config), read_tasks(config, (labels,))
    first, second = Counted(0), Counted(1)
    networks = [Network("weak", "weak-seed-0", first), Network("weak", "weak-seed-1", second)]
    found = StudyScores(config, folder, (labels,), tasks).of_all(networks)
    assert set(found) == {("pallor", "weak"), ("lesion", "weak")}
    assert [len(members) for members in found.values()] == [2, 2]
    assert (first.calls, second.calls) == (1, 1)
    again = StudyScores(config, folder, (labels,), tasks).of_all(networks)
    assert (first.calls, second.calls) == (1, 1)
    for key, members in found.items():
        for one, other in zip(members, again[key], strict=True):
            np.testing.assert_array_equal(one.values, other.values)


def test_only_what_is_missing_is_scored(plan: Plan, labels: Archive) -> None:
    config = plan()
    folder, tasks = open_study(config), read_tasks(config, (labels,))
    kept, lost = Counted(0), Counted(1)
    networks = [Network("weak", "weak-seed-0", kept), Network("strong", "strong-seed-0", lost)]
    StudyScores(config, folder, (labels,), tasks).of_all(networks)
    folder.scores("pallor", "strong-seed-0").unlink()
    StudyScores(config, folder, (labels,), tasks).of_all(networks)
    assert (kept.calls, lost.calls) == (1, 2)


def test_kept_scores_are_read_once_unless_another_command_writes_them(
    plan: Plan, labels: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = plan()
    folder, tasks = open_study(config), read_tasks(config, (labels,))
    network = Network("weak", "weak-seed-0", Counted(0))
    made = StudyScores(config, folder, (labels,), tasks)
    made.of_all([network])
    read, loaded = Scores.load, list[Path]()

    def load(path: Path) -> Scores:
        loaded.append(path)
        return read(path)

    monkeypatch.setattr(Scores, "load", load)
    assert set(made.of(network)) == {"pallor"}
    assert loaded == []
    again = StudyScores(config, folder, (labels,), tasks)
    again.check([network])
    again.of_all([network])
    assert loaded == [folder.scores("pallor", network.name)]
    # Another command leaves scores of other weights, which are not taken unseen.
    scores = read(loaded[0])
    replace(scores, made_from="").save(loaded[0])
    with pytest.raises(ScanlearnError, match="made from other weights"):
        again.of(network)


def test_scores_of_networks_tuned_under_another_modality_are_not_taken(
    plan: Plan, labels: Archive
) -> None:
    def under(modality: str | None, learner: str = "finetune") -> CompareConfig:
        tune = {"augment": "complex"} if learner == "finetune" else {}
        evaluation = {"learners": [learner], "folds": 2, "label_seeds": 1, "tune": tune}
        pretrain = plan().model_dump(mode="json")["pretrain"]
        pretrain["views"] |= {"modality": modality}
        return plan(pretrain=pretrain, evaluation=evaluation, primary={"learner": learner})

    probed, xray = under("xray", "linear"), under("xray")
    folder, tasks = open_study(probed), read_tasks(probed, (labels,))
    network = Network("weak", "weak-seed-0", Counted(0))
    StudyScores(probed, folder, (labels,), tasks).of(network)
    # A tuning is minutes: the scores of the probe stand for it.
    path = folder.scores("pallor", network.name)
    text = json.dumps({"augment": "complex", "modality": "xray"})
    replace(Scores.load(path), learners=("finetune",), settings=(text,)).save(path)
    StudyScores(xray, folder, (labels,), tasks).of(network)
    for other in ("mri", None):
        with pytest.raises(ScanlearnError, match=r"finetune was scored with .*xray"):
            StudyScores(under(other), folder, (labels,), tasks).of(network)


def test_a_budget_that_leaves_one_class_is_refused_at_once(plan: Plan, labels: Archive) -> None:
    config = plan(evaluation={"budgets": ["all"], "folds": 30})
    with pytest.raises(ScanlearnError, match="folds=30"):
        read_tasks(config, (labels,))


def test_findings_of_a_list_are_a_task_and_what_is_unknown_is_told(
    plan: Plan, tmp_path: Path
) -> None:
    listed = [*["A|B", "B", "No Finding", "A"] * 10, "C", None]
    with ArchiveWriter(
        tmp_path / "labels", shape=(1, 8, 8), dtype=np.uint8, label_columns=("Finding Labels",)
    ) as writer:
        for row, text in enumerate(listed):
            pixels = np.full((1, 8, 8), row, np.uint8)
            named = {"Finding Labels": text}
            writer.add(PackedScan(pixels), Origin(f"s{row}", f"p{row}", named))
        labels = writer.close()
    config = plan(tasks=["Finding Labels"])
    folder, tasks = open_study(config), read_tasks(config, (labels,))
    found = StudyScores(config, folder, (labels,), tasks).of_all(
        [Network("weak", "weak-seed-0", Counted(0))]
    )
    (scores,) = found["Finding Labels", "weak"]
    assert scores.truth.task == "multilabel"
    (counts,) = task_counts(tasks)
    assert counts.counts == {"A": 20, "B": 20, "C": 0}
    told = data_warnings(labels, (labels,), tasks)
    assert "Finding Labels: 1 scans without a label are left out." in told
    assert "Finding Labels: scans of which a finding is unknown are masked: C 1." in told
    assert any(line.startswith("Finding Labels: only one patient has C") for line in told)


def test_scores_of_other_weights_scans_or_labels_are_refused(
    plan: Plan, square: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    config = plan()
    folder, tasks = open_study(config), read_tasks(config, (square,))
    (task,) = tasks
    networks = [
        Network(arm, f"{arm}-seed-0", Counted(seed), weights=arm)
        for seed, arm in enumerate(("weak", "strong"))
    ]
    StudyScores(config, folder, (square,), tasks).of_all(networks)
    file, other = (folder.scores(task, network.name) for network in networks)
    whole = file.read_bytes()
    match = f"{file}: was made from other weights"
    file.write_bytes(other.read_bytes())
    with pytest.raises(ScanlearnError, match=match):
        StudyScores(config, folder, (square,), tasks).of_all(networks)
    file.write_bytes(whole)
    corrected = replace(tasks[task], truth=tasks[task].truth[np.arange(len(tasks[task]))[::-1]])
    with pytest.raises(ScanlearnError, match=match):
        StudyScores(config, folder, (square,), {task: corrected}).of_all(networks)
    # One of an earlier format is made again, which is said.
    with np.load(file) as fields:
        np.savez(file, **(dict(fields) | {"format": np.array(3)}))
    StudyScores(config, folder, (square,), tasks).of_all(networks)
    assert "1 of its scores are of an earlier version" in capsys.readouterr().err
    assert Scores.load(file).made_from
