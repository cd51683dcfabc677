from __future__ import annotations

import numpy as np
import pytest

from scanlearn.packing.windows import (
    WINDOWS,
    edges,
    in_hounsfield,
    read_window,
    render_windows,
    stored_range,
)
from scanlearn.readers.scan import Scan, Undecodable, Units


def test_windows_are_those_of_radiology() -> None:
    assert {name: edges(name) for name in WINDOWS} == {
        "lung": (-1350, 150),
        "mediastinum": (-125, 225),
        "brain": (0, 80),
        "subdural": (-25, 175),
        "bone": (-500, 1300),
        "abdomen": (-150, 250),
        "liver": (-45, 105),
    }
    assert edges((100.0, -7.0)) == (-57, 43)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ("lung", "lung"),
        ([1500, -600], (1500, -600)),
        (["lung", "bone", [80, 40]], ("lung", "bone", (80, 40))),
    ],
)
def test_window_is_a_name_numbers_or_three_of_them(given: object, expected: object) -> None:
    assert read_window(given) == expected


@pytest.mark.parametrize(
    "given", ["lnug", ["lung"], ["lung", "bone"], [0, 40], [-1, 40], [float("nan"), 1], 7, [[1, 2]]]
)
def test_anything_else_is_no_window(given: object) -> None:
    with pytest.raises(ValueError, match="is not a window; give one of lung, mediastinum"):
        read_window(given)


@pytest.mark.parametrize(
    ("slope", "intercept"), [(1.0, -1024.0), (1.0, -32768.0), (-1.0, 3000.0), (0.5, -1000.25)]
)
def test_values_become_hounsfield_units_one_by_one(
    rng: np.random.Generator, slope: float, intercept: float
) -> None:
    stored = rng.integers(0, 4000, (1, 5, 6)).astype(np.uint16)
    found, notes = in_hounsfield(Scan(stored, units=Units(slope, intercept, "HU")))
    assert notes == ()
    for place, value in np.ndenumerate(stored):
        assert abs(int(found.pixels[place]) - 32768 - (slope * value + intercept)) <= 0.5


def test_hounsfield_units_beyond_sixteen_bits_stay_at_the_ends() -> None:
    stored = np.array([[[0, 65535]]], np.uint16)
    found, notes = in_hounsfield(Scan(stored, units=Units(4.0, -100000.0, "HU")))
    assert found.pixels.tolist() == [[[0, 65535]]]
    assert notes == ("stored values are more than 1 HU apart",)


def test_values_of_other_modalities_are_refused_and_doubtful_ones_noted() -> None:
    stored = np.zeros((1, 2, 2), np.uint16)
    with pytest.raises(Undecodable, match="has no Hounsfield units"):
        in_hounsfield(Scan(stored))
    with pytest.raises(Undecodable, match="holds MR values, not Hounsfield units"):
        in_hounsfield(Scan(stored, units=Units(1, 0, "MR values")))
    _, notes = in_hounsfield(Scan(stored, units=Units(1, -1024)))
    assert notes == ("volume without a unit, taken as Hounsfield units",)
    _, notes = in_hounsfield(Scan(stored, units=Units(1, 0)))
    assert notes[1:] == ("taken as Hounsfield units, though no value is below 0",)


def test_each_window_fills_a_channel_value_by_value(rng: np.random.Generator) -> None:
    hounsfield = rng.integers(-1500, 2500, (1, 6, 7))
    windows = (edges("lung"), edges("mediastinum"), edges((80.0, 40.0)))
    drawn = render_windows((hounsfield + 32768).astype(np.uint16), windows)
    assert drawn.dtype == np.uint8
    for channel, (low, high) in enumerate(windows):
        for (_, row, column), value in np.ndenumerate(hounsfield):
            expected = 255 * min(1.0, max(0.0, (value - low) / (high - low)))
            assert abs(drawn[channel, row, column] - expected) <= 0.501


def test_edges_are_told_as_stored_values() -> None:
    assert stored_range(edges("brain")) == (32768, 32848)
