from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scanlearn.backbones.backbone import Backbone
from scanlearn.errors import ScanlearnError
from scantune.learners.by_name import frozen_learner, kept_learner, learners_by_name, stopping_notes
from scantune.learners.learner import LabeledScans
from scantune.learners.settings import TuneConfig
from scantune.learners.table import LEARNERS
from scantune.scoring import score_learners

QUICK = TuneConfig(epochs=1, batch=16)
TRAIN, TEST = np.arange(100), np.arange(100, 120)


def test_every_learner_answers_in_the_order_of_the_names(
    scans: LabeledScans, backbone: Callable[[str], Backbone]
) -> None:
    names = tuple(LEARNERS)[::-1]
    network = backbone("test_resnet")
    told: list[int] = []
    found = learners_by_name(
        names,
        network,
        scans,
        scans.outputs(network),
        QUICK,
        on_epoch=lambda epoch, *_: told.append(epoch),
    )
    assert tuple(found) == names
    for learner in found.values():
        fit = learner(TRAIN, TEST, 0)
        assert fit.scores.shape == (len(TEST), 2)
        assert np.isfinite(fit.scores).all()
    assert told == [1] * sum(kind.needs_network for kind in LEARNERS.values())


def test_what_has_no_network_cannot_be_tuned(scans: LabeledScans) -> None:
    features = np.zeros((len(scans.labeled), 4), np.float32)
    found = learners_by_name(("knn", "linear"), None, scans, features, TuneConfig())
    assert tuple(found) == ("knn", "linear")
    with pytest.raises(ScanlearnError, match="learner 'lpft' needs a network"):
        learners_by_name(("knn", "lpft"), None, scans, features, QUICK)


def test_the_probe_takes_its_mixtures_and_weights_from_the_settings(
    scans: LabeledScans, backbone: Callable[[str], Backbone]
) -> None:
    features = scans.outputs(backbone("test_resnet"))
    plain = frozen_learner("linear", features, scans.labeled)(TRAIN, TEST, 0).scores

    def scored(**settings: Any) -> np.ndarray:
        config = TuneConfig.model_validate(settings)
        found = learners_by_name(("linear",), None, scans, features, config)
        scores: np.ndarray = found["linear"](TRAIN, TEST, 0).scores
        return scores

    np.testing.assert_array_equal(scored(), plain)
    for settings in (
        {"feature_mixup": 0.4},
        {"feature_noise": 0.5},
        {"balance": "sampling"},
        {"balance": "effective", "beta": 0.5},
    ):
        assert not np.array_equal(scored(**settings), plain)


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (("knn", "linear"), "linear"),
        (("linear", "finetune", "knn"), "finetune"),
        (("finetune", "linear"), "linear"),
        (("knn", "sgd"), "linear"),
    ],
)
def test_the_last_learner_that_makes_a_classifier_is_kept(
    names: tuple[str, ...], kept: str
) -> None:
    assert kept_learner(names) == kept


def test_budgets_without_validation_patients_are_said(scans: LabeledScans) -> None:
    features = np.random.default_rng(0).normal(size=(len(scans.labeled), 4)).astype(np.float32)
    linear = frozen_learner("linear", features, scans.labeled)
    options: dict[str, Any] = {"budgets": (20, "all"), "folds": 10, "label_seeds": 1}
    tuned = score_learners({"lpft": linear}, scans.labeled, **options)
    (note,) = stopping_notes(tuned, TuneConfig())
    assert note.startswith("lpft with 20 labels: trained to the last epoch")
    assert "fewer than 50" in note
    assert stopping_notes(tuned, TuneConfig(patience=0)) == ()
    assert stopping_notes(replace(tuned, learners=("linear",)), TuneConfig()) == ()


def test_a_setting_that_no_learner_reads_is_refused(scans: LabeledScans) -> None:
    features = np.zeros((len(scans.labeled), 4), np.float32)
    with pytest.raises(ScanlearnError, match=r"tune\.epochs: has no effect on the learners knn"):
        learners_by_name(("knn", "linear"), None, scans, features, QUICK)
