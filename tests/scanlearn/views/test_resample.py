from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from scanlearn.views.resample import Taps, blur_taps, crop_taps, resample


def _resized(image: np.ndarray, box: tuple[float, float, float, float], size: int) -> np.ndarray:
    top, left, bottom, right = box
    planes = torch.from_numpy(image).float()[None, None]
    rows = crop_taps(np.array([top]), np.array([bottom]), size=size, extent=image.shape[0])
    columns = crop_taps(np.array([left]), np.array([right]), size=size, extent=image.shape[1])
    return resample(planes, rows, columns)[0, 0].numpy()


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).random((97, 121)).astype(np.float32)


@pytest.mark.parametrize("box", [(0, 0, 97, 121), (10, 20, 90, 110), (5, 7, 20, 30), (3, 3, 4, 4)])
@pytest.mark.parametrize("size", [8, 31, 64])
def test_a_whole_pixel_box_equals_pillow_cropping_first(
    image: np.ndarray, box: tuple[int, int, int, int], size: int
) -> None:
    top, left, bottom, right = box
    crop = Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
    expected = np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR))
    assert np.abs(_resized(image, box, size) - expected).max() < 1e-5


def test_a_slow_loop_over_the_definition_gives_the_same() -> None:
    low, high, size = 10.3, 77.8, 9
    taps = crop_taps(np.array([low]), np.array([high]), size=size, extent=97)
    dense = np.zeros((size, 97))
    for i in range(size):
        for tap in range(taps.index.shape[-1]):
            dense[i, taps.start[0] + taps.index[0, i, tap]] += float(taps.weight[0, i, tap])
    step = (high - low) / size
    for i in range(size):
        centre, weights = low + (i + 0.5) * step, np.zeros(97)
        for j in range(97):
            covered = max(0.0, min(j + 1, high) - max(j, low))
            weights[j] = max(0.0, 1 - abs(j + 0.5 - centre) / max(step, 1)) * covered
        assert np.abs(dense[i] - weights / weights.sum()).max() < 1e-6


def test_a_box_of_the_size_of_the_view_copies_it(image: np.ndarray) -> None:
    assert np.array_equal(_resized(image, (20, 30, 84, 94), 64), image[20:84, 30:94])


def test_taps_sum_to_one_and_stay_inside_the_interval() -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 60, 500)
    high = low + rng.uniform(0.3, 40, 500)
    taps = crop_taps(low, high, size=16, extent=100)
    assert torch.allclose(taps.weight.sum(-1), torch.ones(()), atol=1e-6)
    used = taps.weight > 0
    position = taps.index + torch.tensor(taps.start)[:, None, None]
    inside = (position + 1 > torch.from_numpy(low)[:, None, None]) & (
        position < torch.from_numpy(high)[:, None, None]
    )
    assert (inside | ~used).all()


def test_a_fraction_of_a_pixel_changes_a_view_by_a_fraction(image: np.ndarray) -> None:
    before = _resized(image, (10.0, 20.0, 90.0, 110.0), 32)
    for shift in (1e-3, 1e-2):
        after = _resized(image, (10.0 + shift, 20.0, 90.0, 110.0 - shift), 32)
        assert np.abs(after - before).max() < 3 * shift


def test_a_mirrored_axis_is_the_flipped_view(image: np.ndarray) -> None:
    ends = np.array([10.0]), np.array([90.0])
    plain = crop_taps(*ends, size=32, extent=121)
    mirrored = crop_taps(*ends, size=32, extent=121, reverse=np.array([True]))
    planes = torch.from_numpy(image)[None, None]
    rows = crop_taps(np.array([0.0]), np.array([97.0]), size=32, extent=97)
    assert torch.equal(resample(planes, rows, mirrored), resample(planes, rows, plain).flip(-1))


def _dense(taps: Taps, scan: int) -> np.ndarray:
    size = taps.index.shape[1]
    dense = np.zeros((size, size))
    for i in range(size):
        for index, weight in zip(taps.index[scan, i], taps.weight[scan, i], strict=True):
            dense[i, taps.start[scan] + int(index)] += float(weight)
    return dense


