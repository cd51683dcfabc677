from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from scantune.statistics import dose
from scantune.statistics.few_patients import Sides
from scantune.statistics.intervals import Estimate
from scantune.statistics.probit import on_probit_scale, slope

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
RNG = np.random.default_rng(0)
SHARED = 0.02**2 * (0.9 + 0.1 * np.eye(len(SCALES)))


def drawn(
    truth: Callable[[np.ndarray], np.ndarray], seed: int, num_seeds: int = 3, sd: float = 0.01
) -> np.ndarray:
    """AUROCs by scale and pretraining seed: patients are shared, seeds are not."""
    rng = np.random.default_rng(seed)
    of_patients = np.linalg.cholesky(SHARED) @ rng.standard_normal(len(SCALES))
    of_seeds = 0.005 * rng.standard_normal(num_seeds)
    alone = sd * rng.standard_normal((len(SCALES), num_seeds))
    return truth(np.array(SCALES))[:, None] + of_patients[:, None] + of_seeds + alone


def peak(s: np.ndarray) -> np.ndarray:
    return 0.8 - 0.15 * (s - 0.5) ** 2


def estimate(auroc: float, replicates: np.ndarray) -> Estimate:
    sides = (Sides("1", 400, 400),)
    return Estimate(auroc, np.full((1, 1), auroc), replicates, 800, 0, sides)


def test_the_curve_of_a_parabola_is_that_parabola() -> None:
    values = peak(np.array(SCALES))[:, None] + RNG.normal(0, 1e-7, (6, 3))
    fit = dose.fit_curve(SCALES, values, 1e-14 * np.eye(6), 50, margin=0.01)
    assert fit.kind == "quadratic"
    assert fit.auroc == pytest.approx(peak(fit.at), abs=1e-5)
    assert fit.best == pytest.approx(0.5)
    assert fit.near == 0.5
    assert not fit.is_flat
    # .15 (s - .5)^2 < .01 where s is within .258 of .5.
    inside = fit.at[fit.is_within]
    assert (inside[0], inside[-1]) == pytest.approx((0.5 - 0.258, 0.5 + 0.258), abs=0.02)


def test_what_no_curve_fits_is_left_as_points() -> None:
    values = np.array([0.7, 0.8, 0.7, 0.8, 0.7, 0.8])[:, None] + RNG.normal(0, 1e-3, (6, 3))
    fit = dose.fit_curve(SCALES, values, 1e-8 * np.eye(6), 50, margin=0.01)
    assert fit.kind == "points"
    assert fit.at == pytest.approx(SCALES)
    assert fit.auroc == pytest.approx(values.mean(axis=1))


def test_a_natural_spline_is_straight_beyond_its_knots_and_smooth_between() -> None:
    basis = dose._natural_spline(np.array([0.0, 0.3, 0.7, 1.0]))
    x = np.linspace(-1, 2, 301)
    second = np.diff(basis(x), 2, axis=0) / 0.01**2
    assert np.abs(second[(x[1:-1] < -0.02) | (x[1:-1] > 1.02)]).max() < 1e-6
    assert np.abs(np.diff(second, axis=0)).max() < 1
    assert np.linalg.matrix_rank(basis(x)) == 4


def test_seed_variances_are_those_drawn() -> None:
    of_scale = np.array([0.01, 0.01, 0.03, 0.01, 0.02])
    values = RNG.normal(0, 0.04, 4000) + of_scale[:, None] * RNG.standard_normal((5, 4000))
    own, together, df = dose.seed_variances(values)
    assert own == pytest.approx(of_scale**2, rel=0.15)
    assert together == pytest.approx(0.04**2, rel=0.1)
    assert df >= 3999


def test_patient_covariance_is_what_different_seeds_share() -> None:
    common = RNG.standard_normal(3000)
    resamples = [
        [0.02 * common * (1 + a / 4) + 0.01 * RNG.standard_normal(3000) for _ in range(3)]
        for a in range(4)
    ]
    arms = [[estimate(0.8, each) for each in members] for members in resamples]
    found = dose.patient_covariance(arms)
    for a, b in np.ndindex(4, 4):
        pairs = [
            np.cov(resamples[a][i], resamples[b][j])[0, 1] for i, j in np.ndindex(3, 3) if i != j
        ]
        assert found[a, b] == pytest.approx(np.mean(pairs), rel=0.02)


