from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scanlearn.archive.reader import Archive
from scanlearn.config import parse_value
from scanlearn.packing.sources import open_archive
from scantune.labels.labeled_set import LabeledSet
from scantune.study import facts
from scantune.study.facts import draw_sheets
from scantune.study.folder import open_study
from scantune.study.plan import CompareConfig
from scantune.study.results import Counted, RunRow, Score, TrainingCurve

Plan = Callable[..., CompareConfig]


def test_no_path_of_the_user_is_told(plan: Plan) -> None:
    config = plan(unlabeled="/home/jane/scans", labels="C:/jane/labels.csv")
    for text in (facts.command_text(config), facts.config_text(config)):
        assert "jane" not in text
        assert config.output not in text


def test_a_start_file_is_told_without_its_folder(plan: Plan) -> None:
    backbone = {"name": "test_resnet", "weights": "/home/jane/nets/start.pth"}
    config = plan(
        arms={"weak": {"scale": 0.5}, "strong": {"scale": 1}}, pretrain={"backbone": backbone}
    )
    assert "pretrain.backbone.weights=WEIGHTS" in facts.command_text(config)
    assert "weights: WEIGHTS" in facts.config_text(config)
    assert "jane" not in facts.command_text(config) + facts.config_text(config)


def test_a_phantom_is_told_for_it_is_no_path(plan: Plan) -> None:
    config = plan()
    assert f"unlabeled={config.unlabeled}" in facts.command_text(config)


def test_the_told_configuration_is_the_plan(plan: Plan) -> None:
    config = plan()
    told = parse_value(facts.config_text(config))
    assert CompareConfig.model_validate({**told, "output": config.output}) == config


def test_trained_arms_have_a_resolved_dial_and_references_none(plan: Plan) -> None:
    rows = {row.name: row for row in facts.arm_rows(plan(), 1)}
    assert list(rows) == ["thumbnail", "weak", "strong", "random"]
    assert rows["random"].resolved == rows["thumbnail"].resolved == ()
    values = {p.parameter: p.value for p in rows["strong"].resolved}
    assert values["crop_min"] == "0.08"


def test_what_a_recipe_lacks_is_not_told_of_an_arm(plan: Plan) -> None:
    rows = {row.name: row for row in facts.arm_rows(plan(), 3)}
    told = [parameter.parameter for parameter in rows["weak"].resolved]
    assert "blur_p" in told
    assert "rotation_deg" not in told
    pretrain = {"views": {"size": 32, "operations": {"blur": "off", "rotation_deg": 7}}}
    by_hand = {row.name: row for row in facts.arm_rows(plan(pretrain=pretrain), 3)}
    told = {parameter.parameter: parameter.source for parameter in by_hand["weak"].resolved}
    assert "blur_p" not in told
    assert told["rotation_deg"] == "by hand"


def _trained() -> RunRow:
    hashes = dict.fromkeys(("initial_hash", "final_hash", "order_hash", "uniforms_hash"), "a1")
    counts = {"seed": 0, "steps": 2, "epochs": 1, "views": 32, "seconds": 1, "views_per_s": 32}
    row = {"arm": "weak", "backbone": "test_resnet", "curve": {}, **hashes, **counts}
    return RunRow.model_validate(row)


def test_the_set_up_says_what_was_set_by_hand(plan: Plan) -> None:
    views = {"size": 32, "operations": {"blur": "off", "rotation_deg": [7, 15]}}
    config = plan(pretrain={"views": views | {"scale_blur": False}})
    told = {fact.name: fact.value for fact in facts.setup_facts(config, [_trained()], {}, 1000)}
    assert told["Views"] == (
        "32 px, recipe simclr, by hand: blur off, rotation_deg 7/15, blur of 224-px views"
    )


