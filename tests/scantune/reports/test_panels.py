from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from scantune.reports import drawings, panels, plots, selection
from scantune.study import results as r
from scantune.study.dose import curves_of_places, dose_arms

Folder = Callable[..., Any]


def dial(crop: float, photometric: float, geometry: float = 0.5) -> r.Dial:
    return r.Dial(crop=crop, geometry=geometry, photometric=photometric, acquisition=0)


@pytest.fixture
def crossed(fake_results: r.Results, score: Callable[..., r.Score]) -> r.Results:
    """Crop and photometric crossed, and one scale at three shares of the archive."""
    arms = [
        r.ArmRow(name=f"c{c:g}p{p:g}", kind="pretrained", scale=dial(c, p))
        for c in (0, 1)
        for p in (0, 0.5)
    ]
    arms += [
        r.ArmRow(name=f"share{share:g}", kind="pretrained", scale=dial(1, 1, 1), share=share)
        for share in (0.05, 0.25, 1)
    ]
    table = [
        score(arm.name, 0.7 + 0.01 * place, low=0.6, high=0.9, task="lesion")
        for place, arm in enumerate(arms)
    ]
    return fake_results.model_copy(update={"arms": tuple(arms), "table": tuple(table)})


def test_levers_and_shares_are_drawn_where_arms_cross_them(crossed: r.Results) -> None:
    scores = {each.arm: each for each in crossed.table}
    # The arms of another geometry are no cells.
    ((place, cells),) = drawings.lever_cells(crossed, scores).items()
    assert place == "geometry 0.5"
    assert len(cells) == 4
    assert cells[1, 0.5].arm == "c1p0.5"
    drawing = panels.lever_map("lesion", cells)
    assert "c1p0.5, crop 1, photometric 0.5: 0.730 (0.600 to 0.900)" in drawing
    lines = drawings.archive_lines(crossed, scores)
    assert [share for share, _ in lines["s = 1"]] == [0.05, 0.25, 1]
    assert panels.archive_curve("lesion", lines).count("<polyline") == 1


def test_arms_of_one_dial_cross_nothing(fake_results: r.Results) -> None:
    scores = selection.at_place(fake_results, "lesion")
    assert drawings.lever_cells(fake_results, scores) == {}
    assert drawings.archive_lines(fake_results, scores) == {}


def test_a_reference_beyond_the_axis_is_a_number_with_an_arrow(fake_results: r.Results) -> None:
    scores = selection.at_place(fake_results, "lesion")
    groups = dose_arms(fake_results.arms)
    references = [arm for arm in fake_results.arms if arm.scale is None]
    drawing = panels.dose_plot(
        "lesion", groups, scores, [], references, (0.57, 0.9), plots.palette(fake_results)
    )
    assert "thumbnail ↓ .56" in drawing
    assert ">random</text>" in drawing
    assert drawing.count("<circle") == 3


def test_the_forest_names_the_primary_pair_first(fake_results: r.Results) -> None:
    at_place = [d for d in fake_results.differences if drawings._is_primary_place(fake_results, d)]
    drawing = drawings._forest(fake_results, at_place[::-1])
    assert drawing.index("weak − strong") < drawing.index("weak − identity")
    assert drawing.count("<circle") == len(at_place)


def test_long_names_in_the_forest_do_not_run_into_their_numbers(fake_results: r.Results) -> None:
    pair = fake_results.differences[0]

    def heights(a: str, b: str) -> set[str]:
        row = pair.model_copy(update={"a": a, "b": b})
        drawing = panels.forest([row], 0.01, {a: "red", b: "red"})
        lines = re.findall(r'<text x="[^"]+" y="([^"]+)"[^>]*>([^<]+)</text>', drawing)
        texts = (f"{a} − {b}", plots.difference_text(row))
        found = [y for y, text in lines if text in texts]
        assert len(found) == 2
        return set(found)

    assert len(heights("weak", "strong")) == 1
    assert len(heights("crop0.5-photo0.5", "crop1-photo0.5")) == 2


def test_a_joint_curve_is_drawn_at_the_level_of_each_place(
    fake_results: r.Results, score: Callable[..., r.Score]
) -> None:
    scales = (0.0, 0.25, 0.5, 1.0)
    curve = r.JointDoseCurve(
        task="lesion",
        learner="linear",
        budget="all",
        arms=("s0", "s1", "s2", "s3"),
        scales=scales,
        kind="quadratic",
        at=scales,
        auroc=(0.80, 0.82, 0.84, 0.83),
        low=(0.7,) * 4,
        high=(0.9,) * 4,
        best=0.5,
        best_low=0.25,
        best_high=1.0,
        within=(),
        possible=((0.0, 1.0),),
        is_flat=True,
        take=0.5,
        is_take_shown=False,
        margin=0.01,
        places=(("linear", "all"), ("linear", 50)),
        levels=(0.0, -0.3),
        shape_p=0.4,
    )
    of_places = dict(curves_of_places(curve))
    assert of_places["linear", "all"] == pytest.approx(curve.auroc)
    # .84 and .3 less on normal scores: Phi(.994) and Phi(.694).
    assert of_places["linear", 50][2] == pytest.approx(0.756, abs=0.001)
    scores = {
        place: {name: score(name, 0.7, task="lesion") for name in curve.arms}
        for place in curve.places
    }
    drawing = panels.joint_plot("lesion", curve, scores)
    assert drawing.count("<polyline") == 2
    assert drawing.count("<circle") == 8
    assert ">50 labels</text>" in drawing
    # Results of an earlier release have no levels, and no such figure.
    older = curve.model_copy(update={"levels": ()})
    assert drawings.draw(fake_results.model_copy(update={"joint_dose": (older,)}))["joint"] == []
    newer = fake_results.model_copy(update={"joint_dose": (curve,)})
    assert [name for name, _ in drawings.draw(newer)["joint"]] == ["lesion"]
