from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from scanlearn.errors import ScanlearnError
from scantune.study.folder import check_archives, open_study
from scantune.study.plan import CompareConfig
from scantune.study.run import canvas_chosen

Plan = Callable[..., CompareConfig]


def test_the_same_study_is_gone_on_with(plan: Plan) -> None:
    assert open_study(plan()) == open_study(plan())


def test_another_study_is_refused_with_the_differing_key(plan: Plan) -> None:
    open_study(plan())
    other = plan(evaluation={"budgets": [10, "all"], "folds": 3, "replicates": 200})
    with pytest.raises(ScanlearnError, match=r"different study \(.*evaluation\.folds was 2, is 3"):
        open_study(other)


def test_extras_are_part_of_a_study_and_of_each_arm(plan: Plan) -> None:
    extra = {"name": "torchvision.transforms.v2.RandomPosterize", "arguments": {"bits": 4}}
    config = plan(pretrain={"views": {"size": 32, "extras": [extra]}})
    trained = [name for name, arm in config.arms.items() if arm.kind == "pretrained"]
    runs = [config.run_config(arm, 0, Path()) for arm in trained]
    assert [run.views.extras[0].name for run in runs] == [extra["name"]] * len(runs)
    open_study(config)
    with pytest.raises(ScanlearnError, match=r"different study \(pretrain.views.extras was \["):
        open_study(plan(pretrain={"views": {"size": 32}}))


def test_a_study_of_which_nothing_is_made_takes_any_plan(plan: Plan) -> None:
    folder = open_study(plan())
    check_archives(folder, {"unlabeled": "a", "labels": "b"})
    folder.leaks.mkdir()
    folder.leaking.write_text("scan-1\n")
    other = plan(pretrain={"steps": 9})
    assert open_study(other).plans == (folder.path / "config.yaml",)
    # The other plan may pack the scans otherwise: they are audited anew.
    assert not folder.leaking.exists()
    check_archives(folder, {"unlabeled": "c", "labels": "b"})
    folder.run("strong", 0).mkdir(parents=True)
    (folder.run("strong", 0) / "config.yaml").touch()
    with pytest.raises(ScanlearnError, match=r"different study \(.*pretrain\.steps was 9, is 2"):
        open_study(plan())
    with pytest.raises(ScanlearnError, match="different unlabeled scans"):
        check_archives(folder, {"unlabeled": "a", "labels": "b"})


def test_where_and_how_it_is_shown_may_change(plan: Plan) -> None:
    open_study(plan())
    open_study(plan(title="Another heading", unlabeled="elsewhere"))


def test_a_folder_that_is_no_study_is_left_alone(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "thesis.docx").touch()
    with pytest.raises(ScanlearnError, match="not the folder of a study"):
        open_study(plan())


def test_other_scans_are_refused(plan: Plan) -> None:
    folder = open_study(plan())
    check_archives(folder, {"unlabeled": "a", "labels": "b"})
    check_archives(folder, {"unlabeled": "a", "labels": "b"})
    with pytest.raises(ScanlearnError, match="different labels scans"):
        check_archives(folder, {"unlabeled": "a", "labels": "c"})


def test_a_study_of_an_earlier_release_keeps_its_canvas(plan: Plan) -> None:
    config = plan()
    folder = open_study(config)
    assert canvas_chosen(config, folder) is config
    folder.archives.write_text(json.dumps({"unlabeled": "a"}))
    assert canvas_chosen(config, folder).canvas() == math.ceil(32 / math.sqrt(0.08))
    check_archives(folder, {"unlabeled": "a"})
    folder.archives.unlink()
    check_archives(folder, {"unlabeled": "a"})
    assert canvas_chosen(config, folder) is config


def test_time_adds_up_over_starts(plan: Plan) -> None:
    folder = open_study(plan())
    with folder.timed("probes"):
        pass
    first = folder.timing()["probes"]
    with folder.timed("probes"):
        pass
    assert folder.timing()["probes"] >= first


def test_a_task_name_cannot_leave_the_folder(plan: Plan) -> None:
    folder = open_study(plan())
    path = folder.scores("../a b/c", "weak-seed-0")
    assert path.parent.parent == folder.path / "scores"
