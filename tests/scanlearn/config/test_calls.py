from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from pydantic import Field

from scanlearn.config.calls import checked, checked_init
from scanlearn.config.settings import Settings
from scanlearn.errors import ScanlearnError


class ToyConfig(Settings):
    source: str
    steps: int = Field(default=3, ge=1)


class DataFrame:
    """Stands for pandas', which is no dependency: the name tells it."""


@checked
def read(
    path: str | Path,
    others: Sequence[str] = (),
    *,
    size: Annotated[int, Field(ge=1)] = 8,
    settings: ToyConfig | None = None,
) -> tuple[Any, ...]:
    return path, others, size, settings


@checked
def run(config: ToyConfig | str | Path, overrides: Sequence[str] = ()) -> Any:
    return config, overrides


def test_what_fits_goes_through_as_it_is() -> None:
    config = ToyConfig(source="a")
    assert read(Path("a"), ["b"], settings=config) == (Path("a"), ["b"], 8, config)
    assert run("simclr", ["steps=2"]) == ("simclr", ["steps=2"])


def test_an_object_is_left_to_the_function() -> None:
    @checked
    def draw(*, scale: float | str = 1.0, seeds: tuple[int, ...] = ()) -> Any:
        return scale, seeds

    dial = DataFrame()
    assert draw(scale=dial, seeds=[1, 2]) == (dial, (1, 2))  # type: ignore[arg-type]


def test_what_a_command_takes_is_taken_in_python_too() -> None:
    assert read("a", "b", size="9")[1:3] == (("b",), 9)
    assert read("a", settings={"source": "s"})[3] == ToyConfig(source="s")
    assert run({"source": "s", "steps": 2})[0] == ToyConfig(source="s", steps=2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: read(), "read: 'path' is missing; give it as path=VALUE"),
        (lambda: read("a", sise=1), r"read: 'sise' is not an argument \(did you mean 'size'\?\)"),
        (lambda: read("a", zzz=1), "is not an argument; allowed: path, others, size, settings"),
        (lambda: read("a", "b", "c"), r"takes 2 arguments without their names \(path, others\)"),
        (lambda: read("a", path="b"), "'path' is given twice"),
        (lambda: read("a", steps=2), r"in settings: read\(\.\.\., settings=\{'steps': 2\}\)"),
        (lambda: read("a", size=0), "read: 'size' is 0, but .* greater than or equal to 1"),
        (lambda: read("a", settings={"step": 2}), "did you mean 'steps'"),
        (lambda: read(None), "'path' is of the type NoneType, but it should be a name or a path"),
        (lambda: read(DataFrame()), r"type DataFrame, .*to_csv\('scans\.csv', index=False\)"),
        (lambda: read("a", 3), "'others' is of the type int, but it should be a list"),
        (lambda: run("a", steps=2), r"in the list of settings: run\(\.\.\., \['steps=2'\]\)"),
        (lambda: run(3), r"a name or a path or ToyConfig; load_config\(ToyConfig, 'FILE\.yaml'"),
        (lambda: run({"steps": 0, "source": "a"}), "run: 'steps' is 0, but"),
        (lambda: run({"steps": 1}), "run: 'source' is missing; give it as source=VALUE"),
        (lambda: ToyConfig(), "ToyConfig: 'source' is missing; give it as source=VALUE"),
        (lambda: ToyConfig(source="a", step=1), r"ToyConfig: 'step' .*did you mean 'steps'"),
        (lambda: ToyConfig("a"), r"takes settings by their names, as ToyConfig\(key=value\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(call: Any, message: str) -> None:
    with pytest.raises(ScanlearnError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None


def test_an_error_within_the_function_is_its_own() -> None:
    @checked
    def broken(path: str) -> None:
        raise TypeError(path)

    with pytest.raises(TypeError, match="inner"):
        broken("inner")


@checked_init
@dataclass(frozen=True)
class Pair:
    left: float
    right: float = 0.0


class Reader:
    @checked
    def __init__(self, size: int, *, parts: Sequence[float] = (), own: object = None) -> None:
        self.given = (size, parts, own)


def test_objects_are_made_of_what_fits() -> None:
    assert Pair(1, right=2.5) == Pair(1.0, 2.5)
    assert Reader(np.int64(3), parts=[0.5]).given == (3, [0.5], None)  # type: ignore[arg-type]
    assert pickle.loads(pickle.dumps(Pair(1, 2))) == Pair(1, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Pair(), "Pair: 'left' is missing; give it as left=VALUE"),
        (lambda: Pair(1, rigth=2), r"Pair: 'rigth' is not an argument \(did you mean 'right'\?\)"),
        (lambda: Pair("weak"), "Pair: 'left' is of the type str, but it should be float"),
        (lambda: Reader("big"), "Reader: 'size' is of the type str, but it should be int"),
        (lambda: Reader(2.5), "Reader: 'size' is of the type float, but it should be int"),
        (lambda: Reader(2, parts=0.5), "'parts' is of the type float, but it should be a list"),
    ],
)
def test_objects_made_of_what_does_not_fit_say_so(call: Any, message: str) -> None:
    with pytest.raises(ScanlearnError, match=message):
        call()
