"""Every modality with every recipe, on every kind of scan that an archive holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from scanlearn.core import ScanBatch
from scanlearn.views.modality import POLICIES
from scanlearn.views.recipes import RECIPES, Recipe
from scanlearn.views.render import render
from scanlearn.views.scale import Scale
from scanlearn.views.uniforms import DrawKey, uniforms

MakeBatch = Callable[..., ScanBatch]
SCANS, SIDE, CANVAS = 3, 24, 32
# Jitter clamps a pixel on the rim of the field of view to 1, not to its share inside: a blur after
# it may leave a little more than 1 beside the rim.
RIM = 5e-3
ALL = Scale(crop=1.0, geometry=1.0, photometric=1.0, acquisition=1.0)
BEYOND = Scale(crop=1.5, geometry=1.5, photometric=1.5, acquisition=1.5)


def _batches(make_batch: MakeBatch) -> Iterator[tuple[str, ScanBatch]]:
    """Scans of 1 and 3 channels, of 8 and 16 bits and of floats, in a round field of view."""
    rows, columns = torch.meshgrid(*[torch.linspace(-1, 1, CANVAS)] * 2, indexing="ij")
    mask = (rows**2 + columns**2 < 0.9).expand(SCANS, CANVAS, CANVAS)
    for channels in (1, 3):
        for dtype in (torch.uint8, torch.uint16, torch.float32):
            stored = torch.uint16 if dtype == torch.uint16 else torch.uint8
            batch = make_batch(SCANS, channels, (CANVAS, CANVAS), dtype=stored, mask=mask)
            if dtype == torch.float32:
                # In units of its own, below 0 too, as CT is.
                pixels = batch.pixels.float() * 4 - 600
                batch = replace(batch, pixels=pixels, value_range=batch.value_range * 4 - 600)
            yield f"{channels} channels of {dtype}", batch


def _views(recipe: Recipe, scale: Scale, batch: ScanBatch) -> list[Tensor]:
    u = uniforms(DrawKey(5, 0, np.arange(SCANS)), 3)
    draw = recipe.at(scale).draw(u, batch.valid_box.numpy())
    return [render(batch, draw, view, SIDE) for view in (0, 2)]


@pytest.mark.parametrize("recipe", list(RECIPES))
@pytest.mark.parametrize("modality", list(POLICIES))
def test_views_are_finite_within_the_range_and_empty_outside_the_field_of_view(
    make_batch: MakeBatch, modality: str, recipe: str
) -> None:
    policy = RECIPES[recipe].under(modality)
    for number, (what, batch) in enumerate(_batches(make_batch)):
        scale = (ALL, BEYOND)[number % 2]
        # What the geometry alone makes of a white scan: 0 where nothing of the scan is.
        white = replace(batch, pixels=torch.ones_like(batch.pixels, dtype=torch.float32))
        white = replace(white, value_range=torch.tensor([[0.0, 1.0]] * SCANS))
        covered = _views(policy, replace(scale, photometric=0.0, acquisition=0.0), white)
        for view, inside in zip(_views(policy, scale, batch), covered, strict=True):
            assert view.isfinite().all(), what
            assert (view >= 0).all(), what
            assert (view <= 1 + RIM).all(), what
            assert (view[(inside == 0).expand_as(view)] == 0).all(), what
            assert view.flatten(1).std(1).max() > 0.01, what
        assert any((inside == 0).any() for inside in covered), what


@pytest.mark.parametrize("recipe", list(RECIPES))
@pytest.mark.parametrize("modality", list(POLICIES))
def test_at_scale_zero_every_modality_shows_the_plain_scan(
    make_batch: MakeBatch, modality: str, recipe: str
) -> None:
    policy = RECIPES[recipe].under(modality)
    for what, batch in _batches(make_batch):
        views = _views(policy, Scale.IDENTITY, batch)
        plain = _views(RECIPES["simclr"], Scale.IDENTITY, batch)[0]
        assert all(torch.equal(view, plain) for view in views), what
