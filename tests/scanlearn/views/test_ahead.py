"""Drawing for several images at once gives each the views that it has by itself."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from scanlearn.core import ViewPlan
from scanlearn.views.ahead import SEEDS, next_seeds
from scanlearn.views.fused import render_orders
from scanlearn.views.generator import ViewGenerator
from scanlearn.views.ranges import Ranges
from scanlearn.views.transform import ViewTransform, batch_of_one
from scanlearn.views.uniforms import DrawKey, uniforms, uniforms_of_seeds

EVERYTHING: dict[str, Any] = {
    "scale": {"crop": 1, "geometry": 1.5, "photometric": 1.5, "acquisition": 1.5},
    "modality": "xray",
}


def pictures(count: int, sizes: Sequence[int] = (40,), channels: int = 3) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [
        random.integers(0, 256, (sizes[i % len(sizes)], 44, channels), np.uint8)
        for i in range(count)
    ]


def alone(transform: ViewTransform, picture: np.ndarray, **about: Any) -> list[torch.Tensor]:
    """The views of a picture by the generator itself, without anything drawn ahead."""
    seed = int(torch.randint(SEEDS, ()))
    given = {"valid_box": None, "mask": None, "value_range": None} | about
    views = transform._views(
        batch_of_one(picture, **given), DrawKey(seed, 0, np.zeros(1, np.int64))
    )
    return [view[0] for view in (*views.global_views, *views.local_views)]


def equal(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return len(one) == len(two) and all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {"mean": [0.5] * 3, "std": [0.2] * 3},
        {"recipe": "dino", "plan": ViewPlan(2, 3), "local_size": 12},
        EVERYTHING,
        {"operations": {"elastic_p": 0.7, "elastic": 0.05, "rotation_p": 0.5, "rotation_deg": 9}},
    ],
    ids=["simclr", "multi-crop", "acquisition", "elastic"],
)
@pytest.mark.parametrize("sizes", [(40,), (40, 48)], ids=["alike", "two sizes"])
def test_each_image_has_the_views_that_it_has_by_itself(
    options: dict[str, Any], sizes: Sequence[int]
) -> None:
    transform, some = ViewTransform(size=24, **options), pictures(24, sizes)
    torch.manual_seed(5)
    together = [transform(picture) for picture in some]
    torch.manual_seed(5)
    by_themselves = [alone(transform, picture) for picture in some]
    assert all(map(equal, together, by_themselves))


def test_a_box_a_mask_and_a_range_are_those_of_the_image() -> None:
    transform, some = ViewTransform(size=16), pictures(12)
    mask = np.zeros((40, 44), bool)
    mask[5:30, 8:40] = True
    abouts = [{}, {"mask": mask}, {"valid_box": (3, 4, 40, 40)}, {"value_range": (0, 99)}]
    about = [each for each in abouts for _ in range(3)]
    torch.manual_seed(1)
    together = [transform(picture, **each) for picture, each in zip(some, about, strict=True)]
    torch.manual_seed(1)
    by_themselves = [
        alone(transform, picture, **each) for picture, each in zip(some, about, strict=True)
    ]
    assert all(map(equal, together, by_themselves))


def test_others_may_draw_from_the_generator_and_seed_it_in_between() -> None:
    transform, some = ViewTransform(size=16), pictures(20)

    def run(make: Any) -> list[list[torch.Tensor]]:
        torch.manual_seed(2)
        found = []
        for number, picture in enumerate(some):
            if number == 9:
                torch.manual_seed(2)
            if number in (4, 13, 14):
                torch.rand(3)
            found.append(make(picture))
        return found

    together, by_themselves = run(transform), run(lambda picture: alone(transform, picture))
    assert all(map(equal, together, by_themselves))
    assert not equal(together[0], together[1])


def test_a_generator_of_ones_own_is_foretold_and_not_moved() -> None:
    generator = torch.Generator().manual_seed(3)
    foretold = next_seeds(generator, 40)
    assert foretold == [int(torch.randint(SEEDS, (), generator=generator)) for _ in range(40)]
    torch.manual_seed(4)
    assert next_seeds(None, 3) == [int(torch.randint(SEEDS, ())) for _ in range(3)]
    transform = ViewTransform(size=16, generator=torch.Generator().manual_seed(3))
    twin = ViewTransform(size=16, generator=torch.Generator().manual_seed(3))
    for number, picture in enumerate(pictures(10)):
        if number % 3 == 0:
            twin = pickle.loads(pickle.dumps(twin))
        assert equal(transform(picture), twin(picture))


def test_images_alike_are_drawn_for_several_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    draw = Ranges.draw

    def counting(ranges: Ranges, u: Any, box: Any) -> Any:
        drawn.append(len(u))
        return draw(ranges, u, box)

    monkeypatch.setattr(Ranges, "draw", counting)
    transform = ViewTransform(size=16)
    for picture in pictures(100):
        transform(picture)
    assert drawn == [1, 2, 4, 8, 16, 32, 64]
    drawn.clear()
    # Of two kinds in turn nothing is drawn for other images.
    for picture in pictures(10, (30, 50)):
        transform(picture)
    assert drawn == [1] * 10


def test_threads_share_a_transform() -> None:
    transform, some = ViewTransform(size=16), pictures(200)
    torch.manual_seed(6)
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(transform, some))
    torch.manual_seed(6)
    seeds = [int(torch.randint(SEEDS, ())) for _ in some]
    zero = np.zeros(1, np.int64)

    def possible(picture: np.ndarray, views: list[torch.Tensor]) -> bool:
        batch = batch_of_one(picture, None, None, None)
        made = (transform._views(batch, DrawKey(seed, 0, zero)).global_views for seed in seeds)
        return any(torch.equal(each[0][0], views[0]) for each in made)

    assert all(possible(some[number], together[number]) for number in range(0, 200, 20))
    means = {float(views[0].sum()) for views in together}
    assert len(means) == len(some)


def test_a_copy_draws_for_itself() -> None:
    transform, some = ViewTransform(size=16), pictures(4)
    for picture in some:
        transform(picture)
    assert copy.deepcopy(transform)._ahead is None
    assert pickle.loads(pickle.dumps(transform))._ahead is None


def test_the_uniforms_of_many_seeds_are_those_of_each() -> None:
    seeds = np.array([0, 5, SEEDS - 1, SEEDS])
    together = uniforms_of_seeds(seeds, 9, 3)
    zero = np.zeros(1, np.int64)
    for seed, found in zip(seeds, together, strict=True):
        assert np.array_equal(found, uniforms(DrawKey(int(seed), 9, zero), 3)[0])


def test_what_is_ordered_of_one_kind_of_scan_has_no_pixels_of_it() -> None:
    generator = ViewGenerator("simclr", ViewTransform()._views.scale, ViewPlan(2), 16, [0.0], [1.0])
    some = [batch_of_one(picture, None, None, None) for picture in pictures(2)]
    key = DrawKey(1, 0, np.zeros(1, np.int64))
    orders = [each.of_scan(0) for each in generator.orders(some[0], uniforms(key, 2))]
    found = render_orders(some[1], orders)
    assert equal(found, [view[0] for view in generator(some[1], key).global_views])
