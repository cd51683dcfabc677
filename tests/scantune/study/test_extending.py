"""A study that grows redoes nothing, and ends as if it had been planned so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from scanlearn.backbones.backbone import BackboneConfig, build_backbone
from scanlearn.errors import ScanlearnError
from scanlearn.packing.sources import open_archive
from scantune import scoring
from scantune.study.arms import given_rows
from scantune.study.folder import check_archives, open_study
from scantune.study.leaks import _check_dropped
from scantune.study.plan import CompareConfig
from scantune.study.planned import after_results, is_other_question
from scantune.study.run import canvas_chosen, run_study
from scantune.study.scores import StudyScores, networks_of, read_tasks

Plan = Callable[..., CompareConfig]

SMALL: dict[str, Any] = {
    "arms": {"strong": {"scale": 1}, "random": {"kind": "random"}},
    "primary": {"better": "random", "than": "strong"},
    "evaluation": {
        "learners": ["linear"], "budgets": ["all"], "folds": 2, "label_seeds": 1,
        "replicates": 200,
    },
}  # fmt: skip


def grown(plan: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The plan with one dotted key replaced."""
    first, _, rest = key.partition(".")
    return {**plan, first: grown(plan[first], rest, value) if rest else value}


MORE: dict[str, Any] = {
    "seeds": [0, 1],
    "arms": {"strong": {"scale": 1}, "weak": {"scale": 0.5}, "random": {"kind": "random"}},
    "tasks": ["lesion", "pallor"],
    "evaluation.learners": ["knn", "linear"],
    "evaluation.budgets": [10, "all"],
    "evaluation.label_seeds": 2,
}


def told(folder: Path) -> Any:
    """``results.json`` but for times, and the state of the checkout."""
    results = json.loads((folder / "results.json").read_text())
    for name in ("created", "timing", "versions", "after_results", "is_chosen_late"):
        del results[name]
    for run in results["runs"]:
        del run["seconds"], run["views_per_s"]
    return results


def made(folder: Path) -> dict[str, int]:
    """When each run was finished."""
    return {str(path): path.stat().st_mtime_ns for path in folder.glob("arms/*/*/result.json")}


@pytest.mark.long
def test_an_extended_study_is_the_one_planned_at_once(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANLEARN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("scantune.study.run.draw_sheets", lambda *_: ())
    fits: list[Any] = []
    caveats = scoring._caveats
    monkeypatch.setattr(scoring, "_caveats", lambda *of: (fits.append(of), caveats(*of))[1])
    fewer = {"seeds": [0], "tasks": ["pallor"], **SMALL}
    folder = run_study(plan(**fewer))
    begun, settings = told(folder), fewer
    before = made(folder)
    for key, value in MORE.items():
        settings = grown(settings, key, value)
    run_study(plan(**settings))
    after = made(folder)
    assert {name: after[name] for name in before} == before
    num_fits = len(fits)
    whole = run_study(plan(**settings, output=str(tmp_path / "whole")))
    assert len(fits) == 2 * num_fits
    assert told(folder) == told(whole)
    # The first task is another one, and with it the primary comparison.
    question, seeds = json.loads((folder / "results.json").read_text())["after_results"]
    assert "before it was random against strong on pallor with linear probe" in question
    assert seeds.startswith("Pretraining seed 1 was added after results were known (20")
    assert json.loads((whole / "results.json").read_text())["after_results"] == []
    # A plan of fewer pieces takes them from those that are there.
    run_study(plan(**fewer))
    assert len(fits) == 2 * num_fits
    assert told(folder) == begun
    kept = sorted(path.name for path in (folder / "plans").iterdir())
    assert kept == ["001.answer.json", "001.yaml", "002.answer.json", "002.yaml"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ()),
        # Of what grows alone nothing is chosen by results.
        ({"tasks": ["pallor", "lesion"], "evaluation.budgets": [10, "all"]}, ()),
        ({"seeds": [0, 1, 2, 3]}, ("Pretraining seeds 2 and 3 were added after results were kno",)),
        ({"seeds": [1]}, ("Pretraining seed 0 was part of earlier results (2026-01-02) and left",)),
        (
            {"primary.better": "strong", "primary.than": "random"},
            (
                "The primary comparison was chosen after results were known: before it was random "
                "against strong on pallor with linear probe and all labels, and a margin of 0.01. "
                "The answer was: They differ. (2026-01-02)",
            ),
        ),
        ({"margin": 0.05}, ("The primary comparison was chosen after results were known",)),
        ({"tasks": ["lesion"]}, ("The primary comparison", "Task pallor was part of earlier")),
    ],
)
def test_what_results_may_have_chosen_is_told(
    plan: Plan, changes: dict[str, Any], said: tuple[str, ...]
) -> None:
    first = {**plan(**SMALL).model_dump(mode="json"), "seeds": [0, 1], "tasks": ["pallor"]}
    folder = open_study(CompareConfig.model_validate(first))
    answer = {"created": "2026-01-02T03:04", "verdict": {"sentence": "They differ.", "kind": "x"}}
    (folder.path / "results.json").write_text(json.dumps({"format": 1, **answer}))
    changed = first
    for key, value in changes.items():
        changed = grown(changed, key, value)
    config = CompareConfig.model_validate(changed)
    answered = list(open_study(config).answered)
    found = tuple(after_results(config, answered))
    assert len(found) == len(said)
    assert all(text.startswith(start) for text, start in zip(found, said, strict=True))
    is_late = any(is_other_question(config, before) for before, _ in answered[:1])
    assert is_late == any("primary comparison" in start for start in said)


