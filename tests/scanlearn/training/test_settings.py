from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from scanlearn.config import default_yaml, dump_config, parse_value
from scanlearn.training.settings import LoggingConfig, PretrainConfig


def test_epochs_are_counted_in_steps_unless_steps_are_given(
    configure: Callable[..., PretrainConfig],
) -> None:
    assert configure(steps=None, epochs=2.5).total_steps(10) == 25
    assert configure(steps=None, epochs=0.01).total_steps(10) == 1
    assert configure(steps=7, epochs=2.5).total_steps(10) == 7


def test_a_configuration_survives_its_own_yaml(configure: Callable[..., PretrainConfig]) -> None:
    config = configure(views={"scale": {"crop": 0.5, "geometry": 0, "photometric": "strong"}})
    assert PretrainConfig.model_validate(parse_value(dump_config(config))) == config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"views": {"scale": "weakk"}}, "weak"),
        ({"views": {"scale": -1}}, "-1"),
        ({"views": {"recipe": "simclrr"}}, "simclr"),
        ({"epochs": float("inf")}, "finite"),
        ({"batch_size": 1}, "batch_size"),
        ({"batchsize": 8}, "batchsize"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_cannot_run_is_refused_at_once(
    configure: Callable[..., PretrainConfig], change: dict[str, object], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        configure(**change)


def test_about_a_thousand_rows_are_written() -> None:
    assert LoggingConfig().row_every(100) == 1
    assert LoggingConfig().row_every(50_000) == 50
    assert LoggingConfig(every_steps=3).row_every(50_000) == 3


def test_every_key_of_the_default_yaml_is_explained() -> None:
    text = default_yaml(PretrainConfig)
    lines = text.splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if line and not line.lstrip().startswith("#"):
            assert before.lstrip().startswith("#"), line
