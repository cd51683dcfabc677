from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from scanlearn.cli import app
from scanlearn.config import load_config, parse_value
from scanlearn.errors import ScanlearnError
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings
from scanlearn.tables.settings import TableSettings
from scanlearn.training.init import init
from scanlearn.training.settings import PretrainConfig


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """24 unlabeled scans, and 24 others of twelve patients with a table."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    lines = ["path,patient_id,finding,age"]
    for name in ("scans", "labeled"):
        (tmp_path / name).mkdir()
        for index in range(24):
            pixels = generator.integers(0, 256, (40, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{name}{index}.png")
    for index in range(24):
        lines.append(f"labeled/labeled{index}.png,p{index // 2},{index // 2 % 2},{20 + index}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def told(*words: str) -> str:
    done = CliRunner().invoke(app, ["init", *words])
    return str(done.exception) if done.exception else done.output


def test_without_labels_it_is_a_run_that_pretrain_takes(folder: Path) -> None:
    assert told("scans", "output=run.yaml", "gpu=false") == (
        "wrote run.yaml; next: scanlearn pretrain run.yaml --dry-run, which says what it takes, "
        "then scanlearn pretrain run.yaml\n"
    )
    config = load_config(PretrainConfig, folder / "run.yaml", kind="pretrain")
    config.check_inputs()
    assert (config.archive, config.backbone.name, config.views.size) == ("scans", "resnet10t", 64)
    assert config.views.modality is None
    text = (folder / "run.yaml").read_text()
    assert "# Seen: 24 scans of unknown patients." in text
    assert sum(line.lstrip().startswith("#") for line in text.splitlines()) >= 6


def test_with_labels_it_is_a_study_of_the_column_that_is_there(folder: Path) -> None:
    path = init("scans", labels="labels.csv", modality="xray", gpu=True)
    plan = parse_value(path.read_text())
    assert path == Path("study.yaml")
    assert (plan["unlabeled"], plan["labels"], plan["tasks"]) == (
        "scans",
        "labels.csv",
        ["finding"],
    )
    assert plan["pretrain"]["views"]["modality"] == "xray"
    assert plan["pretrain"]["backbone"]["name"] == "resnet50"
    # Twelve patients, six of each class: five folds; a budget of 50 scans is not there.
    assert (plan["evaluation"]["folds"], plan["evaluation"]["budgets"]) == (5, ["all"])
    assert plan["leaks"] == "refuse"
    assert "(0: 12, 1: 12)" in path.read_text()
    same = init("labels.csv", column="finding", output=folder / "same.yaml")
    assert parse_value(same.read_text())["leaks"] == "warn"
    (folder / "both").mkdir()
    for name in ("scans", "labeled"):
        (folder / name).rename(folder / "both" / name)
    labels = (folder / "labels.csv").read_text().replace("labeled/", "both/labeled/")
    (folder / "labels.csv").write_text(labels)
    part = init("both", labels="labels.csv", output=folder / "part.yaml")
    assert parse_value(part.read_text())["leaks"] == "drop"


def test_a_reading_list_without_paths_labels_an_archive(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["Patient,finding", *(f"p{index},{'yes' if index % 2 else 'no'}" for index in range(12))]
    (folder / "list.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(ScanlearnError, match=r"names scans by their patient \('Patient'\)"):
        init("labeled", labels="list.csv")
    (folder / "files.csv").write_text("Datei,Patient,finding\nlabeled/labeled0.png,p0,no\n")
    with pytest.raises(ScanlearnError, match="name one of its columns with path_column: Datei"):
        init("scans", labels="files.csv")
    source = PackSettings(summary=False, canvas=16, workers=1)
    pack("labels.csv", "all", settings=source)
    plan = parse_value(init("all", labels="list.csv", output=folder / "whole.yaml").read_text())
    assert (plan["label_columns"], plan["leaks"]) == ({"root": "all"}, "warn")
    assert (plan["tasks"], plan["pack"]) == (["finding"], {"channels": "auto"})
    # A table whose files have another usual name is no reading list.
    (folder / "own.csv").write_text(
        (folder / "labels.csv").read_text().replace("path,", "image_path,", 1)
    )
    own = init("all", labels="own.csv", output=folder / "own.yaml")
    assert "label_columns" not in parse_value(own.read_text())
    # Unlabeled scans may lie in a folder beside it.
    beside = init(
        "scans", labels="list.csv", table=TableSettings(root=Path("all")), output=Path("b")
    )
    assert parse_value(beside.read_text())["leaks"] == "refuse"
    (folder / "list.csv").write_text("\n".join(rows[:9]) + "\n")
    part = init("all", labels="list.csv", output=folder / "part.yaml").read_text()
    assert parse_value(part)["leaks"] == "drop"
    assert "# 16 labeled scans are among these" in part
    assert '"finding" of 16 of them (no: 8, yes: 8)' in part
    assert "joined to all by 'Patient'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["scans", "labels=labels.csv", "column=findin"], "no column 'findin' (did you mean 'find"),
        (["scans", "labels=labels.csv", "column=age"], "needs two classes of two patients each"),
        (["scans", "labels=scans"], "does not say what to predict; it has none of a few classes"),
        (["scans", "modality=xry"], "'xry' is none of"),
        (["scns"], "did you mean 'scans'?"),
        (["phantom:patients=3"], "try scantune compare demo"),
        (["labels.csv", "output=labels.csv"], "is there already"),
        ([], "name the scans, as in scanlearn init SCANS"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(folder: Path, words: list[str], sentence: str) -> None:
    assert sentence in told(*words)
    assert not (folder / "study.yaml").exists()


def test_it_asks_five_questions_where_a_person_can_answer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = iter(["scans", "labels.csv", "finding", "auto", "false"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.prompt", lambda *_, **__: next(asked))
    from scanlearn.cli import init_command

    init_command()
    assert parse_value((folder / "study.yaml").read_text())["tasks"] == ["finding"]
    assert next(asked, None) is None


@pytest.mark.parametrize(
    ("examined", "kind"),
    [
        (("CR CHEST", "CR CHEST"), "xray"),
        (("CR CHEST", "CT HEAD"), None),
        (("CR CHEST", " "), None),
    ],
)
def test_a_plan_names_a_modality_of_tags_only_where_all_agree(
    examined: tuple[str, ...], kind: str | None, tmp_path: Path, make_dicom: Callable[..., Path]
) -> None:
    (tmp_path / "d").mkdir()
    for place, each in enumerate(examined):
        modality, part = each.split(" ")
        tags = {"Modality": modality, "BodyPartExamined": part}
        make_dicom(np.zeros((4, 5), np.uint8), f"d/{place}.dcm", **tags)
    plan = init(tmp_path / "d", output=tmp_path / "p.yaml")
    assert parse_value(plan.read_text())["views"]["modality"] == kind


def test_an_unknown_modality_names_those_there_are() -> None:
    with pytest.raises(ScanlearnError, match="fundus"):
        init("anything", modality="eye")
