from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from scanlearn.config import load_config
from scanlearn.errors import ScanlearnError
from scanlearn.packing.settings import PackSettings
from scanlearn.training.settings import PretrainConfig, SharedViews, ViewsConfig
from scanlearn.views.generator import ViewGenerator, ViewPlan
from scanlearn.views.scale import Scale
from scantune.evaluation.settings import ScoringSettings
from scantune.study import plan as blocks
from scantune.study.plan import Columns, CompareConfig

Plan = Callable[..., CompareConfig]
TINY_PRETRAIN: dict[str, Any] = {"backbone": {"name": "test_resnet"}, "batch_size": 8, "steps": 2}


def test_runs_of_a_seed_differ_in_scale_and_output_alone(plan: Plan) -> None:
    config = plan()
    weak = config.run_config("weak", 0, Path("a")).model_dump()
    strong = config.run_config("strong", 0, Path("b")).model_dump()
    differing = {key for key in weak if weak[key] != strong[key]}
    assert differing == {"output", "views"}
    assert {k for k in weak["views"] if weak["views"][k] != strong["views"][k]} == {"scale"}


def test_canvas_keeps_the_smallest_crop_at_view_size(plan: Plan) -> None:
    # SimCLR's smallest crops at s = 1 have area .08, and the narrowest of them are 4:3: of a
    # scan of 131 px they are 32.1 px by 42.8.
    assert plan().canvas() == 131 == math.ceil(32 * math.sqrt(4 / 3 / 0.08))
    gentle = {"identity": {"scale": 0}, "random": {"kind": "random"}}
    only_identity = plan(arms=gentle, primary={"better": "identity", "than": "random"})
    assert only_identity.canvas() == 32
    assert plan(pack={"canvas": 100}).canvas() == 100


@pytest.mark.parametrize("modality", [None, "xray", "histology"])
def test_no_crop_of_a_square_scan_is_enlarged_on_the_canvas(
    plan: Plan, modality: str | None
) -> None:
    config = plan(pretrain={**TINY_PRETRAIN, "views": {"size": 32, "modality": modality}})
    side = config.canvas()
    recipe = config.pretrain.build_recipe()
    generator = ViewGenerator(recipe, Scale.STRONG, ViewPlan(2), 32, [0.5], [0.25])
    assert generator.upsampled_share(np.array([[0, 0, side, side]])) == 0
    before = config.square_crops_canvas()
    assert generator.upsampled_share(np.array([[0, 0, before, before]])) > 0.01


def test_a_canvas_is_large_enough_for_local_views_at_their_size(plan: Plan) -> None:
    pretrain = {**TINY_PRETRAIN, "views": {"size": 32, "recipe": "dino"}}
    # Global views of 32 px from an area of .4, local ones of 14 px from an area of .05.
    assert plan(pretrain=pretrain).canvas() == math.ceil(14 * math.sqrt(4 / 3 / 0.05))
    larger = {"size": 32, "recipe": "dino", "operations": {"crop_min": {"local": [0.4, 0.3]}}}
    by_hand = plan(pretrain={**TINY_PRETRAIN, "views": larger})
    assert by_hand.canvas() == math.ceil(32 * math.sqrt(4 / 3 / 0.4))


def test_operations_are_those_of_every_run(plan: Plan) -> None:
    views = {"size": 32, "operations": {"gray": "off", "hue": [0.05, 0.1]}, "scale_blur": False}
    config = plan(pretrain={**TINY_PRETRAIN, "views": views})
    for arm in ("weak", "strong"):
        run = config.run_config(arm, 0, Path("a")).views
        assert run.operations == {"gray": "off", "hue": (0.05, 0.1)}
        assert run.scale_blur is False
        assert run.build_recipe() == config.pretrain.views.build_recipe()


def test_operations_of_a_lever_that_one_arm_has_are_allowed(plan: Plan) -> None:
    noisy = {"crop": 0.5, "geometry": 0.5, "photometric": 0.5, "acquisition": 1}
    pretrain = {**TINY_PRETRAIN, "views": {"size": 32, "operations": {"noise_std": 0.05}}}
    arms = {"weak": {"scale": 0.5}, "strong": {"scale": noisy}}
    assert plan(arms=arms, pretrain=pretrain).run_config("weak", 0, Path("a"))
    with pytest.raises(ValidationError, match="acquisition is 0"):
        plan(pretrain=pretrain)


