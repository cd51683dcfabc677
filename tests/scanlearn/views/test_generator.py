from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scanlearn.core import ScanBatch, ViewPlan
from scanlearn.errors import ScanlearnError
from scanlearn.views.draw import Draw
from scanlearn.views.generator import ViewGenerator
from scanlearn.views.recipes import find_recipe
from scanlearn.views.render import render, standardise
from scanlearn.views.scale import Scale
from scanlearn.views.settings import RenderSettings, Standard
from scanlearn.views.uniforms import DrawKey

MakeBatch = Callable[..., ScanBatch]
Blur = Callable[[torch.Tensor, float], torch.Tensor]


def _generator(s: float = 1.0, size: int = 32, channels: int = 3, views: int = 2) -> ViewGenerator:
    mean, std = [0.4] * channels, [0.2] * channels
    return ViewGenerator("simclr", Scale.of(s), ViewPlan(views), size, mean, std)


def test_views_are_rendered_then_standardised_last(make_batch: MakeBatch) -> None:
    batch, generator = make_batch(8, 3), _generator()
    key = DrawKey(0, 5, np.arange(8))
    views = generator(batch, key)
    draw = generator.draw(batch, key)
    assert len(views.global_views) == 2
    assert views.local_views == ()
    assert torch.equal(views.ids, batch.ids)
    for number, view in enumerate(views.global_views):
        assert torch.allclose(view * 0.2 + 0.4, render(batch, draw, number, 32), atol=1e-6)


@pytest.mark.parametrize(
    ("size", "local", "scale_blur", "sigma_px"),
    # DINO's sigma is 2 in views of 224 and of 96 px.
    [(224, 96, True, 2), (112, 48, True, 1), (112, 40, True, 1), (112, 48, False, 2)],
)
def test_a_local_view_is_blurred_by_the_side_of_the_global_ones(
    size: int, local: int, scale_blur: bool, sigma_px: float, make_batch: MakeBatch, blurred: Blur
) -> None:
    batch = make_batch(2)
    settings = RenderSettings(scale_blur=scale_blur)
    generator = ViewGenerator(
        "dino", Scale.IDENTITY, ViewPlan(2, 1), size, [0], [1], local_size=local, settings=settings
    )
    sharp = generator.draw(batch, DrawKey(0, 0, np.arange(2)))
    draw = replace(sharp, blur=np.ones((2, 3), bool), blur_sigma=np.full((2, 3), 2.0))
    before, after = (generator.render(batch, drawn) for drawn in (sharp, draw))
    for kind in ("global_views", "local_views"):
        view, expected = getattr(after, kind)[0], blurred(getattr(before, kind)[0], sigma_px)
        assert (view - expected).abs().max() < 1e-4


def test_each_channel_has_its_own_mean_and_std() -> None:
    x = torch.full((1, 3, 2, 2), 0.5)
    found = standardise(x, Standard.of((0.5, 0.4, 0.3), (1.0, 0.1, 0.2)))[0, :, 0, 0]
    assert torch.allclose(found, torch.tensor([0.0, 1.0, 1.0]), atol=1e-6)


# Everything a recipe can have, so that no operation draws from a process's own state.
BUSY = find_recipe("dino").adjusted(
    {"rotation_deg": [10, 20], "elastic": [0.02, 0.04], "gamma": [0.2, 0.4],
     "noise_std": [0.05, 0.1], "bias_field": [0.1, 0.2]}
)  # fmt: skip
BUSY_SCALE = Scale(crop=1, geometry=1, photometric=1, acquisition=1)


def _busy_views(batch: ScanBatch, first: int) -> list[torch.Tensor]:
    generator = ViewGenerator(BUSY, BUSY_SCALE, ViewPlan(2, 2), 32, [0.4], [0.2])
    positions = np.arange(first, first + len(batch))
    views = generator(batch, DrawKey(3, 1, positions))
    return [*views.global_views, *views.local_views]


def test_two_ranks_of_four_see_the_views_of_one_of_eight(make_batch: MakeBatch) -> None:
    batch = make_batch(8, 3)
    whole = _busy_views(batch, 0)
    for start in (0, 4):
        part = _busy_views(batch.take(np.arange(start, start + 4)), start)
        for mine, all_ in zip(part, whole, strict=True):
            assert torch.equal(mine, all_[start : start + 4])


