"""The learners of an evaluation by their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float32

from scanlearn.backbones.backbone import Backbone
from scanlearn.errors import ScanlearnError
from scantune.learners.course import LabeledScans
from scantune.learners.frozen import Learner, frozen_learners
from scantune.learners.loop import OnEpoch, unheard
from scantune.learners.settings import Mode, Name, TuneConfig
from scantune.learners.tuned import tuned_learner
from scantune.scores import Scores
from scantune.splits import FEWEST_PATIENTS

Kept = Literal["linear", "finetune", "lpft", "batchnorm", "scratch"]


def learners_by_name(
    names: Sequence[Name],
    network: Backbone | None,
    scans: LabeledScans,
    features: Float32[np.ndarray, "n d"],
    config: TuneConfig,
    *,
    on_epoch: OnEpoch = unheard,
) -> dict[str, Learner]:
    """Returns learners, in the order of their names.

    Args:
        names: Which.
        network: What is tuned; None where features come from no network.
        scans: The labeled set.
        features: ``[n d]`` of its scans, frozen: what "knn" and "linear" learn from.
        config: How the others train.
        on_epoch: Told after each of their epochs.

    Raises:
        ScanlearnError: If a learner trains a network and there is none, or a setting was changed
            that none of the learners reads.
    """
    idle = config.without_effect(names)
    if idle:
        raise ScanlearnError(
            f"tune.{idle[0]}: has no effect on the learners {', '.join(names)}; leave it out, or "
            "name a learner that reads it"
        )
    known = dict(frozen_learners(features, scans.labeled, config.probe_rows))
    for mode in get_args(Mode):
        if mode not in names:
            continue
        if network is None:
            raise ScanlearnError(
                f"learner '{mode}' trains on a network, and this backbone is none; give a "
                "backbone's folder or random:NAME, or take knn and linear"
            )
        known[mode] = tuned_learner(network, scans, config, mode, on_epoch)
    return {name: known[name] for name in names}


def kept_learner(names: Sequence[Name]) -> Kept:
    """Returns the learner whose classifier is kept: the last that makes one, or the linear probe.

    Nearest neighbours are no classifier without the labeled scans, and the class tokens that
    ``sgd`` learns from are no features of a timm model.
    """
    keepable: list[Kept] = [name for name in names if name != "knn" and name != "sgd"]
    return keepable[-1] if keepable else "linear"


def stopping_notes(scores: Scores, config: TuneConfig) -> tuple[str, ...]:
    """Returns at which label budgets learners were trained to their last epoch, in words."""
    names = [name for name in scores.learners if name in get_args(Mode)]
    few = [
        budget
        for budget, patients in zip(scores.budgets, scores.train_patients, strict=True)
        if patients.min() < FEWEST_PATIENTS
    ]
    if not names or not few or config.patience == 0:
        return ()
    return (
        f"{', '.join(names)} with {', '.join(few)} labels: fewer than {FEWEST_PATIENTS} patients "
        "train, too few to hold some out: trained to the last epoch, without thresholds",
    )
