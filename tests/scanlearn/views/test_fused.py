"""The CPU's compiled renderer against the one of plain torch, and what it promises besides."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from scanlearn.core import ScanBatch
from scanlearn.views import kernel
from scanlearn.views.draw import Draw
from scanlearn.views.fused import render_fused
from scanlearn.views.operations.table import OPERATIONS
from scanlearn.views.recipes import RECIPES, Recipe
from scanlearn.views.render import render_batched, render_views
from scanlearn.views.scale import Scale
from scanlearn.views.settings import DEFAULT_SETTINGS, RenderSettings, Standard
from scanlearn.views.uniforms import DrawKey, uniforms

MakeBatch = Callable[..., ScanBatch]
SCANS, CANVAS = 6, 96
FULL = Scale(crop=1, geometry=1, photometric=1, acquisition=1)
# By hand and often: the recipe has crop, flip, jitter, gray and blur.
SMOOTH = {
    "crops": {"vflip_p": 0.5, "quarter_turns_p": 0.75},
    "grids": {"rotation_deg": [7, 15], "translation": [0.02, 0.05], "stretch": [0.02, 0.05],
              "shear_deg": [1, 3], "elastic": [0.01, 0.02], "elastic_mm": [3, 6]},
    "tones": {"window_width": [0.1, 0.2], "window_level": [0.02, 0.05], "stain": [0.05, 0.2],
              "gamma": [0.18, 0.34], "histogram_shift": [0.03, 0.06], "soft_sigma": 1},
    "device": {"illumination": [0.05, 0.1], "bias_field": [0.1, 0.3], "soft_sigma": 1,
               "low_resolution": [0.75, 0.5], "rician_std": [0.02, 0.1], "noise_std": [0.02, 0.05]},
}  # fmt: skip
# Rounding may put a pixel on either side of a jump.
JUMPS = {
    "solarize": {"solarize_p": 0.9}, "posterise": {"posterise_bits": [6, 4]},
    "poisson": {"poisson_std": [0.01, 0.0316]}, "speckle": {"speckle_std": [0.1, 0.2]},
    "jpeg": {"jpeg_quality": [90, 70]},
}  # fmt: skip
TOLERANCE = 1e-4


def _batch(make_batch: MakeBatch, channels: int, dtype: torch.dtype, is_masked: bool) -> ScanBatch:
    """Scans of two kinds on a padded canvas, whose window leaves out the ends of what is stored."""
    stored = torch.uint16 if dtype == torch.uint16 else torch.uint8
    batch = make_batch(SCANS, channels, (CANVAS, 80), (5, 6, 90, 70), dtype=stored)
    if dtype == torch.float32:
        pixels = batch.pixels.float() * 4 - 600
        batch = replace(batch, pixels=pixels, value_range=batch.value_range * 4 - 600)
    low, high = batch.value_range.unbind(1)
    batch = replace(batch, value_range=torch.stack([low * 0.9 + high * 0.1, high * 0.95], 1))
    batch = replace(batch, spacing_mm=torch.full((SCANS, 2), 0.5))
    if not is_masked:
        return batch
    rows, columns = torch.meshgrid(torch.arange(CANVAS), torch.arange(80), indexing="ij")
    disc = (rows - 48) ** 2 + (columns - 40) ** 2 < 34**2
    return replace(batch, mask=disc.expand(SCANS, CANVAS, 80))


def _drawn(batch: ScanBatch, recipe: Recipe, scale: Scale = FULL) -> Draw:
    u = uniforms(DrawKey(3, 0, np.arange(len(batch))), 2)
    return recipe.at(scale).draw(u, batch.valid_box.numpy())


def _pairs(
    batch: ScanBatch, draw: Draw, settings: RenderSettings = DEFAULT_SETTINGS
) -> Iterator[tuple[Tensor, Tensor]]:
    for size in (24, 75):
        ours = render_fused(batch, draw, (0, 1), size, settings, None)
        theirs = render_batched(batch, draw, (0, 1), size, settings)
        yield from zip(ours, theirs, strict=True)


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_compiled_views_are_those_of_torch(
    channels: int, dtype: torch.dtype, is_masked: bool, make_batch: MakeBatch
) -> None:
    batch = _batch(make_batch, channels, dtype, is_masked)
    for name, operations in SMOOTH.items():
        draw = _drawn(batch, RECIPES["simclr"].adjusted(operations))
        mirrored = RenderSettings(background="reflect", pivot="apex")
        for settings in (DEFAULT_SETTINGS, *((mirrored,) if name == "grids" else ())):
            for ours, theirs in _pairs(batch, draw, settings):
                assert (ours - theirs).abs().max() < TOLERANCE, name
    for name, operations in JUMPS.items():
        draw = _drawn(batch, RECIPES["simclr"].adjusted(operations))
        for ours, theirs in _pairs(batch, draw):
            assert ((ours - theirs).abs() > TOLERANCE).float().mean() < 0.005, name


def test_every_operation_is_compared() -> None:
    named = {name for given in (*SMOOTH.values(), *JUMPS.values()) for name in given}
    simclr = {row.parameter for row in RECIPES["simclr"].rows if not row.is_off}
    for operation in OPERATIONS:
        parameters = {parameter.name for parameter in operation.parameters}
        assert parameters & (named | simclr), operation.name


def test_steps_stand_in_the_order_of_the_table() -> None:
    steps = [operation.name for operation in OPERATIONS if operation.name in kernel.BIT]
    assert ["geometry", *steps, "finish"] == list(kernel.STEPS)


@pytest.mark.parametrize("is_masked", [False, True])
def test_views_are_the_same_to_the_bit_by_any_number_of_threads_and_alone(
    is_masked: bool, make_batch: MakeBatch
) -> None:
    batch = _batch(make_batch, 3, torch.uint8, is_masked)
    recipe = RECIPES["dino"].adjusted({**SMOOTH["grids"], "rotation_p": 0.5, "noise_std": 0.1})
    draw, standard = _drawn(batch, recipe), Standard.of((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    former = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 4):
            torch.set_num_threads(threads)
            found.append(render_views(batch, draw, (0, 1), 40, standard=standard))
    finally:
        torch.set_num_threads(former)
    for row in range(len(batch)):
        rows = np.array([row])
        alone = render_views(batch.take(rows), draw.take(rows), (0, 1), 40, standard=standard)
        for view in (0, 1):
            assert torch.equal(found[0][view], found[1][view])
            assert torch.equal(found[0][view][row], alone[view][0])


@pytest.mark.parametrize("is_masked", [False, True])
def test_pixels_may_lie_side_by_side(is_masked: bool, make_batch: MakeBatch) -> None:
    batch = _batch(make_batch, 3, torch.uint8, is_masked)
    recipe = RECIPES["simclr"].adjusted({"rotation_deg": 15, "rotation_p": 0.5})
    draw = _drawn(batch, recipe)
    decoded = replace(batch, pixels=batch.pixels.contiguous(memory_format=torch.channels_last))
    for size in (24, 75):
        views = render_fused(batch, draw, (0, 1), size, DEFAULT_SETTINGS, None)
        same = render_fused(decoded, draw, (0, 1), size, DEFAULT_SETTINGS, None)
        assert all((one - other).abs().max() < 1e-5 for one, other in zip(views, same, strict=True))


def test_what_is_not_finite_stays_so(make_batch: MakeBatch) -> None:
    batch = make_batch(2, 3, (32, 32))
    pixels = batch.pixels.float()
    pixels[0, :, 9, 9] = torch.nan
    pixels[1, :, 9, 9] = torch.inf
    batch = replace(batch, pixels=pixels)
    draw = _drawn(batch, RECIPES["simclr"], Scale.IDENTITY)
    (ours,) = render_fused(batch, draw, (0,), 32, DEFAULT_SETTINGS, None)
    (theirs,) = render_batched(batch, draw, (0,), 32, DEFAULT_SETTINGS)
    assert ours[0, :, 9, 9].isnan().all()
    assert theirs[0, :, 9, 9].isnan().all()
    # The infinite is clamped as by torch, or becomes no number: never another one.
    assert (ours[1, :, 9, 9].isnan() | (ours[1, :, 9, 9] == theirs[1, :, 9, 9])).all()


@pytest.mark.parametrize("is_masked", [False, True])
def test_a_place_that_is_no_number_lies_outside_of_the_scan(
    is_masked: bool, make_batch: MakeBatch
) -> None:
    batch = _batch(make_batch, 1, torch.uint8, is_masked)
    draw = _drawn(batch, RECIPES["simclr"].adjusted({"rotation_deg": 15, "rotation_p": 1}))
    lost = np.full_like(draw.rotation_deg, np.nan)
    (ours,) = render_fused(
        batch, replace(draw, rotation_deg=lost), (0,), 24, DEFAULT_SETTINGS, None
    )
    # A place read from anywhere else would be another scan's, or no memory of this process.
    assert (ours == 0).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_renders_by_threads_of_its_own(make_batch: MakeBatch) -> None:
    batch = make_batch(4)
    draw = _drawn(batch, RECIPES["simclr"])
    former = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first = render_views(batch, draw, (0,), 24)[0]
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            same = torch.equal(
                render_fused(batch, draw, (0,), 24, DEFAULT_SETTINGS, None)[0], first
            )
            os.write(writer, b"same" if same else b"else")
            os._exit(0)
        assert os.read(reader, 4) == b"same"
        os.waitpid(child, 0)
    finally:
        torch.set_num_threads(former)
