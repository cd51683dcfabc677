from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from scantune.labels.truth import Truth
from scantune.learners.objective import Objective

LOGITS = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.2, -1.0], [2.0, 2.0, 0.0], [-1.0, 0.0, 3.0]])
Y = np.array([0, 2, 1, 1])
FINDINGS = Truth(np.array([[1, 0, -1], [0, 1, 1], [-1, -1, 0], [1, 0, 0]], np.int8), "multilabel")


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_one_class_each_is_torchs_smoothed_cross_entropy(smoothing: float) -> None:
    truth = Truth.of_classes(Y, 3)
    objective = Objective.of(truth, smoothing=smoothing)
    found = objective.loss(LOGITS, objective.targets(truth.matrix))
    expected = functional.cross_entropy(LOGITS, torch.from_numpy(Y), label_smoothing=smoothing)
    torch.testing.assert_close(found, expected)


def test_findings_are_a_mean_over_the_labels_that_are_known() -> None:
    objective = Objective.of(FINDINGS)
    total, known = 0.0, 0
    for row, scan in enumerate(FINDINGS.matrix):
        for place, label in enumerate(scan):
            if label >= 0:
                p = 1 / (1 + math.exp(-float(LOGITS[row, place])))
                total -= math.log(p if label else 1 - p)
                known += 1
    found = objective.loss(LOGITS, objective.targets(FINDINGS.matrix))
    assert float(found) == pytest.approx(total / known, rel=1e-5)


def test_an_unknown_label_moves_nothing() -> None:
    logits = LOGITS.clone().requires_grad_()
    objective = Objective.of(FINDINGS, smoothing=0.1)
    objective.loss(logits, objective.targets(FINDINGS.matrix)).backward()
    assert logits.grad is not None
    np.testing.assert_array_equal(logits.grad.numpy() == 0, FINDINGS.matrix < 0)


def test_weights_count_a_rare_class_for_more() -> None:
    truth = Truth.of_classes(np.array([0] * 9 + [1]), 2)
    plain, weighed = Objective.of(truth), Objective.of(truth, beta=0.999)
    logits = torch.tensor([[2.0, -2.0]] * 10)
    targets = plain.targets(truth.matrix)
    assert float(weighed.loss(logits, targets)) > 3 * float(plain.loss(logits, targets))


def test_a_batch_of_unknown_labels_has_no_loss() -> None:
    objective = Objective.of(FINDINGS)
    nothing = objective.targets(np.full((4, 3), -1, np.int8))
    assert float(objective.loss(LOGITS, nothing)) == 0.0
