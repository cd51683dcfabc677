"""Every shipped YAML loads, is whole, opens with its own command, and runs a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scanlearn.backbones.backbone import BackboneConfig, build_backbone
from scanlearn.backbones.card import Card
from scanlearn.backbones.weights import write_weights
from scanlearn.config import default_yaml, load_config, parse_value
from scanlearn.training.pretrain import pretrain
from scanlearn.training.settings import PretrainConfig
from scantune.comparison.search_plan import SearchConfig
from scantune.study.plan import CompareConfig

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PRETRAIN = sorted((CONFIGS / "pretrain").glob("*.yaml"))
COMPARE = sorted((CONFIGS / "compare").glob("*.yaml"))
# Comparisons of any scans, made for a question and not for a modality.
PRESETS = {
    "weak_strong": "auto",
    "dose": "auto",
    "scale": "auto",
    "which_lever": "auto",
    "is_it_worth_it": "auto",
    "finetune_dose": "auto",
    "paper": None,
}
SEARCH = sorted((CONFIGS / "search").glob("*.yaml"))
SMALL = "phantom:patients=8,seed=3,size=48x48"


def test_no_configuration_is_left_out() -> None:
    assert PRETRAIN
    assert COMPARE
    assert SEARCH
    assert sorted(CONFIGS.rglob("*.y*ml")) == sorted([*PRETRAIN, *COMPARE, *SEARCH])


@pytest.mark.parametrize("path", [*PRETRAIN, *COMPARE, *SEARCH], ids=lambda path: path.stem)
def test_it_opens_with_its_own_command_and_cost(path: Path) -> None:
    opening = path.read_text().split("\n\n")[0]
    kind = path.parent.name
    program = "scanlearn pretrain" if kind == "pretrain" else f"scantune {kind}"
    assert opening.startswith(f"# {program} ")
    assert "Cost:" in opening
    assert "Expect:" in opening


@pytest.mark.parametrize("path", [*PRETRAIN, *COMPARE, *SEARCH], ids=lambda path: path.stem)
def test_it_names_its_modality(path: Path) -> None:
    """Scans that are drawn have none; where any scans may be meant it is left to the user."""
    written: Any = parse_value(path.read_text())
    modality = written.get("pretrain", written)["views"]["modality"]
    if path in PRETRAIN:
        assert modality == "auto"
    else:
        own = {"demo": None, **PRESETS}
        assert modality == own.get(path.stem, path.stem.removesuffix("_tiny"))


@pytest.mark.parametrize("path", PRETRAIN, ids=lambda path: path.stem)
def test_a_pretraining_configuration_runs_a_step(path: Path, tmp_path: Path) -> None:
    words = [f"archive={SMALL}", f"output={tmp_path / 'run'}", "batch_size=8", "steps=1"]
    words += ["views.size=32", "backbone.name=test_resnet"]
    result = pretrain(load_config(PretrainConfig, path, words, kind="pretrain"))
    assert result.steps == 1


# Of many arms, or of a transformer: over eight seconds each on a slow machine.
LARGE = ("dose", "finetune_dose", "is_it_worth_it", "paper", "which_lever")
PLANS = [
    pytest.param(path, marks=[pytest.mark.long] if path.stem in LARGE else [], id=path.stem)
    for path in COMPARE
]


@pytest.mark.parametrize("path", PLANS)
def test_a_comparison_runs_a_step_of_each_arm(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scantune.study.run import run_study

    # That timm loads what is exported is asked of the runs above.
    monkeypatch.setattr("scanlearn.backbones.weights.check_reload", lambda *_: None)

    words = [
        f"output={tmp_path / 'study'}",
        "pretrain.batch_size=8",
        "pretrain.steps=1",
        "seeds=[0]",
    ]
    words += ["pretrain.views.size=32", "pretrain.backbone.name=test_resnet", "tasks=[pallor]"]
    words += [f"unlabeled={SMALL}", "labels=phantom:patients=30,seed=4,size=48x48"]
    words += ["evaluation.budgets=[all]", "evaluation.folds=2", "evaluation.label_seeds=1"]
    words += ["evaluation.learners=[knn]", "primary.learner=knn"]
    words += ["primary.task=null", "primary.budget=all", "evaluation.split_column=null"]
    words += ["evaluation.replicates=200"]
    if path.stem == "finetune_dose":
        words += ["evaluation.tune.scale=0.5"]
    if path.stem in ("is_it_worth_it", "finetune_dose"):
        network = build_backbone(BackboneConfig(name="test_resnet"), 3, seed=5)
        card = Card.of(network, size=32, mean=(0.4,) * 3, std=(0.2,) * 3)
        (tmp_path / "given").mkdir()
        write_weights(network, tmp_path / "given", card)
        words += [f"arms.imagenet.backbone={tmp_path / 'given'}", "arms.scratch.kind=random"]
    run_study(load_config(CompareConfig, path, words, kind="compare"))
    assert (tmp_path / "study" / "results.json").is_file()


@pytest.mark.parametrize("model", [PretrainConfig, CompareConfig])
def test_the_printed_default_is_whole(model: type, tmp_path: Path) -> None:
    text = default_yaml(model)
    assert set(parse_value(text)) == set(model.model_fields)
    path = tmp_path / "default.yaml"
    path.write_text(text)
    load_config(model, path, kind="pretrain")


@pytest.mark.parametrize("model", [PretrainConfig, CompareConfig])
def test_every_key_is_described(model: type) -> None:
    assert all(field.description for field in model.model_fields.values())


@pytest.mark.long
@pytest.mark.parametrize("path", SEARCH, ids=lambda path: path.stem)
def test_a_search_runs_its_rungs(path: Path, tmp_path: Path) -> None:
    from scantune.comparison.search import search

    words = [f"output={tmp_path}", "pretrain.batch_size=8", "pretrain.steps=3", "scales=[0,.5,1]"]
    words += ["pretrain.views.size=32", "pretrain.backbone.name=test_resnet", "target=pallor"]
    words += [
        "keep=[2,1]",
        "evaluation.learners=[ncm]",
        "evaluation.folds=2",
        "evaluation.replicates=200",
    ]
    words += [
        "pretrain.method.temperature=0.5",
        "rungs=[.4,.7,1]",
        "unlabeled=phantom:patients=8,seed=3,size=48x48,channels=1",
    ]
    words += ["labels=phantom:patients=24,seed=4,size=48x48,channels=1"]
    results = search(load_config(SearchConfig, path, words, kind="search"))
    assert results.rungs[0].step == 1
    assert [row.scale for row in results.rungs if row.fate == "chosen"] == [results.scale]
    assert results.rungs[-1].step == 3
