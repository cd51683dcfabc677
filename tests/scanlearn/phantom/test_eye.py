from __future__ import annotations

import numpy as np
import pytest

from scanlearn.phantom.camera import camera, frame
from scanlearn.phantom.eye import DISC_RADIUS, draw_eye, draw_patient, photograph

VIEW = frame(96, 96, 1.0, 1.0)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_patients_differ_and_a_seed_draws_the_same_one() -> None:
    patients = [draw_patient(rng(seed), 3) for seed in range(30)]
    assert len({patient.pigment for patient in patients}) == 30
    assert {patient.camera for patient in patients} == {0, 1, 2}
    assert draw_patient(rng(4), 3) == patients[4]


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_the_disc_lies_on_the_side_of_its_eye_and_is_the_brightest_place(side: float) -> None:
    picture, disc = draw_eye(rng(1), draw_patient(rng(0), 3), VIEW, 1.0, side)
    assert np.sign(disc[0]) == side
    near = np.hypot(VIEW.x - disc[0], VIEW.y - disc[1]) < 0.6 * DISC_RADIUS
    light = picture.mean(axis=0)
    assert light[near].mean() > 1.3 * light[VIEW.mask & ~near].mean()


def test_a_darker_fundus_reflects_less() -> None:
    patient = draw_patient(rng(0), 3)
    light, dark = (
        draw_eye(rng(1), type(patient)(**{**vars(patient), "pigment": p}), VIEW, 1.0, 1.0)[0]
        for p in (0.0, 1.0)
    )
    assert dark[:, VIEW.mask].mean() < 0.8 * light[:, VIEW.mask].mean()


def test_noise_comes_from_the_sensor_alone() -> None:
    look = camera(0)
    picture, _ = draw_eye(rng(1), draw_patient(rng(0), 3), VIEW, look.zoom, 1.0)
    first, same, other = (photograph(picture, look, VIEW, rng(5), rng(seed)) for seed in (6, 6, 7))
    np.testing.assert_array_equal(first, same)
    assert 0.2 * look.noise < float((first - other).std()) < 3 * look.noise
