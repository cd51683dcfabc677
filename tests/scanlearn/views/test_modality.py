from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from scanlearn.core import ScanBatch, ViewPlan
from scanlearn.errors import ScanlearnError
from scanlearn.training.settings import PretrainConfig
from scanlearn.views.explain import WIDTH, explain, policy_changes
from scanlearn.views.generator import ViewGenerator
from scanlearn.views.modality import POLICIES, OwnModality, find_policy
from scanlearn.views.operations.table import OPERATION_OF, PARAMETERS
from scanlearn.views.policy import OURS
from scanlearn.views.recipes import RECIPES, Recipe, find_recipe
from scanlearn.views.render import render
from scanlearn.views.scale import Scale
from scanlearn.views.uniforms import DrawKey, uniforms

EVERY = list(product(POLICIES, RECIPES))
DIAL = np.linspace(0, 1.5, 61)
# SCIENCE: the smallest global crop at weak, strong and beyond, by hand from the affine map
# [strong, 1] -> [floor, 1]: .3 + (.226 - .08) * .7 / .92 and so on.
CROPS = [
    ("xray", "simclr", (0.2257143 - 0.08) * 0.7 / 0.92 + 0.3, 0.3),
    ("fundus", "simclr", (0.2257143 - 0.08) * 0.8 / 0.92 + 0.2, 0.2),
    ("mammography", "dino", (0.5 - 0.4) * 0.5 / 0.6 + 0.5, 0.5),
    ("histology", "mocov2", (0.3285714 - 0.2) * 0.75 / 0.8 + 0.25, 0.25),
    ("xray", "dino", 0.5, 0.4),
    ("fundus", "dino_convnet", 0.2771429, 0.14),
    ("natural", "simclr", 0.2257143, 0.08),
]
# Weak, strong and cap of some rows, from the table of the policies' sources.
ROWS = [
    ("fundus", "rotation_deg", (7, 15, 30)),
    ("oct", "gamma", (0.18, 0.34, 0.51)),
    ("xray", "brightness", (0.25, 0.5, 0.7)),
    ("xray", "translation", (0.02, 0.05, 0.08)),
    ("xray", "noise_std", (0.01, 0.03, 0.045)),
    ("ct", "blur_sigma", (0.5, 1, 1.5)),
    ("mri", "elastic", (0.015, 0.03, 0.045)),
    ("mri", "elastic_mm", (3.75, 7.5, 11.25)),
    ("mri", "bias_field", (0.25, 0.5, 0.75)),
    ("oct", "elastic_axial", (0.005, 0.01, 0.015)),
    ("ct", "noise_hu", (3, 3, 4.5)),
    ("ultrasound", "stretch", (0.05, 0.15, 0.225)),
    ("histology", "rotation_deg", (180, 180, 180)),
    ("histology", "gray_p", (0.1, 0.2, 0.3)),
    ("dermoscopy", "hue", (0.025, 0.05, 0.075)),
    ("mammography", "blur_sigma", (0.3, 0.7, 1.05)),
]
MIRRORED = {"fundus", "oct", "ultrasound", "histology", "dermoscopy", "natural"}
UPSIDE_DOWN = {"histology", "dermoscopy"}


def under(modality: str, recipe: str) -> Recipe:
    return find_recipe(recipe).under(modality)


def of(recipe: Recipe, parameter: str) -> Any:
    return next(row for row in recipe.rows if row.parameter == parameter)


@pytest.mark.parametrize(("modality", "recipe"), EVERY)
def test_no_policy_flattens_the_dial(modality: str, recipe: str) -> None:
    ruled = under(modality, recipe)
    for row in ruled.rows:
        identity = PARAMETERS[row.parameter].identity
        for curve in row.curves:
            values = np.array([curve.at(s) for s in DIAL])
            steps = np.diff(values)
            assert values[0] == identity
            assert (steps >= -1e-12).all() or (steps <= 1e-12).all(), row
            assert abs(curve.limit - identity) + 1e-12 >= np.abs(values - identity).max(), row
    for dial in ("crop", "photometric"):
        moving = [
            row
            for row in ruled.rows
            if OPERATION_OF[row.parameter].dial == dial and not all(c.is_fixed for c in row.curves)
        ]
        assert moving, (modality, recipe, dial)


