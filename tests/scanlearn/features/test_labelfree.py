from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.linalg
from sklearn.linear_model import Ridge
from sklearn.metrics import silhouette_score
from sklearn.preprocessing import StandardScaler

from scanlearn.features.labelfree import (
    alignment,
    alpha_req,
    embedding_std,
    lidar,
    rankme,
    rotation_accuracy,
    silhouette,
    uniformity,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def with_singular_values(values: np.ndarray, n: int = 90, d: int = 60) -> np.ndarray:
    """An ``[n d]`` matrix of these singular values whose columns have mean 0."""
    left = rng(1).standard_normal((n, len(values)))
    left, _ = np.linalg.qr(left - left.mean(axis=0))
    right, _ = np.linalg.qr(rng(2).standard_normal((d, len(values))))
    return (left * values) @ right.T


def scattered(between: np.ndarray, within: np.ndarray) -> np.ndarray:
    """Views whose scatters are diagonal: scans at +-sqrt(between), views at +-sqrt(within)."""
    d = len(between)
    axes = np.concatenate((np.eye(d), -np.eye(d)))
    return (axes * np.sqrt(between))[:, None] + (axes * np.sqrt(within))[None]


def entropy_rank(values: np.ndarray) -> float:
    shares = [value / sum(values) for value in values]
    return math.exp(-sum(p * math.log(p) for p in shares if p > 0))


def clusters(distance: float, n: int = 6, v: int = 4, d: int = 8) -> np.ndarray:
    centres = rng(3).standard_normal((n, 1, d)) * distance
    return centres + rng(4).standard_normal((n, v, d))


@pytest.mark.parametrize("k", [1, 3, 17])
def test_rankme_of_k_equal_singular_values_is_k(k: int) -> None:
    assert rankme(np.eye(k)) == pytest.approx(k)
    assert rankme(with_singular_values(np.full(k, 2.5))) == pytest.approx(k)


def test_rankme_is_the_entropy_of_singular_values_and_not_of_eigenvalues() -> None:
    values = np.array([5.0, 3.0, 1.0, 0.5])
    found = rankme(with_singular_values(values))
    assert found == pytest.approx(entropy_rank(values))
    assert found != pytest.approx(entropy_rank(values**2), rel=0.05)


def test_rankme_of_collapsed_features_is_one_and_of_none_at_all_zero() -> None:
    assert rankme(np.full((20, 8), 0.3)) == pytest.approx(1)
    assert rankme(np.zeros((20, 8))) == 0


def test_rankme_does_not_depend_on_scale_or_rotation() -> None:
    features = rng().standard_normal((50, 12))
    turn, _ = np.linalg.qr(rng(1).standard_normal((12, 12)))
    assert rankme(features @ turn * 1e-3) == pytest.approx(rankme(features))


def test_rankme_of_fewer_scans_than_dimensions_is_at_most_their_number() -> None:
    assert 6 < rankme(rng().standard_normal((7, 100))) <= 7


def test_rankme_keeps_its_value_in_float32() -> None:
    features = with_singular_values(np.full(5, 1.0))
    assert rankme(features.astype(np.float32)) == pytest.approx(5, rel=1e-3)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_lidar_of_k_axes_that_tell_scans_apart_is_k(k: int) -> None:
    between = np.where(np.arange(5) < k, 3.0, 0.0)
    views = scattered(between, np.full(5, 0.2))
    assert lidar(views) == pytest.approx(k, rel=1e-6)


def test_lidar_is_the_entropy_of_the_ratios_of_the_scatters() -> None:
    between, within = np.array([4.0, 2.0, 1.0]), np.array([1.0, 0.1, 3.0])
    views = scattered(between, within)
    n, v = views.shape[:2]
    sb, sw = between * 2 / (n - 1), within * 2 / (v - 1)
    ridge = 0.01 * (sb + sw).mean()
    assert lidar(views, ridge=0.01) == pytest.approx(entropy_rank(sb / (sw + ridge)))


def test_lidar_equals_the_definition_as_a_loop() -> None:
    views = clusters(2.0, n=9, v=3, d=4)
    n, v, d = views.shape
    means = [sum(scan) / v for scan in views]
    middle = sum(means) / n
    sb = sum(np.outer(m - middle, m - middle) for m in means) / (n - 1)
    sw = np.zeros((d, d))
    for i, j in itertools.product(range(n), range(v)):
        sw += np.outer(views[i, j] - means[i], views[i, j] - means[i]) / (n * (v - 1))
    sw += 1e-4 * (np.trace(sb) + np.trace(sw)) / d * np.eye(d)
    half = np.linalg.inv(scipy.linalg.sqrtm(sw).real)
    assert lidar(views) == pytest.approx(entropy_rank(np.linalg.eigvalsh(half @ sb @ half)))


def test_lidar_does_not_depend_on_the_scale_of_features() -> None:
    views = clusters(1.0)
    assert lidar(views * 1e-4) == pytest.approx(lidar(views))
    assert lidar(views + 3) == pytest.approx(lidar(views))


def test_lidar_hardly_counts_an_axis_along_which_views_scatter_most() -> None:
    between, within = np.ones(3), np.array([0.1, 0.1, 500.0])
    views = scattered(between, within)
    assert lidar(views) == pytest.approx(2, rel=0.01)
    assert rankme(views.mean(axis=1)) == pytest.approx(3)


def test_lidar_of_equal_views_is_the_rank_of_the_scans() -> None:
    views = scattered(np.array([2.0, 2.0, 0.0]), np.zeros(3))
    assert lidar(views) == pytest.approx(2)


def test_lidar_of_collapsed_features_is_zero() -> None:
    assert lidar(np.full((9, 4, 8), 0.3, dtype=np.float32)) == 0
    assert lidar(np.zeros((9, 4, 8))) == 0


def test_lidar_of_fewer_scans_than_dimensions_is_below_their_number() -> None:
    assert 1 < lidar(clusters(3.0, n=5, d=40)) <= 4


@pytest.mark.parametrize("alpha", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("d", [8, 30, 150])
def test_alpha_is_the_slope_of_the_eigenvalues(alpha: float, d: int) -> None:
    values = np.arange(1, d + 1) ** (-alpha / 2)
    assert alpha_req(with_singular_values(values, n=400, d=d)) == pytest.approx(alpha)


def test_alpha_leaves_out_the_first_ten_and_what_follows_the_hundredth() -> None:
    eigenvalues = np.arange(1, 151) ** -1.0
    eigenvalues[:10] *= 7
    eigenvalues[100:] = eigenvalues[100:] ** 4
    features = with_singular_values(np.sqrt(eigenvalues), n=400, d=150)
    assert alpha_req(features) == pytest.approx(1)
    assert alpha_req(features, first=1) != pytest.approx(1, rel=0.05)


def test_alpha_is_a_weighted_least_squares_line() -> None:
    features = rng().standard_normal((60, 20)) * np.linspace(1, 3, 20)
    spectrum = np.sort(np.linalg.eigvalsh(np.cov(features.T)))[::-1]
    index = np.arange(10, 21)
    weight = np.sqrt(1 / index)
    slope, _ = np.polyfit(np.log(index), np.log(spectrum[9:]), 1, w=weight)
    assert alpha_req(features) == pytest.approx(-slope)


def test_alpha_of_white_noise_is_near_zero() -> None:
    assert abs(alpha_req(rng().standard_normal((20000, 120)))) < 0.1


@pytest.mark.parametrize("features", [np.zeros((9, 4)), np.full((9, 4), 0.3), np.eye(9)[:, :1]])
def test_alpha_without_a_spectrum_is_undefined(features: np.ndarray) -> None:
    assert math.isnan(alpha_req(features))


def test_alignment_of_equal_unrelated_and_opposite_views() -> None:
    x = rng().standard_normal((5, 1, 6))
    assert alignment(np.repeat(x, 3, axis=1)) == pytest.approx(0, abs=1e-12)
    assert alignment(np.concatenate((x, -2 * x), axis=1)) == pytest.approx(4)
    assert alignment(np.tile(np.eye(6), (5, 1, 1))) == pytest.approx(2)


def test_alignment_is_the_mean_over_all_pairs_of_views() -> None:
    views = clusters(1.0)
    unit = views / np.linalg.norm(views, axis=-1, keepdims=True)
    pairs = [
        np.sum((scan[i] - scan[j]) ** 2)
        for scan in unit
        for i, j in itertools.combinations(range(4), 2)
    ]
    assert alignment(views) == pytest.approx(np.mean(pairs))


def test_uniformity_of_equal_orthogonal_and_opposite_scans() -> None:
    assert uniformity(np.full((9, 4), 0.3)) == pytest.approx(0, abs=1e-12)
    assert uniformity(3 * np.eye(7)) == pytest.approx(-4)
    assert uniformity(np.array([[1.0, 1.0], [-2.0, -2.0]])) == pytest.approx(-8)


def test_uniformity_is_the_mean_over_all_pairs_of_scans() -> None:
    features = rng().standard_normal((30, 5))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    pairs = [math.exp(-2 * np.sum((a - b) ** 2)) for a, b in itertools.combinations(unit, 2)]
    assert uniformity(features) == pytest.approx(math.log(np.mean(pairs)))


def test_the_spread_is_one_for_independent_and_zero_for_equal_features() -> None:
    assert embedding_std(rng().standard_normal((4000, 64))) == pytest.approx(1, abs=0.05)
    assert embedding_std(np.ones((10, 8))) == pytest.approx(0, abs=1e-12)


def test_the_spread_of_orthogonal_features_is_known() -> None:
    # Each column holds one 1 and d - 1 zeros: variance (1 - 1 / d) / d.
    for d in (4, 25):
        assert embedding_std(5 * np.eye(d)) == pytest.approx(math.sqrt(1 - 1 / d))


@pytest.mark.parametrize("distance", [0.0, 1.0, 3.0])
def test_the_silhouette_equals_that_of_scikit_learn(distance: float) -> None:
    views = clusters(distance, n=11, v=5)
    flat = views.reshape(55, -1)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    expected = silhouette_score(unit, np.repeat(np.arange(11), 5))
    assert silhouette(views) == pytest.approx(expected)


def test_the_silhouette_of_two_separated_clusters_is_near_one() -> None:
    views = np.zeros((2, 6, 3))
    views[0, :, 0] = views[1, :, 1] = 1
    assert silhouette(views) == pytest.approx(1)
    near = views + 0.01 * rng().standard_normal(views.shape)
    assert 0.95 < silhouette(near) < 1


def test_the_silhouette_of_equal_features_is_zero() -> None:
    assert silhouette(np.full((5, 3, 4), 0.3)) == pytest.approx(0, abs=1e-9)


def test_the_silhouette_of_views_among_those_of_another_scan_is_negative() -> None:
    axes = np.eye(4)
    views = np.stack((axes[[0, 1]], axes[[0, 2]], axes[[1, 2]]))
    assert silhouette(views) < 0


def test_distances_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    views = clusters(1.0)
    whole = silhouette(views), uniformity(views[:, 0])
    monkeypatch.setattr("scanlearn.features.labelfree._BLOCK_DISTANCES", 60)
    assert (silhouette(views), uniformity(views[:, 0])) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("judge", [rankme, alpha_req, uniformity, embedding_std])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_name_their_row(judge: object, bad: float) -> None:
    features = np.ones((4, 3))
    features[2, 1] = bad
    with pytest.raises(ValueError, match="row 2 is not a finite number"):
        judge(features)  # type: ignore[operator]


@pytest.mark.parametrize("judge", [lidar, alignment, silhouette])
def test_views_that_are_not_finite_name_their_scan(judge: object) -> None:
    views = np.ones((4, 2, 3))
    views[1, 0, 2] = np.nan
    with pytest.raises(ValueError, match="row 1 is not a finite number"):
        judge(views)  # type: ignore[operator]


@pytest.mark.parametrize("judge", [lidar, alignment, silhouette])
def test_one_view_of_each_scan_is_refused(judge: object) -> None:
    with pytest.raises(ValueError, match="two or more"):
        judge(np.ones((4, 1, 3)))  # type: ignore[operator]


@pytest.mark.parametrize("judge", [lidar, silhouette])
def test_one_scan_is_refused(judge: object) -> None:
    with pytest.raises(ValueError, match="two or more"):
        judge(np.ones((1, 4, 3)))  # type: ignore[operator]
    with pytest.raises(ValueError, match="two or more"):
        uniformity(np.ones((1, 3)))


def test_features_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="2 axes"):
        rankme(np.ones((2, 3, 4)))
    with pytest.raises(ValueError, match="3 axes"):
        lidar(np.ones((2, 3)))
    with pytest.raises(ValueError, match="none empty"):
        rankme(np.ones((0, 3)))


def test_a_constant_feature_changes_nothing_that_is_centred() -> None:
    views = clusters(1.0)
    wider = np.concatenate((views, np.full((6, 4, 1), 2.0)), axis=2)
    assert alpha_req(wider[:, 0]) == pytest.approx(alpha_req(views[:, 0]))
    # A ninth dimension without variance lowers the mean variance, and by it the ridge.
    assert lidar(wider, ridge=9e-4) == pytest.approx(lidar(views, ridge=8e-4))


def test_turns_that_features_tell_are_told_and_others_are_chance() -> None:
    noise = rng(0).normal(size=(200, 4, 6))
    # Chance is a quarter; four standard errors of 800 guesses are .06.
    assert rotation_accuracy(noise) == pytest.approx(0.25, abs=0.06)
    told = noise + 20 * np.eye(4, 6)[None]
    assert rotation_accuracy(told) == 1
    # Two quarters look alike: half of their scans are told, by chance, and all of the others.
    halves = noise + 20 * np.array([[1, 0], [0, 1], [1, 0], [0, 1]]) @ np.eye(2, 6)
    assert rotation_accuracy(halves) == pytest.approx(0.5, abs=0.08)
    assert rotation_accuracy(7 * told + 3) == 1
    assert rotation_accuracy(np.ones((10, 4, 3))) == 0.25


def test_a_rotation_probe_equals_least_squares_by_a_library() -> None:
    turned = rng(1).normal(size=(50, 4, 3)) + rng(2).normal(size=(4, 3))
    hits = 0
    for fold in range(5):
        is_test = np.arange(50) % 5 == fold
        scaler = StandardScaler().fit(turned[~is_test].reshape(-1, 3))
        x, n = scaler.transform(turned[~is_test].reshape(-1, 3)), 160
        y = np.tile(np.eye(4), (40, 1))
        # Its penalty is not divided by the number of scans.
        fit = Ridge(alpha=1e-2 * n, fit_intercept=True).fit(x, y)
        said = fit.predict(scaler.transform(turned[is_test].reshape(-1, 3))).argmax(axis=1)
        hits += int((said == np.tile(np.arange(4), 10)).sum())
    assert rotation_accuracy(turned) == hits / 200


def test_a_rotation_probe_needs_five_scans() -> None:
    with pytest.raises(ValueError, match="needs 5"):
        rotation_accuracy(np.ones((4, 4, 3)))
