from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from scanlearn.core import ScanBatch
from scanlearn.views.draw import Draw
from scanlearn.views.ranges import Ranges, ViewRanges
from scanlearn.views.render import render
from scanlearn.views.uniforms import DrawKey, uniforms

MakeBatch = Callable[..., ScanBatch]


def _plain(batch: ScanBatch) -> Draw:
    u = uniforms(DrawKey(0, 0, np.arange(len(batch))), 1)
    return Ranges((ViewRanges(),)).draw(u, batch.valid_box.numpy())


def test_gamma_is_a_power_of_each_value(make_batch: MakeBatch) -> None:
    batch = make_batch(3, 3, (32, 32))
    gamma = np.array([[0.7], [1.0], [1.6]])
    found = render(batch, replace(_plain(batch), gamma=gamma), 0, 32)
    unit = batch.pixels.double() / 255
    expected = unit ** torch.from_numpy(gamma)[..., None, None]
    assert (found - expected).abs().max() < 1e-6


def test_a_histogram_shift_is_linear_interpolation_between_the_shifted_points(
    make_batch: MakeBatch,
) -> None:
    batch = make_batch(2, 1, (32, 32))
    shift = np.array([[[0.1, -0.05, 0.02]], [[0.0, 0.0, 0.0]]])
    found = render(batch, replace(_plain(batch), histogram_shift=shift), 0, 32)
    unit = batch.pixels.numpy() / 255
    expected = np.interp(unit[0], [0, 0.25, 0.5, 0.75, 1], [0, 0.35, 0.45, 0.77, 1])
    assert np.abs(found[0].numpy() - expected).max() < 1e-6
    assert np.array_equal(found[1].numpy(), unit[1].astype(np.float32))


def test_a_histogram_shift_keeps_the_order_of_values_however_large(make_batch: MakeBatch) -> None:
    batch = make_batch(1, 1, (32, 32))
    shift = np.array([[[0.6, -0.4, 0.9]]])
    found = render(batch, replace(_plain(batch), histogram_shift=shift), 0, 32).flatten()
    order = batch.pixels.flatten().argsort()
    assert (found[order].diff() >= 0).all()
    assert found.max() <= 1


@pytest.mark.parametrize(("size", "changes"), [(12, False), (14, True), (32, True)])
def test_a_blur_too_narrow_for_the_view_changes_no_bit(
    size: int, changes: bool, make_batch: MakeBatch
) -> None:
    # The widest sigma of the published recipes, 2 px at 224, is .107, .125 and .286 px here.
    batch = make_batch(2, 3, (32, 32))
    plain = _plain(batch)
    draw = replace(plain, blur=np.ones((2, 1), bool), blur_sigma=np.full((2, 1), 2.0))
    before, after = (render(batch, drawn, 0, size) for drawn in (plain, draw))
    assert torch.equal(before, after) != changes


def test_solarize_inverts_from_one_half_upwards(make_batch: MakeBatch) -> None:
    batch = make_batch(2, 3, (32, 32))
    solarize = np.array([[True], [False]])
    found = render(batch, replace(_plain(batch), solarize=solarize), 0, 32)
    unit = batch.pixels.float() / 255
    # 8-bit values from 128 on, as DINO's released code has it.
    expected = torch.where(batch.pixels[0] >= 128, 1 - unit[0], unit[0])
    assert torch.equal(found[0], expected)
    assert torch.equal(found[1], unit[1])


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
def test_posterise_with_whole_bits_is_torchvisions_on_8_bit_values(
    bits: int, make_batch: MakeBatch
) -> None:
    batch = make_batch(1, 3, (32, 32))
    every = torch.arange(256, dtype=torch.uint8).repeat(12).view(1, 3, 32, 32)
    batch = replace(batch, pixels=every)
    kept = np.full((1, 1), float(bits))
    found = render(batch, replace(_plain(batch), posterise_bits=kept), 0, 32)
    assert torch.equal((found * 255).round().to(torch.uint8), functional.posterize(every, bits))


def test_posterise_is_a_slow_loop_over_values_between_whole_bits(make_batch: MakeBatch) -> None:
    batch = make_batch(1, 1, (32, 32))
    kept = np.full((1, 1), 4.6)
    found = render(batch, replace(_plain(batch), posterise_bits=kept), 0, 32)
    width = 2 ** (8 - 4.6)
    for value, after in zip(batch.pixels.flatten().tolist(), found.flatten().tolist(), strict=True):
        assert after == pytest.approx(value // width * width / 255, abs=1e-6)


def test_fewer_bits_leave_fewer_gray_values(make_batch: MakeBatch) -> None:
    batch = make_batch(1, 1, (64, 64))
    counts, errors = [], []
    for bits in (8.0, 7.5, 6.0, 4.5, 3.0, 2.0, 1.0):
        kept = np.full((1, 1), bits)
        found = render(batch, replace(_plain(batch), posterise_bits=kept), 0, 64)
        counts.append(len(found.unique()))
        errors.append(float((found - batch.pixels / 255).abs().mean()))
    assert counts == sorted(counts, reverse=True)
    assert errors == sorted(errors)
    assert errors[0] == 0
    assert counts[-1] == 2


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": np.full((2, 1), 1.5)},
        {"solarize": np.ones((2, 1), bool)},
        {"posterise_bits": np.full((2, 1), 3.0)},
        {"histogram_shift": np.full((2, 1, 3), 0.1)},
        {"blur": np.ones((2, 1), bool), "blur_sigma": np.full((2, 1), 8.0)},
        {"soft_sigma": np.full((2, 1), 2.0)},
    ],
)
def test_at_the_rim_of_the_field_of_view_the_curve_bends_the_content(
    change: dict[str, np.ndarray], make_batch: MakeBatch
) -> None:
    # A flat scan: what is left after dividing by the coverage must be flat too.
    batch = make_batch(2, 1, (64, 64))
    columns = torch.arange(64).expand(2, 64, 64)
    flat = torch.full_like(batch.pixels, 180)
    batch = replace(batch, pixels=flat, mask=columns < 33)
    found = render(batch, replace(_plain(batch), **change), 0, 32)
    inner, rim, outer = found[..., 4], found[..., 16], found[..., 20]
    # Column 33 of 64 ends in the middle of column 16 of 32, which antialiasing shares.
    assert (outer == 0).all()
    assert (inner > 0).all()
    share = render(replace(batch, pixels=torch.full_like(flat, 255)), _plain(batch), 0, 32)
    assert torch.allclose(rim, inner * share[..., 16], atol=2e-3)
