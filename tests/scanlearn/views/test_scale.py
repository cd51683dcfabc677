from __future__ import annotations

import json
import pickle

import pytest

from scanlearn.config.printing import default_yaml, json_schema
from scanlearn.config.settings import Settings
from scanlearn.errors import ScanlearnError
from scanlearn.views.scale import Scale


class _Views(Settings):
    scale: Scale = Scale.WEAK


def test_every_sub_dial_defaults_to_the_scale_but_acquisition_is_off() -> None:
    assert Scale.of(0.7) == Scale(crop=0.7, geometry=0.7, photometric=0.7, acquisition=0.0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("identity", Scale.IDENTITY),
        ("weak", Scale.WEAK),
        ("Strong ", Scale.STRONG),
        ("0.5", Scale.WEAK),
        (1, Scale.STRONG),
        (1.5, Scale.of(1.5)),
        (Scale.WEAK, Scale.WEAK),
        ({"crop": "weak", "geometry": 0, "photometric": 1.2}, Scale(0.5, 0, 1.2)),
        ({"crop": 1, "geometry": 1, "photometric": 1, "acquisition": 0.5}, Scale(1, 1, 1, 0.5)),
    ],
)
def test_what_a_person_writes_is_read(given: object, expected: Scale) -> None:
    assert Scale.parse(given) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("weakk", ["'weakk'", "did you mean 'weak'", "from 0 to 1.5"]),
        ("idntity", ["did you mean 'identity'"]),
        (-1, ["-1", "between 0 (identity) and 1.5"]),
        (1.6, ["1.6", "1.5"]),
        (float("nan"), ["nan"]),
        (True, ["True"]),
        (None, ["None"]),
        ({"crop": 1, "geometry": 1, "photometrc": 1}, ["'photometrc'", "'photometric'"]),
        ({"crop": 1}, ["geometry, photometric not given"]),
        ({"crop": 1, "geometry": "hot", "photometric": 1}, ["scale.geometry", "'hot'"]),
    ],
)
def test_what_is_no_scale_is_refused_in_one_sentence(given: object, words: list[str]) -> None:
    with pytest.raises(ScanlearnError) as error:
        Scale.parse(given)  # type: ignore[arg-type]
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_constructor_checks_its_dials() -> None:
    with pytest.raises(ScanlearnError, match=r"scale.crop: 2 is not between"):
        Scale(crop=2, geometry=0, photometric=0)


def test_one_number_is_written_where_it_says_all() -> None:
    assert str(Scale.of(0.25)) == "0.25"
    assert str(Scale(1, 0.5, 0)) == "crop 1, geometry 0.5, photometric 0"
    assert str(Scale(0, 0, 0, 1)) == "crop 0, geometry 0, photometric 0, acquisition 1"


@pytest.mark.parametrize(
    ("written", "dumped"),
    [
        (1, 1.0),
        ("weak", "weak"),
        ("0.5", "0.5"),
        (
            {"crop": 1, "geometry": "weak", "photometric": 0.5},
            {"crop": 1.0, "geometry": "weak", "photometric": 0.5},
        ),
        (Scale.STRONG, 1.0),
        (
            Scale(1, 1, 1, 0.5),
            {"crop": 1.0, "geometry": 1.0, "photometric": 1.0, "acquisition": 0.5},
        ),
    ],
    ids=str,
)
def test_settings_parse_a_scale_once_and_dump_it_as_it_was_written(
    written: object, dumped: object
) -> None:
    views = _Views(scale=written)  # type: ignore[arg-type]
    assert views.scale == Scale.parse(written)  # type: ignore[arg-type]
    for copy in (views, pickle.loads(pickle.dumps(views)), _Views(scale=views.scale)):
        assert repr(copy.model_dump()["scale"]) == repr(dumped)
        assert json.loads(copy.model_dump_json()) == copy.model_dump(mode="json")
    assert _Views.model_validate(views.model_dump()) == views


def test_settings_refuse_what_is_no_scale_in_its_own_words() -> None:
    with pytest.raises(ScanlearnError, match=r"_Views: 'scale': .*did you mean 'weak'"):
        _Views(scale="weakk")  # type: ignore[arg-type]


def test_a_scale_is_printed_and_described_as_what_a_person_writes() -> None:
    assert default_yaml(_Views) == "scale: 0.5\n"
    schema = json.loads(json_schema(_Views))["properties"]["scale"]
    assert schema["default"] == 0.5
    assert {member["type"] for member in schema["anyOf"]} == {"number", "string", "object"}
