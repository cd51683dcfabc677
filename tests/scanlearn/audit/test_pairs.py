from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from scanlearn.archive.reader import Archive
from scanlearn.audit import pairs
from scanlearn.audit.fingerprint import TURNS, turn_pictures
from scanlearn.audit.leaks import LEAST_DETAIL
from scanlearn.audit.pairs import aligned_correlations, equal_across, equal_pairs
from scanlearn.audit.proposals import Proposals
from scanlearn.console import track

Draw = Callable[..., np.ndarray]
Write = Callable[..., Archive]


def correlations(first: Archive, second: Archive, proposals: Proposals) -> np.ndarray:
    with track(len(proposals), "test", visible=False) as progress:
        return pairs.correlations(first, second, proposals, progress)[0]


def test_equal_values_are_paired_with_the_first(rng: np.random.Generator) -> None:
    first, second = rng.integers(0, 40, 50), rng.integers(0, 60, 70)
    slow = [
        (first.tolist().index(value), place)
        for place, value in enumerate(second.tolist())
        if value in first.tolist()
    ]
    assert list(zip(*(found.tolist() for found in equal_pairs(first, second)), strict=True)) == slow
    assert [len(found) for found in equal_pairs(first[:0], second)] == [0, 0]


def test_equal_values_count_across_groups_alone() -> None:
    values = np.array(["a", "b", "a", "a", "c", "b"])
    groups = np.array([0, 1, 0, 1, 2, 2])
    first, second = equal_across(values, groups)
    assert first.tolist() == [0, 1]
    assert second.tolist() == [3, 5]


def test_pixels_are_compared_in_the_proposed_turn(
    draw_pictures: Draw, write_archive: Write
) -> None:
    pixels = draw_pictures(len(TURNS), side=64)
    turned = np.stack(
        [
            turn_pictures(torch.from_numpy(picture.astype(np.float32)), turn).numpy()
            for turn, picture in enumerate(pixels)
        ]
    ).astype(np.uint8)
    place = np.arange(len(TURNS))
    # The first is turned; a quarter turn of the second back is one to the other side.
    back = np.array([0, 1, 2, 3, 4, 6, 5, 7])
    first, second = write_archive(pixels), write_archive(turned, "turned")
    found = correlations(first, second, Proposals(place, place, back))
    np.testing.assert_allclose(found, 1, atol=1e-4)
    assert correlations(first, second, Proposals(place, place, 0 * back))[1:].max() < 0.9


def standardised(pictures: np.ndarray) -> torch.Tensor:
    """Returns ``[p 64 64]`` with mean 0 and spread 1, as small pictures are."""
    small = torch.from_numpy(np.ascontiguousarray(pictures, dtype=np.float32))
    small = small - small.mean((1, 2), keepdim=True)
    return small / small.square().mean((1, 2), keepdim=True).sqrt()


def windows(picture: np.ndarray, top: float, left: float, height: float, width: float) -> Image:
    box = (left, top, left + width, top + height)
    return Image.fromarray(picture).resize((64, 64), Image.Resampling.BOX, box=box)


def test_correlation_over_whole_shifts_is_that_of_a_slow_loop(rng: np.random.Generator) -> None:
    one = rng.normal(size=(5, 64, 64))
    other = np.roll(one, (2, -3), (1, 2)) + rng.normal(size=one.shape)
    best = [
        max(
            np.corrcoef(one[row, 4:-4, 4:-4].ravel(), other[row, y : y + 56, x : x + 56].ravel())[
                0, 1
            ]
            for y in range(9)
            for x in range(9)
        )
        for row in range(5)
    ]
    found, detail = aligned_correlations(standardised(one), standardised(other))
    np.testing.assert_allclose(found.numpy(), best, atol=1e-4)
    assert 0.5 < min(best) < max(best) < 0.9
    assert not detail.any()


@pytest.mark.parametrize(
    ("top", "left", "height", "width"),
    [(10, 10, 256, 256), (8, 13, 256, 256), (16, 16, 244, 244), (20, 12, 240, 256)],
    ids=["same", "part of a pixel", "cropped", "cropped at two edges"],
)
def test_small_shifts_and_crops_are_undone(
    draw_pictures: Draw, top: int, left: int, height: int, width: int
) -> None:
    pixels = draw_pictures(12, side=276)[:, 0]
    one = standardised(np.stack([windows(p, 10, 10, 256, 256) for p in pixels]))
    other = standardised(np.stack([windows(p, top, left, height, width) for p in pixels]))
    found, detail = aligned_correlations(one, other)
    assert found.min() > 0.995
    assert detail.min() > 0.95
    assert found.max() < 1.0001


def test_brightness_and_contrast_do_not_count(draw_pictures: Draw) -> None:
    pixels = draw_pictures(4, side=64)[:, 0].astype(np.float32)
    found, detail = aligned_correlations(standardised(pixels), 0.4 * standardised(pixels) + 3)
    assert found.min() > 0.9999
    assert detail.min() > 0.95


def test_equal_shading_with_other_detail_is_told_apart(
    draw_pictures: Draw, rng: np.random.Generator
) -> None:
    shading = 40 * standardised(draw_pictures(6, side=64)[:, 0])
    fine = rng.normal(0, 4, (2, *shading.shape))
    one, other, copy = (
        standardised((shading + torch.from_numpy(noise)).numpy())
        for noise in (fine[0], fine[1], fine[0] + 0.2 * fine[1])
    )
    same, same_detail = aligned_correlations(one, copy)
    alike, other_detail = aligned_correlations(one, other)
    assert same.min() > 0.99
    assert alike.min() > 0.97
    assert same_detail.min() > LEAST_DETAIL > other_detail.max()


def test_a_picture_without_contrast_correlates_with_nothing(rng: np.random.Generator) -> None:
    picture = standardised(rng.normal(size=(1, 64, 64)))
    edge = torch.zeros(1, 64, 64)
    edge[:, 0] = 8.0
    for other in (torch.zeros(1, 64, 64), edge):
        assert aligned_correlations(picture, other)[0].item() < 0.2
        assert aligned_correlations(other, picture)[0].item() == 0


def test_no_pairs_are_no_trouble() -> None:
    none = torch.zeros(0, 64, 64)
    assert [len(found) for found in aligned_correlations(none, none)] == [0, 0]