def test_another_process_draws_and_renders_the_same_views(
    make_batch: MakeBatch, tmp_path: Path
) -> None:
    batch = make_batch(4, 3)
    torch.save(batch, tmp_path / "batch.pt")
    script = f"""
import sys, torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_generator import _busy_views
batch = torch.load({str(tmp_path / "batch.pt")!r}, weights_only=False)
torch.save(_busy_views(batch, 0), {str(tmp_path / "views.pt")!r})
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    theirs = torch.load(tmp_path / "views.pt")
    for mine, other in zip(_busy_views(batch, 0), theirs, strict=True):
        # Another number of threads may sum in another order.
        assert (mine - other).abs().max() < 1e-5


def test_local_views_are_small_and_come_from_local_ranges(make_batch: MakeBatch) -> None:
    batch = make_batch(64)
    generator = ViewGenerator("dino", Scale.STRONG, ViewPlan(2, 3), 56, [0.5], [0.2])
    key = DrawKey(0, 0, np.arange(64))
    views = generator(batch, key)
    assert [view.shape[-1] for view in views.global_views] == [56, 56]
    assert [view.shape[-1] for view in views.local_views] == [24, 24, 24]
    box = generator.draw(batch, key).crop_box
    area = ((box[..., 2:] - box[..., :2]).prod(-1)) / 96**2
    assert area[:, :2].min() >= 0.4 - 1e-9
    assert area[:, 2:].max() <= 0.4 + 1e-9
    assert area[:, 2:].min() >= 0.05 - 1e-9


@pytest.mark.parametrize("global_views", [1, 3])
def test_local_views_are_local_after_any_number_of_global_ones(
    global_views: int, make_batch: MakeBatch
) -> None:
    batch, plan = make_batch(64), ViewPlan(global_views, 2)
    generator = ViewGenerator("dino", Scale.STRONG, plan, 56, [0.5], [0.2])
    box = generator.draw(batch, DrawKey(0, 0, np.arange(64))).crop_box
    area = ((box[..., 2:] - box[..., :2]).prod(-1)) / 96**2
    assert area[:, :global_views].min() >= 0.4 - 1e-9
    assert area[:, global_views:].max() <= 0.4 + 1e-9


def test_a_saved_draw_is_replayed(make_batch: MakeBatch, tmp_path: Path) -> None:
    batch = make_batch(6)
    generator = ViewGenerator(BUSY, BUSY_SCALE, ViewPlan(2, 1), 32, [0.5], [0.2])
    draw = generator.draw(batch, DrawKey(0, 0, np.arange(6)))
    draw.save(tmp_path / "draw.npz")
    replayed = generator.render(batch, Draw.load(tmp_path / "draw.npz"))
    fresh = generator(batch, DrawKey(0, 0, np.arange(6)))
    assert torch.equal(replayed.global_views[1], fresh.global_views[1])
    assert torch.equal(replayed.local_views[0], fresh.local_views[0])


def test_step_and_seed_change_the_views_and_nothing_else_does(make_batch: MakeBatch) -> None:
    batch, generator = make_batch(4), _generator(channels=1)
    key = DrawKey(0, 0, np.arange(4))
    first = generator(batch, key).global_views[0]
    torch.rand(3)
    assert torch.equal(generator(batch, key).global_views[0], first)
    for other in (DrawKey(0, 1, np.arange(4)), DrawKey(1, 0, np.arange(4))):
        assert not torch.equal(generator(batch, other).global_views[0], first)


def test_the_identity_makes_both_views_the_same(make_batch: MakeBatch) -> None:
    batch = make_batch(4)
    first, second = _generator(0, channels=1)(batch, DrawKey(0, 9, np.arange(4))).global_views
    assert torch.equal(first, second)


def test_the_share_of_enlarged_views_follows_canvas_and_scale() -> None:
    large, small = np.array([[0, 0, 226, 226]]), np.array([[0, 0, 64, 64]])
    assert _generator(1).upsampled_share(np.array([[0, 0, 400, 400]])) == 0
    assert _generator(1, size=64).upsampled_share(small) > 0.99
    assert _generator(0, size=64).upsampled_share(small) == 0
    weak, strong = (_generator(s, size=64).upsampled_share(large) for s in (0.5, 1))
    assert weak == 0
    assert 0 < strong < 0.05


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"plan": ViewPlan(2, 8)}, "8 local views"),
        ({"size": 1}, "size 1 is too small"),
        ({"std": [0.0]}, "above 0"),
        ({"recipe": "dinos"}, "'dinos' is not a recipe"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change: dict[str, object], words: str) -> None:
    given = {
        "recipe": "simclr", "scale": Scale.WEAK, "plan": ViewPlan(2), "size": 32, "mean": [0.5],
        "std": [0.2],
    }  # fmt: skip
    with pytest.raises(ScanlearnError, match=words):
        ViewGenerator(**(given | change))  # type: ignore[arg-type]
