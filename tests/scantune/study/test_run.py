from __future__ import annotations

import csv
import hashlib
import html
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from torchvision.transforms import v2

from scanlearn.backbones.backbone import BackboneConfig, build_backbone
from scanlearn.backbones.card import Card
from scanlearn.backbones.weights import export_backbone
from scanlearn.config import dump_config
from scanlearn.core import ViewPlan
from scanlearn.errors import ScanlearnError
from scanlearn.views.generator import ViewGenerator
from scanlearn.views.modality import POLICIES
from scanlearn.views.scale import Scale
from scantune.reports.report import write as write_report
from scantune.study.arms import given_rows
from scantune.study.folder import StudyFolder
from scantune.study.plan import CompareConfig
from scantune.study.results import Results, Score, read_results
from scantune.study.run import canvas_chosen, open_study_archives, packed_again, run_study
from scantune.study.scores import networks_of
from scantune.study.tables import table_csv

Plan = Callable[..., CompareConfig]
RUN = (
    "import sys; from pathlib import Path; from scanlearn.config import load_config;"
    "from scantune.study.plan import CompareConfig;"
    "from scantune.study.run import run_study;"
    "run_study(load_config(CompareConfig, sys.argv[1], kind='compare'))"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANLEARN_CACHE", str(tmp_path / "cache"))


def fingerprint(folder: Path) -> dict[str, tuple[int, str]]:
    """Time of change and content of every network and score below a study."""
    files = [*folder.glob("arms/*/*/backbone/*"), *folder.glob("scores/*/*.npz")]
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in files
    }


def test_a_typo_in_the_backbone_is_found_before_scans_are_packed(
    plan: Plan, tmp_path: Path
) -> None:
    settings = plan().pretrain.model_dump()
    with pytest.raises(ScanlearnError, match=r"backbone\.name: timm has no .* 'resnet81'"):
        run_study(plan(pretrain=settings | {"backbone": {"name": "resnet81"}}))
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "study").exists()