@pytest.mark.parametrize(("modality", "recipe"), EVERY)
def test_what_a_policy_lists_as_a_pair_is_one(modality: str, recipe: str) -> None:
    ruled = under(modality, recipe)
    for name, given in POLICIES[modality].operations.items():
        if isinstance(given, list):
            tempered = {"blur_sigma"} if recipe == "cheng2025_strict" else set()
            if name not in tempered:
                assert all(
                    c.weak == given[0] and c.strong == given[1] for c in of(ruled, name).curves
                )
            assert given[0] != given[1]
    crops = [of(find_recipe(recipe), "crop_min"), of(ruled, "crop_min")]
    for before, after in zip(crops[0].curves, crops[1].curves, strict=False):
        assert (before.weak == before.strong) == (after.weak == after.strong)


@pytest.mark.parametrize(("modality", "recipe", "weak", "strong"), CROPS)
def test_the_crop_is_rescaled_to_its_floor(
    modality: str, recipe: str, weak: float, strong: float
) -> None:
    curve = of(under(modality, recipe), "crop_min").curve(0)
    assert (curve.weak, curve.strong) == pytest.approx((weak, strong), abs=1e-6)
    floor = POLICIES[modality].crop_floor
    if floor is not None and recipe != "dino_convnet":
        assert curve.limit >= floor
        assert curve.at(1.5) >= floor


@pytest.mark.parametrize("modality", ["xray", "ultrasound", "mammography"])
@pytest.mark.parametrize("recipe", ["dino", "dino_convnet", "cheng2025"])
def test_local_crops_are_at_least_a_fifth_and_a_tenth(modality: str, recipe: str) -> None:
    ruled = under(modality, recipe)
    areas = [of(ruled, name).curve(2) for name in ("crop_min", "crop_max")]
    for s, least in ((0.5, 0.2), (1, 0.1), (1.5, 0.1)):
        smallest, largest = (curve.at(s) for curve in areas)
        assert least <= smallest <= largest + 1e-12


@pytest.mark.parametrize(("modality", "parameter", "numbers"), ROWS)
def test_rows_are_those_of_the_table(
    modality: str, parameter: str, numbers: tuple[float, float, float]
) -> None:
    curve = of(under(modality, "simclr"), parameter).curve(0)
    assert (curve.weak, curve.strong, curve.limit) == pytest.approx(numbers)
    assert curve.weak_source.startswith(f"policy {modality}: ")


def test_every_row_of_a_policy_has_a_source() -> None:
    for policy in POLICIES.values():
        for operation in policy.sources:
            assert operation in {o.name for o in OPERATION_OF.values()}, operation
        for row in find_recipe("simclr").under(policy).rows:
            for curve in row.curves:
                if curve.strong_source.startswith("policy "):
                    assert ";" not in curve.strong_source
    assert "policy mri: " + OURS in {
        c.strong_source for c in of(under("mri", "simclr"), "stretch").curves
    }


@pytest.mark.parametrize("recipe", RECIPES)
def test_natural_is_the_recipe_alone(recipe: str) -> None:
    assert under("natural", recipe) == find_recipe(recipe)
    assert under("natural", recipe).dial(Scale.WEAK) == Scale.WEAK


def test_a_policy_adds_no_blur_to_a_recipe_without_one() -> None:
    assert of(under("ct", "cheng2025_strict"), "blur_p").is_idle


def test_a_policy_replaces_all_of_the_device() -> None:
    ruled = under("xray", "cheng2025")
    assert of(ruled, "bias_field").is_off
    assert of(ruled, "noise_std").curve(0).strong == 0.03


@pytest.mark.parametrize(
    ("scale", "acquisition"),
    [
        (0.5, 0.5),
        ("strong", 1.0),
        (0, 0.0),
        ({"crop": 0.5, "geometry": 0.5, "photometric": 0.5}, 0.0),
        ({"crop": 0.5, "geometry": 0.5, "photometric": 0.5, "acquisition": 1}, 1.0),
    ],
)
def test_one_number_moves_acquisition_under_a_policy(scale: Any, acquisition: float) -> None:
    parsed = Scale.parse(scale)
    assert under("xray", "simclr").dial(parsed).acquisition == acquisition
    assert find_recipe("simclr").dial(parsed) == parsed
    noise = of(under("xray", "simclr"), "noise_std").curve(0).at(acquisition)
    assert under("xray", "simclr").at(parsed).views[0].noise_std == noise


