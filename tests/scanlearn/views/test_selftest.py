from __future__ import annotations

import pytest
import torch

from scanlearn.views.curves import OFF, Curve, Row
from scanlearn.views.operations import apply as change
from scanlearn.views.operations.parameters import OPERATIONS
from scanlearn.views.recipes import RECIPES, Recipe, find_recipe
from scanlearn.views.selftest import SCALES, Check, self_test

DTYPES = (torch.uint8, torch.uint16, torch.float32)
EVERY_OPERATION = {
    "vflip_p": 0.5, "rotation_deg": [7, 15], "translation": [0.02, 0.05], "stretch": [0.02, 0.05],
    "shear_deg": [1, 3], "elastic": [0.01, 0.02], "gamma": [0.18, 0.34],
    "histogram_shift": [0.03, 0.06], "solarize_p": 0.2, "bias_field": [0.1, 0.3], "soft_sigma": 1,
    "noise_std": [0.02, 0.05],
}  # fmt: skip


def failed(checks: tuple[Check, ...]) -> list[str]:
    return [f"{check.subject} ({check.view})" for check in checks if not check.is_ok]


def with_row(recipe: Recipe, row: Row) -> Recipe:
    rows = tuple(row if own.parameter == row.parameter else own for own in recipe.rows)
    return Recipe(recipe.name, rows, recipe.has_local_views)


@pytest.mark.long
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", list(RECIPES))
def test_raising_the_dial_changes_every_view_by_every_operation(
    name: str, channels: int, dtype: torch.dtype
) -> None:
    assert failed(self_test(RECIPES[name], channels, dtype)) == []


@pytest.mark.parametrize(
    ("name", "channels", "dtype"),
    [
        ("simclr", 3, torch.uint8), ("simclr", 1, torch.uint16), ("mocov2", 1, torch.float32),
        ("byol", 3, torch.float32), ("dino", 1, torch.uint8), ("cheng2025", 3, torch.uint16),
    ],
    ids=str,
)  # fmt: skip
def test_some_recipes_change_every_view_by_every_operation(
    name: str, channels: int, dtype: torch.dtype
) -> None:
    checks = self_test(RECIPES[name], channels, dtype)
    assert failed(checks) == []
    # The dial, four sub-dials and every operation, for each kind of view.
    assert len(checks) == (1 + 4 + len(OPERATIONS)) * RECIPES[name].num_kinds


@pytest.mark.parametrize("channels", [1, 3])
def test_operations_set_by_hand_change_pixels(channels: int) -> None:
    checks = self_test(find_recipe("simclr").adjusted(EVERY_OPERATION), channels, torch.uint8)
    assert failed(checks) == []
    labelled = {check.subject for check in checks if check.label}
    assert labelled == (set() if channels == 3 else {"saturation", "hue", "gray"})


def test_labels_are_those_of_the_table() -> None:
    checks = self_test(find_recipe("cheng2025"), 1, torch.uint8)
    labels = {(check.subject, check.view): check.label for check in checks}
    assert labels["solarize", "global 1"] == labels["solarize", "local"] == "not in this view"
    assert labels["solarize", "global 2"] == ""
    assert labels["soft", "local"].startswith("no effect")
    assert labels["hue", "local"] == "no meaning on one channel"
    assert labels["rotation", "global 1"] == "off"
    assert labels["dial", "global 1"] == labels["sub-dial acquisition", "local"] == ""


def test_a_recipe_without_acquisition_is_labelled_so() -> None:
    checks = self_test(find_recipe("simclr"), 3, torch.uint8)
    (lever,) = [check for check in checks if check.subject == "sub-dial acquisition"]
    assert lever.label == "off"
    assert set(lever.from_identity) == {0.0}


def test_an_operation_without_effect_is_found() -> None:
    # The table promises noise, but no pixel can hold so little of it.
    quiet = find_recipe("cheng2025").adjusted({"noise_std": 1e-14})
    found = failed(self_test(quiet, 3, torch.uint8))
    assert found == [f"noise ({view})" for view in ("global 1", "global 2", "local")]


def test_an_operation_that_the_renderer_forgets_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change, "solarize", lambda *_: None)
    assert failed(self_test(find_recipe("byol"), 3, torch.uint8)) == ["solarize (global 2)"]


def test_a_recipe_that_hides_an_operation_is_found() -> None:
    hidden = Curve(0, 0.5, 0.5, 0.5, weak_source=OFF, strong_source=OFF)
    sly = with_row(find_recipe("simclr"), Row("vflip_p", (hidden,)))
    assert "vflip (every view)" in failed(self_test(sly, 3, torch.uint8))


def test_a_dial_that_stops_is_found() -> None:
    frozen = find_recipe("simclr")
    for row in frozen.rows:
        curves = tuple(
            Curve(c.identity, c.weak, c.weak, c.weak, c.reaches_limit, "derived", "published")
            for c in row.curves
        )
        if not row.is_off:
            frozen = with_row(frozen, Row(row.parameter, curves))
    (dial,) = [c for c in self_test(frozen, 3, torch.uint8) if c.subject == "dial"]
    assert not dial.is_ok
    assert dial.from_previous[SCALES.index(0.75)] == 0


def test_a_check_reports_growing_differences() -> None:
    (dial,) = [c for c in self_test(RECIPES["simclr"], 3, torch.uint8) if c.subject == "dial"]
    assert len(dial.from_identity) == len(dial.from_previous) == len(SCALES)
    assert list(dial.from_identity) == sorted(dial.from_identity)
    assert min(dial.from_previous) > 0.01
