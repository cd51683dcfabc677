from __future__ import annotations

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


@pytest.mark.parametrize(("size", "kernel"), [(224, 23), (64, 7), (32, 3)])
def test_blur_is_the_one_of_torchvision_with_a_kernel_of_a_tenth(size: int, kernel: int) -> None:
    x = torch.rand(3, 2, size, size, generator=torch.Generator().manual_seed(0))
    sigma = np.array([0.1, 0.6, 2.0])
    taps = blur_taps(sigma, size=size)
    assert taps.index.shape[-1] == kernel
    found = resample(x, taps, taps)
    for i, value in enumerate(sigma.tolist()):
        expected = functional.gaussian_blur(x[i], [kernel, kernel], [value, value])
        assert (found[i] - expected).abs().max() < 2e-6


def test_taps_of_some_scans_are_theirs() -> None:
    position = np.arange(24).reshape(4, 3, 2)
    taps = Taps.of(position, np.ones((4, 3, 2)))
    assert taps.start == (0, 6, 12, 18)
    assert taps.stop == (6, 12, 18, 24)
    some = taps.rows(1, 3)
    assert (some.start, some.stop) == ((6, 12), (12, 18))
    assert torch.equal(
        some.index + torch.tensor(some.start)[:, None, None], torch.from_numpy(position[1:3])
    )


def test_a_scan_is_resampled_alone_as_in_a_batch() -> None:
    rng = np.random.default_rng(1)
    planes = torch.from_numpy(rng.integers(0, 256, (5, 3, 90, 80), dtype=np.uint8))
    top, left = rng.uniform(0, 20, 5), rng.uniform(0, 20, 5)
    rows = crop_taps(top, top + rng.uniform(10, 60, 5), size=24, extent=90)
    columns = crop_taps(left, left + rng.uniform(10, 60, 5), size=24, extent=80)
    together = resample(planes, rows, columns)
    for scan in range(5):
        part = slice(scan, scan + 1)
        alone = resample(planes[part], rows.rows(scan, scan + 1), columns.rows(scan, scan + 1))
        assert torch.equal(alone, together[part])
