"""Does raising the dial change every view, by every operation the recipe has?

A fixed set of textured scans is rendered at rising scales with the same uniforms. What the
resolved table labels as off, without meaning or without effect must change nothing, and
everything else must change pixels: an operation that is silently a no-op fails here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from scanlearn.core import ScanBatch
from scanlearn.views.curves import OFF, Curve, Row
from scanlearn.views.operations.operation import Operation
from scanlearn.views.operations.table import (
    OPERATION_OF,
    OPERATIONS,
    PARAMETERS,
    parameters_of,
    probability_of,
)
from scanlearn.views.ranges import Ranges, ViewRanges
from scanlearn.views.recipes import NO_MEANING, RECIPES, Recipe, find_recipe
from scanlearn.views.render import render_views
from scanlearn.views.scale import Scale
from scanlearn.views.settings import RenderSettings
from scanlearn.views.uniforms import DrawKey, uniforms

SCALES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
WHOLE_DIAL = "dial"
_DIALS = tuple(field.name for field in fields(Scale))
_PROBABILITIES = tuple(name for name in PARAMETERS if name.endswith("_p"))
# Enough for an operation of probability .1 to strike twice at .25.
_SCANS, _CANVAS, _BOX, _SIZE = 48, (48, 48), (4, 0, 40, 48), 32
# Small views stand for those of 224 px: scaled down to them, a blur would all but vanish.
_SETTINGS = RenderSettings(scale_blur=False)
# More than a mean of float32 can lose.
_NOISE = 1e-9


@dataclass(frozen=True)
class Check:
    """What raising one lever did to one view.

    Args:
        subject: "dial" for all levers at once, "sub-dial crop" for one, or an operation alone.
        view: Which view.
        from_identity: Mean absolute difference to the identity's view at each of `SCALES`.
        from_previous: The same to the view at the scale before, from 0 on.
        label: Why the resolved table expects no change; empty where it expects one.
    """

    subject: str
    view: str
    from_identity: tuple[float, ...]
    from_previous: tuple[float, ...]
    label: str

    @property
    def is_ok(self) -> bool:
        """Whether pixels changed as the table says: at every scale, by the dial at every step."""
        if self.label:
            return max(self.from_identity) == 0
        steps = self.from_previous if self.subject == WHOLE_DIAL else self.from_identity
        return min(steps) > _NOISE and self.from_identity[-1] >= self.from_identity[0]


def self_test(recipe: Recipe, channels: int, dtype: torch.dtype) -> tuple[Check, ...]:
    """Returns one check for each lever and each kind of view.

    Args:
        recipe: The recipe.
        channels: 1 or 3.
        dtype: Of the stored scans: torch.uint8, torch.uint16 or torch.float32.
    """
    batch = _textured(channels, dtype)
    u = _spread(uniforms(DrawKey(0, 0, np.arange(_SCANS)), recipe.num_kinds))
    found = []
    for subject, moved in _levers():
        rendered = _rendered(batch, [_only(recipe, s, moved) for s in (0.0, *SCALES)], u)
        for view, kind in enumerate(recipe.kinds):
            views = [one[view] for one in rendered]
            check = Check(
                subject,
                kind,
                from_identity=tuple(_difference(one, views[0]) for one in views[1:]),
                from_previous=tuple(map(_difference, views[1:], views)),
                label=_label(recipe, channels, moved, view),
            )
            found.append(check)
    return tuple(found)


def _spread(u: Float64[np.ndarray, "b v p"]) -> Float64[np.ndarray, "b v p"]:
    """The uniforms evenly spread over the scans, so that what is rare strikes its share of them."""
    ranks = np.argsort(np.argsort(u, axis=0), axis=0)
    spread: Float64[np.ndarray, "b v p"] = (ranks + 0.5) / len(u)
    return spread


def _levers() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names each lever and the parameters it moves."""
    yield WHOLE_DIAL, tuple(PARAMETERS)
    for dial in _DIALS:
        yield (
            f"sub-dial {dial}",
            tuple(name for name, operation in OPERATION_OF.items() if operation.dial == dial),
        )
    for operation in OPERATIONS:
        probability = ("jitter_p",) if operation.part_of == "jitter" else ()
        yield operation.name, (*probability, *parameters_of(operation.name))


def _only(recipe: Recipe, s: float, moved: tuple[str, ...]) -> Ranges:
    """The recipe's ranges with all parameters but those moved at the identity."""
    views = recipe.at(Scale(s, s, s, s)).views
    return Ranges(tuple(ViewRanges(**{name: view[name] for name in moved}) for view in views))