def test_the_canvas_goes_by_the_shorter_side_of_the_scans(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, (height, width) in {"wide": (150, 369), "square": (150, 150)}.items():
        (tmp_path / name).mkdir()
        Image.new("L", (width, height), 9).save(tmp_path / name / "a.png")
    folder = StudyFolder(tmp_path / "study")
    # 32 px x sqrt(4 / 3 / .08), and as much wider as the scan is.
    chosen = canvas_chosen(plan(unlabeled=str(tmp_path / "wide")), folder)
    assert chosen.canvas() == (131, 323)
    assert "131 x 323 px, 2.5 times the memory of a square of 131" in capsys.readouterr().out
    generator = ViewGenerator("simclr", Scale.STRONG, ViewPlan(2), 32, [0.5], [0.2])
    assert generator.upsampled_share(np.array([[0, 0, 131, 322]])) == 0
    assert generator.upsampled_share(np.array([[0, 0, 53, 131]])) > 0.1
    for same in (plan(unlabeled=str(tmp_path / "square")), plan(pack={"canvas": 64})):
        assert canvas_chosen(same, folder) is same


def test_labels_are_checked_before_anything_is_trained(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(ScanlearnError, match=r"'palor'.*did you mean 'pallor'"):
        run_study(plan(tasks=["palor"]))
    assert not (tmp_path / "study" / "arms").exists()


def test_an_impossible_split_is_refused_before_anything_is_trained(
    plan: Plan, tmp_path: Path
) -> None:
    labels = "phantom:patients=8,seed=4,size=48x48"
    with pytest.raises(ScanlearnError, match="folds=9"):
        run_study(plan(labels=labels, evaluation={"folds": 9, "budgets": ["all"]}))
    assert not (tmp_path / "study" / "arms").exists()


def test_scans_of_other_channels_are_refused(plan: Plan) -> None:
    gray = "phantom:patients=24,seed=4,size=48x48,channels=1"
    with pytest.raises(ScanlearnError, match=r"3 channels and the labeled ones 1"):
        run_study(plan(labels=gray))


def test_undefined_cells_of_the_table_are_blank(score: Callable[..., Score]) -> None:
    rows = list(csv.reader(table_csv([score(per_seed=(0.5, None))]).splitlines()))
    assert rows[0][-2:] == ["auroc_1", "auroc_2"]
    assert dict(zip(rows[0], rows[1], strict=True))["auroc"] == ""


def check_whole(results: Results, config: CompareConfig) -> None:
    arms = {"thumbnail", *config.arms}
    assert results.matched.ok, results.matched.problems
    assert results.evidence_note is not None
    assert {s.arm for s in results.table} == arms
    assert len(results.table) == len(arms) * 2 * 2
    by_arm = {run.arm: run for run in results.runs}
    assert len({run.initial_hash for run in results.runs}) == 1
    assert by_arm["weak"].order_hash == by_arm["strong"].order_hash
    assert by_arm["weak"].final_hash != by_arm["strong"].final_hash
    assert results.verdict.sentence.endswith("these two networks only.")


@pytest.mark.long
def test_references_methods_and_shares_stand_beside_the_arms(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanlearn.backbones.weights.check_reload", lambda *_: None)
    network = build_backbone(BackboneConfig(name="test_resnet"), 3, seed=5)
    card = Card.of(network, size=32, mean=(0.4,) * 3, std=(0.2,) * 3)
    folder = export_backbone(network, tmp_path / "mine", card)
    dino = {"name": "dino", "local_views": 0, "head_hidden": 8, "head_bottleneck": 4}
    weak = {"scale": 0.5}
    config = plan(
        arms={
            "weak": weak, "strong": {"scale": 1}, "half": {**weak, "share": 0.5},
            "dino": {**weak, "method": {**dino, "num_prototypes": 8}},
            "random": {"kind": "random"},
            "scratch": {"kind": "scratch"},
            "given": {"kind": "backbone", "backbone": str(folder)},
        },
        seeds=[0, 1],
        pretrain={
            "backbone": {"name": "test_resnet"}, "views": {"size": 32}, "batch_size": 4,
            "steps": 1, "device": "cpu",
        },
        evaluation={
            "learners": ["linear", "finetune"], "budgets": ["all"], "folds": 2, "label_seeds": 1,
            "replicates": 200, "tune": {"epochs": 1, "patience": 0},
        },
    )  # fmt: skip
    run_study(config)
    results = read_results(tmp_path / "study")
    assert results.matched.ok, results.matched.problems
    half = "50 % of the patients"
    assert {(s.seed, s.group) for s in results.matched.per_seed} == {
        (seed, group) for seed in (0, 1) for group in ("", half, results.arms[4].group)
    }
    told = {arm.name: arm.scale_text for arm in results.arms}
    assert told["half"] == f"s = 0.5, {half}"
    assert told["dino"].startswith("s = 0.5, dino (local_views 0, ")
    assert (told["given"], told["scratch"]) == ("given weights: mine", "from scratch")
    runs = {(run.arm, run.seed): run for run in results.runs}
    assert runs["given", 0].final_hash == card.weights_hash
    scans = {run.arm: run.conditions["archive.scans"] for run in results.runs if run.steps}
    assert (scans["weak"], scans["half"]) == ("16", "8")
    cells = {(s.arm, s.learner): s for s in results.table}
    assert ("scratch", "linear") not in cells
    assert {len(cells[arm, "finetune"].per_seed) for arm in ("scratch", "given")} == {1}
    assert {len(cells[arm, "finetune"].per_seed) for arm in ("weak", "random")} == {2}
    pairs = {(d.a, d.b) for d in results.differences}
    assert ("given", "weak") in pairs or ("weak", "given") in pairs
    assert not any("scratch" in pair for pair in pairs)
    assert any("given backbone was pretrained on is not known" in w for w in results.warnings)
    text = (tmp_path / "study" / "results.json").read_text()
    assert str(tmp_path) not in text
    page = write_report(tmp_path / "study").read_text()
    assert "given weights: mine" in page
    before = fingerprint(tmp_path / "study")
    assert "scores/pallor/given.npz" in before
    run_study(config)
    assert fingerprint(tmp_path / "study") == before


@pytest.mark.long
def test_a_study_under_a_policy_with_operations_of_ones_own(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sides: list[int] = []
    invert = v2.RandomInvert.transform

    def counted(self: v2.RandomInvert, view: Any, params: Any) -> Any:
        sides.append(view.shape[-1])
        return invert(self, view, params)

    monkeypatch.setattr(v2.RandomInvert, "transform", counted)
    extra = {"name": "torchvision.transforms.v2.RandomInvert", "views": "all"}
    views = {"size": 32, "modality": "xray", "extras": [extra]}
    tune = {"epochs": 1, "patience": 0, "augment": "complex", "extras": [extra]}
    config = plan(
        arms={"weak": {"scale": 0.5}, "strong": {"scale": 1}},
        pretrain={
            "backbone": {"name": "test_resnet"}, "views": views, "batch_size": 8, "steps": 2,
            "device": "cpu",
        },
        evaluation={
            "learners": ["linear", "finetune"], "budgets": ["all"], "folds": 2, "label_seeds": 1,
            "replicates": 200, "tune": tune,
        },
    )  # fmt: skip
    text = write_report(run_study(config)).read_text()
    said = capsys.readouterr().out
    assert "finetune: complex augmentation, scale 0.5 of recipe simclr under modality xray" in said
    assert "of recipe simclr under modality xray, 1 extra operation" in said

    # Two views of 8 scans in 2 steps of 2 arms; then a view of each of 48 scans, in one of two
    # folds, for each arm; and those of the two columns of pictures.
    trained, tuned = 2 * 8 * 2 * 2, 48 * 2
    drawn = len(sides) - trained - tuned
    assert drawn > 0
    assert sides[: trained + tuned] == [32] * (trained + tuned)

    for arm in ("weak", "strong"):
        card = json.loads((tmp_path / f"study/arms/{arm}/seed-0/backbone/card.json").read_text())
        assert card["modality"] == POLICIES["xray"].in_words
        assert card["own_modality"] is None
        assert card["scale"]["acquisition"] == config.arms[arm].dial().crop
        assert [each["name"] for each in card["extras"]] == [extra["name"]]
    results = read_results(tmp_path / "study")
    assert results.matched.ok
    told = {fact.name: fact.value for fact in results.setup}
    assert told["Modality"].startswith("xray (off: flip (a mirrored chest shows situs inversus)")
    assert "extra: torchvision.transforms.v2.RandomInvert" in told["Views"]
    for run in results.runs:
        assert run.conditions["views.modality"] == POLICIES["xray"].in_words
        assert extra["name"] in run.conditions["views.extras"]
    for words in (told["Modality"], told["Views"], told["Evaluation"], "policy xray: "):
        assert words in html.unescape(text)
    assert "changed where the note names a policy" in text


@pytest.mark.long
def test_a_killed_study_goes_on_and_redoes_nothing_finished(plan: Plan, tmp_path: Path) -> None:
    config = plan()
    folder = tmp_path / "study"
    (tmp_path / "study.yaml").write_text(dump_config(config))
    command = [sys.executable, "-c", RUN, str(tmp_path / "study.yaml")]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not (folder / "arms" / "weak" / "seed-0" / "result.json").is_file():
        assert process.poll() is None, "the study ended before it could be killed"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = fingerprint(folder)
    assert any("weak" in name for name in killed)
    assert not (folder / "results.json").exists()

    assert run_study(config) == folder
    done = fingerprint(folder)
    assert {name: done[name] for name in killed if "weak" in name} == {
        name: value for name, value in killed.items() if "weak" in name
    }
    results = read_results(folder)
    check_whole(results, config)

    lost = folder / "scores" / "pallor" / "strong-seed-0.npz"
    lost.unlink()
    (folder / "results.json").unlink()
    run_study(config)
    again = fingerprint(folder)
    name = str(lost.relative_to(folder))
    assert {k: v for k, v in again.items() if k != name} == {
        k: v for k, v in done.items() if k != name
    }
    assert read_results(folder).table == results.table


def test_no_name_in_the_table_is_a_formula(score: Callable[..., Score]) -> None:
    rows = list(csv.reader(table_csv([score(task="=HYPERLINK(1)")]).splitlines()))
    assert rows[1][rows[0].index("task")] == "'=HYPERLINK(1)"


def test_a_given_network_sees_scans_packed_at_its_own_size_and_channels(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANLEARN_CACHE", str(tmp_path / "cache"))
    rng, lines = np.random.default_rng(0), ["path,patient,pallor"]
    (tmp_path / "scans").mkdir()
    pictures = rng.integers(0, 256, (8, 96, 96)).astype(np.uint8)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "scans" / f"{number}.png")
        lines.append(f"{number}.png,p{number},{number % 2}")
    (tmp_path / "scans" / "labels.csv").write_text("\n".join(lines))
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=0)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "rgb.safetensors")
    given = {"name": "resnet10t", "weights": str(tmp_path / "rgb.safetensors")}
    arm = {"kind": "backbone", "backbone": given, "size": 96, "canvas": 96}
    table = str(tmp_path / "scans" / "labels.csv")
    config = plan(
        labels=table,
        unlabeled=table,
        pack={"canvas": 32, "workers": 1, "summary": False},
        arms={"weak": {"scale": 0.5}, "strong": {"scale": 1}, "rgb": arm},
    )
    unlabeled, archives = open_study_archives(config)
    again = packed_again(config, archives)
    assert archives[0].shape == (1, 32, 32)
    assert again["rgb"][0].shape == (3, 96, 96)
    rows, notes = given_rows(config, archives[0], again)
    assert not any("enlarged" in note for note in notes)
    folder = StudyFolder(Path(config.output))
    networks = networks_of(config, folder, rows, unlabeled, archives[0], again)
    features = networks[-1].load().features(networks[-1].archives[0], np.arange(8))
    # As timm would be given them: gray in three channels, standardised by its own mean and std.
    shown = np.repeat(pictures[:, None] / 255, 3, axis=1)
    cfg = network.pretrained_cfg
    mean, std = (np.reshape(cfg[key], (1, 3, 1, 1)) for key in ("mean", "std"))
    with torch.no_grad():
        views = torch.from_numpy((shown - mean) / std).float()
        expected = network.eval()(views).numpy()
    np.testing.assert_allclose(features, expected, atol=1e-4)
    packed = config.model_copy(update={"labels": str(archives[0].path)})
    with pytest.raises(ScanlearnError, match=r"arms\.rgb\.canvas=96 packs .* folder or table"):
        packed_again(packed, archives)
