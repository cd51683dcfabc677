"""Learners that train by steps: a network tuned on labeled scans, or a linear probe."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor, nn

from scanlearn.backbones.backbone import Backbone, seeded_weights
from scanlearn.backbones.head import has_drop_path, with_last_tokens
from scantune.learners.learner import (
    Fit,
    LabeledScans,
    Learner,
    LearnerInputs,
    OnEpoch,
    ignore_epoch,
    probabilities,
)
from scantune.learners.loop import History
from scantune.learners.network import train_network
from scantune.learners.objective import Targets
from scantune.learners.settings import TuneConfig, TunePlan
from scantune.learners.trial import Trial
from scantune.splits import hold_out

# Blocks whose class tokens DINO's linear evaluation takes of a small network.
_BLOCKS = 4
_MOMENTUM = 0.9
_STD = 0.01
# At the paper's rate a probe on a convolutional network scored .47 where the linear probe had .85.
_HARDLY = 0.95
_HARDLY_MOVED = (
    "the training loss stayed within 5 % of that of one constant prediction: the learning rate is "
    "too low for these features (the default suits class tokens of a ViT), or they tell nothing; "
    "raise tune.learning_rate, or read the linear probe instead"
)


@dataclass(frozen=True)
class Tuned:
    """What a training ends with.

    Args:
        network: With its classifier, in evaluation mode; the backbone as it was under a probe.
        probe: The linear layer of ``sgd``; None where the network has a classifier.
        validation: ``[t k]`` probabilities of the training scans that were held out; NaN in the
            rows of all others, and of classes that the others do not teach.
        caveats: As those of a `Fit`.
    """

    network: Backbone
    probe: nn.Linear | None
    validation: Float[np.ndarray, "t k"]
    history: History
    plan: TunePlan
    caveats: tuple[str, ...] = ()


def build(inputs: LearnerInputs) -> Learner:
    """Returns a learner that trains anew, from the backbone, on every subset it is given."""
    network, scans = inputs.network, inputs.scans
    assert network is not None, "learners_by_name has refused it"
    assert scans is not None, "learners_by_name gives them"

    def learn(rows: Int[np.ndarray, " t"], test: Int[np.ndarray, " u"], seed: int) -> Fit:
        tuned = tune_network(
            network,
            scans,
            inputs.config.of(inputs.kind.name),
            inputs.kind.mode,
            rows,
            seed=seed,
            on_epoch=inputs.on_epoch,
        )
        return Fit(scores_of(tuned, scans, test), tuned.validation, caveats=tuned.caveats)

    return learn


def tune_network(
    backbone: Backbone,
    scans: LabeledScans,
    config: TuneConfig,
    mode: str,
    rows: Int[np.ndarray, " t"],
    *,
    seed: int,
    on_epoch: OnEpoch = ignore_epoch,
) -> Tuned:
    """Trains on some rows of the labeled set; a part of their patients validates.

    The same seed gives the same weights, whatever the global generators were.

    Args:
        seed: Of new weights, held-out patients, order of the scans and their views.

    Raises:
        ScanlearnError: If the network cannot be trained so, or a loss is not finite.
    """
    labeled, plan = scans.labeled, config.plan(mode, len(rows))
    fold = hold_out(labeled.truth[rows], labeled.patients[rows], seed) if plan.patience else None
    fitted, held_out = (rows, None) if fold is None else (rows[fold.train], rows[fold.test])
    can_drop = plan.drop_path == 0 or has_drop_path(backbone)
    plan = config.plan(mode, len(fitted), has_drop_path=can_drop)
    trial = Trial(backbone, scans, config, plan, fitted, held_out, seed)
    network, probe = backbone, None
    if mode == "sgd":
        probe, history = _train_probe(trial, on_epoch)
    else:
        network, history = train_network(trial, on_epoch)
    validation = np.full((len(rows), labeled.truth.num_classes), np.nan)
    if fold is not None and history.validation is not None:
        taught = labeled.truth[fitted].contrast
        validation[fold.test] = np.where(taught, history.validation, np.nan)
    hardly_moved = probe is not None and history.losses[-1] > _HARDLY * trial.constant_loss()
    return Tuned(network, probe, validation, history, plan, (_HARDLY_MOVED,) * hardly_moved)


def scores_of(
    tuned: Tuned, scans: LabeledScans, rows: Int[np.ndarray, " u"]
) -> Float[np.ndarray, "u k"]:
    """Returns the probability of each class for rows of the labeled set, never augmented."""
    if tuned.probe is None:
        logits: np.ndarray = scans.outputs(tuned.network, rows)
    else:
        logits = _logits(tuned.probe, torch.from_numpy(token_features(tuned.network, scans)[rows]))
    is_exclusive = scans.labeled.truth.is_exclusive
    return probabilities(logits.astype(np.float64), is_exclusive=is_exclusive)


def token_features(backbone: Backbone, scans: LabeledScans) -> Float32[np.ndarray, "n d"]:
    """Returns the class tokens of the last four blocks, of all labeled scans.

    A network without class tokens gives its own features.
    """
    return scans.outputs(with_last_tokens(backbone, _BLOCKS))


def _train_probe(trial: Trial, on_epoch: OnEpoch) -> tuple[nn.Linear, History]:
    """Returns a linear probe on the last class tokens, and how the training went.

    The released evaluations crop and mirror the training scans anew in each epoch; here the
    features are extracted once, from whole scans.

    Source: Cheng et al. 2025 (arXiv 2501.02451), released code; DINO (arXiv 2104.14294), released
    linear evaluation.
    """
    plan = trial.plan
    tokens = torch.from_numpy(token_features(trial.backbone, trial.scans))
    with seeded_weights(trial.seed, "probe"):
        probe = nn.Linear(tokens.shape[1], trial.truth.num_classes)
        nn.init.normal_(probe.weight, std=_STD)
        nn.init.zeros_(probe.bias)

    def batch(
        places: Int64[np.ndarray, " b"], step: int, targets: Targets
    ) -> tuple[Tensor, Targets]:
        del step
        return tokens[trial.fitted[places]], targets

    optimiser = torch.optim.SGD(
        probe.parameters(),
        lr=plan.learning_rate,
        momentum=_MOMENTUM,
        weight_decay=plan.weight_decay,
    )
    # Without held-out scans there is no validation, and `classify` is never called.
    classify = partial(_logits, probe, tokens[[] if trial.held_out is None else trial.held_out])
    return probe, trial.train(probe, optimiser, batch, classify, on_epoch)


@torch.no_grad()
def _logits(probe: nn.Linear, tokens: Float[Tensor, "u d"]) -> Float32[np.ndarray, "u k"]:
    return np.asarray(probe(tokens).numpy())
