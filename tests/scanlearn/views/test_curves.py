from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scanlearn.views.curves import BY_HAND, OFF, Curve, Row
from scanlearn.views.operations.table import PARAMETERS
from scanlearn.views.scale import Scale

PAPER = Curve(0, 0.2, 0.4, 0.5, weak_source="derived", strong_source="published: A 2020")
FLAT = replace(PAPER, weak=0.4)


def test_the_knots_come_back_exactly() -> None:
    assert [PAPER.at(s) for s in (0, 0.5, 1)] == [0, 0.2, 0.4]


def test_between_knots_a_curve_is_straight() -> None:
    assert PAPER.at(0.25) == pytest.approx(0.1)
    assert PAPER.at(0.75) == pytest.approx(0.3)


def test_beyond_one_the_last_slope_goes_on_to_the_limit() -> None:
    assert PAPER.at(1.2) == pytest.approx(0.48)
    assert PAPER.at(1.5) == 0.5
    assert Curve(1, 0.5, 0.1, limit=0.05).at(1.5) == 0.05


def test_beyond_one_a_flat_curve_grows_in_proportion() -> None:
    assert FLAT.at(1.2) == pytest.approx(0.48)
    assert FLAT.at(1.5) == 0.5


def test_a_limit_can_be_reached_in_a_straight_line() -> None:
    falling = Curve(1, 0.3, 0.3, 0.1, reaches_limit=True)
    assert [falling.at(s) for s in (1, 1.25, 1.5)] == pytest.approx([0.3, 0.2, 0.1])


def test_a_curve_that_is_the_identity_all_along_is_idle() -> None:
    assert Curve(1, 1, 1, 1).is_idle
    assert not PAPER.is_idle
    assert np.allclose([Curve(0, 0, 0, 0).at(s) for s in np.linspace(0, 1.5, 7)], 0)


@pytest.mark.parametrize(
    ("curve", "s", "source"),
    [
        (PAPER, 0, "identity"),
        (PAPER, 0.3, "between identity and weak"),
        (PAPER, 0.5, "derived"),
        (PAPER, 0.8, "between weak and strong"),
        (PAPER, 1, "published: A 2020"),
        (PAPER, 1.3, "beyond the recipe"),
        # What stands still between the knots, or at its limit, is the paper's number.
        (FLAT, 0.8, "published: A 2020"),
        (replace(FLAT, limit=0.4), 1.3, "published: A 2020"),
        (Row.off("noise_p").curve(0), 0, OFF),
        (Row.off("noise_p").curve(0), 1.3, OFF),
    ],
)
def test_every_number_says_where_it_is_from(curve: Curve, s: float, source: str) -> None:
    assert curve.source(s) == source


@pytest.mark.parametrize(
    ("s", "source"),
    [
        (0.3, "by hand, between identity and weak"),
        (0.5, "by hand"),
        (0.8, "by hand, between weak and strong"),
        (1.3, "by hand, beyond strong"),
    ],
)
def test_what_was_set_by_hand_says_so_everywhere(s: float, source: str) -> None:
    assert replace(PAPER, weak_source=BY_HAND, strong_source=BY_HAND).source(s) == source


def test_a_row_reads_its_own_sub_dial() -> None:
    scale = Scale(crop=1, geometry=0.5, photometric=0, acquisition=0)
    assert Row("crop_min", (PAPER,)).value(scale, 0) == 0.4
    assert Row("flip_p", (PAPER,)).value(scale, 0) == 0.2
    assert Row("hue", (PAPER,)).value(scale, 0) == 0


def test_the_last_curve_serves_all_further_views() -> None:
    row = Row("blur_p", (PAPER, FLAT))
    assert [row.value(Scale.WEAK, view) for view in range(4)] == [0.2, 0.4, 0.4, 0.4]


def test_sources_are_told_view_by_view_where_they_differ() -> None:
    by_hand = replace(PAPER, weak_source=BY_HAND, strong_source=BY_HAND)
    assert Row("hue", (PAPER, PAPER)).source(Scale.STRONG) == "published: A 2020"
    assert (
        Row("hue", (PAPER, by_hand)).source(Scale.STRONG)
        == "global 1 published: A 2020; global 2 by hand"
    )
    assert (
        Row("hue", (PAPER, PAPER, by_hand)).source(Scale.STRONG)
        == "global published: A 2020; local by hand"
    )


def test_a_parameter_that_is_off_is_the_identity() -> None:
    for parameter in PARAMETERS:
        row = Row.off(parameter)
        assert row.is_off
        assert row.is_idle
        assert row.value(Scale.of(1.5), 2) == PARAMETERS[parameter].identity
