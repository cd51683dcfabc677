from __future__ import annotations

from pydantic import BaseModel

from scanlearn.training.settings import PretrainConfig, ViewsConfig
from scantune.study import blocks
from scantune.study.blocks import StudyPretraining, StudyViews


def test_a_plan_names_every_key_of_a_run_but_what_arms_decide() -> None:
    # One machine: on several, every process would go through the whole comparison.
    own = {"archive", "output", "seed", "pack", "nodes"}
    assert set(StudyPretraining.model_fields) == set(PretrainConfig.model_fields) - own
    assert set(StudyViews.model_fields) == set(ViewsConfig.model_fields) - {"scale"}


def test_shared_keys_have_the_defaults_of_a_run() -> None:
    for name, field in StudyPretraining.model_fields.items():
        if name != "views":
            assert field.default == PretrainConfig.model_fields[name].default, name


def test_views_of_a_study_are_those_of_a_run_at_a_scale() -> None:
    views = StudyViews(recipe="dino", size=32, operations={"blur": False}, scale_blur=False)
    run = views.at(0.7)
    assert run == ViewsConfig(
        recipe="dino", size=32, operations={"blur": "off"}, scale_blur=False, scale=0.7
    )
    assert run.build_recipe() == views.build_recipe()
    assert StudyViews(operations={"blur": "off"}) == StudyViews(operations={"blur": False})
    for name in set(StudyViews.model_fields) - {"recipe"}:
        field, own = StudyViews.model_fields[name], ViewsConfig.model_fields[name]
        assert (field.default, field.description) == (own.default, own.description)


def test_every_key_is_described() -> None:
    members = [m for m in vars(blocks).values() if isinstance(m, type)]
    models = [m for m in members if issubclass(m, BaseModel) and m.__module__ == blocks.__name__]
    assert len(models) > 4
    assert all(f.description for model in models for f in model.model_fields.values())
