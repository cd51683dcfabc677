from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from scanlearn.training.monitor import chained, collapse_warning, embedding_std, final_spread


def test_the_spread_of_independent_embeddings_is_one() -> None:
    generator = torch.Generator().manual_seed(0)
    for d in (16, 128):
        embeddings = torch.randn(4000, d, generator=generator)
        assert embedding_std(embeddings) == pytest.approx(1, abs=0.05)


def test_the_spread_of_equal_embeddings_is_zero() -> None:
    assert embedding_std(torch.ones(10, 8)) == pytest.approx(0, abs=1e-6)


def test_the_spread_does_not_depend_on_the_length_of_embeddings() -> None:
    embeddings = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    lengths = torch.linspace(0.1, 9, 50)[:, None]
    assert embedding_std(embeddings * lengths) == pytest.approx(embedding_std(embeddings))


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


def test_collapse_is_warned_of_below_a_tenth() -> None:
    assert collapse_warning(0.1) == ()
    (text,) = collapse_warning(0.05)
    assert "0.05" in text
    assert "try" in text


def test_the_final_spread_is_the_mean_of_the_last_rows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,embedding_std\n" + "".join(f"{i},{i}\n" for i in range(1, 11)))
    assert final_spread(path) == 8
