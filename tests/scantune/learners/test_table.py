from __future__ import annotations

from importlib import import_module

import pytest
from pydantic import TypeAdapter, ValidationError

from scantune.evaluation.settings import ScoringSettings
from scantune.learners.settings import TuneConfig
from scantune.learners.table import LEARNERS, LEARNERS_HELP, LearnerKind, LearnerName

NAMES: TypeAdapter[str] = TypeAdapter(LearnerName)
EVERY_ROW = pytest.mark.parametrize("kind", LEARNERS.values(), ids=LEARNERS)


@EVERY_ROW
def test_a_row_names_a_function_that_builds_it(kind: LearnerKind) -> None:
    module, _, function = kind.build.partition(":")
    assert callable(getattr(import_module(f"scantune.learners.{module}"), function))


@EVERY_ROW
def test_a_row_reads_settings_that_exist(kind: LearnerKind) -> None:
    assert set(kind.reads) <= set(TuneConfig.model_fields)
    assert set(kind.numbers) <= set(kind.reads)


def test_every_setting_is_read_by_some_learner() -> None:
    assert {key for kind in LEARNERS.values() for key in kind.reads} == set(TuneConfig.model_fields)


def test_titles_tell_learners_apart_and_the_help_names_them_all() -> None:
    titles = [kind.title for kind in LEARNERS.values()]
    assert len(set(titles)) == len(titles)
    assert all(f"{name} (" in LEARNERS_HELP for name in LEARNERS)


def test_a_name_is_one_of_the_table_and_editors_know_them() -> None:
    assert [NAMES.validate_python(name) for name in LEARNERS] == list(LEARNERS)
    with pytest.raises(ValidationError, match=r"'liner' is not .*did you mean 'linear'.*scratch"):
        NAMES.validate_python("liner")
    assert NAMES.json_schema()["enum"] == list(LEARNERS)


@pytest.mark.parametrize(
    ("name", "title", "sees"),
    [
        ("finetune@none", "fine-tuning, no augmentation", {"augment": "none", "extras": ()}),
        ("lpft@basic", "LP-FT, basic augmentation", {"augment": "basic"}),
        ("finetune@0.25", "fine-tuning, scale 0.25", {"scale": 0.25}),
        (
            "scratch@complex-1",
            "from scratch, complex augmentation, scale 1",
            {"augment": "complex", "scale": 1.0},
        ),
    ],
)
def test_a_learner_may_be_named_with_its_augmentation(
    name: str, title: str, sees: dict[str, object]
) -> None:
    assert NAMES.validate_python(name) == name
    kind = LEARNERS[name]
    plain = LEARNERS[kind.mode]
    assert (kind.title, kind.sees, kind.numbers) == (title, sees, plain.numbers)
    assert set(kind.reads) == set(plain.reads) - set(sees)
    settings = TuneConfig(epochs=3)
    assert settings.of(name) == settings.model_copy(update=sees)
    assert settings.of(kind.mode) == settings


@pytest.mark.parametrize(
    "name", ["linear@none", "sgd@basic", "finetune@strong", "finetune@2", "finetune@", "tune@none"]
)
def test_a_learner_has_no_augmentation_that_it_cannot_have(name: str) -> None:
    assert name not in LEARNERS
    with pytest.raises(ValidationError, match=r"is not a learner.*NAME@complex-0\.5 is a learner"):
        NAMES.validate_python(name)


def test_a_comparison_tells_each_augmentation_of_its_learners() -> None:
    names = ("finetune@none", "finetune@complex-1", "finetune", "linear")
    scoring = ScoringSettings(learners=names, tune=TuneConfig(augment="none"))
    assert scoring.trained_on_views == names[:3]
    ruled = scoring.under("xray")
    assert ruled.views_in_words == (
        "training scans not augmented; complex augmentation, scale 1 of recipe simclr under "
        "modality xray"
    )
    assert ruled.tune.augment == "none"
    plain = ScoringSettings(learners=names[:1])
    assert plain.under("xray") == plain
