from __future__ import annotations

from dataclasses import replace

import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.views.curves import Curve, Row
from scanlearn.views.operations.table import BY_NAME, PARAMETERS
from scanlearn.views.recipes import RECIPES, Recipe, TableRow, find_recipe
from scanlearn.views.scale import Scale
from scanlearn.views.settings import RenderSettings

EVERYTHING = Scale(1, 1, 1, 1)


def table(recipe: Recipe, scale: Scale, channels: int = 3) -> dict[str, TableRow]:
    return {row.parameter: row for row in recipe.table(scale, channels)}


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_recipe_has_a_row_for_every_range(name: str) -> None:
    rows = RECIPES[name].rows
    assert [row.parameter for row in rows] == list(PARAMETERS)


def test_a_recipe_without_a_row_cannot_be_made() -> None:
    with pytest.raises(AssertionError):
        replace(find_recipe("simclr"), rows=find_recipe("simclr").rows[1:])


@pytest.mark.parametrize("name", list(RECIPES))
def test_operations_that_no_paper_has_are_off_everywhere(name: str) -> None:
    absent = ["vflip", "rotation", "translation", "stretch", "shear", "elastic", "gamma",
              "histogram_shift", "posterise"]  # fmt: skip
    rows = table(RECIPES[name], EVERYTHING)
    for operation in absent:
        for parameter in BY_NAME[operation].parameters:
            row = rows[parameter.name]
            assert (row.source, row.note) == ("off", "off")
    for s in (0, 0.5, 1, 1.5):
        for view in RECIPES[name].at(Scale(s, s, s, s)).views:
            for parameter in (p for name in absent for p in BY_NAME[name].parameters):
                assert view[parameter.name] == parameter.identity


def test_recipes_tell_which_views_differ() -> None:
    assert find_recipe("simclr").kinds == ("every view",)
    assert find_recipe("byol").kinds == ("global 1", "global 2")
    assert find_recipe("dino").kinds == ("global 1", "global 2", "local")
    with_local = {name for name, recipe in RECIPES.items() if recipe.has_local_views}
    assert with_local == {"dino", "dino_convnet", "cheng2025", "cheng2025_strict"}


def test_the_table_says_where_each_value_comes_from() -> None:
    simclr = find_recipe("simclr")
    # No paper gives SimCLR a weak arm: none of its values may pass for published.
    weak = table(simclr, Scale.WEAK)
    shown = {row.source for row in weak.values() if row.note != "off"}
    assert shown == {"derived from Cheng et al. 2025"}
    assert weak["crop_min"].value == "0.226"
    assert weak["crop_min"].unit == "of the area"
    assert {r.source for r in table(simclr, Scale.IDENTITY).values()} == {"identity", "off"}
    assert table(simclr, Scale.STRONG)["hue"].source == "published: Chen et al. 2020"
    assert table(simclr, Scale.of(0.8))["hue"].source == "published: Chen et al. 2020"
    assert table(simclr, Scale.of(0.8))["brightness"].source == "between weak and strong"
    assert table(simclr, Scale.of(1.2))["brightness"].source == "beyond the recipe"


def test_the_table_says_what_stands_still_between_weak_and_strong() -> None:
    weak = table(find_recipe("simclr"), Scale.WEAK)
    assert weak["hue"].note == "fixed"
    assert weak["brightness"].note == ""


def test_the_table_writes_one_value_per_view_where_they_differ() -> None:
    dino = table(find_recipe("dino"), Scale.STRONG)
    assert dino["crop_min"].value == "0.4 / 0.4 / 0.05"
    assert dino["solarize_p"].value == "0 / 0.2 / 0"
    assert dino["hue"].value == "0.1"
    assert table(find_recipe("dino"), Scale.IDENTITY)["crop_min"].value == "1"
    assert table(find_recipe("byol"), Scale.STRONG)["blur_p"].value == "1 / 0.1"


