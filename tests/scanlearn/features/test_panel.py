from __future__ import annotations

import csv
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import Backbone, BackboneConfig, build_backbone
from scanlearn.backbones.card import Card
from scanlearn.backbones.weights import export_backbone
from scanlearn.config.loading import call
from scanlearn.errors import ScanlearnError
from scanlearn.features import labelfree
from scanlearn.features import panel as panel_module
from scanlearn.features.panel import MEANINGS, Panel, panel
from scanlearn.views.modality import POLICIES, OwnModality

CALM: dict[str, Any] = {
    "name": "calm: child", "like": "xray", "crop_floor": None,
    "operations": {"rotation_deg": [2.0, 4.0]},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    # Starting a process that imports timm takes seconds; the export's own tests do it.
    monkeypatch.setattr("scanlearn.backbones.weights.check_reload", lambda *_: None)


def exported(
    folder: Path, backbone: Backbone, recipe: str | None = "simclr", **origin: object
) -> Path:
    card = Card.of(
        backbone, size=32, mean=(0.5,) * backbone.channels, std=(0.25,) * backbone.channels,
        method="simclr", recipe=recipe, **origin,
    )  # fmt: skip
    return export_backbone(backbone, folder, card)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    backbone = build_backbone(BackboneConfig(name="test_resnet"), 1, 0)
    return exported(tmp_path / "backbone", backbone)


def test_every_measure_is_that_of_its_function() -> None:
    views = np.random.default_rng(0).standard_normal((30, 4, 6)).astype(np.float32)
    found = Panel.of(views)
    assert found.rankme == labelfree.rankme(views[:, 0])
    assert found.lidar == labelfree.lidar(views)
    assert found.alpha == labelfree.alpha_req(views[:, 0])
    assert found.alignment == labelfree.alignment(views)
    assert found.uniformity == labelfree.uniformity(views[:, 0])
    assert found.embedding_std == labelfree.embedding_std(views[:, 0])
    assert found.silhouette == labelfree.silhouette(views)


def test_the_silhouette_is_made_of_as_many_scans_whatever_the_features(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    views = np.random.default_rng(0).standard_normal((30, 4, 6))
    monkeypatch.setattr(panel_module, "SILHOUETTE_SCANS", 8)
    assert Panel.of(views).silhouette == labelfree.silhouette(views[:8])


def test_every_measure_is_explained() -> None:
    assert list(MEANINGS) == [field.name for field in fields(Panel)]


def test_the_table_names_views_and_measures(
    archive: Archive, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = panel(folder, archive.path, views=4)
    printed = capsys.readouterr().out
    assert "on 12 scans x 4 views: simclr at scale 0.5, 32 px, seed 0" in printed
    for name, value in asdict(found).items():
        assert f"{name:14} {value:8.3f}" in printed
    assert "fewer scans than features (96)" in printed
    assert max(map(len, printed.replace(str(folder), "").splitlines())) <= 100


def test_the_same_backbone_has_the_same_panel(archive: Archive, folder: Path) -> None:
    assert panel(folder, archive.path, views=3) == panel(folder, archive.path, views=3)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"scale": "strong"},
        {"recipe": "byol"},
        {"size": 24},
        {"operations": {"crop": "off"}},
        {"modality": "xray"},
    ],
)
def test_every_option_changes_the_views(
    archive: Archive, folder: Path, changes: dict[str, object]
) -> None:
    assert panel(folder, archive.path, views=3, **changes) != panel(  # type: ignore[arg-type]
        folder, archive.path, views=3
    )


