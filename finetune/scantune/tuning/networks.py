"""Training of a network with its classifier."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from scanlearn.backbones.build import Backbone
from scanlearn.backbones.classifying import (
    build_classifying,
    classifier_names,
    norm_names,
    set_classifier,
)
from scanlearn.backbones.groups import layer_groups
from scanlearn.backbones.precision import preferred_memory_format
from scanlearn.core import ScanlearnError
from scanlearn.views.uniforms import DrawKey
from scantune.learners import LinearFit, fit_linear
from scantune.tuning.augment import training_views
from scantune.tuning.course import MIXING, ORDER, Course
from scantune.tuning.loop import Lesson, Lessons, OnEpoch, teach
from scantune.tuning.mixing import Targets, mix_views

# How much less likely than others, by the logarithm of the odds, a class begins that the linear
# probe never saw; or, of findings, how certain one begins that was the same in all scans.
_CERTAIN = 8.0


def train_network(course: Course, on_epoch: OnEpoch) -> tuple[Backbone, Lessons]:
    """Returns a trained network with its classifier, and how the training went."""
    plan, scans, config = course.plan, course.scans, course.config
    network = untrained_network(course)
    device = next(network.parameters()).device
    layout = preferred_memory_format(network)
    network.to(memory_format=layout)
    generator = training_views(config, *scans.view)
    mixing = course.rng(MIXING)

    def batch(
        places: Int64[np.ndarray, " b"], step: int, targets: Targets
    ) -> tuple[Tensor, Targets]:
        stored = scans.stored(course.fitted[places]).to(device)
        drawn = DrawKey(course.seed, step, np.arange(len(places)))
        views, targets = mix_views(
            generator(stored, drawn).global_views[0],
            targets.to(device),
            mixing,
            mixup=config.mixup,
            cutmix=config.cutmix,
        )
        return views.contiguous(memory_format=layout), targets

    def classify() -> Float[np.ndarray, "v k"]:
        assert course.held_out is not None
        return scans.seen_by(network, course.held_out)

    optimiser = torch.optim.AdamW(
        layer_groups(
            network,
            learning_rate=plan.learning_rate,
            weight_decay=plan.weight_decay,
            layer_decay=plan.layer_decay,
        )
    )
    lesson = Lesson(course.truth, batch, course.validation, classify, course.shares)
    with _seeded_drops(course.seed, device):
        lessons = teach(
            network,
            optimiser,
            lesson,
            course.objective,
            plan,
            rng=course.rng(ORDER),
            on_epoch=on_epoch,
        )
    return network, lessons


def untrained_network(course: Course) -> Backbone:
    """Returns the network as its training begins; weights that stay ask for no gradient.

    Raises:
        ScanlearnError: If the network takes no classifier, or cannot be trained in this mode.

    Source: LP-FT: Kumar et al. 2022 (arXiv 2202.10054).
    """
    plan, truth = course.plan, course.truth
    network = build_classifying(
        course.backbone,
        truth.num_classes,
        course.seed,
        drop_path=plan.drop_path,
        is_fresh=plan.mode == "scratch",
    )
    if plan.mode == "lpft":
        # Of all scans at once, which the cache holds: other learners need them too.
        features = course.scans.seen_by(course.backbone)[course.fitted]
        patients = course.scans.labeled.patients[course.fitted]
        fit = fit_linear(features, truth, patients, features[:0], seed=course.seed)
        set_classifier(network, *_finite(fit, is_exclusive=truth.is_exclusive))
    if plan.mode == "batchnorm":
        norms = norm_names(network)
        if not norms:
            raise ScanlearnError(
                f"'{network.name}' has no normalisation layer with a scale and a shift, which is "
                "all that batchnorm trains; take finetune or linear"
            )
        trained = {*norms, *classifier_names(network)}
        for name, parameter in network.network.named_parameters():
            parameter.requires_grad_(name in trained)
    return network


def _finite(
    fit: LinearFit, *, is_exclusive: bool
) -> tuple[Float[np.ndarray, "d k"], Float[np.ndarray, " k"]]:
    """Returns a probe's weights and intercepts, of which an infinite one could not be trained."""
    weights, intercepts = fit.weights.copy(), fit.intercepts.copy()
    endless = ~np.isfinite(intercepts)
    if is_exclusive:
        weights[:, endless] = weights[:, ~endless].mean(axis=1, keepdims=True)
        intercepts[endless] = intercepts[~endless].mean() - _CERTAIN
    else:
        intercepts[endless] = np.sign(intercepts[endless]) * _CERTAIN
    return weights, intercepts


@contextmanager
def _seeded_drops(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout and drop path draw from torch's global generators: seeded here, put back after."""
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)
        if gpus:
            torch.cuda.manual_seed(seed)
        yield
