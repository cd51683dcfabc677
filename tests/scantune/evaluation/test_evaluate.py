from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scanlearn.backbones.weights import load_classifying
from scanlearn.errors import ScanlearnError
from scanlearn.packing.sources import open_archive
from scanlearn.views.modality import POLICIES
from scantune.evaluation import classifier
from scantune.evaluation.evaluate import evaluate
from scantune.evaluation.results import Evaluation
from scantune.evaluation.settings import EvaluateConfig, EvaluateOptions
from scantune.learners.settings import TuneConfig

PHANTOM = "phantom:patients=20,seed=4,size=48x48"
QUICK: dict[str, Any] = {"folds": 2, "label_seeds": 1}
_SAID = ("evaluation.html", "metrics.json", "figures.svg")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cached(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws the phantom once, away from the user's own cache."""
    monkeypatch.setenv("SCANLEARN_CACHE", str(cache))


def refused(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(ScanlearnError) as caught:
        evaluate(*args, **{**QUICK, **kwargs})
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_table_has_a_row_for_each_learner_and_budget(capsys: pytest.CaptureFixture) -> None:
    found = evaluate("thumbnail", PHANTOM, target="pallor", budgets=(10, "all"), **QUICK)
    assert [(row.learner, row.budget) for row in found.table] == [
        ("knn", "10"),
        ("knn", "all"),
        ("linear", "10"),
        ("linear", "all"),
    ]
    for row in found.table:
        assert 0 <= row.low <= row.auroc <= row.high <= 1
        assert np.mean(row.per_fold) == pytest.approx(row.auroc)
    said = capsys.readouterr().out
    assert "pallor: 40 scans of 20 patients" in said
    assert "95 % interval" in said
    assert "no evidence about real scans" in said


def test_a_backbone_folder_and_its_run_are_the_same(exported: Path) -> None:
    folder = evaluate(exported, PHANTOM, target="pallor", learners=("knn",), **QUICK)
    run = evaluate(exported.parent, PHANTOM, target="pallor", learners=("knn",), **QUICK)
    assert folder.inputs == run.inputs
    assert folder.inputs["backbone"]["size"] == 32
    np.testing.assert_array_equal(folder.scores.values, run.scores.values)


def test_references_are_scored_beside_a_backbone(exported: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"target": "pallor", "learners": ("knn", "linear"), **QUICK}
    found = evaluate(exported, PHANTOM, output=tmp_path / "out", keep=False, **options)
    alone = {
        "thumbnail": evaluate("thumbnail", PHANTOM, **options),
        "untrained": evaluate("random:test_resnet", PHANTOM, size=32, references=[], **options),
    }
    for place, row in enumerate(found.table):
        assert [each.name for each in row.references] == ["thumbnail", "untrained"]
        for each in row.references:
            assert each.auroc == pytest.approx(alone[each.name].table[place].auroc, abs=1e-6)
            assert each.difference == pytest.approx(row.auroc - each.auroc)
    assert all(row.references == () for each in alone.values() for row in each.table)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["references"]["untrained"]["architecture"] == "test_resnet"
    assert metrics["named"]["backbone"] == exported.name
    none = evaluate(exported, PHANTOM, references=[], **options)
    assert none.references == {}
    assert all(row.references == () for row in none.table)


def test_a_network_is_tuned_beside_the_probe(tmp_path: Path) -> None:
    options: dict[str, Any] = {"target": "pallor", "size": 32, **QUICK}
    found = evaluate(
        "random:test_resnet",
        PHANTOM,
        learners=("linear", "finetune"),
        tune=TuneConfig(epochs=1, augment="complex"),
        output=tmp_path / "out",
        keep=False,
        **options,
    )
    assert [row.learner for row in found.table] == ["linear", "finetune"]
    assert found.inputs["tune"] == {"epochs": 1, "augment": "complex"}
    assert "finetune" in (tmp_path / "out" / "predictions.csv").read_text()
    assert not (tmp_path / "out" / "classifier").exists()
    alone = evaluate("random:test_resnet", PHANTOM, learners=("linear",), **options)
    np.testing.assert_array_equal(alone.scores.values[0], found.scores.values[0])


def test_a_network_is_tuned_under_the_modality_of_its_pretraining(
    exported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Tried in a fresh process, by a test of its own.
    monkeypatch.setattr(classifier, "check_reload", lambda *_: None)
    folder = tmp_path / "xray"
    shutil.copytree(exported, folder)
    card = json.loads((folder / "card.json").read_text())
    text = POLICIES["xray"].in_words
    (folder / "card.json").write_text(json.dumps({**card, "modality": text}))
    options: dict[str, Any] = {"target": "pallor", "references": [], **QUICK}

    def tuned(backbone: Path, output: str | None = None, **tune: Any) -> Evaluation:
        settings = TuneConfig(epochs=1, scale=1.0, augment="complex", patience=0, **tune)
        out = None if output is None else tmp_path / output
        return evaluate(
            backbone, PHANTOM, learners=("finetune",), tune=settings, output=out, **options
        )

    ruled = tuned(folder, "out")
    assert "recipe simclr under modality xray" in capsys.readouterr().out
    assert ruled.inputs["tune"]["modality"] == "xray"
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["inputs"]["tune"]["modality"] == "xray"
    assert metrics["named"]["pretraining modality"] == text
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert "flip off" in page
    # Whoever tunes the kept network further does so under it too.
    kept = classifier.Classifier(tmp_path / "out" / "classifier").card
    assert kept.views == "complex augmentation, scale 1 of recipe simclr under modality xray"
    assert (kept.modality, kept.own_modality) == (text, None)
    assert load_classifying(tmp_path / "out" / "classifier")[1].views_modality == "xray"
    # Backbones of before are tuned as before; so is one whose user wants the recipe alone.
    before, alone = tuned(exported), tuned(folder, modality=None)
    assert "under modality" not in capsys.readouterr().out
    assert "modality" not in before.inputs["tune"]
    np.testing.assert_array_equal(before.scores.values, alone.scores.values)
    assert not np.array_equal(before.scores.values, ruled.scores.values)
    # Learners on frozen features have no views to change.
    frozen = evaluate(folder, PHANTOM, learners=("knn",), **options)
    assert frozen.inputs["tune"] == {}


def test_the_thumbnail_cannot_be_tuned() -> None:
    message = refused("thumbnail", PHANTOM, target="pallor", learners=("finetune",))
    assert message.startswith("learner 'finetune' needs a network")


def test_another_view_size_is_another_evaluation(exported: Path) -> None:
    options: dict[str, Any] = {"target": "pallor", "learners": ("knn",), **QUICK}
    first = evaluate(exported, PHANTOM, **options)
    second = evaluate(exported, PHANTOM, size=48, **options)
    assert second.inputs["backbone"]["size"] == 48
    assert not np.array_equal(first.scores.values, second.scores.values)


def test_a_random_backbone_is_made_when_asked_for_by_that_name() -> None:
    options: dict[str, Any] = {"target": "null", "learners": ("knn",), "size": 32, **QUICK}
    hashes = [
        evaluate(f"random:test_resnet{seed}", PHANTOM, **options).inputs["backbone"]["weights"]
        for seed in ("", ":0", ":1")
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_given_split_is_one_fold(tmp_path: Path) -> None:
    rows = _table(tmp_path, lambda patient: "train" if patient < 12 else "test")
    found = evaluate("thumbnail", rows, target="pallor", split_column="side", label_seeds=1)
    assert len(found.table[0].per_fold[0]) == 1
    assert found.inputs["folds"] == 1


def test_a_patient_in_both_train_and_test_is_refused(tmp_path: Path) -> None:
    rows = _table(tmp_path, lambda patient: "train" if patient < 12 else "test", leak=True)
    message = refused("thumbnail", rows, target="pallor", split_column="side")
    assert "1 of 20 patients are on both sides" in message


def test_a_missing_column_names_the_users_table_and_the_nearest(tmp_path: Path) -> None:
    message = refused("thumbnail", _table(tmp_path, lambda _: "train"), target="palor")
    assert message.startswith("labels.csv has no column 'palor' (did you mean 'pallor'?)")


def test_a_missing_folder_is_no_random_network(tmp_path: Path) -> None:
    assert "no such backbone folder" in refused(tmp_path / "none", PHANTOM, target="pallor")


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    assert "no backbone yet" in refused(tmp_path, PHANTOM, target="pallor")


def test_a_tampered_backbone_is_refused(exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "backbone"))
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-3] ^= 0xFF
    (folder / "model.safetensors").write_bytes(bytes(data))
    assert "weights do not match the hash" in refused(folder, PHANTOM, target="pallor")


def test_classes_and_columns_are_read_from_the_command_line_as_written() -> None:
    words = {"target": ["a", "b"], "classes": [0, 1, "2"]}
    settings = EvaluateConfig.model_validate(words)
    assert settings.classes == ("0", "1", "2")
    assert settings.target == ("a", "b")


def test_every_setting_is_a_keyword_of_the_function() -> None:
    assert set(EvaluateOptions.__annotations__) == set(EvaluateConfig.model_fields)
    assert next(iter(EvaluateConfig.model_fields)) == "target"


def test_a_keyword_that_is_wrong_is_one_sentence() -> None:
    assert "'folds' is 1" in refused("thumbnail", PHANTOM, target="pallor", folds=1)
    assert "did you mean 'budgets'" in refused("thumbnail", PHANTOM, target="pallor", budget=5)


def test_a_seed_that_is_no_number_is_refused() -> None:
    assert "is not a seed" in refused("random:test_resnet:x", PHANTOM, target="pallor")


def test_scans_without_known_patients_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = _table(tmp_path, lambda _: "train")
    text = rows.read_text().replace("patient_id", "who")
    rows.write_text(text)
    evaluate("thumbnail", rows, target="pallor", learners=("knn",), output=tmp_path / "o", **QUICK)
    captured = capsys.readouterr()
    assert "each scan counts as its own patient" in captured.err
    assert "of 40 patients" not in captured.out
    for text in (captured.out, *((tmp_path / "o" / n).read_text() for n in _SAID)):
        assert "patients unknown; each scan counted as one" in text
    evaluate("thumbnail", rows, target="pallor", learners=("knn",), patient_column="who", **QUICK)
    captured = capsys.readouterr()
    assert "of 20 patients" in captured.out
    assert captured.err == ""


def test_findings_of_a_list_are_scored_and_predicted_each(tmp_path: Path) -> None:
    rows = _table(tmp_path, lambda patient: ("A|B", "B", "No Finding", "")[patient % 4])
    found = evaluate(
        "thumbnail", rows, target="side", learners=("knn",), output=tmp_path / "out", **QUICK
    )
    assert found.labeled.truth.task == "multilabel"
    assert [row.name for row in found.table[0].classes] == ["A", "B"]
    assert found.labeled.num_blank == 10
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["unknown"] == {"A": 0, "B": 0}
    assert metrics["inputs"]["labels"]["classes"] == ["A", "B"]
    lines = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    assert len(lines) == 1 + 30
    assert lines[0].endswith("score_A,score_B")


def test_another_set_is_tested_by_what_was_trained_on_the_labels(tmp_path: Path) -> None:
    rows = _table(tmp_path, lambda _: "")
    others = "phantom:patients=12,seed=9,size=48x48"
    options: dict[str, Any] = {"target": "pallor", "learners": ("knn",), "label_seeds": 2}
    found = evaluate(
        "thumbnail", rows, test=others, budgets=(10, "all"), output=tmp_path / "out", **options
    )
    assert (found.scores.fold_of[:, :40] == -1).all()
    assert (found.scores.fold_of[:, 40:] == 0).all()
    assert found.scores.train_scans[1].tolist() == [[40], [40]]
    assert "synthetic scans have no patients" in " ".join(found.notes)
    tested = open_archive(others)
    lines = (tmp_path / "out" / "predictions.csv").read_text().splitlines()[1:]
    assert {line.split(",")[0] for line in lines} == set(tested.scan_ids)
    alone = evaluate("thumbnail", rows, folds=2, **options)
    assert alone.inputs != found.inputs


def test_a_folder_per_class_needs_no_table(tmp_path: Path) -> None:
    rows = _table(tmp_path, lambda _: "")
    for line in rows.read_text().splitlines()[1:]:
        name, _, label, _ = line.split(",")
        (tmp_path / "classes" / f"grade {label}").mkdir(parents=True, exist_ok=True)
        (tmp_path / name).rename(tmp_path / "classes" / f"grade {label}" / name)
    found = evaluate(
        "thumbnail",
        tmp_path / "classes",
        target="folder",
        folder_labels=True,
        learners=("knn",),
        **QUICK,
    )
    assert found.labeled.classes == ("grade 0", "grade 1")
    assert len(found.labeled) == 40


def test_synthetic_scans_are_counted_and_have_no_prediction(tmp_path: Path) -> None:
    rows = _table(tmp_path, lambda patient: "yes" if patient < 5 else "")
    output = tmp_path / "out"
    evaluate(
        "thumbnail",
        rows,
        target="pallor",
        synthetic_column="side",
        learners=("knn",),
        output=output,
        **QUICK,
    )
    metrics = json.loads((output / "metrics.json").read_text())
    assert (metrics["scans"], metrics["synthetic"], metrics["patients"]) == (30, 10, 15)
    assert len((output / "predictions.csv").read_text().splitlines()) == 1 + 30


@pytest.mark.parametrize("many", [False, True])
def test_arrays_of_medmnist_are_scored_by_their_split(tmp_path: Path, many: bool) -> None:
    rng, arrays = np.random.default_rng(0), {}
    for split, number in (("train", 20), ("val", 6), ("test", 10)):
        labels = np.tile(np.arange(number)[:, None] % 2, (1, 3 if many else 1))
        arrays[f"{split}_images"] = rng.integers(0, 255, (number, 28, 28)).astype(np.uint8)
        arrays[f"{split}_labels"] = labels.astype(np.uint8)
    np.savez_compressed(tmp_path / "mnist.npz", **arrays)
    found = evaluate(
        "thumbnail",
        tmp_path / "mnist.npz",
        target=("label_0", "label_1", "label_2") if many else "label",
        split_column="split",
        learners=("knn",),
        label_seeds=1,
    )
    assert found.scores.train_scans.tolist() == [[[26]]]
    assert int((found.scores.fold_of == 0).sum()) == 10
    assert "6 scans that 'split' marks as validation are used" in found.notes[0]


@pytest.mark.long
@pytest.mark.skipif(
    "SCANLEARN_DATA" not in os.environ, reason="SCANLEARN_DATA does not name the real scans"
)
def test_a_thumbnail_of_real_scans_scores_what_is_known_of_it() -> None:
    table = Path(os.environ["SCANLEARN_DATA"]) / "nih1000" / "manifest.csv"
    found = evaluate("thumbnail", table, target="pneumonia", budgets=(50, 100, "all"))
    auroc = {row.budget: row.auroc for row in found.table if row.learner == "linear"}
    assert auroc["all"] == pytest.approx(0.84, abs=0.03)
    assert auroc["100"] == pytest.approx(0.78, abs=0.05)
    assert auroc["50"] == pytest.approx(0.72, abs=0.08)


def _table(folder: Path, side: Any, leak: bool = False) -> Path:
    """Writes the phantom's scans as PNG files with a table of labels."""
    from PIL import Image

    archive = open_archive(PHANTOM)
    batch = archive.gather(np.arange(len(archive)))
    patients = np.unique(archive.patients, return_inverse=True)[1]
    lines = ["path,patient_id,pallor,side"]
    for row, label in enumerate(archive.labels("pallor")):
        Image.fromarray(batch.pixels[row].permute(1, 2, 0).numpy()).save(folder / f"{row}.png")
        where = "test" if leak and row == 0 else side(patients[row])
        lines.append(f"{row}.png,p{patients[row]},{label},{where}")
    table = folder / "labels.csv"
    table.write_text("\n".join(lines) + "\n")
    return table
