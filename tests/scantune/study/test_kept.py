from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scantune.learners.by_name import frozen_learner
from scantune.learners.learner import Learner
from scantune.scores import Scores
from scantune.scoring import score_learners
from scantune.study.kept import Part, extended, parts_missing, selected

Budgets = tuple[int | str, ...]
LEARNERS, BUDGETS, SEEDS = ("knn", "linear"), (10, "all"), 3


@pytest.fixture
def learners(labeled: Any) -> dict[str, Learner]:
    """A learner that is refitted and never fails, and one that is not and may fail."""
    data = labeled(patients=30)
    features = np.random.default_rng(0).normal(size=(len(data), 4))
    knn, linear = (frozen_learner(name, features, data) for name in LEARNERS)

    def failing(rows: np.ndarray, test: np.ndarray, seed: int) -> Any:
        caveats = (f"it failed on {len(rows) % 2}",) if seed != 1 else ()
        return replace(linear(rows, test, seed), refit=None, caveats=caveats)

    return {"knn": knn, "linear": failing}


def whole(learners: dict[str, Learner], labeled: Any, seeds: int, budgets: Budgets) -> Scores:
    data = labeled(patients=30)
    return score_learners(learners, data, budgets=budgets, folds=2, label_seeds=seeds)  # type: ignore[arg-type]


def grow(
    kept: Scores | None, learners: dict[str, Learner], labeled: Any, budgets: Budgets, seeds: int
) -> tuple[Scores, list[Part]]:
    """The scores with what a plan lacks, and what that was."""
    missing = list(parts_missing(kept, tuple(learners), tuple(map(str, budgets)), seeds))
    for learner, budget, seed in missing:
        made = score_learners(
            {learner: learners[learner]},
            labeled(patients=30),
            budgets=(budget if budget == "all" else int(budget),),  # type: ignore[arg-type]
            folds=2,
            label_seeds=(seed,),
        )
        kept = extended(kept, replace(made, validation={}), seed)
    assert kept is not None
    return kept, missing


def check_equal(one: Scores, other: Scores) -> None:
    for name in ("learners", "budgets", "notes"):
        assert getattr(one, name) == getattr(other, name)
    assert sorted(one.caveats) == sorted(other.caveats)
    for name in (
        *("values", "thresholds", "fold_of", "train_scans", "train_patients", "learned"),
        *("refits", "seed_refits"),
    ):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_scores_grown_in_any_order_are_those_of_the_whole_plan(
    learners: dict[str, Learner], labeled: Any, tmp_path: Path, order: tuple[int, ...]
) -> None:
    names, budgets, seeds = ("knn",), ("all",), 1
    kept, parts = grow(None, {"knn": learners["knn"]}, labeled, budgets, seeds)
    for step in order:
        names = LEARNERS if step == 0 else names
        budgets = BUDGETS if step == 1 else budgets
        seeds = SEEDS if step == 2 else seeds
        some = {name: learners[name] for name in names}
        kept, missing = grow(kept, some, labeled, budgets, seeds)
        parts += missing
        kept.save(tmp_path / "scores.npz")
        kept = Scores.load(tmp_path / "scores.npz")
    assert len(parts) == len(set(parts)) == len(LEARNERS) * len(BUDGETS) * SEEDS
    asked = LEARNERS, tuple(map(str, BUDGETS)), SEEDS
    found, expected = selected(kept, *asked), whole(learners, labeled, SEEDS, BUDGETS)
    assert expected.notes
    check_equal(found, replace(expected, validation={}))
    # Fewer are taken from them.
    fewer = selected(kept, ("linear",), ("10",), 2)
    check_equal(fewer, whole({"linear": learners["linear"]}, labeled, 2, (10,)))


def test_a_gap_is_no_part_that_is_kept(learners: dict[str, Learner], labeled: Any) -> None:
    kept = grow(None, {"knn": learners["knn"]}, labeled, ("all",), 2)[0]
    kept = grow(kept, {"linear": learners["linear"]}, labeled, (10,), 1)[0]
    assert parts_missing(kept, LEARNERS, ("10", "all"), 2) == (
        *(Part("knn", "10", 0), Part("linear", "all", 0), Part("knn", "10", 1)),
        *(Part("linear", "10", 1), Part("linear", "all", 1)),
    )


def test_scores_of_earlier_releases_serve_and_are_extended(
    learners: dict[str, Learner], labeled: Any
) -> None:
    """These kept refits as a mean over label seeds, and what went wrong in words."""
    expected = whole(learners, labeled, 2, ("all",))
    earlier = replace(expected, seed_refits=None, caveats=(), validation={})
    assert parts_missing(earlier, LEARNERS, ("all",), 2) == ()
    same = selected(earlier, LEARNERS, ("all",), 2)
    assert same.notes == expected.notes
    np.testing.assert_array_equal(same.refits, expected.refits)
    # The refits of two label seeds cannot be parted, what was not refitted is as good as new.
    kept, missing = grow(earlier, learners, labeled, ("all",), 3)
    assert missing == [
        *(Part("knn", "all", 0), Part("knn", "all", 1)),
        *(Part("knn", "all", 2), Part("linear", "all", 2)),
    ]
    found, anew = selected(kept, LEARNERS, ("all",), 3), whole(learners, labeled, 3, ("all",))
    np.testing.assert_array_equal(found.values, anew.values)
    np.testing.assert_array_equal(found.refits, anew.refits)
    # Without the learner whose mean it was, that is made again when it comes back.
    kept = grow(earlier, {"linear": learners["linear"]}, labeled, ("all",), 3)[0]
    assert len(parts_missing(kept, LEARNERS, ("all",), 3)) == 3