@pytest.mark.parametrize(
    ("scales", "seeds", "has_curve"), [(4, 2, True), (3, 3, False), (5, 1, False)]
)
def test_a_curve_needs_four_scales_and_two_seeds(scales: int, seeds: int, has_curve: bool) -> None:
    common = 0.02 * RNG.standard_normal(300)
    arms = [
        [
            estimate(0.8 + 0.01 * RNG.standard_normal(), common + 0.01 * RNG.standard_normal(300))
            for _ in range(seeds)
        ]
        for _ in range(scales)
    ]
    fit = dose.fit_dose(SCALES[:scales], arms, margin=0.01)
    assert (fit is not None) == has_curve


def test_few_patients_show_nothing_to_be_within_the_margin() -> None:
    arms = [
        [Estimate(0.9, np.full((1, 1), 0.9), np.full(300, 0.9), 60, 0) for _ in range(2)]
        for _ in range(4)
    ]
    fit = dose.fit_dose(SCALES[:4], arms, margin=0.01)
    assert fit is not None
    assert fit.is_flat
    assert not fit.is_within.any()


def test_a_planted_peak_is_covered_and_a_flat_curve_is_left_flat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dose, "_DRAWS", 400)
    times, covered, found, flat = 60, 0, 0, 0
    for seed in range(times):
        fit = dose.fit_curve(SCALES, drawn(peak, seed), SHARED, 80, margin=0.01, seed=seed)
        covered += fit.best_low <= 0.5 <= fit.best_high
        found += not fit.is_flat
        level = dose.fit_curve(
            SCALES, drawn(lambda s: 0 * s + 0.8, seed), SHARED, 80, margin=0.01, seed=seed
        )
        flat += level.is_flat
    assert covered >= 0.88 * times
    assert found >= 0.9 * times
    assert flat >= 0.88 * times


def test_one_seed_has_a_curve_whose_scatter_stands_for_the_seeds() -> None:
    truth, rng = peak(np.array(SCALES)), np.random.default_rng(3)
    scatter = [
        dose._scatter(
            dose._forms(np.array(SCALES))[0], truth + rng.normal(0, 0.01, 6), np.zeros((6, 6))
        )
        for _ in range(400)
    ]
    assert np.mean([own[0] for own, _, _ in scatter]) == pytest.approx(0.01**2, rel=0.1)
    assert {df for _, _, df in scatter} == {3}
    fit = dose.fit_curve(SCALES, truth[:, None], 1e-10 * np.eye(6), 50, margin=0.01)
    assert (fit.kind, fit.best, fit.is_flat) == ("quadratic", pytest.approx(0.5), False)


def cell(height: float, level: float, seed: int, bend: float = 0.0) -> list[list[Estimate]]:
    """Scales whose curve has its best at .5, or elsewhere by a bend, of one learner and budget.

    Height and bend are of normal scores, so that the same are less of a higher AUROC.
    """
    rng, patients = np.random.default_rng(seed), np.random.default_rng(9).normal(0, 0.01, 400)
    shape = bend * np.array(SCALES) - height * (np.array(SCALES) - 0.5) ** 2
    truth = ndtr(ndtri(level) + shape)
    return [
        [estimate(t + rng.normal(0, 0.004), patients + rng.normal(0, 0.002, 400)) for _ in range(3)]
        for t in truth
    ]


@pytest.mark.parametrize(("bend", "is_one_shape"), [(0.0, True), (0.4, False)])
def test_cells_share_a_curve_at_their_own_levels(bend: float, is_one_shape: bool) -> None:
    levels = (0.9, 0.7, 0.8)
    cells = [cell(0.3, level, seed) for seed, level in enumerate(levels[:2])]
    cells.append(cell(0.3, levels[2], 3, bend))
    joint = dose.fit_joint(SCALES, cells, margin=0.01, told=0)
    assert joint is not None
    assert (joint.shape_p > 0.05) is is_one_shape
    alone = dose.fit_dose(SCALES, cells[0], margin=0.01)
    assert alone is not None
    assert alone.best_high - alone.best_low >= joint.fit.best_high - joint.fit.best_low
    if not is_one_shape:
        return
    normal = ndtri(np.array([[[each.auroc for each in arm] for arm in c] for c in cells]))
    heights = normal.mean(axis=(1, 2))
    assert joint.levels == pytest.approx(heights - heights[0])
    # On every cell's own AUROC it lies on the cell's truth, where effects are .04 to .11.
    for level, seen in zip(joint.levels, levels, strict=True):
        curve = dose.at_level(joint.fit.auroc, level)
        shape = -0.3 * (joint.fit.at - 0.5) ** 2
        off = curve - ndtr(ndtri(seen) + shape)
        assert np.abs(off - off.mean()).max() < 0.006


