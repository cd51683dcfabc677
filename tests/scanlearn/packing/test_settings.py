from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from scanlearn.config import load_config
from scanlearn.errors import ScanlearnError
from scanlearn.packing.settings import PackSettings, pixel_settings


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"window": "lung", "intensity": "percentile"}, "window and intensity=percentile"),
        ({"window": "lung", "field_of_view": "fundus"}, "window is for CT"),
        ({"window": ["lung", "bone", "liver"], "neighbours": True}, "both fill the three"),
        ({"window": ["lung", "bone", "liver"], "channels": 1}, "three windows fill three"),
        ({"neighbours": True, "channels": 1}, "neighbours fill three channels"),
        ({"window": "lungs"}, "lungs is not a window"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    given: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        PackSettings(**given)


def test_windows_become_edges_in_their_order() -> None:
    assert PackSettings().preprocess().windows == ()
    assert PackSettings(window="brain").preprocess().windows == ((0, 80),)
    assert PackSettings(window=(80.0, 40.0)).preprocess().windows == ((0, 80),)
    three = PackSettings(window=("brain", (10.0, 5.0), "liver")).preprocess().windows
    assert three == ((0, 80), (0, 10), (-45, 105))


def test_windows_of_files_count_only_where_nothing_else_is_asked_for() -> None:
    shown = [
        PackSettings(**given).reading().shows
        for given in (
            {},
            {"intensity": "percentile"},
            {"intensity": "foreground"},
            {"window": "lung"},
        )
    ]
    assert shown == ["file", "file", "foreground", "nothing"]


def test_settings_survive_being_written_down() -> None:
    given = PackSettings(window=("lung", (80.0, 40.0), "bone"), fit="crop")
    assert PackSettings.model_validate_json(given.model_dump_json()) == given


def test_archives_from_before_folders_were_labels_are_as_if_they_were_not() -> None:
    assert "folder_labels" not in PackSettings().fingerprint()
    assert PackSettings(folder_labels=True).fingerprint()["folder_labels"]
    assert "folder_labels" not in pixel_settings(PackSettings(folder_labels=True).fingerprint())


def test_a_phantom_has_no_settings_for_other_scans() -> None:
    drawn = {"phantom": {"patients": 4, "seed": 0}, "note": "drawn by a program"}
    assert pixel_settings(drawn) == {}
    assert PackSettings.model_validate(pixel_settings(drawn)) == PackSettings()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sep=ab"], "'ab' cannot separate cells; give one sign"),
        (["sep=a"], "'a' cannot separate cells"),
        (["patient_pattern=patient"], "has 0 groups; put brackets around the one part"),
        (["patient_pattern=(a)(b)"], "has 2 groups"),
        (["patient_pattern=(a"], "is no regular expression"),
        (["patient_pattern=(a)", "patient_column=p"], "both say whose a scan is"),
    ],
)
def test_settings_of_tables_are_checked(words: list[str], message: str) -> None:
    with pytest.raises(ScanlearnError, match=re.escape(message)):
        load_config(PackSettings, None, words, kind="pack")


@pytest.mark.parametrize(
    ("word", "sep"),
    [("sep=;", ";"), ("sep=|", "|"), ("sep=tab", "\t"), ("sep=\\t", "\t"), ("sep=,", ",")],
)
def test_separators_are_written_as_they_are(word: str, sep: str) -> None:
    assert load_config(PackSettings, None, [word], kind="pack").sep == sep


def test_settings_of_a_table_are_no_part_of_an_archive() -> None:
    settings = PackSettings(root=Path("/home/jane"), sep=";", sheet="A", patient_pattern="(a)")
    assert settings.fingerprint() == PackSettings().fingerprint()