def test_primary_defaults_to_the_first_task_and_all_labels(plan: Plan) -> None:
    config = plan(tasks=["pallor", "lesion"])
    assert (config.primary_task, config.primary_budget) == ("pallor", "all")
    counts = plan(evaluation={"budgets": [10, 20]})
    assert counts.primary_budget == 20


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"arms": {"weak": {"scale": -1}, "strong": {"scale": 1}}}, "-1"),
        ({"arms": {"weak": {"scale": "weakk"}, "strong": {"scale": 1}}}, "weakk"),
        ({"arms": {"weak": {}, "strong": {"scale": 1}}}, "needs a scale"),
        ({"arms": {"weak": {"scale": 0.5}}}, "at least 2"),
        (
            {"arms": {"weak": {"kind": "random"}, "strong": {"kind": "random"}}},
            "no arm is pretrained",
        ),
        (
            {"arms": {"weak": {"kind": "random", "scale": 1}, "strong": {"scale": 1}}},
            "leave scale out",
        ),
        ({"arms": {"../weak": {"scale": 0.5}, "strong": {"scale": 1}}}, "cannot name an arm"),
        ({"arms": {"thumbnail": {"scale": 0.5}, "strong": {"scale": 1}}}, "cannot name an arm"),
        ({"arms": {"weak": {"scale": 1, "share": 0}, "strong": {"scale": 1}}}, "greater than 0"),
        ({"arms": {"weak": {"scale": 1, "method": "dinoo"}, "strong": {"scale": 1}}}, "dino"),
        ({"arms": {"weak": {"scale": 1}, "b": {"kind": "backbone"}}}, "needs a backbone"),
        (
            {"arms": {"weak": {"scale": 1, "backbone": "a"}, "b": {"scale": 1}}},
            "leave backbone out",
        ),
        (
            {"arms": {"weak": {"scale": 1}, "b": {"kind": "backbone", "backbone": {"name": "a"}}}},
            "would be random",
        ),
        (
            {"arms": {"weak": {"scale": 1}, "strong": {"scale": 1}, "s": {"kind": "scratch"}}},
            "add finetune, lpft, batchnorm or scratch to evaluation.learners",
        ),
        (
            {
                "arms": {"weak": {"scale": 1}, "s": {"kind": "scratch"}},
                "evaluation": {"learners": ["linear", "finetune"]},
                "primary": {"better": "weak", "than": "s"},
            },
            "does not train a network, and arm 's' is scratch; choose from finetune",
        ),
        ({"primary": {"better": "weka"}}, "did you mean 'weak'"),
        ({"primary": {"better": "strong"}}, "with itself"),
        ({"primary": {"task": "palor"}}, "did you mean 'pallor'"),
        ({"primary": {"budget": 11}}, "11, which is not in evaluation.budgets"),
        ({"evaluation": {"tune": {"epochs": 3}}}, "tune.epochs has no effect"),
        ({"evaluation": {"test": "a", "split_column": "b"}}, "test and split_column"),
        ({"tasks": [["a", "b"], "a, b"]}, "twice"),
        ({"primary": {"learner": "knn"}, "evaluation": {"learners": ["linear"]}}, "not in eval"),
        ({"seeds": [0, 0]}, "twice"),
        ({"seeds": [-1]}, "0 or more"),
        ({"tasks": []}, "at least 1"),
        ({"evaluation": {"budgets": [1]}}, "2 scans or more"),
        ({"pretrain": {"views": {"recipe": "simclrr"}}}, "did you mean 'simclr'"),
        ({"pretrain": {"views": {"scale": 1}}}, "Extra inputs"),
        ({"pretrain": {"views": {"operations": {"blurr": "off"}}}}, "did you mean 'blur'"),
    ],
)
def test_a_bad_plan_is_refused(plan: Plan, replaced: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        plan(**replaced)


def test_a_misspelt_key_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("unlabeled: a\nlabels: b\ntasks: [t]\noutput: o\nseed: [0]\n")
    with pytest.raises(ScanlearnError, match=r"line 5.*'seed'.*did you mean 'seeds'"):
        load_config(CompareConfig, path, kind="compare")


def test_an_untrained_arm_that_begins_from_given_weights_is_not_called_random(plan: Plan) -> None:
    given = {**TINY_PRETRAIN, "backbone": {"name": "test_resnet", "weights": "pretrained"}}
    with pytest.raises(ValidationError, match=r"would not be random; call it start"):
        plan(pretrain=given)
    arms = {"weak": {"scale": 0.5}, "strong": {"scale": 1}, "start": {"kind": "random"}}
    assert plan(pretrain=given, arms=arms).pretrain.backbone.weights == "pretrained"


def test_a_plan_names_every_key_of_a_run_of_packing_and_of_scoring() -> None:
    # One machine: on several, every process would go through the whole comparison.
    of_a_run = {"archive", "leave_out", "output", "seed", "pack", "nodes", "wait"}
    pretrain = CompareConfig.model_fields["pretrain"].annotation
    assert set(pretrain.model_fields) == set(PretrainConfig.model_fields) - of_a_run
    assert set(SharedViews.model_fields) == set(ViewsConfig.model_fields) - {"scale"}
    assert set(blocks.ComparePacking.model_fields) == set(PackSettings.model_fields)
    own = set(blocks.EvaluationConfig.model_fields) - set(ScoringSettings.model_fields)
    assert own == {"replicates"}


def test_views_of_a_study_are_those_of_a_run_at_a_scale() -> None:
    views = SharedViews(recipe="dino", size=32, operations={"blur": False}, scale_blur=False)
    run = views.at(Scale.of(0.7))
    assert run == ViewsConfig(
        recipe="dino", size=32, operations={"blur": "off"}, scale_blur=False, scale=0.7
    )
    assert run.build_recipe() == views.build_recipe()
    assert SharedViews(operations={"blur": "off"}) == SharedViews(operations={"blur": False})


def test_packing_is_that_of_pack(plan: Plan) -> None:
    pack = {"field_of_view": "fundus", "patient_column": "who", "keep": {"eye": ["left"]}}
    config = plan(pack=pack, label_columns={"patient": "person"})
    unlabeled = config.pack_settings(config.unlabeled_columns, "auto")
    assert type(unlabeled) is PackSettings
    assert (unlabeled.field_of_view, unlabeled.keep) == ("fundus", {"eye": ("left",)})
    assert (unlabeled.patient_column, unlabeled.canvas) == ("who", config.canvas())
    assert config.pack_settings(config.label_columns, 3).patient_column == "person"
    # As `path` and `patient` once were called, and still are in plans that were kept.
    assert config.label_columns == Columns(patient_column="person")
    assert plan(pack={"canvas": [40, 60]}).canvas() == (40, 60)
    windows = plan(pack={"window": ["lung", "bone", "brain"]})
    assert len(windows.pack_settings(windows.label_columns, "auto").preprocess().windows) == 3
    with pytest.raises(ValidationError, match="window is for CT"):
        plan(pack={"window": "lung", "field_of_view": "fundus"})


def test_the_thumbnail_is_scored_by_frozen_learners_alone(plan: Plan) -> None:
    evaluation = {"learners": ["finetune", "linear"], "tune": {"epochs": 3, "balance": "sampling"}}
    config = plan(evaluation=evaluation, primary={"learner": "finetune"}).evaluation
    assert (config.frozen_learners, config.network_learners) == (("linear",), ("finetune",))
    frozen = config.frozen()
    assert frozen.learners == ("linear",)
    assert (frozen.tune.epochs, frozen.tune.balance) == (None, "sampling")


def test_every_key_is_described() -> None:
    members = [m for m in vars(blocks).values() if isinstance(m, type)]
    models = [m for m in members if issubclass(m, BaseModel) and m.__module__ == blocks.__name__]
    assert len(models) > 4
    assert all(f.description for model in models for f in model.model_fields.values())


def test_one_value_is_a_list_of_one() -> None:
    words = ["unlabeled=a", "labels=b", "output=c", "tasks=pneumonia", "seeds=3"]
    config = load_config(
        CompareConfig,
        None,
        [*words, "evaluation.budgets=all", "evaluation.learners=linear"],
        kind="compare",
    )
    assert config.tasks == ("pneumonia",)
    assert config.seeds == (3,)
    assert config.evaluation.budgets == ("all",)
    assert config.evaluation.learners == ("linear",)


def test_each_table_of_a_comparison_is_read_in_its_own_way() -> None:
    words = ["unlabeled=a", "labels=b", "output=c", "tasks=y"]
    words += ["pack.root=u", "pack.patient_column=p"]
    own = ["label_columns.root=l", "label_columns.patient_pattern=(a)", "label_columns.sep=;"]
    config = load_config(CompareConfig, None, [*words, *own], kind="compare")
    unlabeled = config.pack_settings(config.unlabeled_columns, "auto")
    assert (unlabeled.root, unlabeled.patient_column, unlabeled.sep) == (Path("u"), "p", None)
    labels = config.pack_settings(config.label_columns, 1)
    assert (labels.root, labels.patient_column, labels.sep) == (Path("l"), None, ";")
    assert labels.patient_pattern == "(a)"


@pytest.mark.parametrize(
    ("grid", "arms"),
    [
        ({"scales": [0, 0.5]}, {"s0": (0.0, None, None), "s0.5": (0.5, None, None)}),
        (
            {"methods": ["simclr", "dino"], "scales": 1},
            {"simclr-1": (1.0, "simclr", None), "dino-1": (1.0, "dino", None)},
        ),
        (
            {"methods": ["dino", "simclr"]},
            {"dino": (0.5, "dino", None), "simclr": (0.5, "simclr", None)},
        ),
        (
            {"crops": [0.5, 1], "photometrics": [0]},
            {
                "crop0.5-photo0": ({"crop": 0.5, "geometry": 0.5, "photometric": 0}, None, None),
                "crop1-photo0": ({"crop": 1, "geometry": 0.5, "photometric": 0}, None, None),
            },
        ),
        (
            {"scales": [1], "shares": [0.25, 1]},
            {"s1-share0.25": (1.0, None, 0.25), "s1-share1": (1.0, None, None)},
        ),
    ],
)
def test_a_grid_is_written_out_as_arms(
    plan: Plan, grid: dict[str, Any], arms: dict[str, Any]
) -> None:
    named = {"better": next(iter(arms)), "than": list(arms)[-1]}
    made = CompareConfig.model_validate(
        {"unlabeled": "a", "labels": "b", "target": "c", "output": "d", "grid": grid}
        | {"primary": named}
    )
    assert made.tasks == ("c",)
    assert (made.grid, made.target) == (None, None)
    assert {n: (a.dial(), a.method, a.share) for n, a in made.arms.items()} == {
        n: (Scale.parse(scale), method, share) for n, (scale, method, share) in arms.items()
    }
    beside = plan(grid=grid)
    assert list(beside.arms) == ["weak", "strong", "random", *arms]
    # What a study's folder holds is the same plan.
    assert CompareConfig.model_validate(beside.model_dump(mode="json")) == beside


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({}, "names no values"),
        ({"scales": [9]}, "less than or equal to 1.5"),
        ({"methods": ["dinoo"]}, "dino"),
        ({"scale": [1]}, "Extra inputs"),
    ],
)
def test_a_bad_grid_is_refused_where_it_stands(
    plan: Plan, grid: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        plan(grid=grid, arms={"random": {"kind": "random"}})
    assert {error["loc"][0] for error in caught.value.errors()} == {"grid"}


def test_a_grid_does_not_take_the_name_of_an_arm(plan: Plan) -> None:
    arms = {"s1": {"scale": 0.5}, "s2": {"scale": 1}}
    with pytest.raises(ValidationError, match="grid makes an arm 's1', which arms names too"):
        plan(arms=arms, grid={"scales": [1]}, primary={"better": "s1", "than": "s2"})
    alone = {"grid": {"scales": [0, 1]}, "unlabeled": "a", "labels": "b", "tasks": "c"}
    with pytest.raises(ValidationError, match="'weak', which is no arm; the arms are s0, s1"):
        CompareConfig.model_validate({**alone, "output": "d"})


def test_seeds_auto_begin_with_three_and_end_with_the_most(plan: Plan) -> None:
    config = plan(seeds="auto")
    assert (config.seeds, config.max_seeds, config.looks) == ((0, 1, 2), 8, (3, 5, 8))
    assert config.at_look(5).seeds == (0, 1, 2, 3, 4)
    # As a study keeps it, and reads it again.
    again = CompareConfig.model_validate(config.at_look(5).model_dump(mode="json"))
    assert again.looks == (3, 5, 8)
    assert plan(seeds=(4, 5)).alpha == 0.05
    assert config.alpha == pytest.approx(0.0199, abs=2e-4)
    with pytest.raises(ValidationError, match="max_seeds=8 is for seeds=auto"):
        plan(seeds=(0, 1), max_seeds=8)
