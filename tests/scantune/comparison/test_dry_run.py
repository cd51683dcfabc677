from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from scanlearn.packing.listed import list_scans
from scanlearn.packing.settings import PackSettings
from scanlearn.training.folder import RunFolder
from scantune.cli import app
from scantune.comparison import dry_run
from scantune.comparison.dry_run import plan_summary
from scantune.labels.labeled_set import LabeledSet, read_labels
from scantune.labels.truth import Truth
from scantune.scoring import score_features
from scantune.statistics.few_patients import Sides
from scantune.statistics.power import XRAYS, PlannedTest
from scantune.study.folder import StudyFolder
from scantune.study.plan import CompareConfig
from scantune.study.planned import planned_test, power_fact, power_in_words, power_warning
from scantune.study.summary import estimate_all

PLAN: dict[str, Any] = {
    "unlabeled": "phantom:patients=8,seed=3,size=48x48",
    "labels": "phantom:patients=24,seed=4,size=48x48",
    "tasks": ("pallor",),
    "arms": {"random": {"kind": "random"}, "weak": {"scale": 0.5}, "strong": {"scale": 1}},
    "seeds": (0, 1),
    "pretrain": {
        "backbone": {"name": "test_resnet"},
        "views": {"size": 32},
        "batch_size": 8,
        "steps": 2,
    },
    "evaluation": {
        "learners": ("knn",),
        "budgets": (10, "all"),
        "folds": 2,
        "label_seeds": 2,
        "replicates": 200,
    },
    "primary": {"learner": "knn"},
}


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in {"_ENOUGH_S": 0.0, "_FEWEST_STEPS": 1}.items():
        monkeypatch.setattr(dry_run, name, value)


def plan(folder: Path, **changes: Any) -> CompareConfig:
    return CompareConfig.model_validate({**PLAN, "output": str(folder / "study"), **changes})


def test_a_plan_is_told_before_and_after_it_is_run_in_part(tmp_path: Path) -> None:
    first = plan_summary(plan(tmp_path))
    assert not list(tmp_path.iterdir())
    assert [(p.arm, p.seed, p.steps, p.done) for p in first.pieces] == [
        ("weak", 0, 2, 0),
        ("strong", 0, 2, 0),
        ("weak", 1, 2, 0),
        ("strong", 1, 2, 0),
    ]
    assert {piece.views for piece in first.pieces} == {16}
    # The thumbnail and six networks, two budgets, two label seeds, two folds.
    assert (first.fits, first.kept) == (7 * 8, 0)
    assert "the phantom's demo" in first.power
    assert any("2 steps alone" in text for text in first.warnings)
    assert any("fewer than three" in text for text in first.warnings)
    folder = StudyFolder(tmp_path / "study")
    for arm in ("weak", "strong"):
        run = RunFolder(folder.run(arm, 0))
        run.path.mkdir(parents=True)
        run.result.write_text("{}")
    labels = list_scans(PLAN["labels"], PackSettings())
    data = read_labels(labels, "pallor")
    scores = {}
    for seed, name in enumerate(("thumbnail", "random-seed-0", "weak-seed-0", "strong-seed-0")):
        features = np.random.default_rng(seed).normal(size=(len(data), 4))
        features += data.truth.classes[:, None]
        options: dict[str, Any] = {"budgets": (10, "all"), "folds": 2, "label_seeds": 2}
        found = score_features(features, data, learners=("knn",), **options)
        path = folder.scores("pallor", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        found.save(path)
        scores["pallor", name.removesuffix("-seed-0")] = [found]
    later = plan_summary(plan(tmp_path))
    assert [piece.done for piece in later.pieces] == [2, 2, 0, 0]
    assert (later.fits, later.kept) == (3 * 8, 4 * 8)
    assert "this study's 1 seed so far" in later.power
    text = str(later)
    assert "2 to train, 2 finished" in text
    assert f"power    {later.power}" in text
    assert "leaks    shared patients and copies are looked for before training" in text
    assert "now: scanlearn audit " in text
    # The report says the same of what was run.
    begun = plan(tmp_path, seeds=(0,))
    fact = power_fact(begun, {"pallor": data}, estimate_all(begun, scores), scores)
    assert "1 pretraining seed the smallest difference" in fact.value
    assert "this study's 1 seed so far. This plan cannot show" in fact.value


def test_memory_of_jobs_and_of_smaller_batches_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = plan_summary(plan(tmp_path, jobs=2))
    assert "memory   at least" not in str(whole)
    assert not any("give jobs=" in text for text in whole.warnings)
    monkeypatch.setattr("scantune.study.jobs._own_memory", lambda: 1_000_000)
    monkeypatch.setattr(dry_run, "_TIMED_PIXELS", 1)
    pretrain = {**PLAN["pretrain"], "batch_size": 12}
    full = plan_summary(plan(tmp_path, jobs=2, pretrain=pretrain))
    assert "memory   at least " in str(full)
    assert any(text.endswith("has 0.001 GB: give jobs=1") for text in full.warnings)


def test_the_command_prints_it_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("demo", "--dry-run", "output=o", "seeds=[0]", "pretrain.batch_size=8")
    words += ("unlabeled=phantom:patients=8,size=64x64", "labels=phantom:patients=20,size=32x32")
    done = CliRunner().invoke(app, ["compare", *words, "evaluation.folds=2"])
    assert done.exit_code == 0, done.exception
    assert "WARNING  This plan cannot show" in done.stdout
    assert not list(tmp_path.iterdir())


def test_the_planned_test_counts_patients_of_each_side(tmp_path: Path) -> None:
    # Six patients with two scans; patient 0 has one of each class.
    y = np.array([1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    data = LabeledSet("t", ("0", "1"), Truth.of_classes(y, 2), np.arange(12) // 2, np.arange(12))
    found = planned_test(plan(tmp_path), data)
    assert found.sides == (Sides("1", 3, 4),)
    assert found.scans_per_patient == pytest.approx(12 / 7)
    assert (found.seeds, found.label_draws, found.trained_arms) == (2, None, 2)
    few = plan(tmp_path, primary={"learner": "knn", "budget": 10})
    assert planned_test(few, data).label_draws is None
    assert planned_test(few, data, num_training=100).label_draws == 2
    given = plan(
        tmp_path,
        arms={**PLAN["arms"], "a": {"kind": "backbone", "backbone": "resnet18.a1_in1k"}},
        primary={"learner": "knn", "better": "weak", "than": "a"},
    )
    assert planned_test(given, data).seeds == 2


def test_what_cannot_be_shown_is_said(tmp_path: Path) -> None:
    config = plan(tmp_path)
    many = PlannedTest((Sides("1", 30_000, 30_000),), seeds=40, trained_arms=4)
    assert power_warning(config, many, XRAYS) is None
    few = PlannedTest((Sides("1", 3, 50),))
    assert "nothing can be shown: too few patients" in power_in_words(config, few, XRAYS)
    assert "more labeled patients help most" in str(power_warning(config, few, XRAYS))
    small = PlannedTest((Sides("1", 24, 36),))
    text = power_in_words(config, small, XRAYS)
    assert "with 24 patients with pallor 1 and 36 without, 3 pretraining seeds" in text
    assert "power 0.8 is 0.0" in text
    assert "the margin is 0.01" in text
