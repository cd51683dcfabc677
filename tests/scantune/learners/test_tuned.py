from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from scanlearn.backbones.backbone import Backbone, weights_hash
from scanlearn.errors import ScanlearnError
from scanlearn.features.auroc import auroc
from scanlearn.views import generator
from scanlearn.views.scale import Scale
from scantune.labels.truth import Truth
from scantune.learners import network as augment
from scantune.learners.learner import LabeledScans, LearnerInputs
from scantune.learners.settings import TuneConfig
from scantune.learners.table import LEARNERS
from scantune.learners.tuned import Tuned, build, scores_of, token_features, tune_network

MODES = [name for name, kind in LEARNERS.items() if kind.needs_network]
TRAIN, TEST = np.arange(100), np.arange(100, 120)
QUICK: dict[str, Any] = {"epochs": 2, "batch": 16}
Make = Callable[[str], Backbone]


def tuned(
    scans: LabeledScans, backbone: Backbone, mode: str = "finetune", **settings: Any
) -> Tuned:
    config = TuneConfig.model_validate({**QUICK, **settings})
    return tune_network(backbone, scans, config, mode, TRAIN, seed=0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_the_same_seed_gives_the_same_weights_and_leaves_the_backbone(
    scans: LabeledScans, backbone: Make, mode: str, name: str
) -> None:
    network = backbone(name)
    before = weights_hash(network)
    options: dict[str, Any] = {"augment": "complex", "mixup": 0.2, "balance": "sampling"}
    if name == "test_vit" and mode != "sgd":
        options["drop_path"] = 0.2
    torch.manual_seed(1)
    first = tuned(scans, network, mode, **options)
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    second = tuned(scans, network, mode, **options)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert weights_hash(first.network) == weights_hash(second.network)
    scores = scores_of(first, scans, TEST)
    np.testing.assert_array_equal(scores, scores_of(second, scans, TEST))
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert weights_hash(network) == before


def test_another_seed_gives_others(scans: LabeledScans, backbone: Make) -> None:
    network, config = backbone("test_resnet"), TuneConfig.model_validate(QUICK)
    hashes = {
        weights_hash(tune_network(network, scans, config, "finetune", TRAIN, seed=seed).network)
        for seed in (0, 1)
    }
    assert len(hashes) == 2


def test_a_finding_that_is_plain_to_see_is_learned(scans: LabeledScans, backbone: Make) -> None:
    labeled = scans.labeled
    red = scans.archives[0].gather(labeled.rows).pixels[:, 0].float().mean((1, 2)).numpy()
    truth = Truth.of_classes((red > np.median(red)).astype(np.int64), 2)
    reddish = replace(scans, labeled=replace(labeled, truth=truth, classes=("dull", "red")))
    found = tuned(reddish, backbone("test_resnet"), "scratch", epochs=12, augment="none")
    positives = truth.positives(1)[TEST]
    assert auroc(scores_of(found, reddish, TEST)[:, 1], positives) > 0.9
    assert found.history.losses[-1] < 0.7 * found.history.losses[0]


@pytest.mark.parametrize("mode", MODES)
def test_findings_with_unknown_labels_are_learned_each_for_itself(
    findings: LabeledScans, backbone: Make, mode: str
) -> None:
    found = tuned(findings, backbone("test_resnet"), mode, balance="effective")
    scores = scores_of(found, findings, TEST)
    assert scores.shape == (len(TEST), 2)
    assert np.all((scores >= 0) & (scores <= 1))
    assert np.abs(scores.sum(axis=1) - 1).max() > 1e-3


def test_validation_scores_are_those_of_patients_it_was_not_fitted_on(
    scans: LabeledScans, backbone: Make
) -> None:
    found = tuned(scans, backbone("test_resnet"))
    held_out = ~np.isnan(found.validation).any(axis=1)
    assert 0.15 < held_out.mean() < 0.25
    np.testing.assert_allclose(
        found.validation[held_out], scores_of(found, scans, TRAIN[held_out]), atol=1e-6
    )
    patients = scans.labeled.patients[TRAIN]
    assert not set(patients[held_out]) & set(patients[~held_out])


def test_without_patience_all_scans_are_fitted_on(scans: LabeledScans, backbone: Make) -> None:
    found = tuned(scans, backbone("test_resnet"), patience=0)
    assert np.isnan(found.validation).all()
    assert found.history.epoch == 2


@pytest.mark.parametrize("mode", ["finetune", "batchnorm"])
def test_scans_that_are_scored_are_never_augmented(
    scans: LabeledScans, backbone: Make, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[Scale, set[int]] = {}
    render = generator.ViewGenerator.render

    def watched(self: generator.ViewGenerator, batch: Any, draw: Any) -> Any:
        seen.setdefault(self.scale, set()).update(batch.ids.tolist())
        return render(self, batch, draw)

    monkeypatch.setattr(generator.ViewGenerator, "render", watched)
    found = tuned(scans, backbone("test_resnet"), mode, augment="complex", scale=1.5)
    scores_of(found, scans, TEST)
    strong = augment.training_scale("complex", 1.5)
    held_out = TRAIN[~np.isnan(found.validation).any(axis=1)]
    assert set(seen) == {strong, Scale.IDENTITY}
    assert seen[Scale.IDENTITY] == {*held_out, *TEST}
    assert seen[strong] == {*TRAIN} - {*held_out}


def test_scores_at_the_strongest_scale_are_those_of_plain_scans(
    scans: LabeledScans, backbone: Make
) -> None:
    found = tuned(scans, backbone("test_resnet"), augment="complex", scale=1.5)
    size, mean, std = scans.view
    plain = generator.ViewGenerator(
        "simclr", Scale.IDENTITY, generator.ViewPlan(1), size, mean, std
    )
    batch = scans.stored(TEST)
    views = plain(batch, generator.DrawKey(9, 9, np.arange(len(TEST)))).global_views[0]
    with torch.no_grad():
        expected = torch.softmax(found.network(views), dim=1).numpy()
    np.testing.assert_allclose(scores_of(found, scans, TEST), expected, atol=1e-5)


def test_augmentation_changes_what_is_learned(scans: LabeledScans, backbone: Make) -> None:
    hashes = {
        weights_hash(tuned(scans, backbone("test_resnet"), **settings).network)
        for settings in (
            {"augment": "none"},
            {"augment": "basic"},
            {"augment": "complex"},
            {"augment": "none", "mixup": 0.4},
            {"augment": "none", "cutmix": 1.0},
            {"augment": "none", "balance": "sampling"},
            {"augment": "none", "balance": "effective", "beta": 0.9},
            {"augment": "none", "label_smoothing": 0.1},
        )
    }
    assert len(hashes) == 8


def test_densenet_and_a_network_without_drop_path_take_the_preset(
    scans: LabeledScans, backbone: Make
) -> None:
    config = TuneConfig(preset="retfound", epochs=1, batch=20, patience=0)
    found = tune_network(backbone("densenet121"), scans, config, "finetune", TRAIN[:20], seed=0)
    assert found.plan.drop_path == 0.0
    assert scores_of(found, scans, TEST).shape == (len(TEST), 2)
    asked = config.model_copy(update={"drop_path": 0.1})
    with pytest.raises(ScanlearnError, match="no stochastic depth"):
        tune_network(backbone("densenet121"), scans, asked, "finetune", TRAIN[:20], seed=0)


def test_a_learner_answers_for_every_scan(scans: LabeledScans, backbone: Make) -> None:
    told: list[tuple[int, int, float]] = []
    learner = build(
        LearnerInputs(
            LEARNERS["finetune"],
            np.zeros((len(scans.labeled), 1)),
            scans.labeled,
            TuneConfig.model_validate(QUICK),
            backbone("test_resnet"),
            scans,
            lambda *epoch: told.append(epoch),
        )
    )
    fit = learner(TRAIN, TEST, 0)
    assert fit.scores.shape == (len(TEST), 2)
    assert fit.validation.shape == (len(TRAIN), 2)
    assert [(epoch, epochs) for epoch, epochs, _ in told] == [(1, 2), (2, 2)]


def test_tokens_of_four_blocks_stand_side_by_side(scans: LabeledScans, backbone: Make) -> None:
    vit = backbone("test_vit")
    tokens = token_features(vit, scans)
    assert tokens.shape == (len(scans.labeled), 4 * vit.num_features)
    resnet = backbone("test_resnet")
    np.testing.assert_array_equal(token_features(resnet, scans), scans.outputs(resnet))


def test_the_probe_is_a_linear_layer_on_the_tokens(scans: LabeledScans, backbone: Make) -> None:
    vit = backbone("test_vit")
    config = TuneConfig(epochs=20, learning_rate=1.0)
    result = tune_network(vit, scans, config, "sgd", TRAIN, seed=0)
    assert result.probe is not None
    assert result.network is vit
    weights = result.probe.weight.detach().numpy()
    logits = token_features(vit, scans) @ weights.T + result.probe.bias.detach().numpy()
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = exponents / exponents.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scores_of(result, scans, TRAIN), expected[TRAIN], atol=1e-5)
    assert result.history.losses[-1] < result.history.losses[0]


@pytest.mark.parametrize(
    ("name", "rate", "is_said"), [("test_resnet", 1e-3, True), ("test_vit", 1.0, False)]
)
def test_a_probe_that_its_learning_rate_hardly_moves_says_so(
    scans: LabeledScans, backbone: Make, name: str, rate: float, is_said: bool
) -> None:
    probe = tuned(scans, backbone(name), "sgd", epochs=50, learning_rate=rate)
    y = scans.labeled.truth.classes[TRAIN]
    share = y.mean()
    constant = -np.mean(np.where(y == 1, np.log(share), np.log(1 - share)))
    assert (probe.history.losses[-1] > 0.95 * constant) == is_said
    assert bool(probe.caveats) == is_said
    if is_said:
        assert "raise tune.learning_rate, or read the linear probe" in probe.caveats[0]


def test_a_learner_trains_on_views_of_the_augmentation_in_its_name(
    scans: LabeledScans, backbone: Make
) -> None:
    network, features = backbone("test_resnet"), np.zeros((len(scans.labeled), 4), np.float32)

    def scored(name: str, **settings: Any) -> np.ndarray:
        config = TuneConfig.model_validate({**QUICK, "epochs": 1, **settings})
        inputs = LearnerInputs(LEARNERS[name], features, scans.labeled, config, network, scans)
        return build(inputs)(TRAIN, TEST, 0).scores

    plain = scored("finetune", augment="none")
    np.testing.assert_array_equal(scored("finetune@none", augment="complex"), plain)
    strong = scored("finetune", augment="complex", scale=1.0)
    np.testing.assert_array_equal(scored("finetune@complex-1"), strong)
    assert not np.array_equal(plain, strong)
