from __future__ import annotations

from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from scanlearn import svg
from scanlearn.palette import LIGHT


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0.48, 0.91, 6, (0.5, 0.6, 0.7, 0.8, 0.9)),
        (-0.03, 0.11, 5, (0.0, 0.05, 0.1)),
        (0.0, 930.0, 5, (0.0, 500.0)),
    ],
)
def test_ticks_are_round_and_inside(
    low: float, high: float, most: int, expected: tuple[float, ...]
) -> None:
    assert svg.Axis(low, high, 0, 1).ticks(most) == expected


def test_axis_maps_ends_to_ends_and_keeps_values_inside() -> None:
    axis = svg.Axis(10, 1000, 0, 100, log=True)
    assert axis.at(10) == 0
    assert axis.at(100) == pytest.approx(50)
    assert axis.at(5000) == 100
    assert axis.at(0) == 0


def test_labels_keep_their_gap_order_and_bounds() -> None:
    placed = svg.spread_labels([50, 51, 52, 5, 99], 12, 0, 100)
    ranked = sorted(placed)
    assert all(b - a >= 12 - 1e-9 for a, b in pairwise(ranked))
    assert min(placed) >= 0
    assert max(placed) <= 100
    assert placed[0] < placed[1] < placed[2]


def test_labels_far_apart_stay_where_they_are() -> None:
    assert svg.spread_labels([10, 50, 90], 12, 0, 100) == [10, 50, 90]


def test_text_is_escaped() -> None:
    assert "<b>" not in svg.text(0, 0, "<b>")


def test_standalone_drawing_is_an_image_of_its_own() -> None:
    body = [
        svg.dot(1, 1, 1, colour="var(--hue-0)"),
        svg.line((0, 0), (1, 1), css="line", colour="red"),
    ]
    text = svg.standalone(svg.figure(10, 10, "a", body))
    assert text.startswith("<svg ")
    assert 'xmlns="http://www.w3.org/2000/svg"' in text
    # Painted without variables, which not every program knows.
    assert f'style="fill:{LIGHT["--hue-0"]}"' in text
    assert 'style="stroke:red"' in text
    assert "var(--hue" not in text


def test_a_png_has_colours_and_words_at_twice_the_size() -> None:
    body = [
        svg.box(0, 0, 20, 20, css="area", colour="#ff0000"),
        svg.line((30, 0), (30, 20), css="line", width=4, colour="var(--hue-0)"),
        svg.text(40, 15, "weak"),
    ]
    png = svg.as_png(svg.figure(80, 20, "a", body))
    pixels = np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(int)
    assert pixels.shape == (40, 160, 3)
    assert pixels[20, 20].tolist() == [255, 0, 0]
    blue = LIGHT["--hue-0"].lstrip("#")
    assert pixels[20, 60].tolist() == [int(blue[i : i + 2], 16) for i in (0, 2, 4)]
    assert pixels[20, 50].tolist() == [255, 255, 255]
    # Words, without any font of the system.
    assert (pixels[:, 80:] < 100).any()


def test_a_hint_is_escaped_and_a_long_name_keeps_both_ends() -> None:
    assert "<b>" not in svg.dot(0, 0, 1, colour="red", hint="<b>")
    assert svg.shortened("grade 10", 8) == "grade 10"
    assert svg.shortened("a long name of grade 10", 12) == "a long …e 10"
