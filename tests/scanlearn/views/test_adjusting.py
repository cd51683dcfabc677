from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from scanlearn.errors import ScanlearnError
from scanlearn.views.adjusting import Operations, in_words
from scanlearn.views.operations.operation import Operation
from scanlearn.views.operations.table import OPERATIONS, PARAMETERS, parameters_of, probability_of
from scanlearn.views.ranges import ViewRanges
from scanlearn.views.recipes import RECIPES, find_recipe
from scanlearn.views.scale import Scale

SCALES = [Scale(s, s, s, s) for s in np.linspace(0, 1.5, 31).tolist()]
LOCAL = 2


def at(name: str, operations: Mapping[str, Any], s: float, view: int = 0) -> ViewRanges:
    views = find_recipe(name).adjusted(operations).at(Scale(s, s, s, s)).views
    return views[min(view, len(views) - 1)]


def in_the_middle(parameter: str) -> float:
    """An allowed value that has an effect."""
    described = PARAMETERS[parameter]
    return described.lowest + 0.4 * (described.highest - described.lowest)


@pytest.mark.parametrize("name", list(RECIPES))
def test_nothing_given_changes_nothing(name: str) -> None:
    assert find_recipe(name).adjusted({}) == find_recipe(name)


@pytest.mark.parametrize("off", ["off", False])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_operation_can_be_switched_off(operation: Operation, off: str | bool) -> None:
    for scale in SCALES:
        for view in find_recipe("cheng2025").adjusted({operation.name: off}).at(scale).views:
            for parameter in operation.parameters:
                assert view[parameter.name] == parameter.identity


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_switching_an_operation_off_leaves_the_others_alone(operation: Operation) -> None:
    before, after = (
        recipe.at(Scale(1, 1, 1, 1)).views[1]
        for recipe in (RECIPES["cheng2025"], RECIPES["cheng2025"].adjusted({operation.name: "off"}))
    )
    changed = {name for name in before if before[name] != after[name]}
    # Without the jitter, none of its four is drawn.
    assert changed <= set(parameters_of(operation.name))


@pytest.mark.parametrize("parameter", list(PARAMETERS))
def test_every_parameter_can_be_set_by_hand(parameter: str) -> None:
    value = in_the_middle(parameter)
    operations: dict[str, Any] = {parameter: value}
    if parameter == "crop_max":
        operations["crop_min"] = value / 2
    for other in PARAMETERS:
        if probability_of(other) == parameter:
            operations.setdefault(other, in_the_middle(other))
    for s in (0.5, 1):
        assert getattr(at("simclr", operations, s), parameter) == pytest.approx(value)
    assert at("simclr", operations, 0) == ViewRanges()
    table = find_recipe("simclr").adjusted(operations).table(Scale(1, 1, 1, 1), 3)
    assert next(row for row in table if row.parameter == parameter).source == "by hand"


@pytest.mark.parametrize("parameter", list(PARAMETERS))
def test_what_was_set_by_hand_is_monotone_and_allowed_on_the_whole_dial(parameter: str) -> None:
    described = PARAMETERS[parameter]
    value = in_the_middle(parameter)
    operations: dict[str, Any] = {parameter: [value, value]}
    if parameter == "crop_max":
        operations["crop_min"] = value / 4
    for other in PARAMETERS:
        if probability_of(other) == parameter:
            operations.setdefault(other, in_the_middle(other))
    recipe = find_recipe("simclr").adjusted(operations)
    values = np.array([getattr(recipe.at(scale).views[0], parameter) for scale in SCALES])
    steps = np.diff(values)
    assert ((steps <= 1e-12) if described.is_decreasing else (steps >= -1e-12)).all()
    assert (values >= described.lowest - 1e-12).all() or not described.is_decreasing
    assert (values <= described.highest + 1e-12).all()


def test_one_two_and_three_numbers_are_knots_and_limit() -> None:
    assert [at("simclr", {"rotation_deg": 7}, s).rotation_deg for s in (0.5, 1)] == [7, 7]
    two = {"rotation_deg": [7, 15]}
    assert [at("simclr", two, s).rotation_deg for s in (0, 0.5, 0.75, 1)] == [0, 7, 11, 15]
    assert at("simclr", two, 1.5).rotation_deg == 22.5
    assert at("simclr", {"rotation_deg": [7, 15, 20]}, 1.5).rotation_deg == 20
    assert at("simclr", {"blur_p": [0.1, 0.5, 0.7]}, 1.5).blur_p == 0.7


