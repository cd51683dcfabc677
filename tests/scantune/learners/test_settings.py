from __future__ import annotations

from typing import Any

import pytest

from scanlearn.config import load_config
from scanlearn.errors import ScanlearnError
from scantune.learners.settings import TuneConfig


def test_retfounds_preset_is_its_fine_tuning_command() -> None:
    plan = TuneConfig(preset="retfound").plan("finetune", 800)
    assert (plan.batch, plan.epochs, plan.warmup_epochs) == (16, 50, 10)
    assert plan.learning_rate == pytest.approx(5e-3 * 16 / 256)
    assert (plan.layer_decay, plan.weight_decay) == (0.65, 0.05)
    assert (plan.drop_path, plan.label_smoothing, plan.patience) == (0.2, 0.1, 50)


def test_what_a_person_sets_wins_over_the_preset() -> None:
    plan = TuneConfig(preset="retfound", epochs=8, drop_path=0.0).plan("finetune", 800)
    assert (plan.epochs, plan.drop_path, plan.batch) == (8, 0.0, 16)
    assert plan.warmup_epochs == pytest.approx(1.6)


def test_a_presets_drop_path_is_left_out_where_a_network_has_none() -> None:
    config = TuneConfig(preset="retfound")
    assert config.plan("finetune", 800, has_drop_path=False).drop_path == 0.0
    asked = TuneConfig(drop_path=0.1).plan("finetune", 800, has_drop_path=False)
    assert asked.drop_path == 0.1


@pytest.mark.parametrize("preset", [None, "retfound"])
def test_lpft_takes_a_tenth_of_the_rate(preset: Any) -> None:
    config = TuneConfig(preset=preset)
    tenth = config.plan("finetune", 400).learning_rate / 10
    assert config.plan("lpft", 400).learning_rate == pytest.approx(tenth)


def test_the_stepwise_probe_is_the_papers_whatever_the_preset() -> None:
    plan = TuneConfig(preset="retfound").plan("sgd", 800)
    assert (plan.epochs, plan.batch, plan.weight_decay, plan.warmup_epochs) == (50, 16, 0.0, 0)
    assert plan.learning_rate == pytest.approx(1e-3 * 16 / 256)


def test_small_sets_have_small_batches_and_large_ones_fewer_epochs() -> None:
    plans = [TuneConfig().plan("finetune", count) for count in (5, 40, 100, 400, 2000, 8000)]
    assert [plan.batch for plan in plans] == [5, 8, 8, 32, 32, 32]
    assert [plan.epochs for plan in plans] == [50, 50, 50, 50, 50, 12]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("augment=strong", "augment"),
        ("recipe=simclrr", "did you mean 'simclr'"),
        ("epochs=5 warmup_epochs=5", "give fewer"),
        ("operations={solarise: off}", "solarise"),
        ("lr=1", "lr"),
    ],
)
def test_a_wrong_setting_is_one_sentence(override: str, words: str) -> None:
    with pytest.raises(ScanlearnError, match=words) as caught:
        load_config(
            TuneConfig,
            None,
            override.split(" ") if "{" not in override else [override],
            kind="tune",
        )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "learners", "idle"),
    [
        ({"epochs": 3, "batch": 4}, ("knn", "linear"), ("epochs", "batch")),
        ({"epochs": 3, "mixup": 0.2}, ("sgd",), ("mixup",)),
        ({"feature_mixup": 0.2, "balance": "sampling"}, ("linear",), ()),
        ({"feature_mixup": 0.2, "augment": "none"}, ("finetune", "knn"), ("feature_mixup",)),
        ({"epochs": 50, "augment": "basic"}, ("linear", "scratch"), ()),
    ],
)
def test_settings_that_nobody_reads_are_found(
    settings: dict[str, Any], learners: tuple[str, ...], idle: tuple[str, ...]
) -> None:
    assert TuneConfig(**settings).without_effect(learners) == idle
