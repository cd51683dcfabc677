from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from scanlearn.backbones import weights
from scanlearn.backbones.backbone import Backbone, BackboneConfig, build_backbone
from scanlearn.backbones.head import build_classifying
from scanlearn.errors import ScanlearnError
from scantune.evaluation import classifier
from scantune.evaluation.classifier import Classifier, View, describe, keep_classifier, keep_network
from scantune.labels.labeled_set import LabeledSet
from scantune.learners.frozen import LinearFit, fit_linear
from scantune.learners.learner import Fit, LabeledFeatures

Labeled = Callable[..., LabeledSet]

VIEW = View(32, (0.5,) * 3, (0.25,) * 3)


@pytest.fixture
def kept(exported: Path, labeled: Labeled, tmp_path: Path) -> tuple[Path, np.ndarray, LabeledSet]:
    data = labeled(patients=60, classes=3)
    d = num_features(exported)
    features = np.random.default_rng(0).normal(size=(len(data), d)) + data.truth.classes[:, None]
    fit = fitted(features, data)
    card = describe(fit, data, "linear", VIEW, {"canvas": 48})
    folder = keep_classifier(tmp_path / "kept", card, fit, exported)
    return folder, features, data


def fitted(features: np.ndarray, data: LabeledSet) -> LinearFit:
    return fit_linear(LabeledFeatures(features, data.truth, data.patients), features[:0])


def num_features(exported: Path) -> int:
    return int(weights.load_backbone(exported)[0].num_features)


def test_kept_probe_gives_the_probabilities_of_the_fit(
    kept: tuple[Path, np.ndarray, LabeledSet],
) -> None:
    folder, features, data = kept
    classifier = Classifier(folder)
    fit = fit_linear(LabeledFeatures(features, data.truth, data.patients), features)
    np.testing.assert_allclose(classifier.probabilities(features), fit.scores, atol=1e-12)
    assert classifier.card.classes == ("0", "1", "2")
    assert classifier.card.chosen_c == fit.chosen_c
    assert (classifier.card.scans, classifier.card.patients) == (len(data), data.num_patients)


def test_thresholds_leave_nine_in_ten_validation_negatives_alone(
    kept: tuple[Path, np.ndarray, LabeledSet],
) -> None:
    folder, features, data = kept
    fit = fit_linear(LabeledFeatures(features, data.truth, data.patients), features)
    for code, threshold in enumerate(Classifier(folder).card.thresholds):
        assert threshold is not None
        below = (fit.validation[data.truth.classes != code, code] < threshold).mean()
        assert 0.9 <= below < 0.95


def test_keeping_again_replaces_the_classifier_and_nothing_else(
    kept: tuple[Path, np.ndarray, LabeledSet], exported: Path
) -> None:
    folder, features, data = kept
    fit = fitted(features * 2, data)
    card = describe(fit, data, "linear", VIEW, {})
    keep_classifier(folder, card, fit, exported)
    assert Classifier(folder).card.packing == {}
    assert sorted(path.name for path in folder.parent.iterdir()) == ["kept"]
    (folder.parent / "other").mkdir()
    (folder.parent / "other" / "mine.txt").write_text("mine")
    with pytest.raises(ScanlearnError, match="exists and is not a classifier"):
        keep_classifier(folder.parent / "other", card, fit, exported)
    assert (folder.parent / "other" / "mine.txt").read_text() == "mine"


def test_missing_cut_or_changed_files_are_one_clear_sentence(
    kept: tuple[Path, np.ndarray, LabeledSet],
) -> None:
    folder, _, _ = kept
    probe, card = folder / "probe.safetensors", folder / "classifier.json"
    whole, words = probe.read_bytes(), card.read_text()
    for content in (whole[:-1], whole[:-1] + b"\0"):
        probe.write_bytes(content)
        with pytest.raises(ScanlearnError, match="its hash is not the one"):
            Classifier(folder)
    probe.unlink()
    with pytest.raises(ScanlearnError, match="missing or not a probe"):
        Classifier(folder)
    probe.write_bytes(whole)
    tampered = ({"classes": 3}, {"std": [float("nan")] * 3}, {"mean": [0.5]}, {"size": 0})
    texts = [json.dumps({**json.loads(words), **change}) for change in tampered]
    for content in ("no json", "[" * 10**5, *texts):
        card.write_text(content)
        with pytest.raises(ScanlearnError, match="not a readable classifier card"):
            Classifier(folder)
    card.unlink()
    with pytest.raises(ScanlearnError, match="not a classifier"):
        Classifier(folder)


def test_changed_backbone_is_refused(kept: tuple[Path, np.ndarray, LabeledSet]) -> None:
    folder, _, _ = kept
    file = folder / "backbone" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.unlink()  # It may be a second name of the exported file.
    file.write_bytes(bytes(content))
    with pytest.raises(ScanlearnError, match="do not match the hash"):
        Classifier(folder)


def tuned(name: str = "test_resnet", seed: int = 0) -> Backbone:
    return build_classifying(build_backbone(BackboneConfig(name=name), 3, 0, size=32), 3, seed)


@pytest.fixture
def keep(labeled: Labeled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Keeps a network of three classes; the fresh process that proves it has a test of its own."""

    def make(network: Backbone, *, is_proved: bool = False) -> Path:
        if not is_proved:
            monkeypatch.setattr(classifier, "check_reload", lambda *_: None)
        data = labeled(patients=60, classes=3)
        validation = np.random.default_rng(0).dirichlet(np.ones(3), len(data))
        validation[: len(data) // 2] = np.nan
        fit = Fit(validation[:0], validation)
        card = describe(fit, data, "finetune", VIEW, {"canvas": 48})
        return keep_network(tmp_path / "tuned", card, network)

    return make


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_kept_network_is_loaded_by_timm_with_its_classes_and_by_us_with_its_card(
    keep: Callable[..., Path], name: str
) -> None:
    network = tuned(name)
    folder = keep(network)
    found = Classifier(folder)
    assert (found.card.learner, found.card.classes) == ("finetune", ("0", "1", "2"))
    assert None not in found.card.thresholds
    views = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    stranger = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        logits = network(views)
        assert torch.equal(stranger(views), logits)
        probabilities = found.probabilities(found.backbone(views).numpy())
    np.testing.assert_allclose(probabilities, torch.softmax(logits, dim=1).numpy(), atol=1e-6)


@pytest.mark.long
def test_kept_network_is_proved_in_a_fresh_process(keep: Callable[..., Path]) -> None:
    assert (keep(tuned(), is_proved=True) / "classifier.json").is_file()


def test_missing_cut_changed_or_other_weights_of_a_network_are_one_clear_sentence(
    keep: Callable[..., Path],
) -> None:
    folder = keep(tuned())
    weights_file = folder / "model.safetensors"
    whole = weights_file.read_bytes()
    weights_file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ScanlearnError, match=r"match the hash in card\.json"):
        Classifier(folder)
    weights_file.write_bytes(whole[:-9])
    with pytest.raises(ScanlearnError, match="not a complete safetensors file"):
        Classifier(folder)
    weights_file.unlink()
    with pytest.raises(ScanlearnError, match="the file is missing"):
        Classifier(folder)
    weights_file.write_bytes(whole)
    words = (folder / "classifier.json").read_text()
    again = keep(tuned(seed=1))
    (again / "classifier.json").write_text(words)
    with pytest.raises(ScanlearnError, match=r"not those named in classifier\.json"):
        Classifier(again)