def test_a_policy_is_told_with_what_it_changes(plan: Plan) -> None:
    def told(views: dict[str, Any], **evaluation: Any) -> dict[str, str]:
        base = {"budgets": ["all"], "folds": 2, "label_seeds": 1, **evaluation}
        config = plan(pretrain={"views": {"size": 32, **views}, "steps": 2}, evaluation=base)
        hashes = dict.fromkeys(("initial_hash", "final_hash", "order_hash", "uniforms_hash"), "a1")
        counts = {"seed": 0, "steps": 2, "epochs": 1, "views": 32, "seconds": 1, "views_per_s": 32}
        row = {"arm": "weak", "backbone": "", "curve": {}, **hashes, **counts}
        told = facts.setup_facts(config, [RunRow.model_validate(row)], {}, 1000)
        return {fact.name: fact.value for fact in told}

    trained = {"learners": ["linear", "finetune"]}
    ruled = told({"modality": "xray", "operations": {"flip_p": 0.5}}, **trained)
    assert ruled["Views"] == "32 px, recipe simclr under modality xray, by hand: flip_p 0.5"
    assert ruled["Modality"] == (
        "xray (off: flip (a mirrored chest shows situs inversus), saturation, hue, gray; added: "
        "rotation, translation, stretch, shear, elastic, gamma, histogram shift, poisson, noise; "
        "changed: brightness, contrast; global crops from 0.3 of the area on at s = 1; one number "
        "moves acquisition too)"
    )
    tuned = "basic augmentation, scale 0.5 of recipe simclr"
    assert f"{tuned} under modality xray, " in ruled["Evaluation"]
    alone = told({}, **trained)
    assert "Modality" not in alone
    assert alone["Views"] == "32 px, recipe simclr"
    assert f"{tuned}, " in alone["Evaluation"]
    other = told({"modality": "xray"}, tune={"modality": "mri"}, **trained)
    assert f"{tuned} under modality mri, " in other["Evaluation"]
    assert "augmentation" not in told({"modality": "xray"})["Evaluation"]
    assert told({"modality": "natural"})["Modality"] == "natural (the recipe as published)"


def test_the_arms_of_a_study_are_measured_under_its_policy(plan: Plan) -> None:
    views = {"size": 32, "modality": "mammography"}
    config = plan(pretrain={"views": views})
    strong = next(row for row in facts.arm_rows(config, 1) if row.name == "strong")
    assert strong.scale is not None
    assert strong.scale.acquisition == 1
    found = {p.parameter: p for p in strong.resolved}
    assert found["crop_min"].value == "0.5"
    assert found["rotation_deg"].source == "policy mammography: ours, to be measured"
    # .7 px at 224 is .1 px at 32.
    assert found["blur_sigma"].note.startswith("no effect at this size")
    assert "flip_p" not in found
    ruled = {share.arm: share for share in facts.view_shares(config)}
    pure = {share.arm: share for share in facts.view_shares(plan())}
    assert all(ruled[arm].iou > pure[arm].iou + 0.05 for arm in ("weak", "strong"))
    assert ruled["strong"].disjoint == 0


def test_operations_of_tuning_must_fit_the_modality_of_the_arms(plan: Plan) -> None:
    evaluation = {"learners": ["finetune", "linear"], "tune": {"operations": {"crop_max": 0.25}}}
    with pytest.raises(ValueError, match=r"tune\.operations\.crop_max.*modality"):
        plan(pretrain={"views": {"size": 32, "modality": "xray"}}, evaluation=evaluation)


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        ({"split_column": "part"}, "test side of the split in column part (2 scans for grade)"),
        ({"test": "elsewhere.csv"}, "external test set (2 scans for grade)"),
    ],
)
def test_the_set_up_counts_the_scans_that_are_tested(
    plan: Plan, evaluation: dict[str, str], said: str
) -> None:
    labeled = LabeledSet(
        target="grade",
        classes=("0", "1"),
        truth=np.array([0, 1, 0, 1, 1]),
        patients=np.arange(5),
        rows=np.arange(5),
        split=np.array(["train", "test", "train", "test", "train"]),
    )
    config = plan(evaluation=evaluation)
    tasks = {"grade": labeled}
    told = {fact.name: fact.value for fact in facts.setup_facts(config, [_trained()], tasks, 9)}
    assert said in told["Evaluation"]


