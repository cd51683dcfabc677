from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest

from scanlearn.core import ScanlearnError
from scanlearn.views.draw import ViewRanges
from scanlearn.views.recipes import RECIPES, Curve, Recipe, find_recipe, weak_crop_min
from scanlearn.views.scale import Scale

IDENTITY = ViewRanges(
    crop_min=1, crop_max=1, log_aspect=0, own_aspect=1, flip_p=0, jitter_p=0, brightness=0,
    contrast=0, saturation=0, hue=0, gray_p=0, blur_p=0, blur_sigma=0.1,
)  # fmt: skip
STRONG = ViewRanges(
    crop_min=0.08, crop_max=1, log_aspect=math.log(4 / 3), own_aspect=0, flip_p=0.5, jitter_p=0.8,
    brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, gray_p=0.2, blur_p=0.5, blur_sigma=2.0,
)  # fmt: skip
WEAK = replace(STRONG, crop_min=0.2 + (0.08 - 0.05) * 0.3 / 0.35, brightness=0.4, contrast=0.4)


@pytest.mark.parametrize(("s", "expected"), [(0, IDENTITY), (0.5, WEAK), (1, STRONG)])
def test_simclr_at_the_knots_is_the_specification_number_for_number(
    s: float, expected: ViewRanges
) -> None:
    assert RECIPES["simclr"].at(Scale.of(s)).views == (expected,)


def test_the_weak_crop_of_simclr_is_about_226_thousandths() -> None:
    assert weak_crop_min(0.08) == pytest.approx(0.226, abs=5e-4)


def test_the_affine_map_goes_through_the_crop_points_of_the_paper() -> None:
    assert weak_crop_min(0.05) == pytest.approx(0.2)
    assert weak_crop_min(0.4) == pytest.approx(0.5)


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_parameter_is_monotone_on_the_whole_dial(name: str) -> None:
    dial = np.linspace(0, 1.5, 151)
    views = [RECIPES[name].at(Scale.of(float(s))).views[0] for s in dial]
    for field in fields(ViewRanges):
        values = np.array([getattr(view, field.name) for view in views])
        steps = np.diff(values)
        assert (steps >= -1e-12).all() or (steps <= 1e-12).all(), field.name


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_active_parameter_moves_strictly_up_to_weak(name: str) -> None:
    dial = np.linspace(0, 0.5, 11)
    views = [RECIPES[name].at(Scale.of(float(s))).views[0] for s in dial]
    for field in fields(ViewRanges):
        values = np.array([getattr(view, field.name) for view in views])
        if field.name != "crop_max":
            assert (np.diff(values) != 0).all(), field.name


def test_between_weak_and_strong_crop_and_brightness_move() -> None:
    middle = RECIPES["simclr"].at(Scale.of(0.75)).views[0]
    assert middle.crop_min == pytest.approx((WEAK.crop_min + STRONG.crop_min) / 2)
    assert middle.brightness == pytest.approx(0.6)


def test_beyond_strong_every_parameter_stops_at_its_limit() -> None:
    end = RECIPES["simclr"].at(Scale.of(1.5)).views[0]
    assert end.crop_min == pytest.approx(max(0.02, 0.08 / 4))
    assert RECIPES["simclr"].at(Scale.of(1.25)).views[0].crop_min == pytest.approx(0.05)
    assert (end.brightness, end.contrast, end.saturation) == pytest.approx((1.2, 1.2, 1.2))
    assert end.hue == pytest.approx(0.3)
    assert end.log_aspect == pytest.approx(1.5 * math.log(4 / 3))
    assert end.jitter_p == 1
    assert end.gray_p == pytest.approx(0.3)
    assert end.blur_p == pytest.approx(0.75)
    assert end.blur_sigma == pytest.approx(3)
    assert end.flip_p == 0.5
    assert end.crop_max == 1


def test_a_limit_holds_where_the_last_slope_would_pass_it() -> None:
    assert Curve(0, 0.2, 0.8, limit=0.9).at(1.5) == 0.9
    assert Curve(1, 0.5, 0.1, limit=0.05).at(1.5) == 0.05


@pytest.mark.parametrize(
    ("dial", "moved"),
    [
        ("crop", {"crop_min", "log_aspect", "own_aspect"}),
        ("geometry", {"flip_p"}),
        ("acquisition", set()),
        (
            "photometric",
            {"jitter_p", "brightness", "contrast", "saturation", "hue", "gray_p", "blur_p",
             "blur_sigma"},
        ),
    ],
)  # fmt: skip
def test_a_sub_dial_moves_its_own_parameters_only(dial: str, moved: set[str]) -> None:
    scale = replace(Scale.IDENTITY, **{dial: 1.0})
    view = RECIPES["simclr"].at(scale).views[0]
    changed = {f.name for f in fields(view) if getattr(view, f.name) != getattr(IDENTITY, f.name)}
    assert changed == moved


def test_the_table_says_where_each_value_comes_from() -> None:
    weak = {row.parameter: row for row in find_recipe("simclr").table(Scale.WEAK, channels=3)}
    # No paper gives SimCLR a weak arm: none of its values may pass for published.
    assert {row.source for row in weak.values()} == {"derived"}
    assert weak["hue"].fixed
    assert weak["hue"].note == "fixed"
    assert weak["crop_min"].value == "0.226"
    assert not weak["brightness"].fixed
    for s, source in ((0, "identity"), (0.3, "between knots"), (1, "published")):
        rows = find_recipe("simclr").table(Scale.of(s), channels=3)
        assert {row.source for row in rows} == {source}


def test_the_table_says_what_has_no_meaning_without_colour() -> None:
    rows = find_recipe("simclr").table(Scale.STRONG, channels=1)
    mute = {row.parameter for row in rows if row.note == "no meaning on one channel"}
    assert mute == {"saturation", "hue", "gray_p"}


def test_views_may_have_ranges_of_their_own() -> None:
    simclr = find_recipe("simclr")
    rows = tuple(
        replace(row, curves=(*row.curves, Curve(0, 0.1, 0.1, 0.2)))
        if row.parameter == "blur_p"
        else row
        for row in simclr.rows
    )
    first, second = Recipe("two-sided", rows).at(Scale.STRONG).views
    assert (first.blur_p, second.blur_p) == (0.5, 0.1)
    assert replace(first, blur_p=0.1) == second


def test_an_unknown_recipe_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ScanlearnError, match=r"'simclrr' is not a recipe \(did you mean 'simclr'"):
        find_recipe("simclrr")
