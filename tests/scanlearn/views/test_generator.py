from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from scanlearn.core import ScanBatch, ScanlearnError, ViewPlan
from scanlearn.views.generator import ViewGenerator, standardise
from scanlearn.views.render import render
from scanlearn.views.scale import Scale
from scanlearn.views.uniforms import DrawKey

MakeBatch = Callable[..., ScanBatch]


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


def test_each_channel_has_its_own_mean_and_std() -> None:
    x = torch.full((1, 3, 2, 2), 0.5)
    found = standardise(x, (0.5, 0.4, 0.3), (1.0, 0.1, 0.2))[0, :, 0, 0]
    assert torch.allclose(found, torch.tensor([0.0, 1.0, 1.0]), atol=1e-6)


def test_two_ranks_of_four_see_the_views_of_one_of_eight(make_batch: MakeBatch) -> None:
    batch, generator = make_batch(8, 3), _generator()
    whole = generator(batch, DrawKey(3, 1, np.arange(8)))
    for start in (0, 4):
        rows = slice(start, start + 4)
        part = ScanBatch(
            pixels=batch.pixels[rows],
            valid_box=batch.valid_box[rows],
            mask=None,
            spacing_mm=batch.spacing_mm[rows],
            value_range=batch.value_range[rows],
            ids=batch.ids[rows],
        )
        views = generator(part, DrawKey(3, 1, np.arange(start, start + 4)))
        for mine, all_ in zip(views.global_views, whole.global_views, strict=True):
            assert torch.equal(mine, all_[rows])


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
        ({"plan": ViewPlan(2, 8)}, "8 local views asked for"),
        ({"size": 1}, "size 1 is no view"),
        ({"std": [0.0]}, "must be above 0"),
        ({"recipe": "dino"}, "'dino' is not a recipe"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change: dict[str, object], words: str) -> None:
    given = {
        "recipe": "simclr", "scale": Scale.WEAK, "plan": ViewPlan(2), "size": 32, "mean": [0.5],
        "std": [0.2],
    }  # fmt: skip
    with pytest.raises(ScanlearnError, match=words):
        ViewGenerator(**(given | change))  # type: ignore[arg-type]
