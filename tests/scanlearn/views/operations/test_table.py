from __future__ import annotations

from scanlearn.views.operations.table import (
    BY_NAME,
    OPERATION_OF,
    OPERATIONS,
    PARAMETERS,
    at_identity_in_words,
    magnitudes_of,
    parameters_of,
    probability_of,
)


def test_every_parameter_is_described_once() -> None:
    names = [parameter.name for operation in OPERATIONS for parameter in operation.parameters]
    assert names == list(PARAMETERS) == list(OPERATION_OF)
    assert len({parameter.title for parameter in PARAMETERS.values()}) == len(PARAMETERS)
    assert len(BY_NAME) == len(OPERATIONS)


def test_the_identity_lies_in_every_domain() -> None:
    for name, parameter in PARAMETERS.items():
        assert parameter.lowest <= parameter.identity <= parameter.highest, name


def test_crops_bits_sides_and_qualities_are_stronger_where_they_are_smaller() -> None:
    falling = {name for name, parameter in PARAMETERS.items() if parameter.is_decreasing}
    assert falling == {"crop_min", "crop_max", "posterise_bits", "low_resolution", "jpeg_quality"}


def test_magnitudes_know_their_probability_and_the_other_way_round() -> None:
    assert probability_of("rotation_deg") == "rotation_p"
    assert probability_of("hue") == "jitter_p"
    assert probability_of("crop_min") is None
    assert probability_of("gray_p") is None
    assert magnitudes_of("jitter_p") == ("brightness", "contrast", "saturation", "hue")
    assert magnitudes_of("noise_p") == ("noise_std",)
    assert magnitudes_of("flip_p") == ()


def test_what_changes_nothing_is_named_with_its_value() -> None:
    assert at_identity_in_words(["crop_min"]) == "crop_min is 1"
    assert at_identity_in_words(["brightness", "hue"]) == "brightness and hue are 0"


def test_the_jitter_has_parts() -> None:
    assert parameters_of("hue") == ("hue",)
    assert parameters_of("jitter") == ("jitter_p", "brightness", "contrast", "saturation", "hue")


def test_colour_operations_are_marked() -> None:
    marked = {operation.name for operation in OPERATIONS if operation.needs_colour}
    assert marked == {"saturation", "hue", "gray", "stain"}