@pytest.mark.parametrize("size", [2, 7, 32, 96])
def test_blur_weighs_each_pixel_by_the_gaussian_between_its_edges(size: int) -> None:
    sigmas = [0.13, 0.25, 0.286, 0.571, 0.857, 2.0, 3.0, 12.0]
    taps = blur_taps(np.array(sigmas), size=size)
    for scan, sigma in enumerate(sigmas):
        expected = np.zeros((size, size))
        reach = math.ceil(8 * sigma)
        for i, offset in product(range(size), range(-reach, reach + 1)):
            low, high = (math.erf((offset + e) / sigma / math.sqrt(2)) for e in (-0.5, 0.5))
            j = i + offset
            while not 0 <= j < size:
                j = -j if j < 0 else 2 * (size - 1) - j
            expected[i, j] += (high - low) / 2
        # What lies beyond four sigmas is left out.
        assert np.abs(_dense(taps, scan) - expected).max() < 1e-4


@pytest.mark.parametrize(
    # erf(1 / (2 sqrt(2) sigma)): within half a pixel lie two sigmas, one, and half a one.
    ("sigma", "centre"),
    [(0.25, 0.954500), (0.5, 0.682689), (1.0, 0.382925)],
)
def test_the_share_that_stays_in_its_pixel_is_that_of_the_normal_table(
    sigma: float, centre: float
) -> None:
    weight = blur_taps(np.array([sigma]), size=64).weight[0, 32]
    assert float(weight.max()) == pytest.approx(centre, abs=1e-4)


def test_the_blur_of_a_scan_does_not_depend_on_its_neighbours() -> None:
    x = torch.rand(2, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    both, alone = blur_taps(np.array([0.3, 3.0]), size=24), blur_taps(np.array([0.3]), size=24)
    assert torch.equal(resample(x, both, both)[:1], resample(x[:1], alone, alone))


def test_a_blur_is_torchvisions_on_pixels_cut_into_fifteen() -> None:
    parts, size, sigma = 15, 24, 0.4
    x = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(0))
    fine = x.repeat_interleave(parts, dim=2).repeat_interleave(parts, dim=3)
    smooth = functional.gaussian_blur(fine, [61, 61], [parts * sigma] * 2)
    taps = blur_taps(np.array([sigma]), size=size)
    middle = slice(3, -3)
    found = resample(x, taps, taps)[..., middle, middle]
    expected = smooth[..., parts // 2 :: parts, parts // 2 :: parts][..., middle, middle]
    assert (found - expected).abs().max() < 1e-3
    assert (found - x[..., middle, middle]).abs().max() > 0.1


def test_taps_know_what_they_touch() -> None:
    position = np.arange(24).reshape(4, 3, 2)
    taps = Taps.of(position, np.ones((4, 3, 2)))
    assert taps.start == (0, 6, 12, 18)
    assert taps.stop == (6, 12, 18, 24)
    found = taps.index + torch.tensor(taps.start)[:, None, None]
    assert torch.equal(found, torch.from_numpy(position))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_scan_is_resampled_alone_as_in_a_batch(channels: int) -> None:
    rng = np.random.default_rng(1)
    planes = torch.from_numpy(rng.integers(0, 256, (5, channels, 90, 80), dtype=np.uint8))
    top, left = rng.uniform(0, 20, 5), rng.uniform(0, 20, 5)
    bottom, right = top + rng.uniform(10, 60, 5), left + rng.uniform(10, 60, 5)
    rows = crop_taps(top, bottom, size=24, extent=90)
    columns = crop_taps(left, right, size=24, extent=80)
    together = resample(planes, rows, columns)
    for scan in range(5):
        part = slice(scan, scan + 1)
        rows = crop_taps(top[part], bottom[part], size=24, extent=90)
        columns = crop_taps(left[part], right[part], size=24, extent=80)
        alone = resample(planes[part], rows, columns)
        assert torch.equal(alone, together[part])
