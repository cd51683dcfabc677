from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from scanlearn.backbones import weights
from scanlearn.backbones.backbone import BackboneConfig, build_backbone
from scanlearn.backbones.card import Card
from scanlearn.backbones.weights import export_backbone, load_backbone
from scanlearn.errors import ScanlearnError
from scanlearn.features import extract as extraction
from scanlearn.features.extract import extract
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings
from scanlearn.packing.sources import open_archive
from scantune.evaluation.classifier import Classifier
from scantune.evaluation.evaluate import evaluate
from scantune.evaluation.predict import predict
from scantune.labels.labeled_set import read_labels
from scantune.learners.frozen import LinearFit, fit_linear
from scantune.learners.learner import LabeledFeatures
from scantune.learners.ncm import fit_ncm
from scantune.learners.settings import TuneConfig


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two kinds with a table, an exported backbone and an evaluation of it."""
    folder = tmp_path_factory.mktemp("predict")
    rng = np.random.default_rng(0)
    rows = ["path,patient,bright"]
    for index in range(40):
        pixels = rng.integers(0, 120, (40, 36)) + 100 * (index % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index:02d}.png")
        rows.append(f"{index:02d}.png,p{index // 4},{index % 2}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    backbone = build_backbone(BackboneConfig(name="test_resnet"), 1, 0)
    card = Card.of(backbone, size=32, mean=(0.4,), std=(0.25,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "check_reload", lambda *_: None)
        patch.setenv("SCANLEARN_CACHE", str(folder / "cache"))
        exported = export_backbone(backbone, folder / "exported", card)
        evaluate(
            exported,
            folder / "labels.csv",
            target="bright",
            folds=2,
            label_seeds=1,
            output=folder / "scores",
        )
    return folder


@pytest.fixture(autouse=True)
def cached(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANLEARN_CACHE", str(workplace / "cache"))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_new_scans_get_a_row_with_file_probabilities_and_calls(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = workplace / "new"
    new.mkdir()
    rng = np.random.default_rng(1)
    for name, offset in (("dark", 0), ("light", 100)):
        pixels = rng.integers(0, 120, (50, 40)) + offset
        Image.fromarray(pixels.astype(np.uint8)).save(new / f"{name}.png")
    (new / "broken.png").write_text("no picture")
    found = predict(workplace / "scores" / "classifier", new, output=str(workplace / "new.csv"))
    rows = read(workplace / "new.csv")
    assert [row["file"] for row in rows] == ["dark.png", "light.png"]
    assert [row["most_probable"] for row in rows] == ["0", "1"]
    assert [row["called_1"] for row in rows] == ["0", "1"]
    assert [float(row["probability_1"]) for row in rows] == pytest.approx(found[:, 1], rel=1e-5)
    said = capsys.readouterr()
    assert "2 scans by their most probable bright (0: 1, 1: 1)" in said.out
    assert "1 scan could not be read" in said.err


@pytest.mark.parametrize(("learner", "fit_learner"), [("linear", fit_linear), ("ncm", fit_ncm)])
def test_prediction_is_the_kept_learner_on_the_backbones_features(
    workplace: Path, tmp_path: Path, learner: str, fit_learner: Callable[..., LinearFit]
) -> None:
    labels, exported = workplace / "labels.csv", workplace / "exported"
    options: dict[str, Any] = {"target": "bright", "folds": 2, "label_seeds": 1}
    evaluate(exported, labels, learners=(learner,), output=tmp_path / "scores", **options)
    model = tmp_path / "scores" / "classifier"
    scores = predict(model, labels, output=tmp_path / "same.csv", files=False)
    assert "file" not in read(tmp_path / "same.csv")[0]
    archive = open_archive(labels)
    backbone, card = load_backbone(exported)
    features = extract(backbone, archive, size=32, mean=card.mean, std=card.std)
    data = read_labels(archive, "bright")
    fit = fit_learner(LabeledFeatures(features, data.truth, data.patients), features)
    np.testing.assert_allclose(scores, fit.scores, atol=1e-5)


def test_findings_are_called_each_at_its_threshold_and_none_is_the_most_probable(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, lines = workplace / "findings.csv", ["path,patient,found"]
    for index in range(40):
        patient = index // 4
        found = ["light"] * (index % 2) + ["late"] * (patient % 2)
        lines.append(f"{index:02d}.png,p{patient},{'|'.join(found) or 'No Finding'}")
    table.write_text("\n".join(lines) + "\n")
    evaluate(
        workplace / "exported",
        table,
        target="found",
        folds=2,
        label_seeds=1,
        output=tmp_path / "out",
    )
    predict(tmp_path / "out" / "classifier", table, output=tmp_path / "found.csv")
    rows = read(tmp_path / "found.csv")
    assert "most_probable" not in rows[0]
    assert {"probability_late", "probability_light", "called_light"} <= set(rows[0])
    calls = sum(int(row["called_light"]) for row in rows)
    assert f"light: {calls})" in capsys.readouterr().out


def write_dicom(path: Path, value: int, modality: str) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{path.stem}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, f"1.2.3.{path.stem}"
    data.Modality, data.PatientID = modality, path.stem
    data.Rows = data.Columns = 16
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.PixelData = np.full((16, 16), value, np.uint8).tobytes()
    data.save_as(path, enforce_file_format=True)


def test_filters_of_the_classifiers_scans_choose_new_ones_or_a_warning_names_them(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    rows = ["path,bright,site"]
    for index in range(24):
        write_dicom(scans / f"{index}.dcm", 60 + index + 90 * (index % 2), "CR")
        rows.append(f"{index}.dcm,{index % 2},{'north' if index < 20 else 'south'}")
    (scans / "labels.csv").write_text("\n".join(rows) + "\n")
    write_dicom(scans / "24.dcm", 90, "MR")
    keep = {"Modality": ("C*",), "site": ("north",)}
    packed = pack(scans / "labels.csv", tmp_path / "packed", settings=PackSettings(keep=keep))
    assert len(packed) == 20
    options: dict[str, Any] = {"target": "bright", "folds": 2, "label_seeds": 1}
    evaluate(workplace / "exported", packed.path, output=tmp_path / "scores", **options)
    model = tmp_path / "scores" / "classifier"
    capsys.readouterr()
    assert len(predict(model, scans, output=tmp_path / "chosen.csv")) == 24
    chosen = " ".join(capsys.readouterr().err.split())
    assert "1 files were left out by keep.Modality" in chosen
    assert "were not chosen by keep.site, as the classifier's training scans were" in chosen
    assert len(predict(model, scans, output=tmp_path / "all.csv", filters=False)) == 25
    assert "left out" not in capsys.readouterr().err
    everything = pack(scans, tmp_path / "everything")
    assert len(predict(model, everything.path, output=tmp_path / "all.csv")) == 25
    told = " ".join(capsys.readouterr().err.split())
    assert "were not chosen by keep.Modality, keep.site" in told


def test_archive_of_other_channels_is_one_clear_sentence(workplace: Path) -> None:
    model = workplace / "scores" / "classifier"
    with pytest.raises(ScanlearnError, match="pack them with channels=1"):
        predict(model, "phantom:patients=2,seed=0,size=32x32", output=workplace / "x.csv")
    assert not (workplace / "x.csv").exists()
    with pytest.raises(ScanlearnError, match="not a classifier"):
        predict(workplace / "scores", workplace / "labels.csv", output=workplace / "x.csv")


def test_archive_without_its_paths_is_told_before_any_work_and_how_to_go_on(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, output = workplace / "scores" / "classifier", tmp_path / "x.csv"
    packed = pack(workplace / "labels.csv", tmp_path / "packed", settings=PackSettings(channels=1))
    (packed.path / "paths.csv").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(extraction, "extract", lambda *_, **__: pytest.fail("worked before asking"))
        with pytest.raises(ScanlearnError, match=r"paths\.csv.*files=false"):
            predict(model, packed.path, output=output)
    predict(model, packed.path, output=output, files=False)
    assert "file" not in read(output)[0]


@pytest.mark.long
def test_a_tuned_network_is_kept_and_predicts_as_it_was_scored(workplace: Path) -> None:
    labels, output = workplace / "labels.csv", workplace / "tuned"
    evaluation = evaluate(
        workplace / "exported",
        labels,
        target="bright",
        learners=("linear", "finetune"),
        folds=2,
        label_seeds=1,
        tune=TuneConfig(epochs=12, augment="complex", learning_rate=0.02, batch=8),
        output=output,
    )
    assert [row.learner for row in evaluation.table] == ["linear", "finetune"]
    assert evaluation.table[1].auroc > 0.9
    assert any("finetune with all labels" in n and "50" in n for n in evaluation.notes)
    found = predict(output / "classifier", labels, output=workplace / "tuned.csv")
    bright = [row["most_probable"] for row in read(workplace / "tuned.csv")]
    assert np.mean([name == str(row % 2) for row, name in enumerate(bright)]) > 0.9
    network = timm.create_model(f"local-dir:{output / 'classifier'}", pretrained=True).eval()
    assert network.num_classes == found.shape[1] == 2


def test_a_classifier_of_a_phantom_predicts_on_another_and_on_pictures(workplace: Path) -> None:
    evaluate(
        workplace / "exported",
        "phantom:patients=12,seed=0,size=32x32",
        target="pallor",
        folds=2,
        label_seeds=1,
        output=workplace / "phantom",
    )
    model = workplace / "phantom" / "classifier"
    assert Classifier(model).card.packing == {}
    for scans in ("phantom:patients=3,seed=1,size=32x32", workplace / "labels.csv"):
        output = workplace / "phantom.csv"
        assert len(predict(model, scans, output=output)) == len(read(output)) > 0


def test_a_classifier_of_squeezed_scans_goes_on_seeing_them_so_and_says_it(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, model = workplace / "labels.csv", tmp_path / "model"
    shutil.copytree(workplace / "scores" / "classifier", model)
    card = json.loads((model / "classifier.json").read_text())
    assert card.pop("framing") == "pad"
    (model / "classifier.json").write_text(json.dumps(card))
    archive = open_archive(labels)
    backbone = load_backbone(workplace / "exported")[0]
    view = {"size": 32, "mean": card["mean"], "std": card["std"]}
    squeezed = extract(backbone, archive, **view, framing="squeeze")
    found = predict(model, labels, output=tmp_path / "scores.csv", files=False)
    np.testing.assert_allclose(found, Classifier(model).probabilities(squeezed), atol=1e-5)
    assert capsys.readouterr().err.count("scans squeezed into a square") == 1


def test_a_backbone_of_squeezed_views_is_evaluated_as_others_are_and_says_it(
    workplace: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    shutil.copytree(workplace / "exported", old)
    card = json.loads((old / "card.json").read_text())
    assert card.pop("framing") == "pad"
    (old / "card.json").write_text(json.dumps(card))
    options: dict[str, Any] = {"target": "bright", "folds": 2, "label_seeds": 1}
    found, new = (
        evaluate(folder, workplace / "labels.csv", **options)
        for folder in (old, workplace / "exported")
    )
    np.testing.assert_array_equal(found.scores.values, new.scores.values)
    assert [note for note in found.notes if "keep their aspect" in note]
    assert not [note for note in new.notes if "keep their aspect" in note]
    assert found.inputs["framing"] == "pad"
