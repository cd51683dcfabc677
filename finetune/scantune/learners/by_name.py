"""The learners of an evaluation by their names: built, kept, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import numpy as np
from jaxtyping import Float32, Shaped

from scanlearn.backbones.backbone import Backbone
from scanlearn.errors import ScanlearnError
from scantune.labels.labeled_set import LabeledSet
from scantune.learners.learner import LabeledScans, Learner, LearnerInputs, OnEpoch, ignore_epoch
from scantune.learners.settings import DEFAULT, TuneConfig
from scantune.learners.table import FROZEN_LEARNERS, LEARNERS, find_learner
from scantune.scores import Scores
from scantune.splits import FEWEST_PATIENTS


def learners_by_name(
    names: Sequence[str],
    network: Backbone | None,
    scans: LabeledScans,
    features: Float32[np.ndarray, "n d"],
    config: TuneConfig,
    *,
    on_epoch: OnEpoch = ignore_epoch,
) -> dict[str, Learner]:
    """Returns learners, in the order of their names.

    Args:
        network: What is tuned; None where features come from no network.

    Raises:
        ScanlearnError: If a learner trains a network and there is none, or a setting was changed
            that none of the learners reads.
    """
    unread = config.without_effect(names)
    if unread:
        raise ScanlearnError(
            f"tune.{unread[0]}: has no effect on the learners {', '.join(names)}; leave it out, or "
            "name a learner that reads it"
        )
    learners: dict[str, Learner] = {}
    for name in names:
        kind = find_learner(name)
        if kind.needs_network and network is None:
            raise ScanlearnError(
                f"learner '{name}' needs a network, and this backbone has none; give a backbone's "
                f"folder or random:NAME, or choose from {', '.join(FROZEN_LEARNERS)}"
            )
        learners[name] = build_learner(
            LearnerInputs(kind, features, scans.labeled, config, network, scans, on_epoch)
        )
    return learners


def frozen_learner(
    name: str,
    features: Shaped[np.ndarray, "n d"],
    labeled: LabeledSet,
    config: TuneConfig = DEFAULT,
) -> Learner:
    """Returns one of `FROZEN_LEARNERS`, which need only the features of a labeled set."""
    return build_learner(LearnerInputs(LEARNERS[name], features, labeled, config))


def build_learner(inputs: LearnerInputs) -> Learner:
    """Returns what the function that the row names makes of the inputs."""
    module, _, function = inputs.kind.build.partition(":")
    learner: Learner = getattr(import_module(f"scantune.learners.{module}"), function)(inputs)
    return learner


def kept_learner(names: Sequence[str]) -> str:
    """Returns the learner whose classifier is kept: the last that makes one, or the linear probe.

    Nearest neighbours, for example, are no classifier without the labeled scans.
    """
    return next((name for name in reversed(names) if LEARNERS[name].keeps_classifier), "linear")


def stopping_notes(scores: Scores, config: TuneConfig) -> tuple[str, ...]:
    """Returns at which label budgets learners were trained to their last epoch, in words."""
    names = [n for n in scores.learners if n in LEARNERS and "patience" in LEARNERS[n].reads]
    few = [
        budget
        for budget, patients in zip(scores.budgets, scores.train_patients, strict=True)
        if patients.min() < FEWEST_PATIENTS
    ]
    if not names or not few or config.patience == 0:
        return ()
    return (
        f"{', '.join(names)} with {', '.join(few)} labels: trained to the last epoch, without "
        f"thresholds, because fewer than {FEWEST_PATIENTS} training patients are too few to hold "
        "some out for validation",
    )
