from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from scanlearn.backbones.backbone import Backbone
from scanlearn.backbones.head import classifier_names, norm_names
from scanlearn.errors import ScanlearnError
from scanlearn.views.scale import Scale
from scanlearn.views.uniforms import DrawKey
from scantune.labels.truth import Task, Truth
from scantune.learners.frozen import fit_linear
from scantune.learners.learner import LabeledFeatures, LabeledScans, ignore_epoch, probabilities
from scantune.learners.network import (
    train_network,
    training_scale,
    training_views,
    untrained_network,
)
from scantune.learners.settings import TuneConfig
from scantune.learners.trial import Trial

ROWS = np.arange(40)


def trial(scans: LabeledScans, backbone: Backbone, mode: str, **settings: object) -> Trial:
    config = TuneConfig.model_validate({"epochs": 1, "batch": 20, **settings})
    return Trial(backbone, scans, config, config.plan(mode, len(ROWS)), ROWS, None, 0)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_lpft_begins_as_the_linear_probe(
    scans: LabeledScans, backbone: Callable[[str], Backbone], name: str
) -> None:
    network = untrained_network(trial(scans, backbone(name), "lpft")).eval()
    features = scans.outputs(backbone(name))
    labeled = scans.labeled
    fit = fit_linear(
        LabeledFeatures(features[ROWS], labeled.truth[ROWS], labeled.patients[ROWS]),
        features,
        seed=0,
    )
    logits = scans.outputs(network)
    found = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    np.testing.assert_allclose(found, fit.scores[:, 1], atol=1e-3)


def test_finetuning_begins_with_the_backbone_and_near_chance(
    scans: LabeledScans, backbone: Callable[[str], Backbone]
) -> None:
    network = untrained_network(trial(scans, backbone("test_vit"), "finetune"))
    own = network.network.state_dict()
    for name, tensor in backbone("test_vit").network.state_dict().items():
        assert torch.equal(own[name], tensor)
    assert np.abs(scans.outputs(network, ROWS)).max() < 0.5


def test_from_scratch_no_weight_is_the_backbones(
    scans: LabeledScans, backbone: Callable[[str], Backbone]
) -> None:
    network = untrained_network(trial(scans, backbone("test_vit"), "scratch"))
    own = network.network.state_dict()
    given = backbone("test_vit").network.state_dict()
    weights = [name for name in given if name.endswith("attn.qkv.weight")]
    assert weights
    assert not any(torch.equal(own[name], given[name]) for name in weights)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_batchnorm_moves_scales_shifts_and_the_classifier_alone(
    scans: LabeledScans, backbone: Callable[[str], Backbone], name: str
) -> None:
    begun = untrained_network(trial(scans, backbone(name), "batchnorm"))
    network, _ = train_network(trial(scans, backbone(name), "batchnorm"), ignore_epoch)
    moved = {
        key
        for (key, old), new in zip(
            begun.network.named_parameters(), network.network.parameters(), strict=True
        )
        if not torch.equal(old, new)
    }
    assert moved == {*norm_names(network), *classifier_names(network)}
    assert len(moved) > 10


def test_batchnorm_needs_a_normalisation(
    scans: LabeledScans, backbone: Callable[[str], Backbone]
) -> None:
    with pytest.raises(ScanlearnError, match="'test_nfnet' has no normalisation layer"):
        untrained_network(trial(scans, backbone("test_nfnet"), "batchnorm"))


def test_lpft_keeps_the_statistics_that_its_probe_was_fitted_with(
    scans: LabeledScans, backbone: Callable[[str], Backbone]
) -> None:
    def statistics(mode: str) -> torch.Tensor:
        network, _ = train_network(trial(scans, backbone("test_resnet"), mode), ignore_epoch)
        norm = next(m for m in network.modules() if isinstance(m, nn.BatchNorm2d))
        assert norm.running_mean is not None
        return norm.running_mean.clone()

    given = next(m for m in backbone("test_resnet").modules() if isinstance(m, nn.BatchNorm2d))
    assert given.running_mean is not None
    assert torch.equal(statistics("lpft"), given.running_mean)
    assert not torch.equal(statistics("finetune"), given.running_mean)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_lpft_can_begin_with_a_class_that_no_scan_has(
    scans: LabeledScans, backbone: Callable[[str], Backbone], task: Task
) -> None:
    matrix = scans.labeled.truth.matrix
    empty = np.zeros((len(matrix), 1), np.int8)
    truth = Truth(np.column_stack([matrix, empty]), task)
    more = replace(scans.labeled, truth=truth, classes=("0", "1", "2"))
    with_more = LabeledScans(scans.archives, more, scans.view)
    network, history = train_network(trial(with_more, backbone("test_vit"), "lpft"), ignore_epoch)
    assert np.isfinite(history.losses).all()
    logits = with_more.outputs(network, ROWS)
    found = probabilities(logits.astype(float), is_exclusive=task != "multilabel")
    assert found[:, 2].max() < 0.01


