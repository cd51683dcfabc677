"""The weak+med extras of Cheng et al. 2025, table 2, against TorchIO itself.

A view is a volume of one slice to TorchIO, which knows no unit range: its results are clipped here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torchio
from scipy.stats import ks_2samp
from torch import Tensor

from scanlearn.core import ScanBatch
from scanlearn.views.draw import Draw
from scanlearn.views.operations.fields import bias_field
from scanlearn.views.ranges import Ranges, ViewRanges
from scanlearn.views.recipes import RECIPES
from scanlearn.views.render import render
from scanlearn.views.scale import Scale
from scanlearn.views.uniforms import DrawKey, uniforms

MakeBatch = Callable[..., ScanBatch]
SIDE = 64
# Powers of columns and rows, of total order 3 at most.
POWERS = [(i, j) for i in range(4) for j in range(4 - i)]
# The weak arm with its extras, and TorchIO's transforms with table 2's scalars.
WEAK_MED = Scale(crop=0.5, geometry=0.5, photometric=0.5, acquisition=1.0)
DRAWN = 4000


def _plain(batch: ScanBatch) -> Draw:
    u = uniforms(DrawKey(0, 0, np.arange(len(batch))), 1)
    return Ranges((ViewRanges(),)).draw(u, batch.valid_box.numpy())


def _theirs(transform: Any, unit: Tensor) -> Tensor:
    return transform(unit[..., None])[..., 0].clamp(0, 1).float()


def _coefficients(field: Tensor) -> np.ndarray:
    """Returns ``[b 10]`` coefficients of bias fields ``[b s s]``, by least squares."""
    columns, rows = np.meshgrid(*[np.linspace(-1, 1, field.shape[-1])] * 2)
    design = np.stack([(columns**i * rows**j).ravel() for i, j in POWERS], axis=1)
    exponents = field.double().log().flatten(1).numpy().T
    return np.linalg.lstsq(design, exponents, rcond=None)[0].T


@pytest.mark.parametrize("channels", [1, 3])
def test_a_bias_field_of_the_same_coefficients_is_the_same_to_a_hundred_thousandth(
    make_batch: MakeBatch, channels: int
) -> None:
    batch = make_batch(1, channels, (SIDE, SIDE))
    draw = replace(_plain(batch), bias_field=np.array([[0.5]]))
    found, unit = render(batch, draw, 0, SIDE)[0], batch.pixels[0].float() / 255
    field = bias_field(draw.field_key[:, 0], torch.tensor([0.5]), SIDE)
    ours = dict(zip(POWERS, _coefficients(field[:, 0])[0], strict=True))
    # Theirs run over the first axis, here the rows, then the second, then the only slice.
    theirs = [
        ours[j, i] if k == 0 else 9.0
        for i in range(4)
        for j in range(4 - i)
        for k in range(4 - i - j)
    ]
    expected = _theirs(torchio.BiasField(theirs, order=3), unit)
    assert (expected - unit).abs().max() > 0.05
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("sigma", "theirs", "tolerance"),
    [
        # Table 2: nothing changes, here or there.
        (0.1, 0.1, 0.0),
        # Theirs samples the Gaussian at whole pixels, ours integrates it over each: a pixel's own
        # variance of 1/12 is what ours is wider by.
        (1.0, 1.0, 8e-3),
        (1.0, (1 + 1 / 12) ** 0.5, 1e-3),
        (2.0, (4 + 1 / 12) ** 0.5, 1e-3),
    ],
)
def test_a_blur_of_the_same_sigma_is_the_same_within_a_tolerance(
    make_batch: MakeBatch, sigma: float, theirs: float, tolerance: float
) -> None:
    batch = make_batch(1, 1, (SIDE, SIDE))
    found = render(batch, replace(_plain(batch), soft_sigma=np.array([[sigma]])), 0, SIDE)[0]
    unit = batch.pixels[0].float() / 255
    expected = _theirs(torchio.Blur(std=(theirs, theirs, theirs)), unit)
    # Beyond the edge theirs repeats the outermost pixel, ours does not.
    edge = 0 if tolerance == 0 else 9
    inner = (..., slice(edge, SIDE - edge), slice(edge, SIDE - edge))
    torch.testing.assert_close(found[inner], expected[inner], atol=tolerance, rtol=0)
    assert tolerance == 0 or (found - unit)[inner].abs().max() > 5 * tolerance


def test_noise_of_the_same_standard_deviation_has_the_same_law(make_batch: MakeBatch) -> None:
    batch = make_batch(1, 3, (128, 128))
    batch = replace(batch, pixels=torch.full_like(batch.pixels, 128))
    gray = batch.pixels[0].float() / 255
    draw = replace(_plain(batch), noise_std=np.full((1, 1), 0.1))
    found = render(batch, draw, 0, 128)[0] - gray
    expected = _theirs(torchio.Noise(mean=0, std=0.1, seed=3), gray) - gray
    for noise in (found, expected):
        # Every channel has noise of its own.
        assert abs(np.corrcoef(noise.flatten(1).numpy())[0, 1]) < 0.02
    assert ks_2samp(found.flatten().numpy(), expected.flatten().numpy()).pvalue > 0.01


def _drawn() -> Draw:
    u = uniforms(DrawKey(0, 0, np.arange(DRAWN)), 2)
    boxes = np.tile([0, 0, SIDE, SIDE], (DRAWN, 1))
    return RECIPES["cheng2025"].at(WEAK_MED).draw(u, boxes)


def _done(values: np.ndarray) -> np.ndarray:
    """Returns the numbers of the views that the operation is done to: half of them."""
    assert abs(np.count_nonzero(values) / len(values) - 0.5) < 0.03
    return values[values != 0]


@pytest.mark.parametrize(
    ("name", "transform", "which"),
    [
        ("noise_std", torchio.RandomNoise(std=0.1), 1),
        ("soft_sigma", torchio.RandomBlur(std=0.1), 0),
    ],
)
def test_sizes_are_drawn_as_theirs_for_table_2(name: str, transform: Any, which: int) -> None:
    ours = _done(getattr(_drawn(), name)[:, 0])
    torch.manual_seed(0)
    ranges = (transform.mean_range, transform.std_range) if which else (transform.std_ranges,)
    theirs = np.array([transform.get_params(*ranges)[which] for _ in range(DRAWN)])
    assert ks_2samp(ours, theirs).pvalue > 0.01
    # Both are uniform from 0 to table 2's .1.
    for values in (ours, theirs):
        assert values.mean() == pytest.approx(0.05, abs=0.002)
        assert values.std() == pytest.approx(0.1 / 12**0.5, abs=0.002)


def test_coefficients_are_drawn_as_theirs_for_table_2() -> None:
    amplitude = _done(_drawn().bias_field[:, 0])
    assert set(np.round(amplitude, 12)) == {0.1}
    keys = _drawn().field_key[:400, 0]
    ours = _coefficients(bias_field(keys, torch.full((400,), 0.1), 17)[:, 0]).ravel()
    transform = torchio.RandomBiasField(coefficients=0.1)
    torch.manual_seed(0)
    theirs = np.concatenate(
        [transform.get_params(3, transform.coefficients_range) for _ in range(200)]
    )
    assert ks_2samp(ours, theirs).pvalue > 0.01
    assert np.abs(ours).max() < 0.1 + 1e-4
    assert ours.std() == pytest.approx(0.2 / 12**0.5, rel=0.03)
