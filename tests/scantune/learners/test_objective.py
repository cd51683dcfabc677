from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from scantune.labels.truth import Truth
from scantune.learners.objective import Objective, Targets, mix_views

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


def batch(size: int = 16) -> tuple[torch.Tensor, Targets]:
    """Views that are filled with their own number, and targets that are it."""
    numbers = torch.arange(16.0)
    views = numbers[:, None, None, None].expand(16, 1, size, size).clone()
    return views, Targets(numbers[:, None].clone(), torch.ones(16, 1))


def test_without_alpha_nothing_is_mixed() -> None:
    views, targets = batch()
    mixed, same = mix_views(views, targets, np.random.default_rng(0), mixup=0, cutmix=0)
    assert mixed is views
    assert same is targets


def test_mixup_mixes_views_and_targets_in_one_share() -> None:
    views, targets = batch()
    mixed, found = mix_views(views, targets, np.random.default_rng(0), mixup=0.8, cutmix=0)
    torch.testing.assert_close(mixed.mean((1, 2, 3)), found.wanted[:, 0])
    assert not torch.equal(mixed, views)


def test_cutmix_keeps_the_share_of_the_area_that_the_target_keeps() -> None:
    for seed in range(20):
        views, targets = batch()
        mixed, found = mix_views(views, targets, np.random.default_rng(seed), mixup=0, cutmix=1.0)
        torch.testing.assert_close(mixed.mean((1, 2, 3)), found.wanted[:, 0])
        assert torch.isin(mixed, views).all()


def test_cutmix_cuts_one_box() -> None:
    views, targets = batch(32)
    mixed, _ = mix_views(views, targets, np.random.default_rng(3), mixup=0, cutmix=1.0)
    changed = (mixed != views).any(0)[0]
    rows, columns = changed.any(1), changed.any(0)
    assert 0 < int(changed.sum()) == int(rows.sum()) * int(columns.sum()) < 32 * 32


def test_of_both_each_batch_takes_one_by_a_fair_coin() -> None:
    views, targets = batch()
    rng = np.random.default_rng(0)
    cuts = [
        bool(torch.isin(mix_views(views, targets, rng, mixup=0.5, cutmix=1.0)[0], views).all())
        for _ in range(200)
    ]
    assert 70 < sum(cuts) < 130


def test_a_label_unknown_in_one_of_a_pair_is_unknown_in_the_mixture() -> None:
    views, targets = batch()
    unknown = Targets(targets.wanted, (torch.arange(16) % 4 > 0).float()[:, None])
    rng = np.random.default_rng(1)
    _, found = mix_views(views, unknown, rng, mixup=0.8, cutmix=0)
    again = np.random.default_rng(1)
    again.beta(0.8, 0.8)
    partner = again.permutation(16)
    expected = unknown.known * unknown.known[partner]
    assert torch.equal(found.known, expected)
    assert 0 < float(expected.sum()) < float(unknown.known.sum())


@pytest.mark.parametrize("beta", [None, 0.9])
def test_the_loss_of_a_constant_is_the_least_that_one_prediction_for_all_has(
    beta: float | None,
) -> None:
    for truth in (Truth.of_classes(Y, 3), FINDINGS):
        objective = Objective.of(truth, smoothing=0.1, beta=beta)
        targets = objective.targets(truth.matrix)
        constant = torch.zeros(3, requires_grad=True)
        search = torch.optim.LBFGS([constant], max_iter=200, line_search_fn="strong_wolfe")

        def lost(
            constant: Tensor = constant,
            objective: Objective = objective,
            targets: Targets = targets,
            search: torch.optim.LBFGS = search,
        ) -> Tensor:
            search.zero_grad()
            loss = objective.loss(constant.expand(4, 3), targets)
            loss.backward()
            return loss

        search.step(lost)  # type: ignore[no-untyped-call]
        assert objective.constant_loss(truth) == pytest.approx(float(lost().detach()), rel=1e-4)
        twice = truth[np.array([0, 1, 2, 3, 0])]
        drawn = objective.constant_loss(truth, np.array([0.4, 0.2, 0.2, 0.2]))
        assert drawn == pytest.approx(objective.constant_loss(twice), rel=1e-5)
