from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from scanlearn.config import parse_value
from scanlearn.views.curves import Curve, Row
from scanlearn.views.operations.table import OPERATION_OF, PARAMETERS
from scanlearn.views.published import PUBLISHED, weak_crop
from scanlearn.views.ranges import ViewRanges
from scanlearn.views.recipes import RECIPES
from scanlearn.views.scale import Scale
from scanlearn.views.statistics import view_statistics

DOCS = Path(__file__).resolve().parents[3] / "docs" / "dial.md"
ALL = tuple(RECIPES)
G1, G2, LOCAL = range(3)
SHARED = {"log_aspect": math.log(4 / 3), "flip_p": 0.5, "jitter_p": 0.8,
          "gray_p": 0.2, "blur_sigma": 2}  # fmt: skip
PAIR = ({"blur_p": 1.0, "solarize_p": 0.0}, {"blur_p": 0.1, "solarize_p": 0.2})
DINO_JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}
SIMCLR_JITTER = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
MOCO_JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
DINO_VIEWS = (*PAIR, {"blur_p": 0.5, "solarize_p": 0.0})
EXTRAS = {"bias_field_p": 0.5, "bias_field": 0.1, "soft_p": 0.5, "soft_sigma": 0.1,
          "noise_p": 0.5, "noise_std": 0.1}  # fmt: skip


def ranges(*parts: dict[str, float]) -> ViewRanges:
    given = dict(SHARED)
    for part in parts:
        given |= part
    return ViewRanges(**given)


def crop(smallest: float, largest: float = 1.0) -> dict[str, float]:
    return {"crop_min": smallest, "crop_max": largest}


def multi_crop(
    first: dict[str, float], local: dict[str, float], *more: dict[str, float]
) -> tuple[ViewRanges, ...]:
    areas = (first, first, local)
    return tuple(
        ranges(DINO_JITTER, own, area, *more) for own, area in zip(DINO_VIEWS, areas, strict=True)
    )


STRICT = {"jitter_p": 1.0, "blur_p": 0.0, "blur_sigma": 0.1}
# Written from the papers and their code, not from the tables that they check.
STRONG = {
    "simclr": (ranges(SIMCLR_JITTER, crop(0.08), {"blur_p": 0.5}),),
    "mocov2": (ranges(MOCO_JITTER, crop(0.2), {"blur_p": 0.5}),),
    "mocov3": tuple(ranges(DINO_JITTER, crop(0.08), own) for own in PAIR),
    "mocov3_resnet": tuple(ranges(DINO_JITTER, crop(0.2), own) for own in PAIR),
    "byol": tuple(ranges(DINO_JITTER, crop(0.08), own) for own in PAIR),
    "dino": multi_crop(crop(0.4), crop(0.05, 0.4)),
    "dino_convnet": multi_crop(crop(0.14), crop(0.05, 0.14)),
    "cheng2025": multi_crop(crop(0.4), crop(0.05, 0.4), EXTRAS),
    "cheng2025_strict": multi_crop(crop(0.4), crop(0.05, 0.4), EXTRAS, STRICT),
}
HALF = {"brightness": 0.2, "contrast": 0.2}
HALF_EXTRAS = EXTRAS | {"bias_field": 0.05, "soft_sigma": 0.05, "noise_std": 0.05}
PAPER_WEAK = (crop(0.5), crop(0.2, 0.5))
WEAK = {
    "simclr": (
        ranges(SIMCLR_JITTER, {"brightness": 0.4, "contrast": 0.4, "blur_p": 0.5}, crop(0.2257)),
    ),
    "mocov2": (ranges(MOCO_JITTER, HALF, crop(0.3286), {"blur_p": 0.5}),),
    "mocov3": tuple(ranges(DINO_JITTER, HALF, crop(0.2257), own) for own in PAIR),
    "mocov3_resnet": tuple(ranges(DINO_JITTER, HALF, crop(0.3286), own) for own in PAIR),
    "byol": tuple(ranges(DINO_JITTER, HALF, crop(0.2257), own) for own in PAIR),
    "dino": multi_crop(*PAPER_WEAK, HALF),
    "dino_convnet": multi_crop(crop(0.2771), crop(0.2, 0.2771), HALF),
    "cheng2025": multi_crop(*PAPER_WEAK, HALF, HALF_EXTRAS),
    "cheng2025_strict": multi_crop(*PAPER_WEAK, HALF, HALF_EXTRAS, STRICT),
}


