from __future__ import annotations

import numpy as np
import pytest
import torch

from scanlearn.views.operations.fields import bias_field, elastic_field, noise_field

CPU = torch.device("cpu")
KEYS = np.array([1, 2, 2**53 - 1], dtype=np.uint64)


def test_noise_is_standard_normal() -> None:
    noise = noise_field(np.arange(20, dtype=np.uint64), (1, 200, 200), CPU).double()
    assert float(noise.mean()) == pytest.approx(0, abs=0.005)
    assert float(noise.var()) == pytest.approx(1, abs=0.01)
    assert float((noise**3).mean()) == pytest.approx(0, abs=0.02)
    assert float((noise**4).mean()) == pytest.approx(3, abs=0.05)


def test_noise_of_neighbours_views_and_channels_is_unrelated() -> None:
    noise = noise_field(np.arange(4, dtype=np.uint64), (2, 128, 128), CPU)
    pairs = [
        (noise[..., 1:], noise[..., :-1]),
        (noise[..., 1:, :], noise[..., :-1, :]),
        (noise[:, :1], noise[:, 1:]),
        (noise[:2], noise[2:]),
    ]
    for first, second in pairs:
        found = np.corrcoef(first.flatten().numpy(), second.flatten().numpy())[0, 1]
        assert abs(found) < 0.02


def test_a_field_depends_on_its_key_alone() -> None:
    for make in (
        lambda keys: noise_field(keys, (1, 16, 16), CPU),
        lambda keys: elastic_field(keys, 16, CPU),
        lambda keys: bias_field(keys, torch.full((len(keys),), 0.3), 16),
    ):
        together, alone = make(KEYS), make(KEYS[1:2])
        assert torch.equal(together[1:2], alone)
        assert not torch.equal(together[0], together[1])


def test_the_elastic_field_is_smooth_and_stays_within_one() -> None:
    field = elastic_field(np.arange(50, dtype=np.uint64), 64, CPU)
    assert field.abs().max() <= 1
    assert field.std() > 0.15
    assert field.diff(dim=-1).abs().max() < 0.15


def test_splines_join_control_points_as_the_textbook_formula_does() -> None:
    from scanlearn.views.operations.fields import CONTROL_POINTS, _spline_basis

    basis = _spline_basis(8).double()
    assert torch.allclose(basis.sum(1), torch.ones(8, dtype=torch.float64))
    # Pixel 0 of 8 over 4 cells lies at t = .25 of the first cell.
    t = 0.25
    expected = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    assert basis[0, :4].tolist() == pytest.approx([value / 6 for value in expected])
    assert basis[0, 4:].abs().sum() == 0
    assert basis.shape[1] == CONTROL_POINTS


def test_the_bias_field_is_the_exponential_of_its_polynomial() -> None:
    field = bias_field(KEYS, torch.tensor([0.0, 0.1, 0.5]), 33)
    assert torch.equal(field[0], torch.ones(1, 33, 33))
    exponent = field[1:, 0].double().log()
    axis = np.linspace(-1, 1, 33)
    columns, rows = np.meshgrid(axis, axis)
    terms = [columns**i * rows**j for i in range(4) for j in range(4 - i)]
    design = np.stack([term.ravel() for term in terms], axis=1)
    for found, amplitude in zip(exponent, (0.1, 0.5), strict=True):
        coefficients, *_ = np.linalg.lstsq(design, found.numpy().ravel(), rcond=None)
        assert np.allclose(design @ coefficients, found.numpy().ravel(), atol=1e-5)
        assert (np.abs(coefficients) <= amplitude + 1e-4).all()
        assert np.abs(coefficients).max() > amplitude / 4