def _arrow() -> ScanBatch:
    """A dark scan, bright in its upper left quarter: a flip moves the light to another corner."""
    pixels = np.zeros((400, 1, 64, 64), dtype=np.uint8)
    pixels[:, :, :32, :32] = 255
    return ScanBatch(
        pixels=torch.from_numpy(pixels),
        valid_box=torch.tensor([[0, 0, 64, 64]] * 400),
        mask=None,
        spacing_mm=torch.full((400, 2), float("nan")),
        value_range=torch.tensor([[0.0, 255.0]] * 400),
        ids=torch.arange(400),
    )


@pytest.mark.parametrize("s", [0.25, 0.5, 1, 1.5])
@pytest.mark.parametrize("modality", POLICIES)
def test_a_flip_is_seen_only_where_it_is_legal(modality: str, s: float) -> None:
    """Geometry alone, of whole scans: rotated by at most 30 degrees the light stays up and left."""
    batch = _arrow()
    scale = Scale(crop=0, geometry=s, photometric=0)
    ruled = under(modality, "simclr")
    if modality in UPSIDE_DOWN:
        ruled = ruled.adjusted({"rotation": "off"})
    u = uniforms(DrawKey(0, 0, np.arange(len(batch))), 1)
    views = render(batch, ruled.at(scale).draw(u, batch.valid_box.numpy()), 0, 32)
    light = views[:, 0].clamp(0, 1)
    left = light[:, :, :16].sum((1, 2)) > light[:, :, 16:].sum((1, 2))
    top = light[:, :16].sum((1, 2)) > light[:, 16:].sum((1, 2))
    assert (not bool(left.all())) == (modality in MIRRORED)
    assert (not bool(top.all())) == (modality in UPSIDE_DOWN)