def _label(recipe: Recipe, channels: int, moved: tuple[str, ...], view: int) -> str:
    """Why a lever should change nothing; empty where the table promises a change.

    A lever is labelled where each of its operations is: by its rows in the table, or, since the
    table shows probabilities view by view, by the probability 0 in this view alone.
    """
    strong = Scale(1, 1, 1, 1)
    rows = {row.parameter: row for row in recipe.table(strong, channels)}
    labels = []
    views = recipe.at(strong).views
    for operation in OPERATIONS:
        members = [parameter.name for parameter in operation.parameters]
        # The probability of the jitter belongs to each of its four, and to none by itself.
        if operation.name == "jitter" or not set(members) <= set(moved):
            continue
        notes = [rows[name].note for name in members]
        needed = {probability_of(name) or name for name in members} & {*_PROBABILITIES}
        own = [views[view][name] for name in needed]
        others = [max(v[name] for v in views) for name in needed]
        if all(_is_label(note) for note in notes):
            labels.append(notes[0])
        elif 0 in own and 0 not in others:
            labels.append("not in this view")
        else:
            return ""
    return "; ".join(dict.fromkeys(labels))


def _is_label(note: str) -> bool:
    return note in ("off", NO_MEANING) or note.startswith("no effect")


def _textured(channels: int, dtype: torch.dtype) -> ScanBatch:
    """Smooth blobs, stripes and a bright edge on a padded canvas; colour is uneven."""
    rng = np.random.default_rng(0)
    height, width = _CANVAS
    y, x = np.mgrid[:height, :width] / height
    pixels = np.zeros((_SCANS, channels, height, width))
    for scan in range(_SCANS):
        angle, shift = rng.uniform(0, np.pi), rng.uniform(0, 1, channels)
        across = y * np.sin(angle) + x * np.cos(angle)
        blob = np.exp(-8 * ((y - rng.uniform(0.2, 0.6)) ** 2 + (x - rng.uniform(0.2, 0.8)) ** 2))
        for channel in range(channels):
            stripes = 0.25 * np.sin(2 * np.pi * (6 * across + shift[channel]))
            edge = 0.3 * (across > 0.5 + 0.2 * shift[channel])
            pixels[scan, channel] = np.clip(0.2 + stripes + edge + 0.4 * blob, 0, 1)
    top, left, bottom, right = _BOX
    inside = np.zeros((height, width))
    inside[top:bottom, left:right] = 1
    highest = {torch.uint8: 255.0, torch.uint16: 65535.0}.get(dtype, 1.0)
    stored = pixels * inside * highest
    whole = {torch.uint8: np.uint8, torch.uint16: np.uint16}.get(dtype)
    kept = stored.astype(np.float32) if whole is None else stored.round().astype(whole)
    return ScanBatch(
        pixels=torch.from_numpy(kept),
        valid_box=torch.tensor([_BOX] * _SCANS),
        mask=None,
        spacing_mm=torch.full((_SCANS, 2), float("nan")),
        value_range=torch.tensor([[0.0, highest]] * _SCANS),
        ids=torch.arange(_SCANS),
    )


def _rendered(
    batch: ScanBatch, ranges: Sequence[Ranges], u: Float64[np.ndarray, "b v p"]
) -> list[tuple[Float[Tensor, "b c s s"], ...]]:
    found: list[tuple[Tensor, ...]] = []
    for number, one in enumerate(ranges):
        # Rendering is pure: equal ranges give equal views.
        if number and one == ranges[number - 1]:
            found.append(found[-1])
        else:
            draw = one.draw(u, batch.valid_box.numpy())
            found.append(render_views(batch, draw, range(draw.flip.shape[1]), _SIZE, _SETTINGS))
    return found


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().double().mean())


DTYPES = (torch.uint8, torch.uint16, torch.float32)
EVERY_OPERATION = {
    "vflip_p": 0.5, "rotation_deg": [7, 15], "translation": [0.02, 0.05], "stretch": [0.02, 0.05],
    "shear_deg": [1, 3], "elastic": [0.01, 0.02], "elastic_mm": [3, 6], "gamma": [0.18, 0.34],
    "histogram_shift": [0.03, 0.06], "solarize_p": 0.2, "bias_field": [0.1, 0.3], "soft_sigma": 1,
    "noise_std": [0.02, 0.05], "posterise_bits": [6, 4], "quarter_turns_p": 0.5,
    "window_width": [0.1, 0.2], "window_level": [0.02, 0.05], "stain": [0.05, 0.2],
    "illumination": [0.05, 0.1], "low_resolution": [0.75, 0.5], "rician_std": [0.02, 0.1],
    "poisson_std": [0.01, 0.0316], "speckle_std": [0.1, 0.2], "jpeg_quality": [90, 70],
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
    assert labelled == (set() if channels == 3 else {"saturation", "hue", "gray", "stain"})


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
    left: tuple[Operation, ...] = tuple(o for o in OPERATIONS if o.name != "solarize")
    monkeypatch.setattr("scanlearn.views.fused.OPERATIONS", left)
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
    # SimCLR's jitter has reached its limit at 1.125.
    (dial,) = [c for c in self_test(RECIPES["mocov2"], 3, torch.uint8) if c.subject == "dial"]
    assert len(dial.from_identity) == len(dial.from_previous) == len(SCALES)
    assert list(dial.from_identity) == sorted(dial.from_identity)
    assert min(dial.from_previous) > 0.01
