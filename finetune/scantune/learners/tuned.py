"""Learners that train step by step: a network tuned on labeled scans, or a probe."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn

from scanlearn.backbones.backbone import Backbone
from scanlearn.backbones.classifier import has_drop_path
from scantune.learners.course import Course, LabeledScans
from scantune.learners.frozen import Fit, Learner, probabilities
from scantune.learners.loop import Lessons, OnEpoch, unheard
from scantune.learners.network import train_network
from scantune.learners.settings import Mode, Plan, TuneConfig
from scantune.learners.stepwise import token_features, train_probe
from scantune.splits import hold_out


@dataclass(frozen=True)
class Tuned:
    """What a training ends with.

    Args:
        network: With its classifier, in evaluation mode; the backbone as it was under a probe.
        probe: The linear layer of ``sgd``; None where the network has a classifier.
        validation: ``[t k]`` probabilities of the training scans that were held out; NaN in the
            rows of all others.
        lessons: How the training went.
        plan: What it was to be.
    """

    network: Backbone
    probe: nn.Linear | None
    validation: Float[np.ndarray, "t k"]
    lessons: Lessons
    plan: Plan


def tune_network(
    backbone: Backbone,
    scans: LabeledScans,
    config: TuneConfig,
    mode: Mode,
    train: Int[np.ndarray, " t"],
    *,
    seed: int,
    on_epoch: OnEpoch = unheard,
) -> Tuned:
    """Trains on some rows of the labeled set; a part of their patients validates.

    The same seed gives the same weights, whatever the global generators were.

    Args:
        backbone: What the training begins from, on the device that trains; left as it is.
        scans: The labeled set.
        config: How it is trained.
        mode: ``finetune`` trains all weights; ``lpft`` all, from a linear probe's classifier;
            ``batchnorm`` scales and shifts of normalisation layers and the classifier;
            ``scratch`` all, from random ones; ``sgd`` a linear probe by steps.
        train: ``[t]`` rows of the labeled set.
        seed: Of new weights, held-out patients, order of the scans and their views.
        on_epoch: Told after each epoch.

    Raises:
        ScanlearnError: If the network cannot be trained so, or a loss is not finite.
    """
    labeled, plan = scans.labeled, config.plan(mode, len(train))
    part = hold_out(labeled.truth[train], labeled.patients[train], seed) if plan.patience else None
    fitted, held_out = (train, None) if part is None else (train[part.train], train[part.test])
    can_drop = plan.drop_path == 0 or has_drop_path(backbone)
    plan = config.plan(mode, len(fitted), has_drop_path=can_drop)
    course = Course(backbone, scans, config, plan, fitted, held_out, seed)
    network, probe = backbone, None
    if mode == "sgd":
        probe, lessons = train_probe(course, on_epoch)
    else:
        network, lessons = train_network(course, on_epoch)
    validation = np.full((len(train), labeled.truth.num_classes), np.nan)
    if part is not None and lessons.validation is not None:
        validation[part.test] = lessons.validation
    return Tuned(network, probe, validation, lessons, plan)


def scores_of(
    tuned: Tuned, scans: LabeledScans, rows: Int[np.ndarray, " u"]
) -> Float[np.ndarray, "u k"]:
    """Returns the probability of each class for rows of the labeled set, never augmented."""
    if tuned.probe is None:
        logits: np.ndarray = scans.seen_by(tuned.network, rows)
    else:
        tokens = token_features(tuned.network, scans)[rows]
        with torch.no_grad():
            logits = tuned.probe(torch.from_numpy(tokens)).numpy()
    is_exclusive = scans.labeled.truth.is_exclusive
    return probabilities(logits.astype(np.float64), is_exclusive=is_exclusive)


def tuned_learner(
    backbone: Backbone,
    scans: LabeledScans,
    config: TuneConfig,
    mode: Mode,
    on_epoch: OnEpoch = unheard,
) -> Learner:
    """Returns a learner that tunes the backbone anew for every subset it is given."""
    return partial(_learn, backbone, scans, config, mode, on_epoch)


def _learn(
    backbone: Backbone,
    scans: LabeledScans,
    config: TuneConfig,
    mode: Mode,
    on_epoch: OnEpoch,
    rows: Int[np.ndarray, " t"],
    test: Int[np.ndarray, " u"],
    seed: int,
) -> Fit:
    tuned = tune_network(backbone, scans, config, mode, rows, seed=seed, on_epoch=on_epoch)
    return Fit(scores_of(tuned, scans, test), tuned.validation)
