"""A comparison packs, trains and scores by the settings of `pack`, `pretrain` and `evaluate`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scanlearn.errors import ScanlearnError
from scanlearn.packing.sources import open_archive
from scantune.comparison.compare import compare, summary_lines
from scantune.reports.report import write
from scantune.scores import Scores
from scantune.study.plan import CompareConfig
from scantune.study.results import Results, read_results
from scantune.study.run import run_study

Plan = Callable[..., CompareConfig]
ARMS = {"weak": {"scale": 0.5}, "strong": {"scale": 1}}
QUICK = {"budgets": ["all"], "folds": 2, "label_seeds": 1, "replicates": 200}
COLUMNS = ("path", "patient_id", "grade", "fluid", "scar", "drawn", "findings")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANLEARN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("scanlearn.backbones.weights.check_reload", lambda *_: None)


def write_scans(folder: Path, patients: int, seed: int) -> Path:
    """Discs of light on black, as brighter as their grade is higher, with a table of labels."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    yy, xx = np.mgrid[-1:1:40j, -1:1:56j]
    inside = (1.4 * xx) ** 2 + yy**2 < 0.8
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for number in range(patients):
            grade, fluid, scar = number % 3, number % 2, number // 2 % 2
            pixels = rng.normal(70 + 60 * grade, 8, yy.shape) * inside
            name = f"{seed}-{number}.png"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
            listed = "|".join(["fluid"] * fluid + ["scar"] * scar) or "No Finding"
            table.writerow([name, f"{seed}-{number}", grade, fluid, scar or "", 0, listed])
    return folder / "labels.csv"


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, str]:
    unlabeled = write_scans(tmp_path / "a", 16, 1)
    return {"unlabeled": str(unlabeled), "labels": str(write_scans(tmp_path / "b", 24, 2))}


def run(config: CompareConfig) -> Results:
    results = read_results(run_study(config))
    report = write(Path(config.output)).read_text()
    assert "jane" not in report
    assert str(config.output) not in report
    assert summary_lines(results)
    return results


def test_networks_are_fine_tuned_and_the_thumbnail_is_not(
    plan: Plan, tables: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = plan(
        **tables,
        tasks=["fluid"],
        arms=ARMS,
        evaluation={**QUICK, "learners": ["linear", "finetune"], "tune": {"epochs": 1}},
        primary={"learner": "finetune"},
    )
    results = run(config)
    scored = {(s.arm, s.learner) for s in results.table}
    assert scored == {("thumbnail", "linear")} | {
        (arm, learner) for arm in ARMS for learner in ("linear", "finetune")
    }
    assert results.verdict.primary.learner == "finetune"
    assert any("thumbnail has no network" in warning for warning in results.warnings)
    assert any("trained to the last epoch" in warning for warning in results.warnings)
    said = capsys.readouterr().out
    assert "finetune: 4 trainings, 2 for each of 2 networks" in said
    folder = Path(config.output)
    assert Scores.load(folder / "scores/fluid/thumbnail.npz").learners == ("linear",)
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("scores/*/*.npz")}
    (folder / "results.json").unlink()
    assert run(config).table == results.table
    assert kept == {path: path.stat().st_mtime_ns for path in folder.glob("scores/*/*.npz")}


def test_without_a_frozen_learner_there_is_no_thumbnail(plan: Plan, tables: dict[str, str]) -> None:
    evaluation = {**QUICK, "learners": ["batchnorm"], "tune": {"epochs": 1}}
    results = run(
        plan(
            **tables,
            tasks=["fluid"],
            arms=ARMS,
            evaluation=evaluation,
            primary={"learner": "batchnorm"},
        )
    )
    assert [arm.name for arm in results.arms] == list(ARMS)


def test_grades_and_findings_are_tasks(plan: Plan, tables: dict[str, str]) -> None:
    grades = run(plan(**tables, tasks=["grade"], arms=ARMS, evaluation={**QUICK, "ordinal": True}))
    assert grades.tasks[0].classes == ("0", "1", "2")
    by_name = {s.arm: s.auroc for s in grades.table if s.learner == "linear"}
    assert by_name["thumbnail"] is not None
    assert by_name["thumbnail"] > 0.9


def test_findings_of_several_columns_or_of_one_list_are_tasks(
    plan: Plan, tables: dict[str, str], tmp_path: Path
) -> None:
    scored = {**QUICK, "learners": ["knn"], "multilabel": True, "synthetic_column": "drawn"}
    results = run(
        plan(
            **tables,
            tasks=[["fluid", "scar"], "findings"],
            arms=ARMS,
            evaluation=scored,
            primary={"task": "findings", "learner": "knn"},
        )
    )
    assert [task.name for task in results.tasks] == ["fluid, scar", "findings"]
    assert results.verdict.primary.task == "findings"
    kept = {path.parent.name for path in (tmp_path / "study" / "scores").glob("*/weak-seed-0.npz")}
    assert len(kept) == 2