def dial(s: float) -> Scale:
    """All four levers at one setting."""
    return Scale(s, s, s, s)


@pytest.mark.parametrize("name", ALL)
def test_at_one_a_recipe_is_the_published_one_number_for_number(name: str) -> None:
    assert RECIPES[name].at(dial(1)).views == STRONG[name]


@pytest.mark.parametrize("name", ALL)
def test_at_one_half_a_recipe_is_its_weak_arm(name: str) -> None:
    found = RECIPES[name].at(dial(0.5)).views
    assert len(found) == len(WEAK[name])
    for view, expected in zip(found, WEAK[name], strict=True):
        assert dict(view) == pytest.approx(dict(expected), abs=5e-5)


@pytest.mark.parametrize("name", ["dino", "cheng2025"])
def test_the_weak_arm_of_the_paper_is_exact(name: str) -> None:
    views = RECIPES[name].at(Scale.WEAK).views
    assert [(v.crop_min, v.crop_max) for v in views] == [(0.5, 1), (0.5, 1), (0.2, 0.5)]
    assert {(v.brightness, v.contrast) for v in views} == {(0.2, 0.2)}


@pytest.mark.parametrize("name", ALL)
def test_at_zero_every_view_is_the_identity(name: str) -> None:
    assert all(view == ViewRanges() for view in RECIPES[name].at(dial(0)).views)


def test_without_acquisition_the_paper_trains_with_the_numbers_of_dino() -> None:
    for s in (0, 0.3, 0.5, 0.8, 1, 1.5):
        assert RECIPES["cheng2025"].at(Scale.of(s)) == RECIPES["dino"].at(Scale.of(s))


@pytest.mark.parametrize(
    ("name", "view", "parameter", "limit"),
    [
        ("simclr", G1, "crop_min", 0.02), ("mocov2", G1, "crop_min", 0.05),
        ("mocov3_resnet", G2, "crop_min", 0.05), ("byol", G1, "crop_min", 0.02),
        ("simclr", G1, "brightness", 0.9), ("simclr", G1, "contrast", 0.9),
        ("simclr", G1, "saturation", 0.9), ("mocov2", G1, "contrast", 0.6),
        ("mocov2", G1, "saturation", 0.6), ("byol", G1, "saturation", 0.3),
        ("dino", LOCAL, "crop_min", 0.02), ("dino_convnet", G1, "crop_min", 0.1),
        ("dino_convnet", LOCAL, "crop_max", 0.07), ("dino", G1, "blur_p", 1.0),
        ("dino", LOCAL, "jitter_p", 1.0), ("simclr", G1, "flip_p", 0.5),
        ("cheng2025", G1, "soft_sigma", 0.12), ("cheng2025", G1, "crop_max", 1.0),
    ],
)  # fmt: skip
def test_a_limit_is_reached_and_not_passed(
    name: str, view: int, parameter: str, limit: float
) -> None:
    assert getattr(RECIPES[name].at(dial(1.5)).views[view], parameter) == pytest.approx(limit)


