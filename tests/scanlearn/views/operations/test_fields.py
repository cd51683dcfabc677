from __future__ import annotations

import numpy as np
import pytest
import torch

from scanlearn.views.operations.fields import (
    _mix,
    bias_field,
    elastic_field,
    noise_field,
    poisson_field,
)
from scanlearn.views.uniforms import mix

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


def test_numpy_and_torch_hash_as_the_published_loop_does() -> None:
    rng = np.random.default_rng(0)
    states = [0, 1, 2**63, 2**64 - 1, *map(int, rng.integers(2**64, size=50, dtype=np.uint64))]
    expected = []
    for state in states:
        z = (state + 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        expected.append(z ^ (z >> 31))
    given = np.array(states, dtype=np.uint64)
    assert mix(given).tolist() == expected
    signed = torch.from_numpy(given.view(np.int64))
    assert _mix(signed).numpy().view(np.uint64).tolist() == expected


def test_a_poisson_count_depends_on_its_own_mean_alone() -> None:
    means = torch.tensor([0.0, 0.5, 3.99, 4.0, 80.0, 1e4])
    which = torch.arange(3 * 24 * 24).view(3, 1, 24, 24) % len(means)
    together = poisson_field(KEYS, means[which])
    for number, mean in enumerate(means):
        alone = poisson_field(KEYS, torch.full(which.shape, float(mean)))
        assert torch.equal(together[which == number], alone[which == number])
    assert not together[which == 0].any()


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
