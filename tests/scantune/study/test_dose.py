from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from scantune.comparison.compare import summary_lines
from scantune.reports import report as page
from scantune.statistics.few_patients import Sides
from scantune.statistics.intervals import Estimate
from scantune.study import dose
from scantune.study import results as r


def arm(name: str, *dial: float) -> r.ArmRow:
    keys = ("crop", "geometry", "photometric", "acquisition")
    return r.ArmRow(
        name=name, kind="pretrained", scale=r.Dial(**dict(zip(keys, dial, strict=True)))
    )


@pytest.mark.parametrize(
    ("dial", "scale"),
    [
        ((0.5, 0.5, 0.5, 0), 0.5),
        ((0.5, 0.5, 0.5, 0.5), 0.5),
        ((0.5, 0.5, 0.5, 1), None),
        ((1, 0, 0, 0), None),
    ],
)
def test_an_arm_has_a_scale_where_one_number_moved_it(
    dial: tuple[float, ...], scale: float | None
) -> None:
    assert dose.overall_scale(arm("a", *dial)) == scale


def test_arms_of_one_curve_go_by_scale_and_the_identity_is_an_end_of_each() -> None:
    arms = [
        r.ArmRow(name="random", kind="random"),
        arm("strong", 1, 1, 1, 0),
        arm("identity", 0, 0, 0, 0),
        arm("crop", 1, 0, 0, 0),
        arm("weak", 0.5, 0.5, 0.5, 0),
        arm("device", 1, 1, 1, 1),
    ]
    groups = dose.dose_arms(arms)
    assert [[each.name for each in group.arms] for group in groups] == [
        ["identity", "weak", "strong"],
        ["identity", "device"],
    ]
    assert [group.group for group in groups] == ["", "acquisition moved"]
    assert groups[0].scales == (0, 0.5, 1)


def curve(**replaced: Any) -> r.DoseCurve:
    shown = {"is_flat": False, "take": 0.5, "is_take_shown": True, "margin": 0.01}
    best = {"best": 0.6, "best_low": 0.4, "best_high": 0.9}
    line = {"at": (0, 0.5, 1), "auroc": (0.7, 0.8, 0.79), "low": (0.6,) * 3, "high": (0.9,) * 3}
    sets = {"within": ((0.5, 1.0),), "possible": ((0.25, 1.0),)}
    place = {"task": "t", "learner": "linear", "budget": "all", "kind": "spline"}
    arms = {"arms": ("a", "b", "c", "d"), "scales": (0, 0.25, 0.5, 1)}
    return r.DoseCurve.model_validate(
        {**place, **arms, **line, **best, **sets, **shown, **replaced}
    )


@pytest.mark.parametrize(
    ("replaced", "headline", "words"),
    [
        ({}, "Best scale: s = 0.6 (95 % interval 0.4 to 0.9)", "Take s = 0.5: the smallest tested"),
        (
            {"is_flat": True, "within": ((0, 1),), "possible": ((0, 1),), "take": 0},
            "Any scale from 0 to 1 does as well: take 0",
            "chance may make a level curve as uneven",
        ),
        (
            {"is_flat": True, "within": (), "possible": ((0, 1),), "is_take_shown": False},
            "No best scale is shown",
            "s = 0.5 is a choice and no finding",
        ),
        ({"kind": "points"}, "Best scale: s = 0.6", "only the tested scales are compared"),
    ],
)
def test_what_a_curve_shows_is_said_and_by_which_rule(
    replaced: dict[str, Any], headline: str, words: str
) -> None:
    made = curve(**replaced)
    assert dose.dose_headline(made).startswith(headline)
    assert words in " ".join(dose.dose_sentences(made))


def test_the_terminal_and_the_top_of_the_page_are_told_the_best_scale(
    fake_results: r.Results, study_folder: Callable[..., Path]
) -> None:
    found = curve(task="lesion")
    other = curve(task="pallor", best=0.3)
    text = page.write(study_folder(dose=(other, found))).read_text(encoding="utf-8")
    best = "<strong>Best scale: s = 0.6 (95 % interval 0.4 to 0.9).</strong>"
    assert text.split("<nav")[0].count(best) == 1
    lines = summary_lines(fake_results.model_copy(update={"dose": (other, found)}))
    assert [line for line in lines if line.startswith("Best scale")] == [
        "Best scale: s = 0.6 (95 % interval 0.4 to 0.9)"
    ]


def test_curves_are_of_every_place_where_all_arms_of_a_group_were_scored() -> None:
    rng = np.random.default_rng(0)
    arms = [arm(f"s{s}", s, s, s, 0) for s in (0, 0.25, 0.5, 1)]
    common = 0.01 * rng.standard_normal(400)
    estimates = {
        (task, "linear", "all", each.name): [
            Estimate(
                auroc=0.7 + 0.1 * place + 0.001 * seed,
                per_fold=np.zeros((1, 1)),
                replicates=common + 0.001 * rng.standard_normal(400),
                num_patients=900,
                undefined=0,
                sides=(Sides("1", 400, 500),),
            )
            for seed in range(2)
        ]
        for task in ("whole", "partly")
        for place, each in enumerate(arms)
        if task == "whole" or place
    }
    (found,) = dose.dose_curves(arms, estimates, 0.01)
    assert (found.task, found.arms) == ("whole", ("s0", "s0.25", "s0.5", "s1"))
    assert found.best == found.take == 1
    assert found.best_low > 0.5
    assert not found.is_flat
    assert r.DoseCurve.model_validate_json(found.model_dump_json()) == found


def test_a_joint_curve_is_told_at_the_level_of_the_primary_place() -> None:
    rng = np.random.default_rng(0)
    arms = [arm(f"s{s}", s, s, s, 0) for s in (0, 0.25, 0.5, 1)]
    common = 0.01 * rng.standard_normal(400)
    levels: dict[r.Budget, float] = {50: 0.6, "all": 0.8}
    estimates = {
        ("t", "linear", budget, each.name): [
            Estimate(
                auroc=float(ndtr(ndtri(level) + 0.1 * place + 0.005 * seed)),
                per_fold=np.zeros((1, 1)),
                replicates=common + 0.001 * rng.standard_normal(400),
                num_patients=900,
                undefined=0,
                sides=(Sides("1", 400, 500),),
            )
            for seed in range(2)
        ]
        for budget, level in levels.items()
        for place, each in enumerate(arms)
    }
    (found,) = dose.joint_curves(arms, estimates, ("linear", "all"), 0.01)
    (alone,) = (c for c in dose.dose_curves(arms, estimates, 0.01) if c.budget == "all")
    assert found.places == (("linear", 50), ("linear", "all"))
    assert (found.learner, found.budget, found.best) == ("linear", "all", 1)
    assert found.auroc == pytest.approx(alone.auroc, abs=1e-3)
    (lower,) = (c for c in dose.dose_curves(arms, estimates, 0.01) if c.budget == 50)
    assert dict(dose.curves_of_places(found))["linear", 50] == pytest.approx(lower.auroc, abs=1e-3)
    assert dict(dose.curves_of_places(found))["linear", "all"] == pytest.approx(found.auroc)
    said = " ".join(dose.joint_sentences(found))
    assert said.startswith("Best scale: s = 1 (95 % interval ")
    assert "2 places of the table (linear probe; 50 labels, all labels)" in said
    assert "differ in shape" in " ".join(
        dose.joint_sentences(found.model_copy(update={"shape_p": 0.01}))
    )
    assert r.JointDoseCurve.model_validate_json(found.model_dump_json()) == found