@pytest.mark.parametrize(
    ("view", "parameter", "value", "limit"),
    [
        (G1, "crop_min", 0.3, 0.1), (LOCAL, "crop_max", 0.3, 0.2), (G1, "brightness", 0.6, 0.8),
        (G1, "saturation", 0.3, 0.8), (G1, "hue", 0.15, 0.5), (G1, "gray_p", 0.3, 0.5),
        (G2, "blur_p", 0.15, 1.0), (G2, "solarize_p", 0.3, 0.5), (G1, "blur_sigma", 3.0, 4.0),
        (G1, "log_aspect", 1.5 * math.log(4 / 3), math.log(2)),
    ],
)  # fmt: skip
def test_dino_goes_on_beyond_one_within_its_own_limits(
    view: int, parameter: str, value: float, limit: float
) -> None:
    row = next(row for row in RECIPES["dino"].rows if row.parameter == parameter)
    assert row.curve(view).limit == pytest.approx(limit)
    assert row.value(dial(1.5), view) == pytest.approx(value)


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_of_every_view_is_monotone_on_the_whole_dial(name: str) -> None:
    recipe = RECIPES[name]
    settings = [recipe.at(dial(float(s))).views for s in np.linspace(0, 1.5, 151)]
    for view in range(recipe.num_kinds):
        for name, parameter in PARAMETERS.items():
            steps = np.diff([views[view][name] for views in settings])
            falls = parameter.is_decreasing
            assert ((steps <= 1e-12) if falls else (steps >= -1e-12)).all(), name


@pytest.mark.parametrize("name", ALL)
def test_every_active_parameter_moves_strictly_up_to_weak(name: str) -> None:
    recipe = RECIPES[name]
    settings = [recipe.at(dial(float(s))).views for s in np.linspace(0, 0.5, 11)]
    for view in range(recipe.num_kinds):
        for row in recipe.rows:
            values = [getattr(views[view], row.parameter) for views in settings]
            assert (np.diff(values) != 0).all() != row.curve(view).is_idle, row.parameter


@pytest.mark.parametrize("name", ALL)
def test_between_weak_and_strong_the_crop_and_a_photometric_parameter_move(name: str) -> None:
    recipe = RECIPES[name]
    for view in range(recipe.num_kinds):
        low, middle, high = (recipe.at(Scale.of(s)).views[view] for s in (0.5, 0.75, 1))
        assert low.crop_min > middle.crop_min > high.crop_min
        assert low.brightness < middle.brightness < high.brightness


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("lever", ["crop", "geometry", "photometric", "acquisition"])
def test_a_sub_dial_moves_exactly_its_own_parameters(name: str, lever: str) -> None:
    recipe = RECIPES[name]
    scale = Scale(**{"crop": 0, "geometry": 0, "photometric": 0, "acquisition": 0} | {lever: 1})
    moved = {
        name
        for view in recipe.at(scale).views
        for name, number in view.items()
        if number != PARAMETERS[name].identity
    }
    own = {row.parameter for row in recipe.rows if row.dial == lever and not row.is_idle}
    assert moved == own
    assert all(OPERATION_OF[parameter].dial == lever for parameter in moved)


def test_the_smallest_crop_never_passes_the_largest() -> None:
    for name, recipe in RECIPES.items():
        for s in np.linspace(0, 1.5, 151):
            for view in recipe.at(Scale.of(float(s))).views:
                assert view.crop_min <= view.crop_max, (name, s)


def test_the_affine_map_goes_through_the_crop_points_of_the_paper() -> None:
    assert weak_crop(0.05) == pytest.approx(0.2)
    assert weak_crop(0.4) == pytest.approx(0.5)
    assert weak_crop(0.08) == pytest.approx(0.226, abs=5e-4)
    assert weak_crop(0.2) == pytest.approx(0.329, abs=5e-4)


def test_no_derived_number_passes_for_published() -> None:
    for name, table in PUBLISHED.items():
        weak = {curve.weak_source for row in table.rows for curve in row.curves}
        strong = {curve.strong_source for row in table.rows for curve in row.curves}
        assert all(source.startswith("published: ") for source in strong)
        published = {source for source in weak if source.startswith("published: ")}
        if not name.startswith(("dino", "cheng2025")) or name == "dino_convnet":
            assert not published, name
        assert weak - published <= {"derived from Cheng et al. 2025"}


def test_every_recipe_has_a_source_in_full() -> None:
    for name, table in PUBLISHED.items():
        assert re.search(r" 20[12]\d\b", table.reference), name


