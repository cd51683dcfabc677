from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from scantune.reports import panels, plots
from scantune.reports import report as page
from scantune.study import results as r

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
    ((place, cells),) = page.lever_cells(crossed, scores).items()
    assert place == "geometry 0.5"
    assert len(cells) == 4
    assert cells[1, 0.5].arm == "c1p0.5"
    drawing = panels.lever_map("lesion", cells)
    assert "c1p0.5, crop 1, photometric 0.5: 0.730 (0.600 to 0.900)" in drawing
    lines = page.archive_lines(crossed, scores)
    assert [share for share, _ in lines["s = 1"]] == [0.05, 0.25, 1]
    assert panels.archive_curve("lesion", lines).count("<polyline") == 1


def test_arms_of_one_dial_cross_nothing(fake_results: r.Results) -> None:
    scores = page._at_place(fake_results, "lesion")
    assert page.lever_cells(fake_results, scores) == {}
    assert page.archive_lines(fake_results, scores) == {}


def test_a_reference_beyond_the_axis_is_a_number_with_an_arrow(fake_results: r.Results) -> None:
    scores = page._at_place(fake_results, "lesion")
    groups = page.dose_arms(fake_results.arms)
    references = [arm for arm in fake_results.arms if arm.scale is None]
    drawing = panels.dose_plot(
        "lesion", groups, scores, [], references, (0.57, 0.9), plots.palette(fake_results)
    )
    assert "thumbnail ↓ .56" in drawing
    assert ">random</text>" in drawing
    assert drawing.count("<circle") == 3


def test_the_forest_names_the_primary_pair_first(fake_results: r.Results) -> None:
    at_place = [d for d in fake_results.differences if page._is_primary_place(fake_results, d)]
    drawing = page._forest(fake_results, at_place[::-1])
    assert drawing.index("weak − strong") < drawing.index("weak − identity")
    assert drawing.count("<circle") == len(at_place)
