from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scantune.study.arms import matched, read_curve
from scantune.study.results import Curve, RunRow


def row(arm: str, seed: int = 0, **changed: Any) -> RunRow:
    values: dict[str, Any] = {
        "arm": arm,
        "seed": seed,
        "steps": 5,
        "epochs": 1.0,
        "views": 80,
        "seconds": 1.0,
        "views_per_s": 80.0,
        "initial_hash": f"initial {seed}",
        "final_hash": f"final {arm} {seed}",
        "order_hash": f"order {seed}",
        "uniforms_hash": f"uniforms {seed}",
        "curve": Curve(),
        "backbone": "b",
    }
    return RunRow(**{**values, **changed})


UNTRAINED = {"steps": 0, "order_hash": "", "uniforms_hash": ""}


def test_arms_that_share_all_but_the_dial_match() -> None:
    rows = [row(arm, seed) for seed in (0, 1) for arm in ("weak", "strong")]
    rows += [row("random", seed, **UNTRAINED) for seed in (0, 1)]
    proof = matched(rows)
    assert proof.ok
    assert proof.problems == ()
    assert [s.initial_hash for s in proof.per_seed] == ["initial 0", "initial 1"]
    assert [s.steps for s in proof.per_seed] == [5, 5]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("initial_hash", "x", "initial weights"),
        ("order_hash", "x", "data order"),
        ("uniforms_hash", "x", "random draws"),
        ("steps", 6, "steps"),
    ],
)
def test_every_kind_of_mismatch_is_named(key: str, value: object, words: str) -> None:
    proof = matched([row("weak", 3), row("strong", 3, **{key: value})])
    assert not proof.ok
    assert proof.problems == (f"seed 3: {words} differ (weak against strong).",)


def test_an_untrained_arm_must_begin_where_the_others_began() -> None:
    proof = matched([row("weak"), row("random", **{**UNTRAINED, "initial_hash": "x"})])
    assert proof.problems == ("seed 0: initial weights differ (weak against random).",)


def test_seeds_are_compared_within_themselves_only() -> None:
    assert matched([row("weak", 0), row("strong", 0), row("weak", 1), row("strong", 1)]).ok


def test_a_long_curve_is_averaged_in_equal_spans(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    lines = [f"{step},{float(step)},nan" for step in range(1, 401)]
    path.write_text("\n".join(["step,loss,embedding_std", *lines]) + "\n")
    curve = read_curve(path)
    assert curve.step[:2] == (2, 4)
    assert curve.loss[:2] == (1.5, 3.5)
    assert set(curve.embedding_std) == {None}
    assert len(curve.step) == 200
