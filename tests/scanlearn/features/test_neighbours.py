from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_info, threadpool_limits

from scanlearn.features.neighbours import (
    Agreement,
    Groups,
    agreement,
    draw_map,
    layout,
    nearest,
)


@pytest.mark.parametrize(
    ("values", "names", "codes"),
    [
        (["b", "a", None, "b"], ("a", "b"), [1, 0, -1, 1]),
        (["10", "9", "10"], ("9", "10"), [1, 0, 1]),  # as numbers, not as letters
        ([None, None], (), [-1, -1]),
        (
            [*"aaabbbccddeeffg"],  # the five commonest, and the rest in one
            ("a", "b", "c", "d", "e", "2 other values"),
            [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5],
        ),
        (
            [str(n) for n in range(11)],  # fifths of many numbers
            ("0 to 2", "2 to 4", "4 to 6", "6 to 8", "8 to 10"),
            [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4],
        ),
    ],
)
def test_a_column_becomes_groups(
    values: list[str | None], names: tuple[str, ...], codes: list[int]
) -> None:
    groups = Groups.of(np.array(values, dtype=object))
    assert (groups.names, groups.codes.tolist()) == (names, codes)
    assert [groups.name(row) for row in range(len(values))][codes.index(max(codes))] == (
        names[max(codes)] if names else "blank"
    )


def test_neighbours_are_those_of_a_slow_loop_and_of_other_patients() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((20, 5)).astype(np.float32)
    patients = np.array([f"p{row // 3}" for row in range(20)])
    found = nearest(vectors, patients, np.array([0, 7, 19]), count=4)
    for query, rows, similarity in zip(found.queries, found.rows, found.similarity, strict=True):
        slow = sorted(
            (
                -sum(a * b for a, b in zip(vectors[query], vectors[row], strict=True))
                / (sum(vectors[query] ** 2) * sum(vectors[row] ** 2)) ** 0.5,
                row,
            )
            for row in range(20)
            if patients[row] != patients[query]
        )[:4]
        assert rows.tolist() == [row for _, row in slow]
        np.testing.assert_allclose(similarity, [-value for value, _ in slow], atol=1e-6)
    alone = nearest(vectors[:3], patients[:3], np.array([0]), count=2)
    assert alone.rows.tolist() == [[-1, -1]]


def test_agreement_of_planted_groups_is_whole_and_chance_is_counted() -> None:
    # Two groups of two patients of two scans each, in two directions: without the patients'
    # own scans 2 of the 6 others are of the group.
    vectors = np.repeat(np.eye(2, dtype=np.float32), 4, axis=0)
    patients = np.array([f"p{row // 2}" for row in range(8)])
    groups = Groups.of(np.array([*"aaaabbbb"], dtype=object))
    assert agreement(vectors, patients, groups) == Agreement(1.0, pytest.approx(2 / 6), 8)
    blank = Groups(groups.names, np.where(np.arange(8) < 4, groups.codes, -1))
    assert agreement(vectors, patients, blank) == Agreement(1.0, 1.0, 4)
    assert agreement(vectors[:2], patients[:2], groups.at(np.arange(2))) is None


def test_a_map_keeps_what_is_apart_apart_and_repeats_itself() -> None:
    generator = np.random.default_rng(0)
    centres = np.repeat(np.eye(3, 8), 10, axis=0)
    vectors = centres + 0.02 * generator.standard_normal(centres.shape)
    places = layout(vectors, seed=0)
    np.testing.assert_array_equal(places, layout(vectors, seed=0))
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (apart.argmin(1) // 10 == np.arange(30) // 10).all()
    groups = Groups.of(np.array([*"a" * 10, *"b" * 10, *[None] * 10], dtype=object))
    drawing = draw_map(places, groups, [f"scan{row}" for row in range(30)])
    assert drawing.count("<circle") == 30
    assert drawing.count('class="hollow"') == 10
    assert "<title>a: scan0</title>" in drawing
    assert not layout(np.ones((9, 4)), seed=0).any()


def test_a_map_is_laid_out_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Watched(TSNE):
        def fit_transform(self, *arguments: Any) -> Any:
            seen.extend(pool["num_threads"] for pool in threadpool_info())
            return super().fit_transform(*arguments)

    monkeypatch.setattr("sklearn.manifold.TSNE", Watched)
    with threadpool_limits(2):
        layout(np.random.default_rng(0).normal(size=(12, 5)), seed=0)
        assert {pool["num_threads"] for pool in threadpool_info()} != {1}
    assert set(seen) == {1}
