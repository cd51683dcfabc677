from __future__ import annotations

import pytest

from scanlearn.core import Progress
from scanlearn.methods.sizing import num_prototypes, queue_size, start_momentum, warmup_steps


@pytest.mark.parametrize("scans", [2, 3, 64, 100, 5856, 131_071, 131_072, 10_000_000])
def test_the_queue_is_the_largest_power_of_two_within_half_of_the_archive(scans: int) -> None:
    found = queue_size(scans)
    powers = [2**n for n in range(17) if 2**n <= scans / 2]
    assert found == max(powers)


@pytest.mark.parametrize(
    ("scans", "outputs"),
    [
        *((100, 1024), (8192, 1024), (12_287, 1024), (12_289, 2048)),
        *((100_000, 16_384), (524_288, 65_536), (1_281_167, 65_536)),
    ],
)
def test_the_outputs_are_the_power_of_two_nearest_to_an_eighth(scans: int, outputs: int) -> None:
    assert num_prototypes(scans) == outputs


@pytest.mark.parametrize(
    ("published", "steps", "momentum"),
    [(0.999, 547, 1 - 20 / 547), (0.996, 1_000_000, 0.996), (0.99, 2000, 0.99), (0.99, 10, 0.0)],
)
def test_a_short_run_lowers_the_momentum(published: float, steps: int, momentum: float) -> None:
    assert start_momentum(published, steps) == pytest.approx(momentum)


def test_a_teacher_at_the_lowered_momentum_forgets_its_initial_weights() -> None:
    for steps in (50, 547, 10_000):
        assert start_momentum(0.9999, steps) ** steps < 1e-8


@pytest.mark.parametrize(
    ("epochs", "steps"), [(10, 100), (1, 45), (0, 0), (2.2, 99), (2.3, 100), (400, 100)]
)
def test_warmups_take_at_most_a_tenth_of_the_run(epochs: float, steps: int) -> None:
    assert warmup_steps(epochs, Progress(0, total_steps=1000, steps_per_epoch=45)) == steps