def test_an_external_test_set_is_tested_and_audited(
    plan: Plan, tables: dict[str, str], tmp_path: Path
) -> None:
    test = write_scans(tmp_path / "jane", 12, 3)
    config = plan(**tables, tasks=["fluid"], arms=ARMS, evaluation={**QUICK, "test": str(test)})
    results = run(config)
    assert results.test is not None
    assert results.test.scans == 12
    assert all(score.test_patients == 12 for score in results.table)
    assert all(score.train_scans == 24 for score in results.table)
    titles = [leak.title for leak in results.leaks]
    assert titles == ["unlabeled and labels", "within labels", "unlabeled and test", "within test"]
    assert "evaluation.test=TEST" in results.command
    hashes = json.loads((tmp_path / "study" / "archives.json").read_text())
    assert set(hashes) == {"unlabeled", "labels", "test", "canvas chosen by"}
    with pytest.raises(ScanlearnError, match="different test scans"):
        run_study(plan(**tables, tasks=["fluid"], arms=ARMS, evaluation=QUICK))


def test_a_test_scan_among_the_unlabeled_ones_is_a_leak(plan: Plan, tables: dict[str, str]) -> None:
    evaluation = {**QUICK, "test": tables["unlabeled"]}
    with pytest.raises(ScanlearnError, match=r"unlabeled and test: 16 scans.*16 patients"):
        run_study(plan(**tables, tasks=["fluid"], arms=ARMS, evaluation=evaluation))


def test_scans_are_packed_as_pack_does(plan: Plan, tables: dict[str, str]) -> None:
    config = plan(
        **tables,
        tasks=["fluid"],
        arms=ARMS,
        pack={"field_of_view": "fundus", "intensity": "percentile", "workers": 1},
        evaluation={**QUICK, "learners": ["knn"]},
        primary={"learner": "knn"},
    )
    compare(config)
    archive = open_archive(config.labels, settings=config.pack_settings(config.label_columns, 1))
    assert archive.gather(np.arange(1)).mask is not None
    assert archive.info["settings"]["intensity"] == "percentile"


def test_a_study_of_an_earlier_version_is_continued(plan: Plan, tmp_path: Path) -> None:
    from scanlearn.config import dump_plain
    from scantune.study.folder import open_study

    config = plan()
    before = config.model_dump(mode="json")
    before["pack"] = {"canvas": None, "channels": "auto", "intensity": "full", "workers": 0}
    names = ("learners", "budgets", "folds", "label_seeds", "split_column", "replicates")
    before["evaluation"] = {name: before["evaluation"][name] for name in names}
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "config.yaml").write_text(dump_plain(before))
    open_study(config)
    with pytest.raises(ScanlearnError, match=r"evaluation\.ordinal was False, is True"):
        open_study(plan(evaluation={**before["evaluation"], "ordinal": True}))


def test_slices_of_ct_volumes_are_compared_through_three_windows(
    plan: Plan, tmp_path: Path
) -> None:
    nibabel = pytest.importorskip("nibabel")
    rng = np.random.default_rng(0)
    for name, patients in (("a", 8), ("b", 8)):
        folder = tmp_path / name
        folder.mkdir()
        lines = ["path,patient_id,dense"]
        for number in range(patients):
            hounsfield = rng.normal(-600 + 700 * (number % 2), 40, (32, 32, 3))
            volume = nibabel.Nifti1Image(hounsfield.astype(np.int16), np.eye(4))
            nibabel.save(volume, folder / f"{name}{number}.nii.gz")
            lines.append(f"{name}{number}.nii.gz,{name}{number},{number % 2}")
        (folder / "labels.csv").write_text("\n".join(lines))
    config = plan(
        unlabeled=str(tmp_path / "a" / "labels.csv"),
        labels=str(tmp_path / "b" / "labels.csv"),
        tasks=["dense"],
        arms=ARMS,
        pack={"window": ["lung", "mediastinum", "bone"], "workers": 1},
        evaluation={**QUICK, "learners": ["knn"]},
        primary={"learner": "knn"},
    )
    results = run(config)
    assert results.unlabeled.shape is not None
    assert results.unlabeled.shape[0] == 3
    assert results.labels.scans == 24
