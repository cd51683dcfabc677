from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from scanlearn.config import default_yaml, dump_config, load_config, parse_value
from scanlearn.errors import ScanlearnError
from scanlearn.training.folder import open_run
from scanlearn.training.settings import PRESENTATION, LoggingConfig, PretrainConfig, ViewsConfig
from scanlearn.views.recipes import find_recipe
from scanlearn.views.scale import Scale

Configure = Callable[..., PretrainConfig]


def test_epochs_are_counted_in_steps_unless_steps_are_given(configure: Configure) -> None:
    assert configure(steps=None, epochs=2.5).total_steps(10) == 25
    assert configure(steps=None, epochs=0.01).total_steps(10) == 1
    assert configure(steps=7, epochs=2.5).total_steps(10) == 7


def test_a_configuration_survives_its_own_yaml(configure: Callable[..., PretrainConfig]) -> None:
    config = configure(views={"scale": {"crop": 0.5, "geometry": 0, "photometric": "strong"}})
    assert PretrainConfig.model_validate(parse_value(dump_config(config))) == config


def test_operations_are_built_into_the_recipe() -> None:
    views = ViewsConfig(recipe="dino", operations={"solarize": "off", "rotation_deg": [7, 15]})
    expected = find_recipe("dino").adjusted({"solarize": "off", "rotation_deg": [7, 15]})
    assert views.build_recipe() == expected
    assert ViewsConfig().build_recipe() == find_recipe("simclr")


@pytest.mark.parametrize("off", ["off", "false", "'off'"])
def test_a_yaml_switches_an_operation_off_in_any_spelling(off: str) -> None:
    views = ViewsConfig.model_validate(
        parse_value(f"{{recipe: byol, operations: {{blur: {off}}}}}")
    )
    assert views == ViewsConfig(recipe="byol", operations={"blur": "off"})
    assert views.build_recipe().at(Scale.STRONG).views[0].blur_p == 0


def test_operations_survive_their_own_yaml(configure: Callable[..., PretrainConfig]) -> None:
    operations = {"blur": False, "hue": 0.05, "rotation_deg": [7, 15], "gray_p": {"global_1": 0.1}}
    config = configure(views={"operations": operations, "scale_blur": False})
    assert PretrainConfig.model_validate(parse_value(dump_config(config))) == config


def test_operations_can_be_given_on_the_command_line(configure: Configure, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(dump_config(configure(views={"operations": {"hue": 0.05}})))
    words = ["views.operations.blur=off", "views.operations.rotation_deg=[7,15]"]
    config = load_config(PretrainConfig, path, words, kind="pretrain")
    assert config.views.operations == {"hue": 0.05, "blur": "off", "rotation_deg": (7.0, 15.0)}


@pytest.mark.parametrize(
    "changed",
    [{"operations": {"blur": "off"}}, {"operations": {"hue": [0.05, 0.1]}}, {"scale_blur": False}],
)
def test_a_run_with_other_operations_is_another_run(
    configure: Configure, tmp_path: Path, changed: dict[str, object]
) -> None:
    def start(views: dict[str, object]) -> None:
        open_run(tmp_path / "run", configure(views=views), ignored=PRESENTATION)

    start({"operations": {"hue": 0.05}})
    start({"operations": {"hue": 0.05}})
    (tmp_path / "run" / "checkpoints" / "last.ckpt").touch()
    start({"operations": {"hue": 0.05}})
    with pytest.raises(ScanlearnError, match=r"already holds a different run \(views\."):
        start({"operations": {"hue": 0.05}} | changed)


def test_a_wrong_operation_is_named_with_its_line(configure: Configure, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(dump_config(configure()).replace("operations: {}", "operations: {blurr: off}"))
    with pytest.raises(ScanlearnError, match=r"run.yaml line \d+: .*did you mean 'blur'"):
        load_config(PretrainConfig, path, kind="pretrain")


def test_an_operation_whose_lever_is_zero_is_warned_about(configure: Configure) -> None:
    operations = {"noise_std": 0.05}
    (warning,) = configure(views={"operations": operations}).warnings
    assert "views.operations.noise_p: has no effect while the sub-dial acquisition is 0" in warning
    named = {"crop": 0.5, "geometry": 0.5, "photometric": 0.5, "acquisition": 1}
    assert configure(views={"operations": operations, "scale": named}).warnings == ()
    # A control arm without any augmentation shares the operations of the others.
    assert configure(views={"operations": {"rotation_deg": 7}, "scale": 0}).warnings == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"views": {"operations": {"blur": "on"}}}, "off or its numbers"),
        ({"views": {"operations": {"blurr": "off"}}}, "did you mean 'blur'"),
        ({"views": {"operations": {"hue": [0.2, 0.1]}}}, "weaker at strong"),
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
    configure: Configure, change: dict[str, object], words: str
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


@pytest.mark.parametrize(
    ("views", "told"),
    [
        # Half of the area is the least of a mammogram's crop; up to 1.5 the largest falls below.
        ({"operations": {"crop_max": [0.8, 0.7]}}, "tags name mammography, nothing is trained: v"),
        ({"operations": {"crop_max": [0.8, 0.7]}, "modality": None}, None),
        ({"operations": {"crop_max": [0.8, 0.7]}, "modality": "xray"}, None),
        ({"operations": {"flip_p": 0.5}}, None),
        ({}, None),
    ],
)
def test_what_no_tags_would_let_train_is_said_before_scans_are_packed(
    configure: Configure, views: dict[str, Any], told: str | None
) -> None:
    found = configure(views={"size": 32, **views}).unfit()
    assert (told or "None") in str(found)
    assert (found is None) == (told is None)