def test_none_is_the_identity_at_every_scale() -> None:
    assert training_scale("none", 1.5) == Scale.IDENTITY


def test_basic_moves_intensity_alone() -> None:
    scale = training_scale("basic", 0.8)
    assert (scale.crop, scale.geometry) == (0.0, 0.0)
    assert (scale.photometric, scale.acquisition) == (0.8, 0.8)


def test_complex_adds_geometry_and_a_milder_crop() -> None:
    basic, both = training_scale("basic", 0.8), training_scale("complex", 0.8)
    assert (both.photometric, both.acquisition) == (basic.photometric, basic.acquisition)
    assert both.geometry == 0.8
    assert 0 < both.crop < both.geometry


@pytest.mark.parametrize("augment", ["none", "basic", "complex"])
def test_a_scan_has_one_view_of_the_recipe_that_was_asked_for(augment: str) -> None:
    config = TuneConfig.model_validate(
        {"augment": augment, "recipe": "dino", "operations": {"solarize": "off"}}
    )
    views = training_views(config, 32, (0.5,), (0.2,))
    assert (views.num_views, views.size, views.recipe.name) == (1, 32, "dino")
    assert views.ranges.views[0].solarize_p == 0


@pytest.mark.parametrize(
    ("given", "of_backbone", "words", "is_mirrored"),
    [
        ("auto", "xray", " under modality xray", False),
        ("auto", {"name": "child", "like": "xray"}, " under modality child", False),
        ("auto", None, "", True),
        (None, "xray", "", True),
        ("natural", "xray", " under modality natural", True),
        ("xray", None, " under modality xray", False),
    ],
)
def test_a_chest_is_mirrored_only_where_the_modality_lets_it(
    scans: LabeledScans, given: object, of_backbone: Any, words: str, is_mirrored: bool
) -> None:
    asked = TuneConfig.model_validate({"augment": "complex", "modality": given})
    config = asked.under(of_backbone)
    assert config.views_in_words == f"complex augmentation, scale 0.5 of recipe simclr{words}"
    generator = training_views(config, 32, (0.0,), (1.0,))
    drawn = generator.draw(scans.stored(ROWS), DrawKey(0, 0, np.arange(len(ROWS))))
    assert drawn.flip.any() == is_mirrored


def test_a_modality_moves_the_device_of_training_scans_by_its_scale() -> None:
    views = training_views(TuneConfig(scale=1.0).under("mri"), 32, (0.5,), (0.2,)).ranges.views[0]
    assert (views.rician_std, views.rotation_deg, views.crop_min) == (0.1, 0.0, 1.0)
    assert TuneConfig(augment="none").under("mri") == TuneConfig(augment="none")


def test_a_window_is_not_moved_of_scans_without_hounsfield_units(scans: LabeledScans) -> None:
    config, (archive,) = TuneConfig().under("ct"), scans.archives
    left_out = config.left_out(archive)
    assert list(left_out) == ["window"]
    views = training_views(config, 32, (0.5,), (0.2,), left_out=left_out).ranges.views[0]
    assert (views.window_p, views.noise_p) == (0, 0.5)
    by_hand = TuneConfig.model_validate({"operations": {"window_width": 0.2}})
    with pytest.raises(ScanlearnError, match=r"tune\.operations\.window_width: window needs"):
        by_hand.left_out(archive)


def test_operations_that_do_not_fit_the_backbones_modality_are_refused() -> None:
    config = TuneConfig.model_validate({"operations": {"crop_max": [0.6, 0.25]}})
    with pytest.raises(ScanlearnError, match=r"^tune\.operations\.crop_max: at .*the backbone"):
        config.under("xray")


def test_scale_zero_is_no_augmentation() -> None:
    for augment in ("basic", "complex"):
        found = training_scale(augment, 0.0)  # type: ignore[arg-type]
        assert found == Scale.IDENTITY
    assert np.isfinite(training_scale("complex", 1.5).crop)


def test_extras_of_other_libraries_are_done_to_training_views(scans: LabeledScans) -> None:
    def views(**settings: object) -> torch.Tensor:
        config = TuneConfig.model_validate({"scale": 0.0, **settings})
        generator = training_views(config, 32, (0.0,), (1.0,))
        key = DrawKey(0, 0, np.arange(8))
        return generator(scans.stored(ROWS[:8]), key).global_views[0]

    invert = {"name": "torchvision.transforms.v2.RandomInvert"}
    torch.testing.assert_close(views(extras=[invert]), 1 - views())
    with pytest.raises(ValueError, match="extras have no effect while augment is none"):
        TuneConfig.model_validate({"augment": "none", "extras": [invert]})
    local = TuneConfig.model_validate({"extras": [{**invert, "views": "local"}]})
    with pytest.raises(ScanlearnError, match="'local' are none of the 1 views"):
        training_views(local, 32, (0.0,), (1.0,))