def test_a_plan_that_was_changed_before_it_was_answered_has_no_answer(plan: Plan) -> None:
    first = {**plan(**SMALL).model_dump(mode="json"), "seeds": [0, 1]}
    folder = open_study(CompareConfig.model_validate(first))
    answer = {"created": "2026-01-02T03:04", "verdict": {"sentence": "They differ."}}
    (folder.path / "results.json").write_text(json.dumps(answer))
    open_study(CompareConfig.model_validate({**first, "seeds": [0, 1, 2]}))
    last = CompareConfig.model_validate(first)
    answered = list(open_study(last).answered)
    assert [earlier.seeds for earlier, _ in answered] == [(0, 1)]
    assert tuple(after_results(last, answered)) == ()


def test_planned_looks_and_plans_without_results_are_not_told(plan: Plan) -> None:
    auto = {**plan(**SMALL).model_dump(mode="json"), "seeds": [0, 1, 2], "max_seeds": 8}
    folder = open_study(CompareConfig.model_validate(auto))
    answer = {"created": "2026-01-02T03:04", "verdict": {"sentence": "No difference shown."}}
    (folder.path / "results.json").write_text(json.dumps(answer))
    later = CompareConfig.model_validate({**auto, "seeds": [0, 1, 2, 3, 4]})
    answered = list(open_study(later).answered)
    assert len(answered) == 1
    assert tuple(after_results(later, answered)) == ()
    # More looks than were planned.
    longer = CompareConfig.model_validate({**auto, "seeds": [0, 1, 2, 3, 4], "max_seeds": 13})
    assert len(tuple(after_results(longer, answered))) == 1
    by_hand = CompareConfig.model_validate(
        {**auto, "seeds": [0, 1, 2, 3], "max_seeds": None, "output": str(folder.path) + "-other"}
    )
    assert not list(open_study(by_hand).answered)
    changed = by_hand.model_copy(update={"margin": 0.02})
    assert not list(open_study(changed).answered)


CHANGES: tuple[tuple[str, Any, str], ...] = (
    ("evaluation.folds", 3, r"different study \(evaluation\.folds was 2, is 3\)"),
    ("pretrain.steps", 9, r"different study \(pretrain\.steps was 2, is 9\)"),
    ("arms", {"strong": {"scale": 0.7}, "random": {"kind": "random"}}, "of arm strong whose scale"),
    ("evaluation.tune", {"balance": "sampling"}, r"tune\.balance was none, is sampling"),
)


