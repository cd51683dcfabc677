"""A linear probe trained by steps, as self-supervised papers release theirs."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from scanlearn.backbones.backbone import Backbone, seeded_weights
from scanlearn.backbones.classifier import with_last_tokens
from scantune.learners.course import ORDER, Course, LabeledScans
from scantune.learners.loop import Lesson, Lessons, OnEpoch, teach
from scantune.learners.mixing import Targets

# Blocks whose class tokens DINO's linear evaluation takes of a small network.
_BLOCKS = 4
_MOMENTUM = 0.9
_STD = 0.01


def token_features(backbone: Backbone, scans: LabeledScans) -> Float32[np.ndarray, "n d"]:
    """Returns the class tokens of the last four blocks, of all labeled scans.

    A network without class tokens gives its own features.
    """
    return scans.seen_by(with_last_tokens(backbone, _BLOCKS))


def train_probe(course: Course, on_epoch: OnEpoch) -> tuple[nn.Linear, Lessons]:
    """Returns a linear probe on the last class tokens, and how the training went.

    The released evaluations crop and mirror the training scans anew in each epoch; here the
    features are extracted once, from whole scans.

    Source: Cheng et al. 2025 (arXiv 2501.02451), released code; DINO (arXiv 2104.14294), released
    linear evaluation.
    """
    plan = course.plan
    tokens = torch.from_numpy(token_features(course.backbone, course.scans))
    with seeded_weights(course.seed, "probe"):
        probe = nn.Linear(tokens.shape[1], course.truth.num_classes)
        nn.init.normal_(probe.weight, std=_STD)
        nn.init.zeros_(probe.bias)

    def batch(
        places: Int64[np.ndarray, " b"], step: int, targets: Targets
    ) -> tuple[Tensor, Targets]:
        del step
        return tokens[course.fitted[places]], targets

    def classify() -> Float[np.ndarray, "v k"]:
        assert course.held_out is not None
        with torch.no_grad():
            found: np.ndarray = probe(tokens[course.held_out]).numpy()
        return found

    optimiser = torch.optim.SGD(
        probe.parameters(),
        lr=plan.learning_rate,
        momentum=_MOMENTUM,
        weight_decay=plan.weight_decay,
    )
    lesson = Lesson(course.truth, batch, course.validation, classify, course.shares)
    lessons = teach(
        probe,
        optimiser,
        lesson,
        course.objective,
        plan,
        rng=course.rng(ORDER),
        on_epoch=on_epoch,
    )
    return probe, lessons
