from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scanlearn.backbones import weights
from scanlearn.backbones.build import BackboneConfig, build_backbone
from scanlearn.backbones.weights import Card, export_backbone
from scanlearn.core import ScanlearnError
from scantune.classifier import Classifier, keep_classifier
from scantune.labels import LabeledSet
from scantune.learners import fit_linear

VIEW = (32, (0.5,) * 3, (0.25,) * 3)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    backbone = build_backbone(BackboneConfig(name="test_resnet"), 3, 0)
    card = Card.of(backbone, size=32, mean=VIEW[1], std=VIEW[2])
    with pytest.MonkeyPatch.context() as patch:
        # A fresh process proves exports elsewhere; here it would only take time.
        patch.setattr(weights, "check_reload", lambda *_: None)
        return export_backbone(backbone, tmp_path_factory.mktemp("run") / "backbone", card)


@pytest.fixture
def kept(
    exported: Path, labeled: Callable[..., LabeledSet], tmp_path: Path
) -> tuple[Path, np.ndarray, LabeledSet]:
    data = labeled(patients=60, classes=3)
    d = num_features(exported)
    features = np.random.default_rng(0).normal(size=(len(data), d)) + data.truth.classes[:, None]
    folder = keep_classifier(
        tmp_path / "kept", features, data, exported, view=VIEW, packing={"canvas": 48}
    )
    return folder, features, data


def num_features(exported: Path) -> int:
    return int(weights.load_backbone(exported)[0].num_features)


def test_kept_probe_gives_the_probabilities_of_the_fit(
    kept: tuple[Path, np.ndarray, LabeledSet],
) -> None:
    folder, features, data = kept
    classifier = Classifier(folder)
    fit = fit_linear(features, data.truth, data.patients, features)
    np.testing.assert_allclose(classifier.probabilities(features), fit.scores, atol=1e-12)
    assert classifier.card.classes == ("0", "1", "2")
    assert classifier.card.chosen_c == fit.chosen_c
    assert (classifier.card.scans, classifier.card.patients) == (len(data), data.num_patients)


def test_thresholds_leave_nine_in_ten_validation_negatives_alone(
    kept: tuple[Path, np.ndarray, LabeledSet],
) -> None:
    folder, features, data = kept
    fit = fit_linear(features, data.truth, data.patients, features)
    for code, threshold in enumerate(Classifier(folder).card.thresholds):
        assert threshold is not None
        below = (fit.validation[data.truth.classes != code, code] < threshold).mean()
        assert 0.9 <= below < 0.95


def test_keeping_again_replaces_the_classifier_and_nothing_else(
    kept: tuple[Path, np.ndarray, LabeledSet], exported: Path
) -> None:
    folder, features, data = kept
    options: dict[str, Any] = {"view": VIEW, "packing": {}}
    keep_classifier(folder, features * 2, data, exported, **options)
    assert Classifier(folder).card.packing == {}
    assert sorted(path.name for path in folder.parent.iterdir()) == ["kept"]
    (folder.parent / "other").mkdir()
    (folder.parent / "other" / "mine.txt").write_text("mine")
    with pytest.raises(ScanlearnError, match="something else lies there"):
        keep_classifier(folder.parent / "other", features, data, exported, **options)
    assert (folder.parent / "other" / "mine.txt").read_text() == "mine"


def test_missing_cut_or_changed_files_are_one_clear_sentence(
    kept: tuple[Path, np.ndarray, LabeledSet],
) -> None:
    folder, _, _ = kept
    probe, card = folder / "probe.safetensors", folder / "classifier.json"
    whole, words = probe.read_bytes(), card.read_text()
    for content in (whole[:-1], whole[:-1] + b"\0"):
        probe.write_bytes(content)
        with pytest.raises(ScanlearnError, match="is not the probe"):
            Classifier(folder)
    probe.unlink()
    with pytest.raises(ScanlearnError, match="is missing or no probe"):
        Classifier(folder)
    probe.write_bytes(whole)
    for content in ("no json", json.dumps({**json.loads(words), "classes": 3})):
        card.write_text(content)
        with pytest.raises(ScanlearnError, match="not the card"):
            Classifier(folder)
    card.unlink()
    with pytest.raises(ScanlearnError, match="is no classifier"):
        Classifier(folder)


def test_changed_backbone_is_refused(kept: tuple[Path, np.ndarray, LabeledSet]) -> None:
    folder, _, _ = kept
    file = folder / "backbone" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.unlink()  # It may be a second name of the exported file.
    file.write_bytes(bytes(content))
    with pytest.raises(ScanlearnError, match="not those that"):
        Classifier(folder)