def test_the_joint_curve_is_weighted_least_squares_with_a_level_for_each_cell() -> None:
    cells = [cell(0.3, 0.9, 19), cell(0.3, 0.7, 20), cell(0.3, 0.8, 21)]
    joint = dose.fit_joint(SCALES, cells, margin=0.01, told=1)
    assert joint is not None
    assert joint.fit.kind == "quadratic"
    normal = [[[on_probit_scale(each) for each in arm] for arm in c] for c in cells]
    units = np.array(
        [slope(float(ndtr(np.mean([[e.auroc for e in a] for a in c])))) for c in normal]
    )
    weights = dose._weights(normal, units)
    assert weights is not None
    # Near 1 a normal score is less well known.
    assert weights.argmin() == 0
    rows, values, shares = [], [], []
    for number, members in enumerate(normal):
        for s, of_scale in zip(SCALES, members, strict=True):
            for each in of_scale:
                rows.append([*(float(number == n) for n in range(3)), s, s * s])
                values.append(each.auroc)
                shares.append(weights[number] ** 0.5)
    root = np.array(shares)
    *_, slope_of, curved = np.linalg.lstsq(root[:, None] * rows, root * values, rcond=None)[0]
    line = slope_of * np.array(SCALES) + curved * np.array(SCALES) ** 2
    line += np.mean([[e.auroc for e in arm] for arm in normal[1]]) - line.mean()
    tested = np.isin(joint.fit.at, SCALES)
    assert ndtri(joint.fit.auroc[tested]) == pytest.approx(line, abs=1e-9)


@pytest.mark.filterwarnings("error")
def test_two_scales_have_no_joint_curve_and_no_warning() -> None:
    cells = [cell(0.3, 0.7, 1)[:2], cell(0.3, 0.8, 2)[:2]]
    assert dose.fit_joint(SCALES[:2], cells, margin=0.01) is None


def test_a_saturated_cell_neither_decides_nor_prevents_the_joint_curve() -> None:
    perfect = [[estimate(1.0, np.ones(400))] * 3 for _ in SCALES]
    cells = [cell(0.3, 0.7, 1), cell(0.3, 0.8, 2)]
    without = dose.fit_joint(SCALES, cells, margin=0.01)
    joint = dose.fit_joint(SCALES, [*cells, perfect], margin=0.01)
    assert without is not None
    assert joint is not None
    assert joint.fit.best == pytest.approx(without.fit.best, abs=0.1)


@pytest.mark.long
@pytest.mark.parametrize(
    ("scales", "num_seeds"), [(SCALES, 2), (SCALES, 3), ((*SCALES[:3], 1.0), 2), (SCALES, 1)]
)
def test_level_curves_are_called_otherwise_in_one_of_twenty(
    scales: tuple[float, ...], num_seeds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dose, "_DRAWS", 400)
    times, rng = 300, np.random.default_rng(5)
    shared = 0.02**2 * (0.9 + 0.1 * np.eye(len(scales)))
    called = 0
    for seed in range(times):
        of_patients = np.linalg.cholesky(shared) @ rng.standard_normal((len(scales), 1))
        values = 0.8 + of_patients + 0.005 * rng.standard_normal((1, num_seeds))
        values = values + 0.01 * rng.standard_normal((len(scales), num_seeds))
        called += not dose.fit_curve(scales, values, shared, 80, margin=0.01, seed=seed).is_flat
    # Three standard errors above a rate of .05; 7 to 8 % were called so before.
    assert called <= times * (0.05 + 3 * (0.05 * 0.95 / times) ** 0.5)
