from __future__ import annotations

from importlib import import_module

import pytest
from pydantic import TypeAdapter, ValidationError

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
