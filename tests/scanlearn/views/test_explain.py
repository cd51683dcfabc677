from __future__ import annotations

import re

import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.views.explain import WIDTH, explain, explanation
from scanlearn.views.recipes import RECIPES, find_recipe
from scanlearn.views.scale import Scale

FULL = {"crop": 0.7, "geometry": 0.7, "photometric": 0.7, "acquisition": 1}
MANY = {
    "solarize": "off", "rotation_deg": [7, 15], "histogram_shift": 0.05, "elastic": 0.01,
    "crop_min": {"local": [0.2, 0.1]},
}  # fmt: skip


def row(text: str, parameter: str) -> str:
    (found,) = re.findall(rf"^.*\b{parameter} .*$", text, re.MULTILINE)
    return str(found)


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_table_is_never_wider_than_it_says(name: str) -> None:
    for text in (
        explanation(find_recipe(name), Scale.STRONG, 3),
        explanation(find_recipe(name), Scale.of(0.7), 1),
    ):
        assert max(map(len, text.splitlines())) <= WIDTH


def test_a_table_of_many_operations_is_no_wider() -> None:
    recipe = find_recipe("cheng2025").adjusted(MANY)
    text = explanation(recipe, Scale.parse(FULL), 3)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "by hand: solarize off, rotation_deg 7/15" in text


def test_what_is_printed_is_returned(capsys: pytest.CaptureFixture[str]) -> None:
    text = explain("simclr", scale="weak")
    assert capsys.readouterr().out == text + "\n"


def test_every_number_in_use_stands_there_with_unit_and_source() -> None:
    text = explanation(find_recipe("dino"), Scale.STRONG, 3)
    crop, solarize = row(text, "crop_min"), row(text, "solarize_p")
    assert re.search(r"crop +crop_min +0\.4 / 0\.4 / 0\.05 +of the area +published \[1\]", crop)
    assert re.search(r"0 / 0\.2 / 0 +probability +published \[1\]; fixed", solarize)
    assert "[1] Caron et al. 2021" in text
    assert "values of global 1 / global 2 / local" in text
    shown = [r.parameter for r in find_recipe("dino").table(Scale.STRONG, 3) if r.note != "off"]
    assert all(row(text, parameter) for parameter in shown)


def test_what_is_off_is_named_in_one_line() -> None:
    text = " ".join(explanation(find_recipe("simclr"), Scale.STRONG, 3).split())
    assert "off: vflip, quarter_turns, rotation, translation" in text
    assert "rotation_deg" not in text
    by_hand = explanation(find_recipe("simclr").adjusted({"blur": "off"}), Scale.STRONG, 3)
    assert "blur" in by_hand.split("off: ")[-1]


def test_a_size_at_which_a_blur_has_no_effect_is_told() -> None:
    note = "no effect at this size: sigma below .12 px changes nothing"
    # 2 px at 224 px are .107 at 12 px and .125 at 14; the .21 px of s = .03 are .03 at 32 px.
    for size, scale, is_idle in ((12, 1.0, True), (14, 1.0, False), (32, 0.03, True)):
        text = " ".join(explain("dino", scale=scale, size=size).split())
        assert (note in text) == is_idle
        assert f"on colour, {size} px" in text
    assert note not in " ".join(explain("dino", size=12, scale_blur=False).split())


def test_notes_are_printed() -> None:
    text = " ".join(explain("cheng2025", scale=FULL, channels=1).split())
    assert "no effect: sigma below .12 px changes nothing" in text
    assert "no meaning on one channel" in text
    assert "on one channel" in text.split("operation")[0]


def test_weak_and_derived_numbers_cite_their_paper() -> None:
    text = explanation(find_recipe("byol"), Scale.WEAK, 3)
    assert "derived [1]" in row(text, "crop_min")
    assert "[1] Cheng et al. 2025" in text


def test_the_overlap_of_the_views_stands_below() -> None:
    text = explanation(find_recipe("dino"), Scale.STRONG, 3)
    assert "global/global: IoU 0.6" in text


@pytest.mark.parametrize(
    ("recipe", "settings", "words"),
    [
        ("byl", {}, "did you mean 'byol'"),
        ("byol", {"scale": "weakk"}, "did you mean 'weak'"),
        ("byol", {"operations": {"blurr": "off"}}, "did you mean 'blur'"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    recipe: str, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(ScanlearnError, match=words):
        explain(recipe, **settings)  # type: ignore[arg-type]
