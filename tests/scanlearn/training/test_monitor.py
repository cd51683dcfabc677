from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from scanlearn.core import Losses
from scanlearn.training.monitor import (
    CollapseMonitor,
    Health,
    chained,
    collapse_warning,
    embedding_rank,
    embedding_std,
    final_health,
    is_late,
)
from scanlearn.training.pretrain import pretrain
from scanlearn.training.settings import PretrainConfig


def test_the_spread_of_independent_embeddings_is_one() -> None:
    generator = torch.Generator().manual_seed(0)
    for d in (16, 128):
        embeddings = torch.randn(4000, d, generator=generator)
        assert embedding_std(embeddings) == pytest.approx(1, abs=0.05)


def test_the_spread_of_equal_embeddings_is_zero() -> None:
    assert embedding_std(torch.ones(10, 8)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("measure", [embedding_std, embedding_rank])
def test_the_measures_do_not_depend_on_the_length_of_embeddings(
    measure: Callable[[torch.Tensor], float],
) -> None:
    embeddings = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    lengths = torch.linspace(0.1, 9, 50)[:, None]
    assert measure(embeddings * lengths) == pytest.approx(measure(embeddings))


def test_the_spread_is_the_formula_written_as_a_loop() -> None:
    embeddings = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    unit = [[x / sum(y * y for y in row) ** 0.5 for x in row] for row in embeddings.tolist()]
    spreads = [np.std([row[i] for row in unit]) for i in range(3)]
    assert embedding_std(embeddings) == pytest.approx(np.mean(spreads) * 3**0.5, rel=1e-5)


def test_bf16_embeddings_are_measured_in_fp32() -> None:
    embeddings = torch.randn(64, 16, generator=torch.Generator().manual_seed(3))
    assert embedding_std(embeddings.bfloat16()) == pytest.approx(
        embedding_std(embeddings), rel=0.01
    )


def test_a_chain_depends_on_values_order_shape_and_type() -> None:
    a, b = np.arange(6), np.arange(6) * 2
    chain = chained(chained("", a), b)
    assert chain == chained(chained("", a.copy()), b.copy())
    others = [
        chained(chained("", b), a),
        chained(chained("", a.reshape(2, 3)), b),
        chained(chained("", a.astype(np.int32)), b),
        chained("", np.concatenate((a, b))),
    ]
    assert chain not in others


def test_the_rank_of_orthogonal_embeddings_is_their_number_and_of_equal_ones_one() -> None:
    assert embedding_rank(torch.eye(12) * 3) == pytest.approx(12)
    assert embedding_rank(torch.ones(12, 5)) == pytest.approx(1)


def test_embeddings_that_are_not_finite_have_no_spread_and_no_rank() -> None:
    embeddings = torch.tensor([[1.0, torch.inf], [0.0, 1.0]])
    assert math.isnan(embedding_std(embeddings))
    assert math.isnan(embedding_rank(embeddings))


def test_health_is_read_off_a_step() -> None:
    embeddings = torch.eye(6)
    losses = Losses(total=torch.tensor(1.5), terms={}, embeddings=embeddings, chance=3.0)
    health = Health.of(losses)
    assert health == Health(embedding_std(embeddings), embedding_rank(embeddings), 0.5)


HEALTHY = Health(spread=0.35, rank=25, loss_vs_chance=0.92)
# Means over rows of real runs of some dozens of epochs on small archives.
DIVERGED = Health(spread=0.13, rank=3.2, loss_vs_chance=1.0)
EQUAL_VIEWS = Health(spread=0.99, rank=40, loss_vs_chance=0.003)
NO_CENTRING = Health(spread=0.79, rank=33, loss_vs_chance=0.005)
UNIFORM = Health(spread=0.79, rank=33, loss_vs_chance=1.0)
# SimCLR at temperature .1 in its first epochs, and on its way below chance.
EARLY = Health(spread=0.96, rank=54, loss_vs_chance=1.26)
PASSING = Health(spread=0.38, rank=30, loss_vs_chance=1.0)


@pytest.mark.parametrize(
    ("health", "words"),
    [
        (Health(0.05, 1.0, 1.0), "the embeddings have collapsed"),
        (DIVERGED, "the embeddings have collapsed"),
        (EQUAL_VIEWS, "views are too alike"),
        (NO_CENTRING, "all scans get the same output"),
    ],
)
def test_a_collapse_is_told_early_and_says_what_to_try(health: Health, words: str) -> None:
    (text,) = collapse_warning(health, is_late=False)
    assert words in text
    assert "try" in text


@pytest.mark.parametrize("health", [HEALTHY, EARLY, PASSING, UNIFORM])
def test_a_run_above_chance_is_given_half_of_its_steps(health: Health) -> None:
    assert collapse_warning(health, is_late=False) == ()


def test_a_loss_at_chance_is_told_in_the_second_half() -> None:
    (text,) = collapse_warning(UNIFORM, is_late=True)
    assert text.startswith("after half of the steps the loss (with dino the entropy of the teacher")
    assert "is 100.00% of chance level" in text
    assert collapse_warning(HEALTHY, is_late=True) == ()


def test_nothing_must_be_learned_before_half_of_the_run_and_a_hundred_steps() -> None:
    assert [step for step in (99, 499, 500, 1000) if is_late(step, 1000)] == [500, 1000]
    assert not is_late(60, 60)
    assert is_late(100, 120)


def test_a_run_is_judged_by_five_warm_rows_and_warned_of_once() -> None:
    watch = CollapseMonitor()
    warm = [False, False, *[True] * 9]
    told = [bool(watch.row(DIVERGED, is_warm=w, is_late=False)) for w in warm]
    assert told == [False] * 6 + [True] + [False] * 4


def test_one_odd_row_is_no_collapse() -> None:
    watch = CollapseMonitor()
    rows = [HEALTHY, HEALTHY, DIVERGED, HEALTHY, HEALTHY, HEALTHY]
    assert not any(watch.row(row, is_warm=True, is_late=True) for row in rows)


def test_the_final_health_is_the_mean_of_the_last_rows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    header = "step,embedding_std,embedding_rank,loss_vs_chance\n"
    path.write_text(header + "".join(f"{i},{i},{2 * i},{i / 10}\n" for i in range(1, 11)))
    assert final_health(path) == Health(8, 16, pytest.approx(0.8))


Configure = Callable[..., PretrainConfig]


def test_equal_views_are_warned_of_in_a_real_run(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    result = pretrain(configure(steps=12, batch_size=16, views={"size": 16, "scale": 0}))
    said = "at scale 0 the views of a scan are equal"
    assert capsys.readouterr().err.count(said) == 1
    assert any(said in text for text in result.warnings)
    alike = {"size": 16, "scale": 1e-6}
    folder = f"{result.folder}-alike"
    result = pretrain(configure(steps=12, batch_size=16, views=alike, output=folder))
    assert any("the views are too alike to learn from" in text for text in result.warnings)


def test_dino_without_centring_is_warned_of_in_a_real_run(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    method = {"name": "dino", "local_views": 0}
    views = {"size": 16}
    healthy = pretrain(configure(steps=20, batch_size=16, views=views, method=method))
    assert "one answer" not in capsys.readouterr().err
    uncentred = {**method, "center_momentum": 0.9999999, "learning_rate": 1e-3}
    folder = f"{healthy.folder}-uncentred"
    result = pretrain(
        configure(steps=20, batch_size=16, views=views, method=uncentred, output=folder)
    )
    assert capsys.readouterr().err.count("all scans get the same output") == 1
    # The teacher's features alone would not have told.
    assert result.embedding_std > 0.3


@pytest.mark.long
def test_a_learning_run_is_not_warned_of_and_a_diverging_one_is(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = {
        "archive": "phantom:patients=100,seed=1,size=48x48",
        "batch_size": 48,
        "steps": 120,
        "views": {"size": 24},
    }
    learning = pretrain(configure(**shared, output=str(tmp_path / "a")))
    said = capsys.readouterr().err
    assert "collapsed" not in said
    assert "of chance level" not in said
    assert learning.embedding_std > 0.15
    pretrain(
        configure(
            **shared, output=str(tmp_path / "b"), method={"name": "simclr", "learning_rate": 1000.0}
        )
    )
    assert "of chance level" in capsys.readouterr().err


@pytest.mark.long
def test_dino_is_warned_of_where_its_teacher_answers_alike_for_all_scans(
    configure: Configure,
) -> None:
    # A teacher as soft as this answers alike for all outputs: there is nothing to learn from it.
    method = {"name": "dino", "local_views": 0, "learning_rate": 1e-9}
    given = {"steps": 110, "batch_size": 16, "views": {"size": 16}}
    result = pretrain(configure(**given, method={**method, "teacher_temperature": 1.0}))
    assert final_health(result.metrics).loss_vs_chance > 0.99
    assert any("of chance level" in text for text in result.warnings)
    sharp = pretrain(configure(**given, method=method, output=f"{result.folder}-sharp"))
    assert final_health(sharp.metrics).loss_vs_chance < 0.99
    assert not any("of chance level" in text for text in sharp.warnings)
