from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from scanlearn.errors import ScanlearnError
from scantune.labels.truth import Truth
from scantune.learners.loop import History, Split, rate_factor, train
from scantune.learners.objective import Objective
from scantune.learners.settings import TuneConfig, TunePlan

PLAN = replace(TuneConfig(epochs=6, batch=8, patience=6).plan("finetune", 64), learning_rate=0.1)


def run(
    plan: TunePlan = PLAN,
    *,
    classify: Callable[[int], np.ndarray] | None = None,
    shares: np.ndarray | None = None,
    seed: int = 0,
    scale: float = 1.0,
) -> tuple[nn.Linear, History, list[np.ndarray]]:
    """Teaches a linear model 64 points; ``classify`` replaces its validation logits by epoch."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(64, 4))
    y = (inputs[:, 0] > 0).astype(int)
    points = torch.from_numpy(inputs).float() * scale
    truth = Truth.of_classes(y, 2)
    model = nn.Linear(4, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    drawn: list[np.ndarray] = []
    asked: list[int] = []

    def batch(rows: np.ndarray, step: int, targets: Any) -> Any:
        assert step == len(drawn)
        drawn.append(rows)
        return points[rows], targets

    def logits() -> np.ndarray:
        asked.append(1)
        assert classify is not None
        return classify(len(asked)).astype(np.float32)

    split = Split(truth, batch, None if classify is None else truth, logits, shares)
    optimiser = torch.optim.SGD(model.parameters(), lr=plan.learning_rate)
    history = train(
        model, optimiser, split, Objective.of(truth), plan, rng=np.random.default_rng(seed)
    )
    return model, history, drawn


def graded(quality: list[float]) -> Callable[[int], np.ndarray]:
    """Validation logits whose AUROC rises with each epoch's quality."""
    inputs = np.random.default_rng(0).normal(size=(64, 4))
    noise = np.random.default_rng(1).normal(size=64)

    def classify(epoch: int) -> np.ndarray:
        score = quality[epoch - 1] * np.sign(inputs[:, 0]) + noise
        return np.column_stack([-score, score])

    return classify


def test_the_loss_falls() -> None:
    _, history, _ = run()
    assert history.losses[-1] < 0.8 * history.losses[0]
    assert history.epoch == 6
    assert history.validation is None


def test_every_epoch_goes_through_all_scans_in_another_order() -> None:
    _, _, drawn = run()
    epochs = np.concatenate(drawn).reshape(6, 64)
    assert all(sorted(epoch) == list(range(64)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])


def test_shares_draw_with_replacement() -> None:
    shares = np.where(np.arange(64) < 4, 0.25, 0.0)
    _, _, drawn = run(shares=shares)
    assert set(np.concatenate(drawn)) == {0, 1, 2, 3}


def test_the_best_epochs_weights_are_taken() -> None:
    best, history, _ = run(classify=graded([0.0, 1.0, 2.0, 1.0, 0.5, 0.1]))
    assert history.epoch == 3
    assert np.argmax(history.aurocs) == 2
    to_the_end, _, _ = run()
    assert not torch.equal(best.weight, to_the_end.weight)
    # The same steps, of the same schedule, stopped after the third epoch.
    waited = graded([0.0, 1.0, 2.0, 1.0])
    stopped, _, _ = run(replace(PLAN, patience=1), classify=waited)
    assert torch.equal(best.weight, stopped.weight)


def test_it_stops_when_patience_is_at_its_end() -> None:
    classify = graded([0.0, 2.0, 1.0, 1.0, 1.0, 1.0])
    _, history, _ = run(replace(PLAN, patience=2), classify=classify)
    assert len(history.losses) == 4
    assert history.epoch == 2


def test_of_equal_aurocs_the_lower_loss_is_better() -> None:
    perfect = graded([50.0])
    logits = [0.001 * perfect(1), 0.02 * perfect(1), *[0.01 * perfect(1)] * 4]
    _, history, _ = run(classify=lambda epoch: logits[epoch - 1])
    assert set(history.aurocs) == {1.0}
    assert history.epoch == 2


def test_a_loss_that_is_no_number_stops_in_one_sentence() -> None:
    with pytest.raises(ScanlearnError, match=r"step 2 is (nan|inf); lower tune.learning_rate"):
        run(replace(PLAN, warmup_epochs=0.0, learning_rate=1e38), scale=1e30)


def test_the_rate_rises_and_falls_and_is_never_nothing() -> None:
    factors = [rate_factor(step, 100, 10.0) for step in range(100)]
    assert np.argmax(factors) in (9, 10)
    assert factors[9] == 1.0
    assert np.all(np.diff(factors[10:]) < 0)
    assert min(factors) > 0
    assert rate_factor(0, 1, 0.1) > 0