def _drawn_field(modality: str, side: int = 256) -> np.ndarray:
    """A disc that touches the edges of its canvas, or a sector of 80 degrees from its apex."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    if modality == "fundus":
        return np.hypot(x - 0.5, y - 0.5) <= 0.5
    return (np.hypot(x - 0.5, y) <= 1) & (np.abs(np.arctan2(x - 0.5, y)) <= np.deg2rad(40))


def _share_of_field(recipe: Recipe, s: float, modality: str) -> np.ndarray:
    """Share of each crop that lies in the field of view, ``[b v]``, counted pixel by pixel."""
    field = _drawn_field(modality)
    side, scans = len(field), 1000
    u = uniforms(DrawKey(0, 0, np.arange(scans)), max(recipe.num_kinds, 2))
    draw = recipe.at(Scale.of(s)).draw(u, np.tile([0, 0, side, side], (scans, 1)))
    boxes = np.rint(draw.crop_box).astype(int)
    return np.array([[field[y0:y1, x0:x1].mean() for y0, x0, y1, x1 in row] for row in boxes])


@pytest.mark.parametrize("s", [0.5, 1, 1.5])
@pytest.mark.parametrize("recipe", ["simclr", "dino", "dino_convnet", "cheng2025"])
@pytest.mark.parametrize("modality", ["fundus", "ultrasound"])
def test_no_crop_leaves_the_field_of_view(modality: str, recipe: str, s: float) -> None:
    share = _share_of_field(under(modality, recipe), s, modality)
    assert share[:, :2].min() > 0.5
    assert (share < 0.05).mean() < 0.001


def test_without_a_floor_crops_would_leave_the_sector() -> None:
    assert _share_of_field(find_recipe("simclr"), 1, "ultrasound").min() < 0.3


@pytest.mark.parametrize("recipe", ["simclr", "dino", "cheng2025"])
@pytest.mark.parametrize("modality", POLICIES)
def test_recipe_and_policy_stand_side_by_side(modality: str, recipe: str) -> None:
    for scale, channels in ((0.5, 3), (1.2, 1)):
        text = explain(recipe, modality=modality, scale=scale, channels=channels)
        assert max(map(len, text.splitlines())) <= WIDTH
    assert f"{recipe} and modality {modality}" in text


def test_what_an_xray_loses_is_told_with_the_reason() -> None:
    text = " ".join(explain("byol", modality="xray").split())
    assert "flip (a mirrored chest shows situs inversus)" in text
    assert "solarize (it imitates MONOCHROME1)" in text


THYROID = {
    "name": "thyroid", "like": "ultrasound", "crop_floor": 0.4,
    "operations": {"rotation_deg": [3, 6], "noise": "off", "flip": "off"},
}  # fmt: skip


def test_a_modality_of_ones_own_changes_another() -> None:
    config = PretrainConfig(archive="a", output="b", views={"modality": THYROID})  # type: ignore[arg-type]
    recipe = config.build_recipe()
    assert of(recipe, "crop_min").curve(0).strong == 0.4
    assert of(recipe, "rotation_deg").curve(0).strong == 6
    assert of(recipe, "noise_std").is_off
    assert of(recipe, "flip_p").is_off
    assert of(recipe, "stretch").curve(0).strong == 0.15
    assert recipe.at(Scale.WEAK).views[0].rotation_deg == 3
    assert "thyroid: crop floor 0.4" in recipe.policy_text
    kept = PretrainConfig.model_validate(config.model_dump(mode="json"))
    assert kept == config


def test_what_is_set_by_hand_stands_above_the_policy() -> None:
    config = PretrainConfig(
        archive="a",
        output="b",
        views={"modality": "xray", "operations": {"flip_p": 0.5}},  # type: ignore[arg-type]
    )
    assert config.build_recipe().at(Scale.STRONG).views[0].flip_p == 0.5


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("xrays", "did you mean 'xray'"),
        ("brain", "give one of natural, fundus"),
        (3, "3 is not a modality"),
        ({"like": "xray"}, "None is no name"),
        ({"name": "xray"}, "'xray' is no name"),
        ({"name": "hand", "like": "xrai"}, "did you mean 'xray'"),
        ({"name": "hand", "likes": "xray"}, "did you mean 'like'"),
        ({"name": "hand", "operations": {"rotate": 3}}, "operations.rotate: is not an operation"),
    ],
)
def test_bad_modalities_are_refused_in_one_sentence(given: Any, expected: str) -> None:
    with pytest.raises((ScanlearnError, ValueError), match=r"modality|operations") as error:
        PretrainConfig(archive="a", output="b", views={"modality": given})  # type: ignore[arg-type]
    assert expected in str(error.value)


def test_a_policy_is_found_by_its_name_or_is_one() -> None:
    assert find_policy("ct") is find_policy(find_policy("ct"))
    assert find_policy(OwnModality(name="hand", like="xray")).like is find_policy("xray")


def test_pivot_and_background_hold_in_training_and_of_ones_own_too() -> None:
    like = OwnModality(name="thyroid", like="ultrasound")
    skin = OwnModality(name="naevi", like="dermoscopy")
    for modality, pivot, background in (
        ("ultrasound", "apex", "black"),
        (like, "apex", "black"),
        ("ct", "centre", "black"),
        ("histology", "centre", "reflect_moved"),
        (skin, "centre", "reflect_moved"),
    ):
        recipe = find_recipe("simclr").under(modality)
        generator = ViewGenerator(recipe, Scale.WEAK, ViewPlan(2), 32, [0.5], [0.25])
        assert (generator.settings.pivot, generator.settings.background) == (pivot, background)


@pytest.mark.parametrize(
    ("recipe", "modality", "words"),
    [
        ("simclr", "natural", "natural (the recipe as published)"),
        (
            "dino",
            "ct",
            "ct (off: flip (a mirrored chest shows situs inversus), jitter (the window is moved "
            "instead), brightness, contrast, saturation, hue, gray, solarize; added: rotation, "
            "translation, stretch, shear, window, low resolution, noise; changed: blur; one number "
            "moves acquisition too)",
        ),
        (
            "mocov2",
            OwnModality(name="eye", crop_floor=0.4, operations={"flip": "off"}),
            "eye (off: flip (your own); global crops from 0.4 of the area on at s = 1)",
        ),
        (
            "simclr",
            OwnModality(name="hand", like="xray", operations={"flip_p": 0.5, "gray_p": 0.1}),
            "hand (off: saturation, hue; added: rotation, translation, stretch, shear, elastic, "
            "gamma, histogram shift, poisson, noise; changed: brightness, contrast, gray; global "
            "crops from 0.3 of the area on at s = 1; one number moves acquisition too)",
        ),
    ],
)
def test_what_a_policy_changes_is_told_in_words(
    recipe: str, modality: str | OwnModality, words: str
) -> None:
    ruled = find_recipe(recipe).under(modality)
    assert policy_changes(ruled) == words
    assert policy_changes(ruled.adjusted({"blur": "off", "crop": "off"})) == words