@pytest.mark.parametrize(
    ("origin", "given", "name"),
    [
        ({"modality": POLICIES["xray"].in_words}, "xray", "xray"),
        (
            {"modality": OwnModality(**CALM).build().in_words, "own_modality": CALM},
            OwnModality(**CALM),
            "calm: child",
        ),
        ({}, None, "none"),
    ],
)
def test_the_views_are_under_the_modality_of_the_backbone(
    archive: Archive,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    origin: dict[str, object],
    given: str | OwnModality | None,
    name: str,
) -> None:
    backbone = build_backbone(BackboneConfig(name="test_resnet"), 1, 0)
    folder = exported(tmp_path / "backbone", backbone, **origin)
    own = panel(folder, archive.path, views=3, output=tmp_path / "panel.json")
    assert (f"under modality {name}" in capsys.readouterr().out) == (name != "none")
    written = json.loads((tmp_path / "panel.json").read_text())
    assert (written["modality"], written["policy"]) == (name, origin.get("modality", "none"))
    assert panel(folder, archive.path, views=3, modality=given) == own
    pure = panel(folder, archive.path, views=3, modality=None)
    assert (pure == own) == (name == "none")


def test_the_panel_leaves_out_what_the_scans_do_not_allow(
    archive: Archive, folder: Path, tmp_path: Path
) -> None:
    """The scans are no CT in a window of Hounsfield units."""
    panel(folder, archive.path, views=2, modality="ct", output=tmp_path / "panel.json")
    written = json.loads((tmp_path / "panel.json").read_text())["policy"]
    assert "noise_std" in written
    assert "window" not in written


def test_a_collapsed_backbone_is_told_from_a_sound_one(archive: Archive, tmp_path: Path) -> None:
    sound = build_backbone(BackboneConfig(name="test_resnet"), 1, 0)
    flat = build_backbone(BackboneConfig(name="test_resnet"), 1, 0)
    with torch.no_grad():
        for name, parameter in flat.named_parameters():
            if parameter.ndim == 4:
                parameter.zero_()
            elif name.endswith("bias"):
                parameter.fill_(1.0)
    healthy = panel(exported(tmp_path / "a", sound), archive.path)
    collapsed = panel(exported(tmp_path / "b", flat), archive.path)
    assert collapsed.embedding_std == pytest.approx(0, abs=1e-5)
    assert collapsed.rankme == pytest.approx(1, abs=1e-3)
    assert collapsed.lidar == 0
    assert collapsed.embedding_std < healthy.embedding_std
    assert healthy.lidar > 1


def test_the_panel_is_written_as_json(archive: Archive, folder: Path, tmp_path: Path) -> None:
    found = panel(folder, archive.path, views=3, output=tmp_path / "out" / "panel.json")
    written = json.loads((tmp_path / "out" / "panel.json").read_text())
    assert written["panel"] == asdict(found)
    assert written["archive"] == archive.content_hash
    assert (written["recipe"], written["scale"], written["size"]) == ("simclr", "0.5", 32)
    assert (written["scans"], written["views"], written["seed"]) == (12, 3, 0)


def test_the_panel_is_written_as_csv(archive: Archive, folder: Path, tmp_path: Path) -> None:
    found = panel(folder, archive.path, views=3, output=tmp_path / "panel.csv")
    with (tmp_path / "panel.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["lidar"]) == found.lidar
    assert row["architecture"] == "test_resnet"


def test_another_ending_is_refused_before_any_work(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(ScanlearnError, match=r"must end in \.json or \.csv"):
        panel(tmp_path / "missing", archive.path, output="panel.txt")


def test_a_backbone_without_a_recipe_asks_for_one(archive: Archive, tmp_path: Path) -> None:
    backbone = build_backbone(BackboneConfig(name="test_resnet"), 1, 0)
    folder = exported(tmp_path / "backbone", backbone, recipe=None)
    with pytest.raises(ScanlearnError, match="its card names no recipe"):
        panel(folder, archive.path)
    assert panel(folder, archive.path, recipe="simclr", views=2).rankme > 1


def test_words_of_the_command_line_are_checked(archive: Archive, folder: Path) -> None:
    found = call(panel, folder, archive.path, overrides=["views=3", "scale=weak", "scans=7"])
    assert found == panel(folder, archive.path, views=3, scans=7)
    with pytest.raises(ScanlearnError, match="views"):
        call(panel, folder, archive.path, overrides=["views=1"])
    with pytest.raises(ScanlearnError, match="did you mean 'scans'"):
        call(panel, folder, archive.path, overrides=["scan=7"])