def test_extras_are_told_and_drawn(plan: Plan, archive: Archive) -> None:
    extra = {
        "name": "torchvision.transforms.v2.Normalize",
        "arguments": {"mean": [50.0], "std": [1.0]},
        "probability": 0.5,
    }
    config = plan(pretrain={"views": {"size": 32, "extras": [extra]}})
    text = facts._views_text(config.pretrain)
    assert "extra: torchvision.transforms.v2.Normalize(mean=[50.0], std=[1.0])" in text
    pictures = []
    for each in (plan(pretrain={"views": {"size": 32}}), config):
        folder = open_study(each.model_copy(update={"output": f"{each.output}{len(pictures)}"}))
        (sheet,) = draw_sheets(each, folder, archive)
        with Image.open(folder.figures / sheet.file) as picture:
            pictures.append(np.asarray(picture.convert("L"), dtype=float))
    # Half of the views are black.
    assert (pictures[1] < 1).mean() > 1.1 * (pictures[0] < 1).mean()


def test_weaker_views_share_more(plan: Plan) -> None:
    shares = {share.arm: share for share in facts.view_shares(plan())}
    assert shares["weak"].iou > shares["strong"].iou
    assert shares["weak"].disjoint < shares["strong"].disjoint


def test_an_arm_no_better_than_the_thumbnail_is_named(
    plan: Plan, score: Callable[..., Score]
) -> None:
    aurocs = {"thumbnail": 0.8, "weak": 0.79, "strong": 0.9, "random": 0.5}
    table = [score(arm, auroc) for arm, auroc in aurocs.items()]
    (warning,) = facts.thumbnail_warnings(plan(), table)
    assert "weak (0.790)" in warning
    assert "strong" not in warning
    assert facts.thumbnail_warnings(plan(), table[1:]) == ()


@pytest.mark.parametrize(
    ("spreads", "named"),
    [
        ({("weak", 0): 0.8, ("strong", 0): 0.31}, []),
        ({("weak", 0): 0.8, ("strong", 0): 0.12}, ["strong: the embedding collapsed", "0.12"]),
        ({("strong", 0): 0.12, ("strong", 1): 0.5, ("strong", 2): 0.2}, ["seed 0, 0.20 with"]),
    ],
)
def test_an_arm_that_collapsed_is_named_and_what_may_have_done_it(
    spreads: dict[tuple[str, int], float], named: list[str]
) -> None:
    runs = [
        RunRow(
            arm=arm,
            seed=seed,
            initial_hash="a",
            final_hash="b",
            curve=TrainingCurve(step=(1, 2), loss=(1.0, 1.0), embedding_std=(0.9, spread)),
        )
        for (arm, seed), spread in spreads.items()
    ]
    warnings = facts.collapse_warnings(runs)
    assert len(warnings) == bool(named)
    for words in (*named, "temperature") if named else ():
        assert words in warnings[0]


def test_classes_that_a_fold_cannot_score_are_named_with_their_count(make_scores: Any) -> None:
    y, patients = np.array([0, 1, 0, 0, 0, 1]), np.arange(6)
    fold_of = np.array([[0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 2, 2]])
    scores = make_scores(y, patients, np.linspace(0, 1, 6), fold_of)
    found = facts.undefined_warnings({("grade", "weak"): [scores], ("grade", "strong"): [scores]})
    (warning,) = found
    assert warning.startswith("grade: '1' has no positive or no negative scan to test in 2 of 6")
    whole = make_scores(y, patients, np.linspace(0, 1, 6))
    assert facts.undefined_warnings({("grade", "weak"): [whole]}) == ()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return open_archive("phantom:patients=2,seed=3,size=48x48", cache=tmp_path / "cache")


def test_a_sheet_shows_every_trained_arm(plan: Plan, archive: Archive) -> None:
    config = plan()
    folder = open_study(config)
    (sheet,) = draw_sheets(config, folder, archive)
    assert sheet.title == "Two views of 4 scans: weak, strong"
    with Image.open(folder.figures / sheet.file) as picture:
        assert picture.width > 600
        # A picture that travels holds no note of where it was made.
        assert set(picture.info) <= {"Software", "dpi"}


