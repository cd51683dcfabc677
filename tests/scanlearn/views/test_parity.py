"""Every operation that torchvision has, beside torchvision's own, on the same parameters."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare, kstest
from torch import Tensor
from torchvision.transforms import (
    ColorJitter,
    GaussianBlur,
    InterpolationMode,
    RandomAffine,
    RandomResizedCrop,
    RandomRotation,
)
from torchvision.transforms.v2 import functional

from scanlearn.core import ScanBatch
from scanlearn.views.draw import Draw
from scanlearn.views.ranges import Ranges, ViewRanges
from scanlearn.views.recipes import RECIPES
from scanlearn.views.render import render
from scanlearn.views.scale import Scale
from scanlearn.views.uniforms import DrawKey, uniforms
from scanlearn.views.warp import displacement

MakeBatch = Callable[..., ScanBatch]
Blur = Callable[[Tensor, float], Tensor]
SIDE = 64
TOLERANCE = 2 / 255
DRAWS = 10_000
BILINEAR = InterpolationMode.BILINEAR
# The middle half of the scan fills the view: everything is enlarged twofold about the centre.
MIDDLE = np.array([[[16.0, 16.0, 48.0, 48.0]]])


def _still(scans: int = 1, **drawn: object) -> Draw:
    """A draw of one view in which only what is given happens."""
    u = uniforms(DrawKey(0, 0, np.arange(scans)), 1)
    still = Ranges((ViewRanges(),)).draw(u, np.tile([0, 0, SIDE, SIDE], (scans, 1)))
    given = {name: np.asarray(value) for name, value in drawn.items()}
    for name, value in given.items():
        shape = getattr(still, name).shape
        given[name] = np.broadcast_to(value, shape).astype(getattr(still, name).dtype)
    return replace(still, **given)


def _rendered(batch: ScanBatch, size: int = SIDE, **drawn: object) -> Tensor:
    return render(batch, _still(**drawn), 0, size)[0]


@pytest.fixture(params=[1, 3], ids=["gray", "colour"])
def batch(request: pytest.FixtureRequest, make_batch: MakeBatch) -> ScanBatch:
    return make_batch(1, request.param, (SIDE, SIDE))


@pytest.fixture
def image(batch: ScanBatch) -> Tensor:
    return batch.pixels[0].float() / 255


def _assert_same(found: Tensor, expected: Tensor, before: Tensor | None = None) -> None:
    assert (found - expected).abs().max() < TOLERANCE
    if before is not None:
        # The operation did something: the comparison is not of two images left alone.
        assert (expected - before).abs().max() > 5 * TOLERANCE


@pytest.mark.parametrize("size", [40, 64, 96])
def test_a_crop_enlarged(batch: ScanBatch, image: Tensor, size: int) -> None:
    found = _rendered(batch, size, crop_box=[10, 7, 40, 33])
    _assert_same(found, functional.resized_crop(image, 10, 7, 30, 26, [size, size]))


def test_flips(batch: ScanBatch, image: Tensor) -> None:
    _assert_same(_rendered(batch, flip=True), functional.horizontal_flip(image), image)
    _assert_same(_rendered(batch, vflip=True), functional.vertical_flip(image), image)


@pytest.mark.parametrize("angle", [-170.0, -20.0, 0.5, 15.0, 90.0])
def test_rotation(batch: ScanBatch, image: Tensor, angle: float) -> None:
    expected = functional.rotate(image, angle, interpolation=BILINEAR)
    _assert_same(_rendered(batch, rotation_deg=angle), expected)


@pytest.mark.parametrize(("down", "right"), [(5.0, -9.0), (-3.3, 4.7)])
def test_translation(batch: ScanBatch, image: Tensor, down: float, right: float) -> None:
    found = _rendered(batch, translation=[down / SIDE, right / SIDE])
    expected = functional.affine(image, 0.0, [right, down], 1.0, [0.0, 0.0], BILINEAR)  # type: ignore[list-item]
    _assert_same(found, expected, image)


@pytest.mark.parametrize(("y", "x"), [(0.0, 10.0), (-8.0, 0.0), (6.0, -7.0)])
def test_shear_of_an_enlarged_crop(batch: ScanBatch, image: Tensor, y: float, x: float) -> None:
    found = _rendered(batch, crop_box=MIDDLE, shear_deg=[y, x])
    expected = functional.affine(image, 0.0, [0, 0], 2.0, [x, y], BILINEAR)
    _assert_same(found, expected, image)


@pytest.mark.parametrize("ratio", [-0.4, 0.1, 0.4])
def test_stretch_of_an_enlarged_crop(batch: ScanBatch, image: Tensor, ratio: float) -> None:
    found = _rendered(batch, crop_box=MIDDLE, stretch=ratio)
    across, down = math.exp(-ratio / 2) / 2, math.exp(ratio / 2) / 2
    centre = SIDE / 2
    # Where a point of the view lies on the scan.
    inverse = [across, 0, centre * (1 - across), 0, down, centre * (1 - down), 0, 0]
    expected = functional.perspective(image, None, None, BILINEAR, coefficients=inverse)
    _assert_same(found, expected, image)


def test_rotation_shear_translation_and_flips_in_one_grid(batch: ScanBatch, image: Tensor) -> None:
    found = _rendered(
        batch,
        crop_box=MIDDLE,
        flip=True,
        vflip=True,
        rotation_deg=25.0,
        shear_deg=[4.0, -6.0],
        translation=[3 / SIDE, -7 / SIDE],
    )
    flipped = functional.vertical_flip(functional.horizontal_flip(image))
    expected = functional.affine(flipped, -25.0, [-7, 3], 2.0, [-6.0, 4.0], BILINEAR)
    _assert_same(found, expected, image)


def test_elastic_deformation(batch: ScanBatch, image: Tensor) -> None:
    draw = _still(elastic=0.06)
    field = displacement(draw, 0, SIDE, image.device)
    assert field.abs().max() > 1 / SIDE
    # torchvision counts from -1 to 1, a draw in shares of the side.
    expected = functional.elastic(image, 2 * field.permute(0, 2, 3, 1), BILINEAR)
    _assert_same(render(batch, draw, 0, SIDE)[0], expected, image)


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.7])
def test_brightness_contrast_and_saturation(batch: ScanBatch, image: Tensor, factor: float) -> None:
    for name in ("brightness", "contrast", "saturation"):
        expected = getattr(functional, f"adjust_{name}")(image, factor)
        found = _rendered(batch, jitter=True, **{name: factor})
        _assert_same(found, expected, None if len(image) == 1 else image)


@pytest.mark.parametrize("shift", [-0.5, -0.13, 0.02, 0.3])
def test_hue(batch: ScanBatch, image: Tensor, shift: float) -> None:
    _assert_same(_rendered(batch, jitter=True, hue=shift), functional.adjust_hue(image, shift))


def test_grayscale(batch: ScanBatch, image: Tensor) -> None:
    _assert_same(_rendered(batch, gray=True), functional.rgb_to_grayscale(image, len(image)))


def test_solarize(batch: ScanBatch, image: Tensor) -> None:
    _assert_same(_rendered(batch, solarize=True), functional.solarize(image, 0.5), image)


@pytest.mark.parametrize("exponent", [0.6, 1.5])
def test_gamma(batch: ScanBatch, image: Tensor, exponent: float) -> None:
    _assert_same(_rendered(batch, gamma=exponent), functional.adjust_gamma(image, exponent), image)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0])
def test_gaussian_blur_with_sigma_stated_at_224_pixels(
    make_batch: MakeBatch, blurred: Blur, sigma: float
) -> None:
    batch = make_batch(1, 3, (224, 224))
    rough = torch.randint(0, 256, (1, 3, 224, 224), generator=torch.Generator().manual_seed(0))
    batch = replace(batch, pixels=rough.to(torch.uint8))
    image = rough[0].float() / 255
    found = _rendered(batch, 224, crop_box=[0, 0, 224, 224], blur=True, blur_sigma=sigma)
    # torchvision samples the Gaussian at whole pixels: from a sigma of 1 on nearly the same.
    _assert_same(found, blurred(image, sigma), image)
    if sigma >= 1:
        theirs = functional.gaussian_blur(image, [23, 23], [sigma, sigma])
        assert (found - theirs).square().mean().sqrt() < 0.015


def _drawn(ranges: ViewRanges | Ranges, seed: int = 0, *, side: int = 4000) -> Draw:
    views = ranges if isinstance(ranges, Ranges) else Ranges((ranges,))
    u = uniforms(DrawKey(seed, 0, np.arange(DRAWS)), 1)
    return views.draw(u, np.tile([0, 0, side, side], (DRAWS, 1)))


def _same_law(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return bool(kstest(ours, theirs).pvalue > 1e-3)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_crops_of_a_recipe_have_torchvisions_areas_and_aspects(name: str) -> None:
    ranges = RECIPES[name].at(Scale.STRONG)
    first = ranges.views[0]
    torch.manual_seed(0)
    canvas = torch.empty(1, 4000, 4000)
    limit = math.exp(first.log_aspect)
    boxes = np.array(
        [
            RandomResizedCrop.get_params(
                canvas, [first.crop_min, first.crop_max], [1 / limit, limit]
            )
            for _ in range(DRAWS)
        ]
    )
    rows, columns = boxes[:, 2], boxes[:, 3]
    # Its fallback, the whole of a square scan, is no draw.
    kept = (rows < 4000) | (columns < 4000)
    box = _drawn(ranges).crop_box[:, 0]
    height, width = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
    assert _same_law(height * width, (rows * columns)[kept])
    assert _same_law(width / height, (columns / rows)[kept])
    for start, length, low in ((0, rows, box[:, 0]), (1, columns, box[:, 1])):
        room = np.maximum(4000 - length, 1)[kept]
        share = low / (4000 - (height if start == 0 else width))
        assert _same_law(share, boxes[:, start][kept] / room)


def test_jitter_factors_and_their_order_have_torchvisions_distributions() -> None:
    spread = {"brightness": 0.8, "contrast": 0.4, "saturation": 1.2, "hue": 0.2}
    jitter = ColorJitter(**spread)
    torch.manual_seed(0)
    theirs = [
        ColorJitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
        for _ in range(DRAWS)
    ]
    draw = _drawn(ViewRanges(jitter_p=1.0, **spread))
    for index, name in enumerate(spread, start=1):
        factors = np.array([drawn[index] for drawn in theirs], dtype=np.float64)
        assert _same_law(getattr(draw, name)[:, 0], factors)
    for order in (draw.order[:, 0], np.array([drawn[0].numpy() for drawn in theirs])):
        counts = np.unique(order @ np.array([1, 4, 16, 64]), return_counts=True)[1]
        assert len(counts) == math.factorial(4)
        assert chisquare(counts).pvalue > 1e-3


def test_rotation_translation_and_shear_have_torchvisions_distributions() -> None:
    torch.manual_seed(0)
    rotation = np.array([RandomRotation.get_params([-15.0, 15.0]) for _ in range(DRAWS)])
    side = 100_000
    affine = [
        RandomAffine.get_params(
            [-15.0, 15.0], [0.05, 0.05], None, [-3.0, 3.0, -3.0, 3.0], [side, side]
        )
        for _ in range(DRAWS)
    ]
    draw = _drawn(
        ViewRanges(
            rotation_p=1.0,
            rotation_deg=15.0,
            translation_p=1.0,
            translation=0.05,
            shear_p=1.0,
            shear_deg=3.0,
        )
    )
    assert _same_law(draw.rotation_deg[:, 0], rotation)
    assert _same_law(draw.rotation_deg[:, 0], np.array([drawn[0] for drawn in affine]))
    for axis in (0, 1):
        # torchvision names x first.
        moved = np.array([drawn[1][1 - axis] / side for drawn in affine])
        sheared = np.array([drawn[3][1 - axis] for drawn in affine])
        assert _same_law(draw.translation[:, 0, axis], moved)
        assert _same_law(draw.shear_deg[:, 0, axis], sheared)


def test_blur_sigma_has_torchvisions_distribution() -> None:
    torch.manual_seed(0)
    theirs = np.array([GaussianBlur.get_params(0.1, 2.0) for _ in range(DRAWS)])
    assert _same_law(_drawn(ViewRanges(blur_p=0.5, blur_sigma=2.0)).blur_sigma[:, 0], theirs)


def test_operations_happen_as_often_as_their_probability_says() -> None:
    ranges = RECIPES["simclr"].at(Scale.STRONG).views[0]
    draw = _drawn(ranges)
    for name, expected in (("flip", 0.5), ("jitter", 0.8), ("gray", 0.2), ("blur", 0.5)):
        assert abs(getattr(draw, name).mean() - expected) < 4 * math.sqrt(0.25 / DRAWS)


def test_noise_has_the_stated_moments(make_batch: MakeBatch) -> None:
    batch = replace(make_batch(2, 3, (128, 128)), pixels=torch.full((2, 3, 128, 128), 0.5))
    batch = replace(batch, value_range=torch.tensor([[0.0, 1.0]] * 2))
    std = 0.05
    draw = _still(2, crop_box=[0, 0, 128, 128], noise_std=std)
    noise = (render(batch, draw, 0, 128) - 0.5) / std
    count = noise[0].numel()
    for scan in noise:
        assert abs(scan.mean()) < 4 / math.sqrt(count)
        assert abs(scan.var() - 1) < 4 * math.sqrt(2 / count)
        assert abs((scan**3).mean()) < 4 * math.sqrt(15 / count)
        assert abs((scan**4).mean() - 3) < 4 * math.sqrt(96 / count)
    assert kstest(noise[0].flatten().numpy(), "norm").pvalue > 1e-3
    # Independent between scans, channels and neighbouring pixels.
    pairs = [(noise[0], noise[1]), (noise[:, 0], noise[:, 1])]
    pairs += [(noise[..., 1:], noise[..., :-1]), (noise[:, :, 1:], noise[:, :, :-1])]
    for one, other in pairs:
        assert abs((one * other).mean()) < 4 / math.sqrt(one.numel())


def test_the_std_of_the_noise_is_uniform_up_to_its_largest() -> None:
    std = _drawn(ViewRanges(noise_p=1.0, noise_std=0.1)).noise_std[:, 0]
    assert kstest(std / 0.1, "uniform").pvalue > 1e-3


@pytest.fixture(scope="module")
def real_scans() -> dict[str, list[Image.Image]]:
    if "SCANLEARN_DATA" not in os.environ:
        pytest.skip("SCANLEARN_DATA does not name the real scans")
    data = Path(os.environ["SCANLEARN_DATA"])
    folders = {
        "fundus": data / "hygd" / "images",
        "large fundus": data / "hygd" / "originals",
        "X-ray": data / "nih1000" / "images",
        "small X-ray": data / "kermany_cxr" / "images",
    }
    return {
        name: [Image.open(path) for path in sorted(folder.glob("*.jp*g"))[:2]]
        for name, folder in folders.items()
    }


@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize("area", [0.01, 0.03, 0.08, 0.2, 0.45, 0.8, 1.0])
def test_crop_and_resize_of_real_scans_is_pillows_within_one_percent(
    area: float, size: int, real_scans: dict[str, list[Image.Image]]
) -> None:
    rng = np.random.default_rng(int(area * 100))
    for name, scans in real_scans.items():
        for scan in scans:
            pixels = np.asarray(scan)
            planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
            height, width = planes.shape[1:]
            rows, columns = (max(round(n * math.sqrt(area)), 1) for n in (height, width))
            top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
            box = (int(left), int(top), int(left) + columns, int(top) + rows)
            expected = np.asarray(scan.crop(box).resize((size, size), Image.Resampling.BILINEAR))
            batch = ScanBatch(
                pixels=torch.from_numpy(planes.copy())[None],
                valid_box=torch.tensor([[0, 0, height, width]]),
                mask=None,
                spacing_mm=torch.full((1, 2), torch.nan),
                value_range=torch.tensor([[0.0, 255.0]]),
                ids=torch.arange(1),
            )
            found = _rendered(batch, size, crop_box=[top, left, top + rows, left + columns])
            theirs = expected[None] if expected.ndim == 2 else expected.transpose(2, 0, 1)
            assert np.abs(found.numpy() - theirs / 255).mean() < 0.01, name