def _number(value: float) -> str:
    return f"{value:.3g}"


def _cell(curves: tuple[Curve, ...], knot: str) -> str:
    values = [_number(getattr(curve, knot)) for curve in curves]
    return values[0] if len(set(values)) == 1 else " / ".join(values)


def _origin(row: Row, knot: str) -> str:
    source = "; ".join(dict.fromkeys(getattr(curve, f"{knot}_source") for curve in row.curves))
    return source.removeprefix("published: ").replace("derived from", "derived:")


def knots_table(name: str) -> str:
    """The table of a recipe as docs/dial.md has it."""
    lines = [
        "| parameter | 0 | 0.5 | 1 | limit | 0.5 is from | 1 is from |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in RECIPES[name].rows:
        if not row.is_off:
            cells = [_cell(row.curves, knot) for knot in ("identity", "weak", "strong", "limit")]
            reach = ", at 1.5" if any(curve.reaches_limit for curve in row.curves) else ""
            origins = [_origin(row, knot) for knot in ("weak", "strong")]
            title = f"{PARAMETERS[row.parameter].title} (`{row.parameter}`)"
            lines.append("| " + " | ".join([title, *cells[:3], cells[3] + reach, *origins]) + " |")
    return "\n".join(lines)


def section(title: str) -> str:
    """The part of docs/dial.md under a heading of the second or third level."""
    text = DOCS.read_text(encoding="utf-8")
    found = re.search(rf"^###? {title}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"docs/dial.md has no section {title}"
    return found[1]


@pytest.mark.parametrize("name", ALL)
def test_the_documented_table_is_the_one_in_the_code(name: str) -> None:
    text = section(name)
    table = re.search(r"^\| parameter \|.*?(?=\n\n|\Z)", text.rstrip(), re.MULTILINE | re.DOTALL)
    assert table, f"docs/dial.md has no table of {name}"
    assert table[0] == knots_table(name)
    assert PUBLISHED[name].reference in " ".join(text.split())


def test_every_open_reading_of_the_paper_is_an_option() -> None:
    readings = re.findall(r"`(\w+: [^`]+)`", section("cheng2025").split("| open |")[1])
    assert len(readings) >= 7
    for reading in readings:
        operations = parse_value(f"{{{reading}}}")
        assert RECIPES["cheng2025"].adjusted(operations) != RECIPES["cheng2025"], reading


def test_the_strict_reading_is_two_options_of_the_other() -> None:
    literal = RECIPES["cheng2025"].adjusted({"jitter_p": 1, "blur": "off"})
    for s in np.linspace(0, 1.5, 16):
        assert RECIPES["cheng2025_strict"].at(dial(float(s))) == literal.at(dial(float(s)))


def test_the_documented_example_of_operations_can_be_used() -> None:
    block = re.search(r"```yaml\n(.*?)```", section("Operations by hand"), re.DOTALL)
    assert block
    given = parse_value(block[1])["views"]
    recipe = RECIPES[given["recipe"]].adjusted(given["operations"])
    weak = recipe.at(Scale.WEAK).views
    assert (weak[G2].solarize_p, weak[G1].rotation_deg, weak[G1].gamma_p) == (0, 7, 1)
    assert (weak[G1].crop_min, weak[LOCAL].crop_min) == (0.5, 0.2)


def test_the_documented_overlaps_are_those_of_the_program() -> None:
    rows = [
        [cell.strip(" %") for cell in line.strip("|").split("|")]
        for line in section("What views share").splitlines()
        if re.match(r"\| (global|local)", line)
    ]
    for column, s in ((1, 0.0), (2, 0.5), (3, 1.0)):
        found = view_statistics("dino", Scale.of(s))
        assert found.global_local is not None
        assert found.local_local is not None
        expected = [found.global_global.iou, found.global_local.iou, found.local_local.iou]
        assert [float(row[column]) for row in rows[:3]] == pytest.approx(expected, abs=0.01)
        assert float(rows[3][column]) == pytest.approx(100 * found.local_local.disjoint, abs=0.4)