def test_many_arms_take_several_sheets(plan: Plan, archive: Archive) -> None:
    names = ("weak", "strong", "c", "d", "e")
    config = plan(arms={name: {"scale": 0.1 * n} for n, name in enumerate(names, 1)})
    sheets = draw_sheets(config, open_study(config), archive)
    assert [sheet.file for sheet in sheets] == ["views_1.png", "views_2.png"]
    assert sheets[1].title.endswith(": e")


def test_unknown_patients_reach_counts_verdict_and_warnings(
    labeled: Callable[..., LabeledSet], archive: Archive
) -> None:
    known = labeled(patients=5)
    rows = np.arange(len(known))
    unknown = replace(known, is_unknown=np.ones(len(known), np.bool_), patients=rows)
    told = {
        task.name: task.count.in_words for task in facts.task_counts({"a": known, "b": unknown})
    }
    assert told["a"] == f"{len(known)} scans of 5 patients"
    assert told["b"] == f"{len(known)} scans, patients unknown; each scan counted as one"
    assert facts.patients_caveat({"a": known}) == ""
    assert facts.patients_caveat({"b": unknown}) == "Patients unknown; each scan counted as one."
    assert facts.counted(archive).count.in_words == "4 scans of 2 patients"


def test_counts_of_an_earlier_release_are_read() -> None:
    earlier = Counted(scans=7, patients=None, hash="a1")
    assert earlier.count.in_words == "7 scans, patients unknown; each scan counted as one"


def _steps(total: int, per_epoch: int) -> Any:
    return SimpleNamespace(total_steps=total, steps_per_epoch=per_epoch)


@pytest.mark.parametrize(
    ("total", "per_epoch", "told"),
    [
        (99, 9, "Training takes 99 steps (11 epochs): "),
        (1, 9, "Training takes 1 step (0.11 epochs): "),
        (500, 1000, "Training takes 500 steps (0.5 epochs): "),
        (100, 100, None),
    ],
)
def test_a_short_training_is_told(plan: Plan, total: int, per_epoch: int, told: str | None) -> None:
    (group,) = plan().groups
    warnings = facts.step_warnings({group: _steps(total, per_epoch)})
    assert [text.startswith(told or "") for text in warnings] == [True] * (told is not None)
    half = replace(group, title="50 % of the patients", share=0.5)
    (text,) = facts.step_warnings({group: _steps(200, 9), half: _steps(4, 9)})
    assert text.startswith("Training takes 4 steps (0.44 epochs; 50 % of the patients): ")


@pytest.mark.parametrize(
    ("examined", "views", "told"),
    [
        ({"CR CHEST": 900, "DX CHEST": 100}, ["PA"] * 10, []),
        ({"CR CHEST": 995, "CR HAND": 5}, None, []),
        ({"CR CHEST": 900, "CR HAND": 90, "CR": 10}, None, ["body parts (CHEST 900, HAND 90)"]),
        ({}, ["PA"] * 6 + ["AP"] * 3 + [None], ["views (PA 6, AP 3)"]),
    ],
)
def test_an_archive_that_mixes_body_parts_or_views_is_told(
    examined: dict[str, int], views: list[str | None] | None, told: list[str]
) -> None:
    archive: Any = SimpleNamespace(
        examined=examined,
        label_columns=() if views is None else ("View Position",),
        labels=lambda _: views,
    )
    warnings = facts.mixture_warnings(archive)
    assert len(warnings) == len(told)
    assert all(words in text for words, text in zip(told, warnings, strict=True))


def test_a_task_that_everything_solves_is_told(plan: Plan, score: Callable[..., Score]) -> None:
    config = plan()
    solved = [score(arm, 0.99) for arm in ("thumbnail", "weak", "strong", "random")]
    (text,) = facts.saturation_warnings(config, solved)
    assert text.startswith("pallor: every arm and the thumbnail scores above 0.98")
    assert facts.saturation_warnings(config, [*solved[:3], score("random", 0.9)]) == ()
    assert facts.saturation_warnings(config, [*solved[:3], score("random", None)]) == ()