def test_the_table_says_what_has_no_meaning_without_colour() -> None:
    rows = table(find_recipe("simclr"), Scale.STRONG, channels=1)
    mute = {row.parameter for row in rows.values() if row.note == "no meaning on one channel"}
    assert mute == {"saturation", "hue", "gray_p"}


@pytest.mark.parametrize(
    ("size", "s", "scale_blur", "is_idle"),
    # The widest sigma in pixels: 2, .11, .125, .03, and 2.
    [(224, 1, True, False), (12, 1, True, True), (14, 1, True, False), (32, 0.03, True, True),
     (12, 1, False, False)],
)  # fmt: skip
def test_the_table_says_where_a_blur_is_too_narrow_for_the_view(
    size: int, s: float, scale_blur: bool, is_idle: bool
) -> None:
    settings = RenderSettings(scale_blur=scale_blur, global_size=size)
    rows = {row.parameter: row for row in find_recipe("simclr").table(Scale.of(s), 3, settings)}
    note = "no effect at this size: sigma below .12 px changes nothing" if is_idle else "fixed"
    assert rows["blur_p"].note == rows["blur_sigma"].note == note
    assert rows["jitter_p"].note == "fixed"


@pytest.mark.parametrize("s", [0.5, 1, 1.5])
def test_the_blur_of_the_paper_is_labelled_as_without_effect(s: float) -> None:
    rows = table(find_recipe("cheng2025"), Scale(1, 1, 1, s))
    for parameter in ("soft_p", "soft_sigma"):
        assert rows[parameter].note == "no effect: sigma below .12 px changes nothing"
    seen = find_recipe("cheng2025").adjusted({"soft_sigma": 1})
    assert table(seen, Scale(1, 1, 1, s))["soft_sigma"].note == "fixed"


def test_the_table_says_what_a_lever_at_zero_leaves_without_effect() -> None:
    rows = table(find_recipe("cheng2025"), Scale.STRONG)
    assert rows["noise_std"].note == "no effect: acquisition is 0"
    assert table(find_recipe("cheng2025"), EVERYTHING)["noise_std"].note == ""


def test_the_table_says_what_lacks_its_other_half() -> None:
    simclr = find_recipe("simclr")
    rows = tuple(
        Row("rotation_deg", (Curve(0, 7, 15, 30),)) if row.parameter == "rotation_deg" else row
        for row in simclr.rows
    )
    idle = table(Recipe("idle", rows), Scale.STRONG)
    assert idle["rotation_deg"].note == "no effect: rotation_p is 0"
    colour_only = simclr.adjusted({"brightness": "off", "contrast": "off"})
    assert table(colour_only, Scale.STRONG)["jitter_p"].note == "fixed"
    assert table(colour_only, Scale.STRONG, channels=1)["jitter_p"].note == (
        "no effect: brightness and contrast are 0"
    )


def test_what_was_set_to_no_effect_is_found_over_all_scales() -> None:
    noisy = find_recipe("simclr").adjusted({"noise_std": 0.05, "rotation_deg": 7})
    acquisition = Scale(0.5, 0.5, 0.5, 1)
    assert noisy.without_effect([Scale.WEAK, Scale.STRONG]) == {
        "noise_p": "acquisition", "noise_std": "acquisition",
    }  # fmt: skip
    assert noisy.without_effect([Scale.WEAK, acquisition]) == {}
    assert noisy.without_effect([Scale.IDENTITY]) == {}
    assert set(noisy.without_effect([Scale(1, 0, 1, 1)])) == {"rotation_p", "rotation_deg"}
    # What a published recipe holds there was not set by hand.
    assert find_recipe("cheng2025").without_effect([Scale.STRONG]) == {}


def test_an_unknown_recipe_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ScanlearnError, match=r"'fundus' is not a recipe but a modality \(mod"):
        find_recipe("fundus")
    with pytest.raises(ScanlearnError, match=r"'simclrr' is not a recipe \(did you mean 'simclr'"):
        find_recipe("simclrr")