@pytest.mark.parametrize(
    ("operations", "parameter", "limit"),
    [
        ({"brightness": 0.3}, "brightness", 0.45),
        ({"brightness": 0.8}, "brightness", 0.9),
        ({"contrast": [0.5, 1.1]}, "contrast", 1.1),
        ({"blur_p": 0.9}, "blur_p", 1.0),
        ({"hue": 0.45}, "hue", 0.5),
        ({"flip_p": 0.5}, "flip_p", 0.5),
        ({"flip_p": 0.2}, "flip_p", 0.3),
        ({"flip_p": 1}, "flip_p", 1.0),
        ({"crop_min": 0.4}, "crop_min", 0.1),
        ({"crop_min": [0.5, 0.04]}, "crop_min", 0.02),
        ({"crop_min": [0.5, 0.4, 0.4]}, "crop_min", 0.4),
        ({"crop_max": [0.9, 0.8], "crop_min": 0.2}, "crop_max", 0.4),
        ({"crop_max": 0.8, "crop_min": 0.2}, "crop_max", 0.8),
    ],
)
def test_without_a_limit_there_is_one(
    operations: dict[str, Any], parameter: str, limit: float
) -> None:
    assert getattr(at("simclr", operations, 1.5), parameter) == pytest.approx(limit)


def test_a_magnitude_switches_its_operation_on() -> None:
    adjusted = find_recipe("dino").adjusted({"rotation_deg": [7, 15], "noise_std": 0.05})
    for view in adjusted.at(Scale(0.5, 0.5, 0.5, 0.5)).views:
        assert (view.rotation_p, view.rotation_deg) == (1, 7)
        assert (view.noise_p, view.noise_std) == (1, 0.05)
    rows = {row.parameter: row for row in adjusted.table(Scale(1, 1, 1, 1), 3)}
    assert rows["rotation_p"].source == "by hand"
    # Half a probability was given, or the recipe has one of its own.
    assert at("dino", {"rotation_deg": 7, "rotation_p": 0.5}, 1).rotation_p == 0.5
    assert at("dino", {"blur_sigma": 1}, 1, view=1).blur_p == 0.1


def test_views_can_be_set_apart() -> None:
    apart = {"crop_min": {"global": [0.6, 0.5], "local": [0.3, 0.2]}, "blur_p": {"global_2": 0.4}}
    strong = find_recipe("dino").adjusted(apart).at(Scale.STRONG).views
    assert [view.crop_min for view in strong] == [0.5, 0.5, 0.2]
    assert [view.blur_p for view in strong] == [1, 0.4, 0.5]
    # A recipe whose views are alike may be given views that differ.
    two = find_recipe("simclr").adjusted({"blur_p": {"global_1": 1, "global_2": 0.1}})
    assert [view.blur_p for view in two.at(Scale.STRONG).views] == [1, 0.1]


def test_one_number_serves_every_view() -> None:
    views = find_recipe("byol").adjusted({"solarize_p": 0.3}).at(Scale.STRONG).views
    assert {view.solarize_p for view in views} == {0.3}


def test_adjustments_are_told_apart_and_keep_the_name() -> None:
    first = find_recipe("dino").adjusted({"solarize": "off", "hue": 0.05})
    again = find_recipe("dino").adjusted({"hue": 0.05, "solarize": False})
    assert first == again
    assert first != find_recipe("dino").adjusted({"solarize": "off", "hue": 0.06})
    assert first != find_recipe("dino")
    assert first.name == "dino"
    assert first.by_hand == "solarize off, hue 0.05"
    assert first.adjusted({"gray": "off"}).by_hand == "solarize off, hue 0.05, gray off"