@pytest.mark.parametrize(("key", "value", "match"), CHANGES)
def test_what_pieces_were_made_with_is_refused(
    plan: Plan, key: str, value: Any, match: str
) -> None:
    before = plan(**SMALL).model_dump(mode="json")
    folder = open_study(CompareConfig.model_validate(before))
    for made in (folder.run("strong", 0) / "config.yaml", folder.scores("pallor", "strong-seed-0")):
        made.parent.mkdir(parents=True)
        made.touch()
    with pytest.raises(ScanlearnError, match=match):
        open_study(CompareConfig.model_validate(grown(before, key, value)))


def test_an_arm_and_a_learner_of_which_nothing_is_made_may_change(plan: Plan) -> None:
    before = plan(**SMALL).model_dump(mode="json")
    folder = open_study(CompareConfig.model_validate(before))
    changed = grown(before, "arms", CHANGES[2][1])
    changed = grown(changed, "evaluation.tune", CHANGES[3][1])
    open_study(CompareConfig.model_validate(changed))
    # The one left out comes back as it was made.
    (folder.run("strong", 0)).mkdir(parents=True)
    (folder.run("strong", 0) / "config.yaml").touch()
    weak = {"weak": {"scale": 0.5}, "random": {"kind": "random"}}
    without = grown(grown(changed, "arms", weak), "primary.than", "weak")
    open_study(CompareConfig.model_validate(without))
    with pytest.raises(ScanlearnError, match="of arm strong whose scale"):
        open_study(CompareConfig.model_validate(before | {"evaluation": changed["evaluation"]}))
    open_study(CompareConfig.model_validate(changed))


def test_the_canvas_stays_that_of_the_first_plan(plan: Plan) -> None:
    small = {"arms": {"weak": {"scale": 0.5}, "random": {"kind": "random"}},
             "primary": {"better": "weak", "than": "random"}}  # fmt: skip
    first, second = plan(**small), plan()
    folder = open_study(first)
    check_archives(folder, {})
    open_study(second)
    assert second.canvas() > first.canvas()
    assert canvas_chosen(second, folder).canvas() == first.canvas()


def test_tasks_that_drop_other_scans_are_refused_where_networks_are_trained(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plan(**SMALL, leaks="drop")
    folder = open_study(before)
    (folder.run("strong", 0)).mkdir(parents=True)
    (folder.run("strong", 0) / "config.yaml").touch()
    folder.leaks.mkdir()
    folder.leaking.write_text("a\n")
    more = plan(**SMALL, leaks="drop", tasks=["pallor", "lesion"])
    open_study(more)
    assert not folder.leaking.exists()
    with pytest.raises(ScanlearnError, match="restore tasks"):
        _check_dropped(more, folder, "a\nb\n")
    _check_dropped(more, folder, "a\n")


def test_a_given_backbone_that_moved_is_known_by_its_weights(plan: Plan, tmp_path: Path) -> None:
    network = build_backbone(BackboneConfig(name="test_resnet"), 3, seed=5)
    first, moved = tmp_path / "mine.safetensors", tmp_path / "moved.safetensors"
    safetensors.torch.save_file(network.network.state_dict(), first)

    def of(file: Path) -> CompareConfig:
        given = {"name": "test_resnet", "weights": str(file)}
        arms = {"strong": {"scale": 1}, "given": {"kind": "backbone", "backbone": given}}
        return plan(**{**SMALL, "arms": arms, "primary": {"better": "given", "than": "strong"}})

    def check(config: CompareConfig) -> None:
        rows, _ = given_rows(config, archives[0])
        networks = networks_of(config, open_study(config), rows, *archives)
        StudyScores(config, open_study(config), (archives[0],), tasks).check(networks)

    before = of(first)
    archives = [
        open_archive(before.labels, settings=before.pack_settings(before.label_columns, 3))
    ] * 2
    tasks = read_tasks(before, (archives[0],))
    rows, _ = given_rows(before, archives[0])
    folder = open_study(before)
    networks = networks_of(before, folder, rows, *archives)
    StudyScores(before, folder, (archives[0],), tasks).of_all(networks)
    first.rename(moved)
    check(of(moved))
    other = build_backbone(BackboneConfig(name="test_resnet"), 3, seed=6)
    safetensors.torch.save_file(other.network.state_dict(), moved)
    with pytest.raises(ScanlearnError, match=r"given\.npz: was made from other weights"):
        check(of(moved))
