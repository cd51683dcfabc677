from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from scanlearn.archive.layout import Origin, PackedScan
from scanlearn.archive.reader import Archive
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.backbones.backbone import Backbone, BackboneConfig, build_backbone
from scanlearn.backbones.card import Card
from scanlearn.backbones.weights import export_backbone
from scanlearn.config.loading import call
from scanlearn.errors import ScanlearnError
from scanlearn.features.embed import embed
from scanlearn.features.extract import extract, whole_scans
from scanlearn.features.tokens import Tokens

MEAN, STD = (0.5,), (0.25,)
NETWORKS = ("test_resnet", "test_vit", "swin_tiny_patch4_window7_224")


@pytest.fixture(autouse=True)
def _no_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    # Starting a process that imports timm takes seconds; the export's own tests do it.
    monkeypatch.setattr("scanlearn.backbones.weights.check_reload", lambda *_: None)


@pytest.fixture(scope="session")
def labeled(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    path = tmp_path_factory.mktemp("labeled") / "scans"
    generator = np.random.default_rng(0)
    with ArchiveWriter(
        path, shape=(1, 48, 48), dtype=np.uint8, label_columns=("grade", "site")
    ) as writer:
        for index in range(12):
            coarse = generator.integers(0, 256, (1, 6, 6), dtype=np.uint8)
            scan = PackedScan(coarse.repeat(8, 1).repeat(8, 2))
            labels = {"grade": str(index % 3), "site": None if index < 4 else "north"}
            writer.add(scan, Origin(f"s{index}", f"p{index // 2}", labels))
        return writer.close()


def exported(folder: Path, name: str) -> tuple[Path, Backbone]:
    backbone = build_backbone(BackboneConfig(name=name), 1, 0, size=32).eval()
    card = Card.of(backbone, size=32, mean=MEAN, std=STD, method="simclr", recipe="simclr")
    return export_backbone(backbone, folder / name, card), backbone


def views_of(archive: Archive) -> torch.Tensor:
    rows = np.arange(len(archive))
    return torch.cat(
        [v for _, v in whole_scans(archive, rows, 32, MEAN, STD, 5, torch.device("cpu"))]
    )


def vectors(table: Path, column: str = "embedding") -> np.ndarray:
    values = pq.read_table(table)[column].combine_chunks()
    return np.asarray(values.flatten()).reshape(len(values), -1)


def test_the_table_holds_the_features_that_evaluate_scores(
    labeled: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, backbone = exported(tmp_path, "test_resnet")
    path = call(
        embed, folder, labeled.path,
        overrides=[f"output={tmp_path / 'out'}", "columns=[site]", "colour=grade", "queries=3"],
    )  # fmt: skip
    table = pq.read_table(path)
    assert table.column_names == ["scan_id", "patient", "site", "grade", "embedding"]
    assert table["scan_id"].to_pylist() == labeled.scan_ids.tolist()
    assert table["patient"].to_pylist() == labeled.patients.tolist()
    assert table["site"].to_pylist() == [None] * 4 + ["north"] * 8
    expected = extract(backbone, labeled, size=32, mean=MEAN, std=STD)
    np.testing.assert_array_equal(vectors(path), expected)
    facts = json.loads(table.schema.metadata[b"scanlearn"])
    assert (facts["archive"], facts["pool"], facts["size"]) == (
        labeled.content_hash,
        "backbone",
        32,
    )
    page = (path.parent / "map.html").read_text()
    assert page.count("<circle") == 12
    assert "coloured by grade" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert (path.parent / "neighbours.png").read_bytes().startswith(b"\x89PNG")
    assert "has the same value of grade for" in capsys.readouterr().out
    assert not [file for file in path.parent.iterdir() if file.name.endswith(".part")]


def test_a_table_is_packed_as_the_archive_that_the_backbone_was_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANLEARN_CACHE", str(tmp_path / "cache"))
    backbone = build_backbone(BackboneConfig(name="test_resnet"), 1, 0, size=32).eval()
    card = Card.of(
        backbone, size=32, mean=MEAN, std=STD, method="simclr", recipe="simclr",
        packing={"canvas": 40, "channels": 1},
    )  # fmt: skip
    folder = export_backbone(backbone, tmp_path / "backbone", card)
    generator = np.random.default_rng(0)
    for number in range(3):
        pixels = generator.integers(0, 256, (90, 60), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "t.csv").write_text("path,patient\n0.png,a\n1.png,b\n2.png,c\n")
    embed(folder, tmp_path / "t.csv", output=tmp_path / "out", map_scans=0, queries=0)
    (packed,) = (tmp_path / "cache").glob("*/archive.json")
    assert Archive(packed.parent).shape == (1, 40, 40)


@pytest.mark.parametrize("name", NETWORKS)
def test_patches_and_pools_are_those_of_the_network(
    name: str, labeled: Archive, tmp_path: Path
) -> None:
    folder, backbone = exported(tmp_path, name)
    views = views_of(labeled)
    with torch.no_grad():
        pooled, features = backbone(views), backbone.network.forward_features(views)  # type: ignore[operator]
        tokens = Tokens.of(backbone, views)
    torch.testing.assert_close(tokens.pooled, pooled)
    path = embed(
        folder, labeled.path, output=tmp_path / name, patches=True, pool="mean", batch_size=5,
        map_scans=0, queries=0,
    )  # fmt: skip
    # By hand: a grid of [b c h w], of [b h w c], or tokens after the class token.
    if name == "test_resnet":
        grid = [
            [features[:, :, y, x] for x in range(features.shape[3])]
            for y in range(features.shape[2])
        ]
    elif name == "test_vit":
        grid = [[features[:, 1 + place] for place in range(features.shape[1] - 1)]]
    else:
        grid = [
            [features[:, y, x] for x in range(features.shape[2])] for y in range(features.shape[1])
        ]
    patches = torch.stack([vector for row in grid for vector in row], 1).numpy()
    np.testing.assert_allclose(
        vectors(path, "patches").reshape(patches.shape), patches, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(vectors(path), patches.mean(1), rtol=1e-4, atol=1e-5)
    assert json.loads(pq.read_schema(path).metadata[b"scanlearn"])["patches"] == [
        *patches.shape[1:]
    ]
    assert not (tmp_path / name / "map.html").exists()
    if name == "test_vit":
        first = embed(folder, labeled.path, output=tmp_path / "first", pool="class", map_scans=0)
        np.testing.assert_allclose(vectors(first), features[:, 0].numpy(), rtol=1e-4, atol=1e-5)
    else:
        with pytest.raises(ScanlearnError, match="has no class token; take backbone"):
            embed(folder, labeled.path, output=tmp_path / "first", pool="class")


def test_a_wrong_column_or_output_is_one_sentence(labeled: Archive, tmp_path: Path) -> None:
    folder, _ = exported(tmp_path, "test_resnet")
    with pytest.raises(ScanlearnError, match=r"no label column 'grad' .did you mean 'grade'"):
        embed(folder, labeled.path, output=tmp_path / "out", colour="grad")
    with pytest.raises(ScanlearnError, match="is to be a folder"):
        embed(folder, labeled.path, output=tmp_path / "out.parquet")
    assert not (tmp_path / "out").exists()
