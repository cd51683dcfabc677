from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from scanlearn.config import load_config
from scanlearn.config.loading import call, settings_model
from scanlearn.errors import ScanlearnError

Load = Callable[..., Any]


@pytest.fixture
def load(tmp_path: Path, run_model: Any) -> Load:
    def _load(text: str, *overrides: str) -> Any:
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return load_config(run_model, path, overrides, kind="pretrain")

    return _load


def test_overrides_win_over_the_file(load: Load) -> None:
    run = load("archive: a\nbatch_size: 3\n", "batch_size=4", "method.temperature=1e-2")
    assert run.batch_size == 4
    assert run.method.name == "near"
    assert run.method.temperature == 0.01


def test_naming_another_method_replaces_the_whole_block(load: Load, far_model: Any) -> None:
    run = load("archive: a\nmethod:\n  temperature: 0.2\n", "method.name=far")
    assert run.method == far_model()


def test_identifiers_stay_strings(load: Load) -> None:
    assert load("archive: a\n", "archive=007").archive == "007"


def test_an_override_leaves_the_rest_of_its_block(load: Load) -> None:
    run = load("archive: a\nmethod: {name: far, queue: 9}\n", "batch_size=2")
    assert run.method.queue == 9


def test_unknown_configuration_lists_the_shipped_ones(run_model: Any) -> None:
    with pytest.raises(ScanlearnError, match=r"shipped for compare: .*demo"):
        load_config(run_model, "dmeo", kind="compare")


def sample(source: str, *, size: int = 64, names: tuple[str, ...] = ("a",)) -> tuple[object, ...]:
    return source, size, names


def test_keyword_arguments_become_checked_settings() -> None:
    assert set(settings_model(sample).model_fields) == {"size", "names"}
    assert issubclass(settings_model(sample), BaseModel)
    assert call(sample, "x", overrides=["size=32"]) == ("x", 32, ("a",))
    with pytest.raises(ScanlearnError, match="did you mean 'size'"):
        call(sample, "x", overrides=["sise=32"])


@pytest.mark.parametrize("source", [{"source": "a"}, 3])
def test_what_is_no_file_is_refused(run_model: Any, source: object) -> None:
    with pytest.raises(ScanlearnError, match=r"load_config: .* is not a path or the name"):
        load_config(run_model, source)


def test_a_model_that_is_forgotten_is_told() -> None:
    with pytest.raises(ScanlearnError, match="load_config: str is not the class of the settings"):
        load_config("demo")  # type: ignore[arg-type]