@pytest.mark.parametrize(
    ("operations", "words"),
    [
        ({"blurr": "off"}, ["operations.blurr", "did you mean 'blur'?"]),
        ({"rotatoin_deg": 7}, ["did you mean 'rotation_deg'?"]),
        ({"qqq": 7}, ["known are crop, flip"]),
        ({"blur": "on"}, ["'on' is not allowed", "off or its numbers as blur_p and blur_sigma"]),
        ({"hue": True}, ["True is not allowed", "off or a number"]),
        ({"blur_p": True}, ["True is not allowed", "give a number"]),
        ({"hue": "0.1"}, ["'0.1' is not allowed"]),
        ({"hue": None}, ["None is not allowed"]),
        ({"rotation": 15}, ["rotation can only be switched off", "rotation_p and rotation_deg"]),
        ({"rotation_p": "off"}, ["takes numbers", "write rotation: off"]),
        ({"rotation_deg": 400}, ["400", "from 0 to 180", "degrees"]),
        ({"blur_sigma": 0.05}, ["0.05", "from 0.1 to 10"]),
        ({"crop_min": 0}, ["from 0.001 to 1"]),
        ({"hue": float("nan")}, ["nan is not a number"]),
        ({"hue": [0.1, True]}, ["True is not a number"]),
        ({"hue": []}, ["one number for both weak and strong"]),
        ({"hue": [0.1, 0.1, 0.2, 0.3]}, ["or three with the limit"]),
        ({"rotation_deg": [15, 7]}, ["15, 7 is weaker at strong", "must rise"]),
        ({"rotation_deg": [7, 15, 10]}, ["weaker at strong"]),
        ({"crop_min": [0.2, 0.5]}, ["0.2, 0.5 is weaker at strong", "must fall"]),
        ({"rotation_deg": 0}, ["0 has no effect", "write rotation: off"]),
        ({"gray_p": 0}, ["0 has no effect", "write gray: off"]),
        ({"rotation_p": 0.5}, ["no effect while rotation_deg is 0", "give rotation_deg as well"]),
        ({"blur": "off", "blur_sigma": 2}, ["no effect while blur is off"]),
        ({"jitter": "off", "hue": 0.1}, ["no effect while jitter is off"]),
        (
            {"brightness": "off", "contrast": "off", "saturation": "off", "hue": "off",
             "jitter_p": 0.5},
            ["no effect while brightness and contrast and saturation and hue are 0"],
        ),
        ({"soft_sigma": 0.1}, ["no effect up to 0.12 px"]),
        ({"soft_sigma": 0.12}, ["no effect up to 0.12 px"]),
        ({"crop_max": 0.2, "crop_min": 0.3}, ["smallest crop", "larger than the largest"]),
        ({"crop_max": 0.2}, ["at the scale", "larger than the largest"]),
        ({"blur_p": {"local": 0.1}}, ["'local' is not a view of this recipe", "global_1"]),
        ({"blur_p": {}}, ["sets no view"]),
        ({"blur_p": {"global": 0.1, "global_1": 0.2}}, ["sets a view twice"]),
        ({"blur_p": {"global_2": [0.3, 0.1]}}, ["operations.blur_p.global_2", "weaker"]),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_one_sentence(
    operations: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ScanlearnError) as error:
        find_recipe("simclr").adjusted(operations)
    message = str(error.value)
    assert message.startswith("operations.")
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("parameter", ["crop_min", "crop_max"])
def test_a_crop_of_two_sizes_wants_to_know_which(parameter: str) -> None:
    with pytest.raises(ScanlearnError, match="global and local crops differ"):
        find_recipe("dino").adjusted({parameter: 0.3})


def test_what_was_adjusted_is_said_in_words() -> None:
    given = {"blur": False, "hue": 0.05, "rotation_deg": (7, 15), "crop_min": {"local": [0.2, 0.1]}}
    assert in_words(given) == "blur off, hue 0.05, rotation_deg 7/15, crop_min (local 0.2/0.1)"
    assert in_words({}) == ""


class Config(BaseModel):
    operations: Operations = {}


def test_a_configuration_spells_off_in_one_way() -> None:
    assert Config(operations={"blur": False}) == Config(operations={"blur": "off"})
    assert Config(operations={"hue": 0}).operations == {"hue": 0.0}


@pytest.mark.parametrize("value", [None, [True, 0.1], {"local": None}])
def test_a_configuration_refuses_in_words(value: object) -> None:
    with pytest.raises(ValidationError, match="one number for both weak and strong"):
        Config(operations={"hue": value})  # type: ignore[dict-item]
