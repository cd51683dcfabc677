from __future__ import annotations

from dataclasses import fields

from scanlearn.views.operations.parameters import (
    OPERATION_OF,
    OPERATIONS,
    PARAMETERS,
    ViewRanges,
    identity_of,
    is_decreasing,
    magnitudes_of,
    probability_of,
)


def test_every_range_is_described_once_and_in_order() -> None:
    assert list(PARAMETERS) == [field.name for field in fields(ViewRanges)]
    assert len({described.title for described in PARAMETERS.values()}) == len(PARAMETERS)


def test_every_parameter_belongs_to_one_operation() -> None:
    assert sorted(OPERATION_OF) == sorted(PARAMETERS)
    for operation, members in OPERATIONS.items():
        assert len({PARAMETERS[name].dial for name in members}) == 1, operation


def test_the_identity_lies_in_every_domain() -> None:
    for name, described in PARAMETERS.items():
        assert described.lowest <= identity_of(name) <= described.highest, name


def test_crops_alone_are_stronger_where_they_are_smaller() -> None:
    falling = {name for name in PARAMETERS if is_decreasing(name)}
    assert falling == {"crop_min", "crop_max", "own_aspect"}


def test_magnitudes_know_their_probability_and_the_other_way_round() -> None:
    assert probability_of("rotation_deg") == "rotation_p"
    assert probability_of("hue") == "jitter_p"
    assert probability_of("crop_min") is None
    assert probability_of("gray_p") is None
    assert magnitudes_of("jitter_p") == ("brightness", "contrast", "saturation", "hue")
    assert magnitudes_of("noise_p") == ("noise_std",)
    assert magnitudes_of("flip_p") == ()


def test_colour_operations_are_marked() -> None:
    marked = {name for name, described in PARAMETERS.items() if described.needs_colour}
    assert marked == {"saturation", "hue", "gray_p"}
