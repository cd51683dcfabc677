"""Training of a network with its classifier: its views, its first weights, its optimiser.

The training scans go through the dial, no other scan ever does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from scanlearn.backbones.backbone import Backbone
from scanlearn.backbones.device import preferred_memory_format
from scanlearn.backbones.head import (
    build_classifying,
    classifier_names,
    layer_groups,
    norm_names,
    set_classifier,
)
from scanlearn.core import ViewPlan
from scanlearn.errors import ScanlearnError
from scanlearn.views.extra_settings import build_extras
from scanlearn.views.generator import ViewGenerator
from scanlearn.views.scale import Scale
from scanlearn.views.uniforms import DrawKey
from scantune.learners.frozen import LinearFit, fit_linear
from scantune.learners.learner import LabeledFeatures, OnEpoch
from scantune.learners.loop import History
from scantune.learners.objective import Targets, mix_views
from scantune.learners.settings import Augment, TuneConfig
from scantune.learners.trial import MIXING, Trial

# A crop may cut a finding away together with its label, so that it goes half as far.
_CROP_SHARE = 0.5
# How much less likely than others, by the logarithm of the odds, a class begins that the linear
# probe never saw; or, of findings, how certain one begins that was the same in all scans.
_CERTAIN = 8.0


def training_scale(augment: Augment, scale: float) -> Scale:
    """Returns the dial of the training scans.

    Args:
        augment: "none" is the identity, "basic" intensity and acquisition alone, "complex"
            geometry and a mild crop as well.

    Source: the three levels are those of the NIH's chest X-ray tutorial on augmentation; where they
    lie on the dial is ours.
    """
    if augment == "none":
        return Scale.IDENTITY
    shared = {"photometric": scale, "acquisition": scale}
    if augment == "basic":
        return Scale(crop=0.0, geometry=0.0, **shared)
    return Scale(crop=_CROP_SHARE * scale, geometry=scale, **shared)


def training_views(
    config: TuneConfig,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    scan_ids: Sequence[str] | None = None,
    left_out: Collection[str] = (),
) -> ViewGenerator:
    """Returns the generator of the training views, one of each scan; ids are for errors.

    Args:
        left_out: Operations of the policy that the scans do not allow.
    """
    return ViewGenerator(
        config.build_recipe(left_out),
        training_scale(config.augment, config.scale),
        ViewPlan(1),
        size,
        mean,
        std,
        extras=build_extras(config.extras, num_views=1),
        scan_ids=scan_ids,
    )


def train_network(trial: Trial, on_epoch: OnEpoch) -> tuple[Backbone, History]:
    """Returns a trained network with its classifier, and how the training went."""
    plan, scans, config = trial.plan, trial.scans, trial.config
    network = untrained_network(trial)
    device = next(network.parameters()).device
    layout = preferred_memory_format(network)
    network.to(memory_format=layout)
    scan_ids = scans.archives[0].scan_ids.tolist() if config.extras else None
    left_out = config.left_out(scans.archives[0])
    generator = training_views(config, *scans.view, scan_ids, left_out)
    mixing = trial.rng(MIXING)

    def batch(
        places: Int64[np.ndarray, " b"], step: int, targets: Targets
    ) -> tuple[Tensor, Targets]:
        stored = scans.stored(trial.fitted[places]).to(device)
        drawn = DrawKey(trial.seed, step, np.arange(len(places)))
        views, targets = mix_views(
            generator(stored, drawn).global_views[0],
            targets.to(device),
            mixing,
            mixup=config.mixup,
            cutmix=config.cutmix,
        )
        return views.contiguous(memory_format=layout), targets

    def classify() -> Float[np.ndarray, "v k"]:
        assert trial.held_out is not None
        return scans.outputs(network, trial.held_out)

    optimiser = torch.optim.AdamW(
        layer_groups(
            network,
            learning_rate=plan.learning_rate,
            weight_decay=plan.weight_decay,
            layer_decay=plan.layer_decay,
        )
    )
    with _seeded_drops(trial.seed, device):
        return network, trial.train(network, optimiser, batch, classify, on_epoch)


def untrained_network(trial: Trial) -> Backbone:
    """Returns the network as its training begins; weights that stay ask for no gradient.

    Raises:
        ScanlearnError: If the network takes no classifier, or cannot be trained in this mode.

    Source: LP-FT: Kumar et al. 2022 (arXiv 2202.10054).
    """
    plan, truth = trial.plan, trial.truth
    network = build_classifying(
        trial.backbone,
        truth.num_classes,
        trial.seed,
        drop_path=plan.drop_path,
        is_fresh=plan.mode == "scratch",
    )
    if plan.mode == "lpft":
        # Of all scans at once, which the cache holds: other learners need them too.
        features = trial.scans.outputs(trial.backbone)[trial.fitted]
        patients = trial.scans.labeled.patients[trial.fitted]
        train = LabeledFeatures(features, truth, patients)
        fit = fit_linear(train, features[:0], seed=trial.seed)
        set_classifier(network, *_finite(fit, is_exclusive=truth.is_exclusive))
    if plan.mode == "batchnorm":
        norms = norm_names(network)
        if not norms:
            raise ScanlearnError(
                f"'{network.name}' has no normalisation layer with a scale and a shift for "
                "batchnorm to train; use finetune or linear"
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
    infinite = ~np.isfinite(intercepts)
    if is_exclusive:
        weights[:, infinite] = weights[:, ~infinite].mean(axis=1, keepdims=True)
        intercepts[infinite] = intercepts[~infinite].mean() - _CERTAIN
    else:
        intercepts[infinite] = np.sign(intercepts[infinite]) * _CERTAIN
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
